//! `L2ConfigBuilder`: the settings of the disk tier, under short names.

use std::path::PathBuf;

use super::BlobCacheConfigBuilder;
use crate::modes::{CrashSafety, L2Admission, L2Compression, L2Engine, L2PromotionPolicy};
use crate::write_rate::WriteRate;

/// The settings of the disk tier, for [`BlobCacheConfigBuilder::l2`]. Each is equal to a setter of
/// the builder, which states its unit, default and range.
#[derive(Debug, Clone)]
pub struct L2ConfigBuilder(BlobCacheConfigBuilder);

impl L2ConfigBuilder {
    /// See [`BlobCacheConfigBuilder::l2_required`].
    #[must_use]
    pub fn required(self, required: bool) -> Self {
        Self(self.0.l2_required(required))
    }

    /// See [`BlobCacheConfigBuilder::l2_status_socket`].
    #[must_use]
    pub fn status_socket(self, status_socket: bool) -> Self {
        Self(self.0.l2_status_socket(status_socket))
    }

    /// See [`BlobCacheConfigBuilder::l2_bytes_max`].
    #[must_use]
    pub fn bytes_max(self, bytes: u64) -> Self {
        Self(self.0.l2_bytes_max(bytes))
    }

    /// See [`BlobCacheConfigBuilder::l2_segment_bytes`].
    #[must_use]
    pub fn segment_bytes(self, bytes: u32) -> Self {
        Self(self.0.l2_segment_bytes(bytes))
    }

    /// See [`BlobCacheConfigBuilder::l2_index_bytes_max`].
    #[must_use]
    pub fn index_bytes_max(self, bytes: usize) -> Self {
        Self(self.0.l2_index_bytes_max(bytes))
    }

    /// See [`BlobCacheConfigBuilder::l2_read_bytes_max`].
    #[must_use]
    pub fn read_bytes_max(self, bytes: usize) -> Self {
        Self(self.0.l2_read_bytes_max(bytes))
    }

    /// See [`BlobCacheConfigBuilder::l2_engine`].
    #[must_use]
    pub fn engine(self, engine: L2Engine) -> Self {
        Self(self.0.l2_engine(engine))
    }

    /// See [`BlobCacheConfigBuilder::l2_compression`].
    #[must_use]
    pub fn compression(self, compression: L2Compression) -> Self {
        Self(self.0.l2_compression(compression))
    }

    /// See [`BlobCacheConfigBuilder::l2_admission`].
    #[must_use]
    pub fn admission(self, admission: L2Admission) -> Self {
        Self(self.0.l2_admission(admission))
    }

    /// See [`BlobCacheConfigBuilder::l2_promotion_policy`].
    #[must_use]
    pub fn promotion_policy(self, policy: L2PromotionPolicy) -> Self {
        Self(self.0.l2_promotion_policy(policy))
    }

    /// See [`BlobCacheConfigBuilder::promotion_queue_max`].
    #[must_use]
    pub fn promotion_queue_max(self, values: usize) -> Self {
        Self(self.0.promotion_queue_max(values))
    }

    /// See [`BlobCacheConfigBuilder::l2_second_chances`].
    #[must_use]
    pub fn second_chances(self, second_chances: bool) -> Self {
        Self(self.0.l2_second_chances(second_chances))
    }

    /// See [`BlobCacheConfigBuilder::l2_write_rate_max`].
    #[must_use]
    pub fn write_rate_max(self, rate: WriteRate) -> Self {
        Self(self.0.l2_write_rate_max(rate))
    }

    /// See [`BlobCacheConfigBuilder::l2_write_amplification_pct_max`].
    #[must_use]
    pub fn write_amplification_pct_max(self, percent: u32) -> Self {
        Self(self.0.l2_write_amplification_pct_max(percent))
    }

    /// See [`BlobCacheConfigBuilder::crash_safety`].
    #[must_use]
    pub fn crash_safety(self, crash_safety: CrashSafety) -> Self {
        Self(self.0.crash_safety(crash_safety))
    }
}

impl BlobCacheConfigBuilder {
    /// A disk tier in the directory `path`, with its settings together: the same as
    /// [`l2_path`](Self::l2_path) and the other setters. Settings that `set` does not name are
    /// unchanged.
    ///
    /// ```
    /// use tamis::{BlobCacheConfig, CrashSafety};
    ///
    /// let config = BlobCacheConfig::builder()
    ///     .l1_bytes_max(256 << 20)
    ///     .l2("/var/cache/pages", |l2| l2.bytes_max(64 << 30).crash_safety(CrashSafety::Power))
    ///     .build()?;
    /// assert_eq!(config.l2_bytes_max(), 64 << 30);
    /// # Ok::<(), tamis::CacheError>(())
    /// ```
    #[must_use]
    pub fn l2(
        self,
        path: impl Into<PathBuf>,
        set: impl FnOnce(L2ConfigBuilder) -> L2ConfigBuilder,
    ) -> Self {
        set(L2ConfigBuilder(self.l2_path(path))).0
    }

    /// Whether the cache tells other processes of the same user what it does, at a Unix socket
    /// `status.sock` in the directory of the disk tier. Default false. `tamis stat DIR` shows it,
    /// a line a second.
    ///
    /// A client sends a line, `stats`, `namespaces` or `config`, and is answered by a line of JSON;
    /// [`docs::operations`](crate::docs::operations) has its members. Nothing can be changed there.
    /// The socket has the mode 0600, which lets the user of the process connect, and root.
    ///
    /// One thread, `tamis-status`, answers, asleep until it is asked. It serves 16 clients at one
    /// time, and ends connections on which nothing has been answered for 30 seconds; no client
    /// delays the cache or its close. It is there while the store is: not before the
    /// [`open`](crate::BlobCache::open) has found the entries, and, if the disk tier is not
    /// [required](Self::l2_required) and cannot be opened, not before
    /// [`reopen_l2`](crate::BlobCache::reopen_l2) has. A close removes it; after a kill its file
    /// stays until the next open with this setting. Where the file system has no sockets, a warning
    /// is logged and the cache works without.
    ///
    /// ```
    /// # use std::io::{BufRead, BufReader, Write};
    /// # use std::os::unix::net::UnixStream;
    /// # use tamis::*;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path();
    /// # futures::executor::block_on(async {
    /// let builder = BlobCacheConfig::builder().l2(path, |l2| l2.bytes_max(16 << 20));
    /// let cache = BlobCache::open(builder.l2_status_socket(true).build()?).await?;
    ///
    /// // As another process would.
    /// let mut socket = UnixStream::connect(path.join("status.sock")).unwrap();
    /// socket.write_all(b"stats\n").unwrap();
    /// let mut line = String::new();
    /// BufReader::new(socket).read_line(&mut line).unwrap();
    /// assert!(line.contains(r#""tamis_hits_total":0"#));
    /// cache.close().await
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn l2_status_socket(mut self, status_socket: bool) -> Self {
        self.config.l2_status_socket = status_socket;
        self
    }
}
