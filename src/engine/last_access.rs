//! `LastAccess`: when an entry with an idle ttl was last accessed.
//! The entry knows while memory holds it, then the table of access times. A reader that takes the
//! time, then asks memory, then the table, misses no access before that time. While an entry comes
//! back into memory, its shard stays locked for both questions.

use std::sync::Arc;

use crate::access_times::AccessTimes;
use crate::clock::Timestamp;
use crate::engine::parts::Parts;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l1::L1;
use crate::l2::{BlobSummary, Position};
use crate::policy::Lifetime;
use crate::sequence::Sequence;

pub(crate) struct LastAccess {
    l1: Arc<L1>,
    access_times: Arc<AccessTimes>,
}

impl LastAccess {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self { l1: parts.l1.clone(), access_times: parts.access_times.clone() }
    }

    /// Notes the last access of an entry that leaves memory, if it is on disk.
    pub(crate) fn record(&self, entry: &Entry) {
        if entry.is(Mark::Recorded) || entry.is(Mark::FromDisk) {
            self.access_times.record(entry);
        }
    }

    /// Restores the last access of an entry that was read from disk and is not in memory.
    pub(crate) fn restore(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.access_times.last(entry.hash, entry.written));
        }
    }

    /// Restores it from either place. The entry's shard must not be locked.
    pub(crate) fn restore_from_either(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.last_access(entry.hash, entry.sequence(), entry.written));
        }
    }

    /// The last known access to the entry of a mutation.
    fn last_access(&self, hash: KeyHash, sequence: Sequence, written: Timestamp) -> Timestamp {
        let is_held = |entry: &Entry| entry.sequence() == sequence && entry.is_held();
        let known = self.l1.find(hash, is_held).and_then(|entry| entry.last_access());
        known.unwrap_or_else(|| self.access_times.last(hash, written))
    }

    /// The last access to a record that a directory lists, and that lives `renewed` since it was
    /// touched. Only an idle ttl needs it.
    pub(crate) fn of_listed(
        &self,
        position: Position,
        blob: &BlobSummary<'_>,
        renewed: Option<&Lifetime>,
    ) -> Timestamp {
        let written = blob.life().written;
        let is_idle = renewed.map_or(blob.idle.is_some(), |life| life.idle_ttl < u64::MAX);
        let touched = renewed.map_or(written, |life| life.written);
        if is_idle {
            let (hash, sequence) = (KeyHash(blob.hash), Sequence(position.value()));
            self.last_access(hash, sequence, written).max(touched)
        } else {
            touched
        }
    }

    /// The access of a touch to a record written at `written`.
    pub(crate) fn note_touch(&self, hash: KeyHash, written: Timestamp, touched: Timestamp) {
        self.access_times.note(hash, written.0, touched);
    }
}
