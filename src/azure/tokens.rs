//! Entra tokens, kept until shortly before they end.
//!
//! The SDK keeps tokens only inside a policy that is not used here, and the Azure CLI credential starts a
//! process for every token: without this, for every request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::{AccessToken, TokenCredential};
use azure_core::time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Tokens are renewed this long before they end.
const AHEAD: azure_core::time::Duration = azure_core::time::Duration::minutes(5);

/// No token could be had.
pub(crate) struct NoToken {
    /// Why, scrubbed.
    pub(crate) why: String,
    /// Whether there was one before: then the rights are there, and it can be expected to pass.
    pub(crate) had_before: bool,
}

/// How long a new token is waited for while the old one still serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody asks again after somebody began to.
const PAUSE: Duration = Duration::from_secs(30);

struct Held {
    token: AccessToken,
    /// Before this nobody asks for a new one.
    next_try: Instant,
}

/// The token of one scope.
type OfScope = Arc<Mutex<Option<Held>>>;

/// A source of tokens with a memory. While a token is valid, one request at a time looks for the next, and the
/// others do not wait for it; without a valid one, all wait for one that asks.
#[derive(Clone)]
pub struct Tokens {
    source: Arc<dyn TokenCredential>,
    /// One lock for each scope: a sign-in that hangs for one must not hold up the others, above all no lease.
    held: Arc<Mutex<HashMap<String, OfScope>>>,
}

impl Tokens {
    /// Keeps what `source` hands out.
    pub fn new(source: Arc<dyn TokenCredential>) -> Self {
        Self { source, held: Arc::default() }
    }

    /// A token for `scope` that is valid now; within `limit`, or none.
    pub(crate) async fn get(&self, scope: &str, limit: Duration) -> Result<String, NoToken> {
        let of_scope = Arc::clone(self.held.lock().await.entry(scope.to_owned()).or_default());
        let mut held = tokio::time::timeout(limit, of_scope.lock()).await.map_err(|_| NoToken {
            why: "the sign-in did not answer".to_owned(),
            // Somebody else is told whether it is refused: this one only waited for them.
            had_before: true,
        })?;
        let now = OffsetDateTime::now_utc();
        let had_before = held.is_some();
        let Some(kept) = held.as_mut().filter(|kept| kept.token.expires_on > now) else {
            let token = self.ask(scope, limit).await.map_err(|why| NoToken { why, had_before })?;
            let text = token.token.secret().to_owned();
            *held = Some(Held { token, next_try: Instant::now() });
            return Ok(text);
        };
        let valid = kept.token.token.secret().to_owned();
        if kept.token.expires_on > now + AHEAD || Instant::now() < kept.next_try {
            return Ok(valid);
        }
        kept.next_try = Instant::now() + PAUSE;
        drop(held);
        match self.ask(scope, limit.min(PATIENCE)).await {
            Ok(token) => {
                let text = token.token.secret().to_owned();
                *of_scope.lock().await = Some(Held { token, next_try: Instant::now() + PAUSE });
                Ok(text)
            }
            Err(why) => {
                tracing::warn!(why, "no new token yet: the one that ends soon is used on");
                Ok(valid)
            }
        }
    }

    async fn ask(&self, scope: &str, limit: Duration) -> Result<AccessToken, String> {
        match tokio::time::timeout(limit, self.source.get_token(&[scope], None)).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(error)) => Err(super::reply::scrub(&error.to_string())),
            Err(_) => Err("the sign-in did not answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use azure_core::credentials::TokenRequestOptions;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[derive(Debug)]
    struct Counting {
        asked: AtomicU32,
        lasting: azure_core::time::Duration,
        answers: u32,
    }

    #[async_trait::async_trait]
    impl TokenCredential for Counting {
        async fn get_token(
            &self,
            _: &[&str],
            _: Option<TokenRequestOptions<'_>>,
        ) -> azure_core::Result<AccessToken> {
            let number = self.asked.fetch_add(1, Relaxed);
            if number >= self.answers {
                return Err(azure_core::Error::with_message(azure_core::error::ErrorKind::Credential, "no"));
            }
            Ok(AccessToken::new(format!("token-{number}"), OffsetDateTime::now_utc() + self.lasting))
        }
    }

    fn counting(minutes: i64, answers: u32) -> Arc<Counting> {
        Arc::new(Counting {
            asked: AtomicU32::new(0),
            lasting: azure_core::time::Duration::minutes(minutes),
            answers,
        })
    }

    #[tokio::test]
    async fn a_token_is_asked_for_once_and_used_on_while_it_is_valid() {
        let source = counting(60, 1);
        let tokens = Tokens::new(Arc::clone(&source) as _);
        for _ in 0..100 {
            assert_eq!(tokens.get("s", Duration::from_secs(1)).await.ok().as_deref(), Some("token-0"));
        }
        assert_eq!(source.asked.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn a_token_that_ends_soon_is_renewed_and_serves_until_then() {
        let source = counting(3, 1);
        let tokens = Tokens::new(Arc::clone(&source) as _);
        for expected in ["token-0", "token-0", "token-0", "token-0"] {
            assert_eq!(tokens.get("s", Duration::from_secs(1)).await.ok().as_deref(), Some(expected));
        }
        assert_eq!(source.asked.load(Relaxed), 2, "it is not asked again at once");
        let ended = Tokens::new(counting(-1, 1) as _);
        assert_eq!(ended.get("s", Duration::from_secs(1)).await.ok().as_deref(), Some("token-0"));
        assert!(ended.get("s", Duration::from_secs(1)).await.err().unwrap().had_before);
    }
}
