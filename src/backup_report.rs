//! What a backup has made.

/// What a [`backup`](crate::BlobCache::backup) has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    segments: u64,
    bytes: u64,
    shared_bytes: u64,
}

impl BackupReport {
    pub(crate) fn new(segments: u64, bytes: u64, shared_bytes: u64) -> Self {
        Self { segments, bytes, shared_bytes }
    }

    /// Segments of the log that the copy has.
    #[must_use]
    pub fn segments(self) -> u64 {
        self.segments
    }

    /// The length of the copy's file, in bytes: its segments, and one that is free.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// The bytes of these whose blocks on the device are those of the store, on a file system that
    /// shares blocks between files (XFS, Btrfs). They take room as the store overwrites its own.
    /// Others were copied.
    #[must_use]
    pub fn shared_bytes(self) -> u64 {
        self.shared_bytes
    }
}
