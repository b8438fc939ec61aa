//! `LogOwner`: the cache, as the log sees it. It holds slots for records.

use futures::future::BoxFuture;

use super::directory_entry::BlobSummary;
use super::format::Position;
use super::rewrite_budget::Usage;
use super::write_batch::EncodedRecord;
use crate::key::KeyHash;
use crate::policy::Lifetime;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Done,
    /// There are mutations with greater sequences than the start.
    Overtaken,
    /// The cache or its log was closed.
    Ended,
}

/// What became of a record that was to be appended again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AppendedAgain {
    Done,
    /// It was touched, and has other deadlines by now.
    Renewed,
    /// It has changed, or the log has no room.
    Refused,
}

pub(crate) trait LogOwner: Send + Sync {
    /// The record at `position` leaves the log. Removes its slot if that still holds `position`.
    /// `blob`: unless it is a tombstone.
    fn forget(
        &self,
        namespace: &str,
        key: (&[u8], KeyHash),
        position: Position,
        blob: Option<&BlobSummary<'_>>,
    );

    /// A segment of so many records has been reclaimed.
    fn reclaimed(&self, records: usize);

    /// The file has so many bytes from now on.
    fn resized(&self, file_bytes: u64);

    /// Bytes of values that the disk did not take since the last call.
    fn take_refused_bytes(&self) -> u64;

    /// Every record before `position` leaves the log, and which these were cannot be read.
    fn forget_before(&self, position: Position) -> BoxFuture<'_, ()>;

    /// Positions above this one follow all mutations so far.
    fn last_sequence(&self) -> u64;

    /// Has the log go on at `start`, in a commit section.
    fn restart(&self, start: Position, restart: &mut dyn FnMut() -> bool) -> Restart;

    /// Whether the oldest segments must be reclaimed for `wanted` bytes of index.
    fn is_index_crowded(&self, wanted: usize) -> bool;

    /// Whether the index has room for so many bytes.
    fn has_index_room(&self, bytes: usize) -> bool;

    /// Whether a slot holds the record at `position`.
    fn holds(&self, namespace: &str, key: KeyHash, position: Position) -> bool;

    /// How the blob at `position`, whose segment is being reclaimed, is in use. None if it is not,
    /// or must not be reinserted.
    fn usage(&self, position: Position, blob: &BlobSummary<'_>) -> Option<Usage>;

    /// The life of the blob at `position` since it was touched, if it was.
    fn renewed(&self, position: Position, blob: &BlobSummary<'_>) -> Option<Lifetime>;

    /// Appends the blob at `position` again, with the deadlines of `renewed` instead of its own, if
    /// there are any.
    fn append_again(
        &self,
        position: Position,
        blob: &BlobSummary<'_>,
        renewed: Option<Lifetime>,
        record: EncodedRecord,
    ) -> AppendedAgain;
}
