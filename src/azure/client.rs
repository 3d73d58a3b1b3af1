//! What all endpoints of a run share: connections, limits, and where tokens come from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;

use super::pace::{Caps, Pace};
use super::resource::Role;
use super::retry::RetryPolicy;
use super::tokens::Tokens;
use crate::budget::Budget;

/// How long each part of an attempt may take. No attempt is without a limit.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: Duration,
    /// From the first byte sent to the reply's headers, and for a chunk to its last byte. In the field a 4 MiB
    /// Put Page is given up by the service after about two minutes.
    pub call: Duration,
    /// Between two pieces of a reply.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            call: Duration::from_secs(150),
            stall: Duration::from_mins(1),
        }
    }
}

/// What all endpoints of a run share.
#[derive(Clone)]
pub struct Client {
    remote: reqwest::Client,
    loopback: reqwest::Client,
    /// Limits of one attempt.
    pub timeouts: Timeouts,
    /// Limits of one call.
    pub retry: RetryPolicy,
    /// Where Entra tokens come from, when a URL has no SAS or a disk demands both.
    pub tokens: Option<Tokens>,
    /// What all runs with this client share.
    pub(super) budget: Option<Budget>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("timeouts", &self.timeouts)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The connections to this machine, or to others.
    pub(super) fn http(&self, is_loopback: bool) -> &reqwest::Client {
        if is_loopback { &self.loopback } else { &self.remote }
    }

    /// A client with the given limits.
    ///
    /// # Errors
    /// When TLS cannot be set up on this machine.
    pub fn new(
        timeouts: Timeouts,
        retry: RetryPolicy,
        tokens: Option<Arc<dyn TokenCredential>>,
    ) -> crate::Result<Self> {
        let build = |builder: reqwest::ClientBuilder| {
            builder
                .connect_timeout(timeouts.connect)
                .tcp_keepalive(Duration::from_secs(30))
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("snapferry/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| {
                    crate::Error::new(crate::ErrorKind::Internal, "set up the HTTP client", describe(error))
                })
        };
        Ok(Self {
            remote: build(reqwest::Client::builder())?,
            // A proxy from the environment is not for this machine.
            loopback: build(reqwest::Client::builder().no_proxy())?,
            timeouts,
            retry,
            tokens: tokens.map(Tokens::new),
            budget: None,
        })
    }

    /// The same client, whose runs share `budget`.
    #[must_use]
    pub fn within(self, budget: Budget) -> Self {
        Self { budget: Some(budget), ..self }
    }

    /// How fast one side of a run may go: within its own caps, and those of the budget.
    pub(crate) fn pace(&self, role: Role, caps: Caps) -> Arc<Pace> {
        let shared = self.budget.as_ref().map(|budget| match role {
            Role::Target | Role::Disk => budget.writing(),
            _ => budget.reading(),
        });
        Arc::new(Pace::within(caps, shared))
    }
}

/// The chain of causes without the URL, which holds the SAS.
pub(super) fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    super::reply::scrub(&text)
}
