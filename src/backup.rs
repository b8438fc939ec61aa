//! A backup of an open cache: a copy of its store.

use std::path::Path;

use crate::backup_report::BackupReport;
use crate::cache::BlobCache;
use crate::error::CacheError;

impl BlobCache {
    /// Copies the store into another directory while the cache works: a store that was closed, and
    /// that an [`open`](Self::open) of that directory begins warm with, here or on another host. It
    /// is the store as it was at one moment between the call and its return: all that had returned
    /// before the call is in it. The directory is made if it is missing.
    ///
    /// Open the copy with any `l2_bytes_max`, in the mode [`Process` or
    /// `Power`](crate::CrashSafety); in `Cold` mode an open begins empty, as ever. **The copy knows
    /// nothing of later changes**: a cache that opens it serves what was current at the backup,
    /// until ttls end it. Flush what may have changed meanwhile after the open, as after any time
    /// in which no process heard of changes ([`docs::freshness`](crate::docs::freshness)).
    ///
    /// A task of the disk tier copies, up to 4 MiB at once; the copy has threads of its own for as
    /// long. Gets, puts and reclaim go on; a put waits for no more than the reading of one piece.
    /// One backup at a time. Its reads count among those of the disk tier. A copy on the store's
    /// file system shares its blocks, if that can (XFS, Btrfs): it takes room of its own as the
    /// store overwrites them.
    ///
    /// The copy is refused by every open until it is whole and on its device
    /// ([`L2Damaged`](CacheError::L2Damaged)), so an interrupted backup is never taken for a good
    /// one. Dropped, or after an error, it leaves such a file, which the next backup to the same
    /// directory replaces; it ends a moment after that, and with the copy whole if that was all but
    /// done. It ends with a close as well.
    ///
    /// # Errors
    ///
    /// - [`InvalidConfig`](CacheError::InvalidConfig): the cache has no disk tier.
    /// - [`L2Locked`](CacheError::L2Locked): the directory is that of an open cache, or of another
    ///   backup.
    /// - [`L2Unavailable`](CacheError::L2Unavailable): the directory holds a store, which is not
    ///   changed; another backup of this cache is under way; the log is written faster than it can
    ///   be copied; in a forked child.
    /// - [`L2Full`](CacheError::L2Full): the file system of the directory has no room.
    /// - [`L2Io`](CacheError::L2Io): either file cannot be read or written, or the disk tier is
    ///   off.
    /// - [`Closed`](CacheError::Closed) after a close, and if it is closed meanwhile.
    ///
    /// ```
    /// # use tamis::*;
    /// # let folder = tempfile::tempdir()?;
    /// # let (path, copy) = (folder.path().join("store"), folder.path().join("copy"));
    /// # futures::executor::block_on(async {
    /// let config =
    ///     |path| BlobCacheConfig::builder().l2(path, |l2| l2.bytes_max(16 << 20)).build();
    /// let cache = BlobCache::open(config(&path)?).await?;
    /// cache.put("pages", "/", "<h1>front</h1>").await?;
    /// cache.backup(&copy).await?;
    ///
    /// let warm = BlobCache::open(config(&copy)?).await?;
    /// assert_eq!(warm.get("pages", "/").await.unwrap().value(), b"<h1>front</h1>");
    /// # warm.close().await?;
    /// # cache.close().await
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn backup(&self, directory: impl AsRef<Path>) -> Result<BackupReport, CacheError> {
        self.engine.backups().back_up(directory.as_ref()).await
    }
}
