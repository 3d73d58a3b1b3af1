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

/// Tokens are renewed this long before they end.
const AHEAD: azure_core::time::Duration = azure_core::time::Duration::minutes(5);

/// No token could be had.
pub(crate) struct NoToken {
    /// Why, scrubbed.
    pub(crate) why: String,
    /// Whether there was one before: then the rights are there, and it can be expected to pass.
    pub(crate) had_before: bool,
}

/// A source of tokens with a memory. One request at a time asks it for a new one; the others wait.
#[derive(Clone)]
pub struct Tokens {
    source: Arc<dyn TokenCredential>,
    held: Arc<Mutex<HashMap<&'static str, AccessToken>>>,
}

impl Tokens {
    /// Keeps what `source` hands out.
    pub fn new(source: Arc<dyn TokenCredential>) -> Self {
        Self { source, held: Arc::default() }
    }

    /// A token for `scope` that is valid now. One that ends soon is used on while a new one cannot be had.
    pub(crate) async fn get(&self, scope: &'static str, limit: Duration) -> Result<String, NoToken> {
        let mut held = self.held.lock().await;
        let now = OffsetDateTime::now_utc();
        let kept = held.get(scope);
        if let Some(token) = kept.filter(|token| token.expires_on > now + AHEAD) {
            return Ok(token.token.secret().to_owned());
        }
        let why = match tokio::time::timeout(limit, self.source.get_token(&[scope], None)).await {
            Ok(Ok(token)) => {
                let text = token.token.secret().to_owned();
                held.insert(scope, token);
                return Ok(text);
            }
            Ok(Err(error)) => super::reply::scrub(&error.to_string()),
            Err(_) => "the sign-in did not answer".to_owned(),
        };
        match kept {
            Some(token) if token.expires_on > now => Ok(token.token.secret().to_owned()),
            other => Err(NoToken { why, had_before: other.is_some() }),
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
        let source = counting(3, 2);
        let tokens = Tokens::new(Arc::clone(&source) as _);
        for expected in ["token-0", "token-1", "token-1", "token-1"] {
            assert_eq!(tokens.get("s", Duration::from_secs(1)).await.ok().as_deref(), Some(expected));
        }
        let ended = Tokens::new(counting(-1, 1) as _);
        assert_eq!(ended.get("s", Duration::from_secs(1)).await.ok().as_deref(), Some("token-0"));
        assert!(ended.get("s", Duration::from_secs(1)).await.err().unwrap().had_before);
    }
}
