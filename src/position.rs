//! The verbs for saved positions.

use bytes::Bytes;

use crate::cache::BlobCache;
use crate::error::CacheError;

impl BlobCache {
    /// Saves where the caller stands in something outside of the cache, such as a stream of
    /// invalidations, under a name: up to 8 names of 64 bytes, and 512 bytes each.
    ///
    /// It is saved behind every mutation that was in force when this was first polled. So if an
    /// open finds it, all of these are in force, whatever ended the process before: what the
    /// position stands for need not be applied again. It replaces the one of that name, and the
    /// name is in use from then on. No get, listing or event has it.
    ///
    /// Flushes and a [backup](Self::backup) keep it. So does reclaim, unless for a whole turn of
    /// the log each segment is full with one value: then there is none.
    ///
    /// It is acknowledged like a put over an entry on disk: in Process mode a kill does not lose
    /// it, in Power mode neither does a power loss. A later open may find an earlier one, or none,
    /// where it also finds none of the entries of that time: in Cold mode, after damage, if the
    /// disk tier was turned off, or is smaller. In memory alone it lives as long as the cache.
    ///
    /// In force from its first poll, even if dropped then, if the log has room. Nothing is saved by
    /// one that is dropped before.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let read_to = cache.saved_position("changes").map(|position| {
    ///     u64::from_le_bytes(position.as_ref().try_into().unwrap_or_default())
    /// });
    /// assert_eq!(read_to, None);
    /// // The changes up to the 41st say that this has changed.
    /// cache.invalidate_key("users", "7").await?;
    /// cache.save_position("changes", 41_u64.to_le_bytes().to_vec()).await?;
    /// assert_eq!(cache.saved_position("changes").unwrap(), 41_u64.to_le_bytes().as_slice());
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// After any of these except `L2Io` nothing has changed.
    ///
    /// - [`PositionTooLarge`](CacheError::PositionTooLarge),
    ///   [`TooManyPositions`](CacheError::TooManyPositions): over the limits.
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, or was not opened and cannot be
    ///   marked. It is saved in this process.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub async fn save_position(
        &self,
        name: &str,
        position: impl Into<Bytes>,
    ) -> Result<(), CacheError> {
        let position = position.into();
        self.engine.positions().save(name, &position).await
    }

    /// The last position that was saved under a name, here or before the store was opened. No I/O;
    /// after a close as well. See [`save_position`](Self::save_position).
    #[must_use]
    pub fn saved_position(&self, name: &str) -> Option<Bytes> {
        self.engine.positions().find(name)
    }
}
