//! What a backup has made.

/// What a [`backup`](crate::BlobCache::backup) has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    segments: u64,
    bytes: u64,
}

impl BackupReport {
    pub(crate) fn new(segments: u64, bytes: u64) -> Self {
        Self { segments, bytes }
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
}
