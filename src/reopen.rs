//! Opens a disk tier that could not be opened with the cache, or that a failing device turned off.

use crate::cache::BlobCache;
use crate::error::CacheError;

impl BlobCache {
    /// Tries to open a disk tier that could not be opened with the cache
    /// ([`l2_required(false)`](crate::BlobCacheConfigBuilder::l2_required)). Has one that a failing
    /// device turned off begin anew now, and not only when that is tried by itself. Returns once
    /// the tier works; at once if it works already.
    ///
    /// The disk tier comes back empty, in the store that is on file, which is voided first: the
    /// cache has taken puts and invalidations meanwhile that the store does not know. Memory keeps
    /// what it has. To keep what a store holds, open another cache for it instead, once this one is
    /// closed and if it has changed nothing.
    ///
    /// Concurrent calls share one attempt, which a thread `tamis-reopen` makes. If all of them are
    /// dropped before the store is voided, or before the tier has it, the attempt gives the store
    /// back and the cache goes on in memory; after that the tier begins by itself.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open): then the cache goes on in memory, and
    /// [`l2_state`](crate::BlobCacheStats::l2_state) has the new reason. And
    ///
    /// - [`InvalidConfig`](CacheError::InvalidConfig): the cache has no disk tier.
    /// - [`L2Io`](CacheError::L2Io): the device fails.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child, if the parent has the
    ///   store; [`Closed`](CacheError::Closed) after a close, and if it is closed meanwhile.
    ///
    /// ```
    /// # use tamis::*;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("store");
    /// # futures::executor::block_on(async {
    /// // A file stands where the directory of the store should be.
    /// std::fs::write(&path, "").unwrap();
    /// let builder = BlobCacheConfig::builder().l2(&path, |l2| l2.bytes_max(16 << 20));
    /// let cache = BlobCache::open(builder.l2_required(false).build()?).await?;
    /// assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
    /// // In force, and held in memory; but no mark could be left for a later process.
    /// assert!(matches!(cache.put("a", "k", "v").await, Err(CacheError::L2Io { .. })));
    /// assert_eq!(cache.get("a", "k").await.unwrap().value(), b"v");
    ///
    /// std::fs::remove_file(&path).unwrap();
    /// cache.reopen_l2().await?;
    /// assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    /// cache.put("a", "k", "v").await?;
    /// cache.close().await
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn reopen_l2(&self) -> Result<(), CacheError> {
        self.engine.reopen_l2().await
    }
}
