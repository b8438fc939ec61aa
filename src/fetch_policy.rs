//! `FetchPolicy`: when a fetch is given up, and when it may be tried again.

use std::time::Duration;

use crate::error::CacheError;

/// When a fetch is given up, and when it may be tried again. The default is all off: a call waits
/// for its fetch, and the call after a failure tries again.
///
/// It applies to all fetches of a cache
/// ([`fetch_policy`](crate::BlobCacheConfigBuilder::fetch_policy)), of a namespace
/// ([`NamespaceConfigBuilder::fetch_policy`](crate::NamespaceConfigBuilder::fetch_policy)), or to
/// those through a handle
/// ([`with_fetch_policy`](crate::BlobCacheNamespace::with_fetch_policy)), a clone of which serves
/// for one call. The closest counts as a whole.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError, FetchPolicy};
/// use std::time::Duration;
///
/// let patient = FetchPolicy::default()
///     .hard_timeout(Duration::from_secs(2))
///     .retry_after(Duration::from_secs(5));
/// let config = BlobCacheConfig::builder().fetch_policy(patient).build()?;
/// let cache = BlobCache::open(config).await?;
/// let fail = || async { Err::<BlobCachePut, _>("the origin is down") };
/// assert!(cache.get_or_fetch("pages", "/index", fail).await.is_err());
///
/// // For five seconds no call asks the origin for this page.
/// let again = cache.get_or_fetch("pages", "/index", fail).await;
/// assert!(matches!(again, Err(FetchError::Fetch(error)) if *error == "the origin is down"));
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FetchPolicy {
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) retry_after: Option<Duration>,
}

impl FetchPolicy {
    /// The longest time that a fetch may take. Then it is dropped, and counts as failed: its caller
    /// and those that wait for it are given the stale entry, if there is one, or else
    /// [`FetchError::TimedOut`](crate::FetchError::TimedOut). A caller that waits for another's
    /// fetch waits no longer than this either; then it alone is answered so. A call that has waited
    /// and then has to fetch itself has the time anew.
    ///
    /// Default: no end. Above zero.
    #[must_use]
    pub fn hard_timeout(mut self, timeout: Duration) -> Self {
        self.hard_timeout = Some(timeout);
        self
    }

    /// How long no caller fetches a key after its fetch has failed, panicked or timed out: callers
    /// are given the stale entry, if there is one, or else the error, at once. So a thousand calls
    /// to an origin that is down fail once, not one by one.
    ///
    /// A put of the key, or an invalidation of it by key, prefix or namespace, ends that time: the
    /// next call fetches. (By label it does not, since a failure has no labels.) Errors are shared
    /// among fetches with one type of error. As many as 1024 keys are remembered, or 1 MiB of
    /// names, keys and errors, without what these point to; beyond that the oldest are fetched
    /// again.
    ///
    /// An error whose time is over is dropped by the next fetches of any key, by
    /// [`sweep_expired`](crate::BlobCache::sweep_expired), or when the cache ends. One that owns a
    /// handle of the cache keeps it open until then: close such a cache.
    ///
    /// Default: no time.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    pub(crate) fn check(&self, field: &'static str) -> Result<(), CacheError> {
        let reason = if self.hard_timeout.is_some_and(|timeout| timeout.is_zero()) {
            "hard_timeout is zero: no fetch can be that fast"
        } else {
            return Ok(());
        };
        Err(CacheError::InvalidConfig { field, reason: reason.to_owned() })
    }
}
