//! The sizes of a cache that is open: its budgets can be changed while it is used.

use crate::cache::BlobCache;
use crate::error::CacheError;

impl BlobCache {
    /// Changes the size of the disk tier's file, in bytes, rounded down to whole segments of the
    /// store: 4 to 1,048,576 of these.
    ///
    /// A larger file has its space reserved, as far as the file system can. For a smaller one the
    /// oldest segments are reclaimed, as by puts, until the rest fits; those that lie behind the
    /// new end are moved. It returns when the file has its new length, or when the store uses no
    /// more of it: if the file cannot be cut, the log says so, and the next open cuts it. Gets and
    /// puts go on meanwhile.
    ///
    /// [`stats`](Self::stats) shows the present size, and [`config`](Self::config) the one that the
    /// cache was opened with. The budget of the index stays as it is. The next open has a size of
    /// its own, that of its configuration: configure the new one there, too.
    ///
    /// The last of several calls wins, and all return when its size is reached. Dropped before it
    /// has returned, it goes on if it was polled.
    ///
    /// # Errors
    ///
    /// - [`InvalidConfig`](CacheError::InvalidConfig): out of range, or a cache without a disk
    ///   tier. Nothing has changed.
    /// - [`L2Full`](CacheError::L2Full): the file system has no room for the larger file. Nothing
    ///   has changed.
    /// - [`L2Io`](CacheError::L2Io): the operating system refuses the larger file, such as above
    ///   the process's limit of file sizes (`ulimit -f`), and nothing has changed; or the device
    ///   has failed, now or before, and the disk tier is off.
    /// - [`L2Unavailable`](CacheError::L2Unavailable): in a forked process.
    /// - [`Closed`](CacheError::Closed) after a close, or if the cache is closed meanwhile.
    ///
    /// ```no_run
    /// # futures::executor::block_on(async {
    /// use tamis::{BlobCache, BlobCacheConfig};
    ///
    /// let config = BlobCacheConfig::builder().l2_path("/var/cache/pages").l2_bytes_max(64 << 30);
    /// let cache = BlobCache::open(config.build()?).await?;
    /// // The disk is needed for something else.
    /// cache.set_l2_bytes_max(16 << 30).await?;
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn set_l2_bytes_max(&self, bytes: u64) -> Result<(), CacheError> {
        self.engine.sizes().set_l2_bytes_max(bytes).await
    }

    /// Changes the budget of the memory tier, in bytes, to one in the range of
    /// [`l1_bytes_max`](crate::BlobCacheConfigBuilder::l1_bytes_max). Entries that exceed a smaller
    /// one are evicted as by puts, in steps, before this returns; from then on memory holds no more
    /// than that.
    ///
    /// Everything that is a share of the budget follows: which blobs
    /// [`L1Admission::Auto`](crate::L1Admission::Auto) admits, the copies of puts under way, the
    /// queue of promotions. Quotas of namespaces stay as they are, and so do the numbers of shards
    /// and tables, which were chosen for the budget at the open.
    ///
    /// [`stats`](Self::stats) shows the present budget, and [`config`](Self::config) the one that
    /// the cache was opened with. The last of several calls wins. Dropped before it has returned,
    /// it has changed the budget if it was polled, and later puts evict the rest.
    ///
    /// # Errors
    ///
    /// Nothing has changed then.
    ///
    /// - [`InvalidConfig`](CacheError::InvalidConfig): out of range.
    /// - [`L2Unavailable`](CacheError::L2Unavailable): in a forked process.
    /// - [`Closed`](CacheError::Closed) after a close.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// cache.put("pages", "/", BlobCachePut::new(vec![7; 100_000])).await?;
    /// cache.set_l1_bytes_max(64 << 10).await?;
    /// assert_eq!(cache.stats().l1_bytes_max(), 64 << 10);
    /// assert!(cache.stats().bytes_in_use() <= 64 << 10);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn set_l1_bytes_max(&self, bytes: usize) -> Result<(), CacheError> {
        self.engine.sizes().set_l1_bytes_max(bytes).await
    }
}
