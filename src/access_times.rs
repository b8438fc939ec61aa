//! `AccessTimes`: last access times of entries with an idle ttl that memory has evicted.
//!
//! Reads do not rewrite records, so memory keeps the access times, in a table of fixed size. An
//! entry without a recorded access counts as last accessed when it was written. So a full table may
//! expire an entry early, never late.
//!
//! Another such table has the times since when records are stale before their time.

use crate::clock::Timestamp;
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::record_table::RecordTable;

/// The age of an item is the last access, in nanoseconds.
#[derive(Debug)]
pub(crate) struct AccessTimes(RecordTable<()>);

impl AccessTimes {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(RecordTable::new(bytes_max))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes()
    }

    pub(crate) fn bytes_reserved(&self) -> usize {
        self.0.bytes_reserved()
    }

    /// Called once the disk holds, or will hold, entries with an idle ttl.
    pub(crate) fn request(&self) {
        self.0.request();
    }

    /// Called once the reserved bytes are free.
    pub(crate) fn enable(&self) {
        self.0.enable();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.0.has_room()
    }

    pub(crate) fn record(&self, entry: &Entry) {
        if let Some(accessed) = entry.last_access().filter(|at| *at > entry.written) {
            self.note(entry.hash, entry.written.0, accessed);
        }
    }

    /// The record of a hash at a position is stale since then.
    pub(crate) fn note_expiry(&self, hash: KeyHash, position: u64, since: Timestamp) {
        // Zero is vacant.
        self.note(hash, position, since.max(Timestamp(1)));
    }

    /// Another such time: the earlier one counts. Nothing, if none is known any more.
    pub(crate) fn note_earlier_expiry(&self, hash: KeyHash, position: u64, since: Timestamp) {
        self.0.change((hash, position), |known| *known = since.0.max(1).min(*known));
    }

    /// Since when it is, if that is known.
    pub(crate) fn expiry(&self, hash: KeyHash, position: u64) -> Option<Timestamp> {
        self.known(hash, position)
    }

    /// The latest time counts.
    pub(crate) fn note(&self, hash: KeyHash, record: u64, at: Timestamp) {
        let latest = |known: Option<(u64, ())>| (known.map_or(at.0, |it| at.0.max(it.0)), ());
        self.0.note((hash, record), latest);
    }

    /// The last known access of the record written at `written`; `written` if none is recorded.
    pub(crate) fn last(&self, hash: KeyHash, written: Timestamp) -> Timestamp {
        self.known(hash, written.0).unwrap_or(written)
    }

    fn known(&self, hash: KeyHash, record: u64) -> Option<Timestamp> {
        self.0.known((hash, record)).map(|(at, ())| Timestamp(at))
    }
}
