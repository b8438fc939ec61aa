//! The verb that renews the deadlines of an entry, on both handles.

use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::namespaced::BlobCacheNamespace;
use crate::policy::BlobCachePolicy;

impl BlobCache {
    /// Gives the entry of a key the deadlines of `policy`, as if it had been put now, without its
    /// value being read or written. Returns whether there was a live entry.
    ///
    /// The deadlines are the ttl with its jitter, `expires_at`, the stale window and the idle ttl:
    /// all of them are replaced, so one that `policy` does not have is none from now on. They may
    /// be later than before, or earlier. A touch counts as an access. What else a policy has does
    /// not apply: priority, admission and version stay those of the put, as the value, its
    /// metadata, tags and dependencies, and [`written_at`](crate::BlobCacheHit::written_at).
    ///
    /// False, with nothing changed, if there is no entry, it is expired, or an `expire_*` has made
    /// it stale: only a newer value makes that fresh. An entry that is stale by its ttl is fresh
    /// again. False, with the entry gone, if its deadlines now take more memory than the quota or
    /// the budget has room for, and it is not on disk.
    ///
    /// It is no mutation of the value: a put with an earlier [`read_point`](Self::read_point), and
    /// a fetch under way, are stored as if there had been no touch, with deadlines of their own.
    ///
    /// An entry on disk gets a small record beside its own, and the call returns, and survives a
    /// crash, as a put that overwrites would. Memory remembers the deadlines of as many such
    /// entries as a sixteenth of
    /// [`l2_index_bytes_max`](crate::BlobCacheConfigBuilder::l2_index_bytes_max) has room for, 56
    /// bytes each. Beyond that those touched first have the deadlines of their put again, or are
    /// gone if a touch has made one earlier.
    ///
    /// Dropped at an await, the touch has taken effect or has not; it is never half done.
    ///
    /// # Errors
    ///
    /// - [`NamespaceTooLarge`](CacheError::NamespaceTooLarge) and
    ///   [`KeyTooLarge`](CacheError::KeyTooLarge).
    /// - [`L2Io`](CacheError::L2Io): the entry is on disk and cannot be read, then nothing has
    ///   changed; or the touch is in force in this process, but not on file.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked process.
    /// - [`Closed`](CacheError::Closed).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::Clock;
    /// use std::time::{Duration, SystemTime};
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};
    ///
    /// # let clock = Clock::manual(SystemTime::now());
    /// # let config = BlobCacheConfig::builder().clock(clock.clone()).build()?;
    /// # let cache = BlobCache::open(config).await?;
    /// let half_an_hour = BlobCachePolicy::default().ttl(Duration::from_secs(30 * 60));
    /// let session = BlobCachePut::new("user 7").with_policy(half_an_hour.clone());
    /// cache.put("sessions", "abc", session).await?;
    /// // With each request, here after 20 minutes:
    /// # clock.advance(Duration::from_secs(20 * 60));
    /// assert!(cache.touch("sessions", "abc", &half_an_hour).await?);
    /// // 20 minutes later:
    /// # clock.advance(Duration::from_secs(20 * 60));
    /// assert!(cache.get("sessions", "abc").await.is_some());
    /// // 40 minutes later:
    /// # clock.advance(Duration::from_secs(40 * 60));
    /// assert!(!cache.touch("sessions", "abc", &half_an_hour).await?);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn touch<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
        policy: &BlobCachePolicy,
    ) -> Result<bool, CacheError> {
        let namespace = self.engine.namespace(namespace);
        self.engine.touches().touch(namespace, key.as_ref(), policy).await
    }
}

impl BlobCacheNamespace {
    /// See [`BlobCache::touch`]. The policy of the handle does not apply.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::touch`].
    pub async fn touch<K: AsRef<[u8]>>(
        &self,
        key: K,
        policy: &BlobCachePolicy,
    ) -> Result<bool, CacheError> {
        self.engine.touches().touch(self.named(), key.as_ref(), policy).await
    }
}
