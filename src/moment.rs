//! `Moment` and `ReadPoint`: points in the one order of all mutations.

/// The number of a mutation in their total order. A mutation that changes nothing takes one too,
/// though it has no sequence. The default precedes all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Moment(pub(crate) u64);

/// A point in the order of all mutations of one cache. Take it before reading the origin, so that
/// the value read there cannot overwrite a newer one.
///
/// A put made [`read_at`](crate::BlobCachePut::read_at) a point is quietly refused when its key was
/// written or invalidated after that point. A point belongs to the cache that gave it and does not
/// survive a restart: a put that carries a point of another cache is refused.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let point = cache.read_point();
/// let row = "read from the database after the point was taken";
/// cache.invalidate_key("rows", "42").await?; // meanwhile another task has changed the row
/// cache.put("rows", "42", BlobCachePut::new(row).read_at(point)).await?;
/// assert!(cache.get("rows", "42").await.is_none());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint {
    pub(crate) moment: Moment,
    /// Identifies the cache that issued it.
    pub(crate) instance: u64,
}
