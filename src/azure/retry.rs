//! The one retry layer: every call to Azure goes through `Retry::run`, and nothing else repeats a call.
//!
//! **What is repeated:** what [`Class::Passes`]: no connection, no complete
//! reply within the time-outs, 408, 429, 500, 502, 503, 504, a server-side copy whose *source* was busy, and
//! bytes that did not match their checksum. Everything else ends the call at once.
//!
//! **How long:** each call has a time budget (five minutes unless set), counted from its first failure. A
//! call that still fails when the budget is used up fails with its last error. Checksum failures have, besides,
//! a limit of [`MOST_CORRUPT`] in a row: a broken memory module does not get better with time.
//!
//! A host that never answered yet is not tried for longer than [`FIRST_CONTACT`]: its name may be misspelt.
//!
//! **When:** `Retry-After` if the service names one, otherwise half a second doubled up to thirty, each time a
//! random half to whole of it, so that workers do not come back together. A wait that would pass the end of
//! the budget is cut to it.
//!
//! **A SAS that is refused** in mid-copy is renewed where it can be (see `sas`), and the call is made again with the
//! new one. That uses up no budget.
//!
//! **Is it safe?** Every call that is repeated is idempotent: reads; page writes (each page has the same
//! bytes in all attempts of a run, and a late duplicate of an older run is refused by lease and generation);
//! Put Blob (only if there is none; the marker in it tells whose it is); lease calls with our own proposed id;
//! set calls with absolute values. Snapshot Blob is not: it goes through `Retry::run_certain`, which repeats
//! it only after a reply that proves that nothing was done, and its caller looks before it tries again.

use std::time::Duration;

use tokio::time::Instant;

use super::failure::{CallError, CallResult, Cause, Class};
use super::meter::Meter;
use super::pace;
use super::sas::Sas;

/// Checksum failures in a row after which a call fails whatever its budget.
pub const MOST_CORRUPT: u32 = 5;

/// How often in one call another SAS is asked for.
const MOST_REFUSED: u32 = 4;

/// How long a connection is tried for to a host that has never answered.
pub const FIRST_CONTACT: Duration = Duration::from_secs(20);

/// How long a call may go on failing, and how long it waits between attempts.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Time from the first failure of a call to its last attempt.
    pub budget: Duration,
    /// The first wait.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            budget: Duration::from_mins(5),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(30),
        }
    }
}

/// Runs calls under one policy and shows on a meter what is being waited for.
pub(crate) struct Retry<'a> {
    pub(crate) policy: RetryPolicy,
    pub(crate) meter: &'a Meter,
    /// What the call shows to be let in: of each that can be renewed, another is asked for when it is refused.
    pub(crate) sas: Vec<Sas>,
}

impl Retry<'_> {
    /// Repeats `attempt` until it succeeds, fails for good, or the budget is used up.
    pub(crate) async fn run<T, F>(&self, attempt: impl FnMut() -> F) -> CallResult<T>
    where
        F: Future<Output = CallResult<T>>,
    {
        self.repeat(attempt, |_| true).await
    }

    /// The same for a call that must not be made twice: a failure after which it may have been done ends it.
    pub(crate) async fn run_certain<T, F>(&self, attempt: impl FnMut() -> F) -> CallResult<T>
    where
        F: Future<Output = CallResult<T>>,
    {
        self.repeat(attempt, |error| !error.outcome_is_unknown()).await
    }

    async fn repeat<T, F>(
        &self,
        mut attempt: impl FnMut() -> F,
        may_repeat: impl Fn(&CallError) -> bool,
    ) -> CallResult<T>
    where
        F: Future<Output = CallResult<T>>,
    {
        let mut failing_since: Option<Instant> = None;
        let mut attempts = 0;
        let mut corrupt = 0;
        let mut refused = 0;
        let mut may_be_done = false;
        loop {
            attempts += 1;
            let shown: Vec<u64> = self.sas.iter().map(Sas::version).collect();
            let mut error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            error.attempts = attempts;
            self.meter.failed(&error);
            error.may_be_done |= may_be_done;
            may_be_done |= error.outcome_is_unknown();
            if error.refuses_sas() && refused < MOST_REFUSED && self.sas.iter().any(Sas::is_renewable) {
                refused += 1;
                match self.renew(&error, &shown, refused).await {
                    // 409: somebody has one out at this moment. All else had its own time to pass.
                    Err(renewal) if renewal.status() != Some(409) || refused == MOST_REFUSED => {
                        return Err(renewal);
                    }
                    _ => continue,
                }
            }
            corrupt = if matches!(error.cause, Cause::Corrupt(_)) { corrupt + 1 } else { 0 };
            let since = *failing_since.get_or_insert_with(Instant::now);
            let budget = match &error.cause {
                // A name that does not resolve, a certificate that is not trusted: soon told.
                Cause::Connect(_) if !self.meter.was_answered() => self.policy.budget.min(FIRST_CONTACT),
                _ => self.policy.budget,
            };
            let left = budget.saturating_sub(since.elapsed());
            let passes = error.class() == Class::Passes && may_repeat(&error);
            // A throttled resource manager says when to come back: to ask before that only costs more of it.
            let too_late = error.status() == Some(429) && self.wait_after(&error, attempts) > left;
            if !passes || left.is_zero() || too_late || corrupt >= MOST_CORRUPT {
                return Err(error);
            }
            let wait = self.wait_after(&error, attempts).min(left);
            tracing::debug!(call = error.call, role = %error.role, attempts, ?wait, cause = %error.cause, "will try again");
            self.meter.retried();
            let _shown = self.meter.waiting(&error, wait);
            pace::pause(wait).await;
        }
    }

    /// A SAS that ended or was revoked in mid-copy is no reason to stop where another can be had.
    async fn renew(&self, error: &CallError, shown: &[u64], refused: u32) -> CallResult<()> {
        tracing::info!(call = error.call, role = %error.role, cause = %error.cause, "the SAS is refused: asking for another");
        let _shown = self.meter.waiting(error, Duration::ZERO);
        if refused > 1 {
            // A new SAS may take a moment to be known everywhere: longer each time.
            pace::pause(self.policy.first_wait * (1 << refused)).await;
        }
        for (sas, version) in self.sas.iter().zip(shown) {
            sas.renew_after(*version).await?;
        }
        Ok(())
    }

    fn wait_after(&self, error: &CallError, attempts: u32) -> Duration {
        if let Cause::Service(reply) = &error.cause
            && let Some(wait) = reply.retry_after
        {
            return wait.max(self.policy.first_wait);
        }
        let doubled = self.policy.first_wait.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.policy.longest_wait).mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::reply::ServiceReply;
    use super::super::resource::{PlainHttp, Resource, Role};
    use super::*;

    fn error(status: u16, retry_after: Option<u64>) -> CallError {
        let resource =
            Resource::parse(Role::Target, "https://a.blob.core.windows.net/c/b", PlainHttp::LoopbackOnly)
                .unwrap();
        let reply = ServiceReply {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            ..ServiceReply::default()
        };
        CallError::new("Put Page", &resource, Cause::Service(Box::new(reply)))
    }

    async fn run(policy: RetryPolicy, outcomes: Vec<CallResult<u8>>) -> (CallResult<u8>, usize) {
        let meter = Meter::default();
        let mut rest = outcomes.into_iter();
        let mut made = 0;
        let result = Retry { policy, meter: &meter, sas: Vec::new() }
            .run(|| {
                made += 1;
                std::future::ready(rest.next().unwrap_or_else(|| Err(error(503, None))))
            })
            .await;
        (result, made)
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_repeated_and_what_does_not_is_not() {
        let policy = RetryPolicy::default();
        assert_eq!(
            run(policy, vec![Err(error(503, None)), Err(error(500, None)), Ok(7)]).await.0.unwrap(),
            7
        );
        let (result, made) = run(policy, vec![Err(error(403, None)), Ok(7)]).await;
        assert_eq!((result.unwrap_err().attempts, made), (1, 1));
    }

    #[tokio::test]
    async fn a_call_fails_when_its_budget_is_used_up() {
        let policy = RetryPolicy {
            budget: Duration::from_millis(20),
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(2),
        };
        let (result, made) = run(policy, Vec::new()).await;
        let error = result.unwrap_err();
        assert_eq!(error.status(), Some(503));
        assert_eq!(usize::try_from(error.attempts).unwrap(), made);
        assert!(made > 1);
    }

    #[test]
    fn retry_after_is_honoured() {
        let meter = Meter::default();
        let retry = Retry { policy: RetryPolicy::default(), meter: &meter, sas: Vec::new() };
        assert_eq!(retry.wait_after(&error(503, Some(9)), 1), Duration::from_secs(9));
        for attempts in 1..40 {
            assert!(retry.wait_after(&error(503, None), attempts) <= Duration::from_secs(30));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn corrupt_bytes_end_the_call_after_a_few_attempts() {
        let corrupt = CallError { cause: Cause::Corrupt("crc".to_owned()), ..error(0, None) };
        let outcomes = (0..100).map(|_| Err(corrupt.clone())).collect();
        let (result, made) = run(RetryPolicy::default(), outcomes).await;
        assert!(result.is_err());
        assert_eq!(made, usize::try_from(MOST_CORRUPT).unwrap());
    }
}
