//! A SAS as it is now: kept byte for byte, never shown, and renewed while it is in use.
//!
//! All clones of a resource share one [`Sas`]. What was granted for a time comes with [`Rights`]: when the service
//! refuses the SAS, the retry layer asks for another one and goes on, so that a copy outlives its grants.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::{CallError, CallResult};

/// Whoever granted a SAS and can grant it again.
#[async_trait]
pub trait Rights: Send + Sync {
    /// Another SAS for the same snapshot: the query of its URL. Called by one task at a time.
    ///
    /// Whoever asked may be gone before it is there: it goes on by itself.
    async fn renew(self: Arc<Self>) -> CallResult<String>;

    /// The step that used it has read everything.
    async fn finished(&self);
}

/// See the module. Neither `Debug` nor `Display` shows it.
#[derive(Clone)]
pub struct Sas(Arc<Inner>);

struct Inner {
    current: RwLock<Current>,
    rights: Option<Arc<dyn Rights>>,
    /// Held by the one who renews; when and why that failed last.
    renewing: Mutex<Option<(Instant, CallError)>>,
}

struct Current {
    query: Arc<str>,
    /// How often it was renewed.
    version: u64,
}

impl Sas {
    /// A query that stays as it was given, without the question mark.
    pub(super) fn fixed(query: &str) -> Self {
        Self::new(query, None)
    }

    /// A query that `rights` can renew.
    pub(super) fn kept(query: &str, rights: Arc<dyn Rights>) -> Self {
        Self::new(query, Some(rights))
    }

    fn new(query: &str, rights: Option<Arc<dyn Rights>>) -> Self {
        let current = RwLock::new(Current { query: query.into(), version: 0 });
        Self(Arc::new(Inner { current, rights, renewing: Mutex::new(None) }))
    }

    /// The query exactly as it was given. A secret: for the wire only.
    pub(crate) fn expose(&self) -> Arc<str> {
        Arc::clone(&self.current().query)
    }

    /// Tells two SAS of one grant apart.
    pub(crate) fn version(&self) -> u64 {
        self.current().version
    }

    /// Whether another one can be had.
    pub(crate) fn is_renewable(&self) -> bool {
        self.0.rights.is_some()
    }

    /// Renews it, unless somebody did since `version`. All who were refused wait here for the one that asks.
    pub(crate) async fn renew_after(&self, version: u64) -> CallResult<()> {
        let Some(rights) = &self.0.rights else { return Ok(()) };
        let waits_since = Instant::now();
        let mut failed = self.0.renewing.lock().await;
        if self.version() != version {
            return Ok(());
        }
        // All who waited for an attempt share what became of it.
        if let Some((at, error)) = &*failed
            && *at >= waits_since
        {
            return Err(error.clone());
        }
        let query = match Arc::clone(rights).renew().await {
            Ok(query) => query,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        let mut current = self.0.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { query: query.into(), version: version + 1 };
        Ok(())
    }

    /// Tells whoever granted it that the step needs it no longer.
    pub(crate) async fn finished(&self) {
        if let Some(rights) = &self.0.rights {
            rights.finished().await;
        }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.current().query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    fn current(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Sas {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.expose() == other.expose()
    }
}

impl Eq for Sas {}

impl fmt::Debug for Sas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sas(redacted)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[derive(Default)]
    struct Counting(AtomicU32);

    #[async_trait]
    impl Rights for Counting {
        async fn renew(self: Arc<Self>) -> CallResult<String> {
            tokio::task::yield_now().await;
            Ok(format!("sig={}", self.0.fetch_add(1, Relaxed) + 1))
        }

        async fn finished(&self) {}
    }

    #[tokio::test]
    async fn many_that_are_refused_at_once_renew_it_once() {
        let rights = Arc::new(Counting::default());
        let sas = Sas::kept("sig=0", Arc::clone(&rights) as _);
        let used = sas.version();
        futures::future::try_join_all((0..50).map(|_| sas.renew_after(used))).await.unwrap();
        assert_eq!((rights.0.load(Relaxed), &*sas.expose()), (1, "sig=1"));
        sas.renew_after(sas.version()).await.unwrap();
        assert_eq!(&*sas.clone().expose(), "sig=2");
        assert!(!format!("{sas:?}").contains('2'));
    }
}
