//! Operations that Azure Resource Manager finishes later: 202 and a URL to ask at.
//!
//! The replies come in many shapes (azcopy's tests list them): an `Azure-AsyncOperation` URL whose document has a
//! status, a `Location` URL that ends in the result itself, a poll without a body, a body of the other shape, a
//! status code that says nothing, another URL in the middle. So the body is looked at first, then the code.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Arm, Ask, Reply};
use crate::azure::failure::{CallError, CallResult, Cause};
use crate::azure::pace;
use crate::azure::reply::ServiceReply;

/// Between two polls when the service does not say.
const POLL_EVERY: Duration = Duration::from_secs(2);
/// How often `Retry-After` is honoured at least: an hour between polls would hide the end of the operation.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Where to ask next.
struct Poll {
    url: String,
    /// Whether that URL tells a status; otherwise it ends in the result itself.
    is_status: bool,
    /// Where the result is, when the status is asked for elsewhere.
    result_at: Option<String>,
    wait: Duration,
}

enum Step {
    Done(Value),
    /// Succeeded, and the result is elsewhere.
    Fetch(String),
    Wait(Poll),
}

impl Arm {
    /// Follows an operation to its end, for at most `patience`.
    pub(super) async fn finish(&self, ask: &Ask<'_>, first: Reply, patience: Duration) -> CallResult<Value> {
        if find_sas(&first.body).is_some() {
            return Ok(first.body);
        }
        let deadline = Instant::now() + patience;
        let Some(mut poll) = first_poll(&first) else {
            return match first.status {
                202 => Err(self
                    .error(ask, protocol("it is accepted, and the reply says not where to ask for its end"))),
                _ => Ok(first.body),
            };
        };
        loop {
            if Instant::now() + poll.wait > deadline {
                let why = format!("the operation was not finished after {} s", patience.as_secs());
                return Err(unseen(self.error(ask, Cause::Broken(why))));
            }
            pace::pause(poll.wait).await;
            let reply = self.poll(ask, &poll.url).await.map_err(unseen)?;
            match self.judge(ask, reply, poll)? {
                Step::Done(value) => return Ok(value),
                // It succeeded: that its result is not shown is no failure of those who do not need one.
                Step::Fetch(url) => {
                    return match self.poll(ask, &url).await {
                        Ok(reply) => Ok(reply.body),
                        Err(error) if error.status() == Some(404) => Ok(Value::Null),
                        Err(error) => Err(unseen(error)),
                    };
                }
                Step::Wait(next) => poll = next,
            }
        }
    }

    fn judge(&self, ask: &Ask<'_>, reply: Reply, asked: Poll) -> CallResult<Step> {
        if find_sas(&reply.body).is_some() {
            return Ok(Step::Done(reply.body));
        }
        let status =
            reply.body.get("status").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
        match status.as_str() {
            "succeeded" => Ok(match (asked.result_at, reply.body.get("properties")) {
                (_, Some(properties)) if !properties.is_null() => Step::Done(properties.clone()),
                (Some(url), _) => Step::Fetch(url),
                (None, _) => Step::Done(Value::Null),
            }),
            "failed" | "canceled" => {
                Err(self.error(ask, Cause::Service(Box::new(failure(&reply.body, &status)))))
            }
            "" if reply.body.get("error").is_some_and(|error| !error.is_null()) => {
                Err(self.error(ask, Cause::Service(Box::new(failure(&reply.body, "failed")))))
            }
            // Without a word on its status: the result itself, or nothing yet.
            "" if reply.status == 200 && !reply.body.is_null() => Ok(Step::Done(reply.body)),
            "" if reply.status == 204 => Ok(Step::Done(Value::Null)),
            // A Location without a body is at its end; a status without one says nothing.
            "" if reply.status == 200 && !asked.is_status => Ok(Step::Done(Value::Null)),
            _ => Ok(Step::Wait(Poll {
                wait: wait(&reply),
                is_status: reply.status_at.is_some() || (reply.location.is_none() && asked.is_status),
                url: reply.status_at.or(reply.location).unwrap_or(asked.url),
                result_at: asked.result_at,
            })),
        }
    }
}

fn first_poll(first: &Reply) -> Option<Poll> {
    let wait = wait(first);
    match (first.status_at.clone(), first.location.clone()) {
        (Some(url), result_at) => Some(Poll { url, is_status: true, result_at, wait }),
        (None, Some(url)) if first.status == 202 => {
            Some(Poll { url, is_status: false, result_at: None, wait })
        }
        _ => None,
    }
}

fn wait(reply: &Reply) -> Duration {
    reply.retry_after.unwrap_or(POLL_EVERY).clamp(Duration::from_millis(50), LONGEST_WAIT)
}

fn failure(body: &Value, status: &str) -> ServiceReply {
    let text =
        |name: &str| body.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
    let code = if text("code").is_empty() { "OperationFailed" } else { text("code") };
    // The operation failed, not the call: what the service is to blame for passes.
    let passes = code.to_ascii_lowercase().starts_with("internal");
    ServiceReply {
        status: if passes { 500 } else { 409 },
        code: crate::azure::reply::scrub(code),
        message: crate::azure::reply::scrub(&format!("the operation {status}: {}", text("message"))),
        ..ServiceReply::default()
    }
}

/// Accepted, and its end was not seen: it may be done all the same.
fn unseen(error: CallError) -> CallError {
    CallError { may_be_done: true, ..error }
}

fn protocol(why: &str) -> Cause {
    Cause::Protocol(why.to_owned())
}

/// Whether a reply is the document of an operation, whatever its status code says.
pub(super) fn has_known_status(body: &Value) -> bool {
    const KNOWN: [&str; 7] =
        ["InProgress", "Running", "ResolvingDNS", "Succeeded", "Failed", "Canceled", "Accepted"];
    let status = body.get("status").and_then(Value::as_str);
    status.is_some_and(|status| KNOWN.iter().any(|known| known.eq_ignore_ascii_case(status)))
}

/// The SAS in a reply, wherever it stands and however it is spelled (`accessSAS`, `accessSas`).
pub(super) fn find_sas(value: &Value) -> Option<String> {
    let Value::Object(fields) = value else { return None };
    let here = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("accessSAS"));
    match here {
        Some((_, Value::String(sas))) if !sas.is_empty() => Some(sas.clone()),
        _ => fields.values().find_map(find_sas),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_sas_is_found_wherever_it_stands() {
        for reply in [
            json!({"accessSAS": "u"}),
            json!({"accessSas": "u", "securityDataAccessSAS": "v"}),
            json!({"status": "Succeeded", "properties": {"output": {"accessSAS": "u"}}}),
        ] {
            assert_eq!(find_sas(&reply).as_deref(), Some("u"));
        }
        assert_eq!(find_sas(&json!({"securityDataAccessSAS": "v", "accessSAS": ""})), None);
    }
}
