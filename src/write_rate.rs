//! `WriteRate`: how fast the disk tier may be written, for the sake of the flash.

/// A limit of the bytes that the disk tier writes, so that a flash device reaches its age: a
/// bucket that fills at `bytes_per_second`, up to `burst_bytes`, and that every write of the store
/// drains, whatever its purpose.
///
/// While the bucket is empty, a value whose key has no record on disk is stored in memory alone, if
/// memory may hold it, and counted in
/// [`l2_write_rate_rejections`](crate::BlobCacheStats::l2_write_rate_rejections). Overwrites of
/// what is on disk, invalidations, reinserted records and the image at a clean close are always
/// written: if they need more than the rate, the bucket owes that to later values. It is full when
/// the cache is opened, and fills by the cache's [`Clock`](crate::Clock).
///
/// ```
/// use tamis::{BlobCacheConfig, WriteRate};
///
/// // One full write of a terabyte a day.
/// let rate = WriteRate::new((1 << 40) / (24 * 60 * 60));
/// let config = BlobCacheConfig::builder().l2_write_rate_max(rate.burst_bytes(4 << 30)).build()?;
/// assert_eq!(config.l2_write_rate_max(), Some(rate.burst_bytes(4 << 30)));
/// # Ok::<(), tamis::CacheError>(())
/// ```
///
/// ```
/// # use tamis::*;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path();
/// # futures::executor::block_on(async {
/// let builder = BlobCacheConfig::builder().l2_path(path).l2_bytes_max(16 << 20);
/// let builder = builder.l2_compression(L2Compression::Off);
/// let rate = WriteRate::new(1000).burst_bytes(100_000);
/// let cache = BlobCache::open(builder.l2_write_rate_max(rate).build()?).await?;
/// for page in 0..20 {
///     cache.put("pages", format!("/{page}"), vec![0; 40_000]).await?;
/// }
/// // Once the burst is spent, new keys stay in memory.
/// assert!(cache.stats().l2_write_rate_rejections() > 0);
/// assert!(cache.get("pages", "/19").await.is_some());
/// cache.close().await
/// # }).unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteRate {
    pub(crate) bytes_per_second: u64,
    pub(crate) burst_bytes: u64,
}

/// The default burst.
const BURST_SECONDS: u64 = 60;

impl WriteRate {
    /// So many bytes a second, at least 1, with a burst of one minute's bytes.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, burst_bytes: bytes_per_second.saturating_mul(BURST_SECONDS) }
    }

    /// The same with another burst, in bytes, at least 1. A value of any size is written while the
    /// bucket is not empty.
    #[must_use]
    pub fn burst_bytes(self, burst_bytes: u64) -> Self {
        Self { burst_bytes, ..self }
    }
}
