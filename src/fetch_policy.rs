//! `FetchPolicy`: when a fetch begins, how long it is waited for, and when it may be tried again.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::CacheError;

/// When a fetch begins, how long it is waited for, when it is given up, and when it may be tried
/// again. The default is all off: a call whose entry is not fresh waits for its fetch, and the call
/// after a failure tries again.
///
/// It is given in one of three places, the closest of which counts as a whole:
///
/// - for a cache: [`fetch_policy`](crate::BlobCacheConfigBuilder::fetch_policy) of its
///   configuration;
/// - for a namespace:
///   [`NamespaceConfigBuilder::fetch_policy`](crate::NamespaceConfigBuilder::fetch_policy);
/// - for a call: no call takes one. Make the call through a handle that
///   [has one](crate::BlobCacheNamespace::with_fetch_policy), which is cheap to make for it:
///   `pages.clone().with_fetch_policy(quick)?.get_or_fetch(..)`.
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
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) refresh_ahead: Option<LastShare>,
}

const MILLION: u32 = 1_000_000;

/// The last millionths of an entry's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastShare(u32);

impl LastShare {
    // Checked later: NaN and what is negative are zero, too much is the most.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn of(share: f64) -> Self {
        Self((share * f64::from(MILLION)) as u32)
    }

    pub(crate) fn share(self) -> f64 {
        f64::from(self.0) / f64::from(MILLION)
    }

    /// Whether this share of the time from `begun` to `ends` has begun.
    pub(crate) fn has_begun(self, begun: Timestamp, ends: Timestamp, now: Timestamp) -> bool {
        let (time, left) = (ends.saturating_since(begun), ends.saturating_since(now));
        left.as_nanos() * u128::from(MILLION) <= time.as_nanos() * u128::from(self.0)
    }
}

impl FetchPolicy {
    /// The longest time that a fetch may take. Then it is dropped, and counts as failed: its caller
    /// and those that wait for it are given the stale entry, if there is one, or else
    /// [`FetchError::TimedOut`](crate::FetchError::TimedOut). A caller that waits for another's
    /// fetch waits no longer than this either; then it alone is answered so. A call that has waited
    /// and then has to fetch itself has the time anew. It is no limit of the call as a whole: what
    /// the call reads from disk, before the fetch and for the stale entry, takes as long as the
    /// device does.
    ///
    /// Default: no end. Above zero.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use std::time::Duration;
    /// # use tamis::*;
    /// let policy = FetchPolicy::default().hard_timeout(Duration::from_millis(20));
    /// let config = BlobCacheConfig::builder().fetch_policy(policy).build()?;
    /// let cache = BlobCache::open(config).await?;
    /// let hangs = || std::future::pending::<Result<BlobCachePut, std::io::Error>>();
    /// let missing = cache.get_or_fetch("pages", "/index", hangs).await;
    /// assert!(matches!(missing, Err(FetchError::TimedOut)));
    ///
    /// let page = BlobCachePut::new("<h1>Tamis</h1>")
    ///     .with_policy(BlobCachePolicy::default().stale_serve(Duration::from_secs(600)));
    /// cache.put("pages", "/index", page).await?;
    /// cache.expire_key("pages", "/index").await?;
    /// assert!(cache.get_or_fetch("pages", "/index", hangs).await.unwrap().is_stale());
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
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
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use std::time::Duration;
    /// # use tamis::*;
    /// let policy = FetchPolicy::default().retry_after(Duration::from_secs(5));
    /// let config = BlobCacheConfig::builder().fetch_policy(policy).build()?;
    /// let cache = BlobCache::open(config).await?;
    /// let fails = || async { Err::<BlobCachePut, _>("the origin is down") };
    /// let asks = || async { Ok::<_, &str>(BlobCachePut::new("<h1>Tamis</h1>")) };
    /// assert!(cache.get_or_fetch("pages", "/index", fails).await.is_err());
    /// assert!(cache.get_or_fetch("pages", "/index", asks).await.is_err(), "not asked");
    ///
    /// // Whoever knows that the origin is up again need not wait.
    /// cache.invalidate_key("pages", "/index").await?;
    /// assert!(cache.get_or_fetch("pages", "/index", asks).await.is_ok());
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// How long a call waits for the fetch if there is a stale entry. Then it is given that
    /// ([`is_stale`](crate::BlobCacheHit::is_stale)), and the fetch goes on: its value is stored.
    /// A call whose entry is missing or expired waits on.
    ///
    /// It holds for [`get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned) alone, and
    /// needs a [`spawner`](crate::BlobCacheConfigBuilder::spawner): the fetch of any other call
    /// would end with it. So would one that no task runs, since there are
    /// [too many](crate::BlobCacheConfigBuilder::spawned_fetches_max): its own caller waits on.
    ///
    /// Default: no end. Above zero, and below `hard_timeout`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tamis::*;
    /// // A stale page after 100 ms; the fresh one is there a little later.
    /// let policy = FetchPolicy::default().soft_timeout(Duration::from_millis(100));
    /// let config = BlobCacheConfig::builder()
    ///     .spawner(|task: FetchTask| drop(tokio::spawn(task)))
    ///     .fetch_policy(policy)
    ///     .build()?;
    /// # Ok::<(), CacheError>(())
    /// ```
    #[must_use]
    pub fn soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// Refreshes an entry in the last share of its time, which lasts from its put, or from its last
    /// [`touch`](crate::BlobCache::touch), until it is stale or gone: 0.1 is its last tenth. One of
    /// the calls that ask for it then starts a fetch in a task, and all are given the fresh entry
    /// at once. So an entry that is asked for often enough is not stale, unless fetches fail or
    /// take longer than is left. One that ends by its `idle_ttl` alone is not refreshed ahead.
    ///
    /// Of an entry that was touched and is read from disk, the time counts from the put again once
    /// its record has been written anew with the later deadlines, since it was in use when its
    /// segment was reclaimed: then it is refreshed early, and never late. That holds after a
    /// restart too.
    ///
    /// It holds for [`get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned) and
    /// [`get_or_refresh_spawned`](crate::BlobCache::get_or_refresh_spawned), and needs a
    /// [`spawner`](crate::BlobCacheConfigBuilder::spawner). After a failure the key is not
    /// refreshed for a second, or for `retry_after`. The share is kept in millionths.
    ///
    /// Default: no share. Above 0, and below 1.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tamis::*;
    /// // Pages that live for a minute are refreshed in its last six seconds.
    /// let minute = BlobCachePolicy::default().ttl(Duration::from_secs(60));
    /// let ahead = FetchPolicy::default().refresh_ahead(0.1);
    /// let config = BlobCacheConfig::builder()
    ///     .spawner(|task: FetchTask| drop(tokio::spawn(task)))
    ///     .namespace("pages", |pages| pages.policy(minute).fetch_policy(ahead))
    ///     .build()?;
    /// # Ok::<(), CacheError>(())
    /// ```
    #[must_use]
    pub fn refresh_ahead(mut self, share: f64) -> Self {
        self.refresh_ahead = Some(LastShare::of(share));
        self
    }

    pub(crate) fn check(&self, field: &'static str, has_spawner: bool) -> Result<(), CacheError> {
        let is_zero = |timeout: Option<Duration>| timeout.is_some_and(|timeout| timeout.is_zero());
        let (soft, hard) = (self.soft_timeout, self.hard_timeout);
        let reason = if is_zero(hard) {
            "hard_timeout is zero: no fetch can be that fast"
        } else if is_zero(soft) {
            "soft_timeout is zero: get_or_refresh_spawned answers a stale entry at once"
        } else if soft.zip(hard).is_some_and(|(soft, hard)| soft >= hard) {
            "soft_timeout is not below hard_timeout, which answers the stale entry as well"
        } else if self.refresh_ahead.is_some_and(|share| !(1..MILLION).contains(&share.0)) {
            "the share of refresh_ahead is not above 0 and below 1"
        } else if soft.is_some() && !has_spawner {
            "soft_timeout needs a spawner, for fetches that go on when their caller is answered"
        } else if self.refresh_ahead.is_some() && !has_spawner {
            "refresh_ahead needs a spawner, for refreshes that no caller waits for"
        } else {
            return Ok(());
        };
        Err(CacheError::InvalidConfig { field, reason: reason.to_owned() })
    }
}
