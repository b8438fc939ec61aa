//! `LastAccess`: when an entry with an idle ttl was last asked for.
//!
//! While memory holds the entry, the entry knows. From the moment at which memory lets go of it,
//! the table of access times does. A reader of the clock that then asks both, memory first, misses
//! no access up to that time. Where an entry comes back into memory, its shard is locked while both
//! are asked.

use std::sync::Arc;

use crate::access_times::AccessTimes;
use crate::clock::Timestamp;
use crate::engine::parts::Parts;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l1::L1;
use crate::l2::{BlobSummary, Position};
use crate::sequence::Sequence;

/// See the module.
pub(crate) struct LastAccess {
    l1: Arc<L1>,
    access_times: Arc<AccessTimes>,
}

impl LastAccess {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self { l1: parts.l1.clone(), access_times: parts.access_times.clone() }
    }

    /// Memory does not hold the entry, or is about to let go of it: if it is on disk, too, its last
    /// access is to be known there.
    pub(crate) fn record(&self, entry: &Entry) {
        if entry.is(Mark::OnFile) || entry.is(Mark::FromDisk) {
            self.access_times.keep(entry);
        }
    }

    /// Tells an entry that was read from disk when it was last asked for, where memory does not
    /// hold it.
    pub(crate) fn restore(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.access_times.last(entry.hash, entry.written));
        }
    }

    /// The same, wherever it is. Not to be called while its place in memory is locked.
    pub(crate) fn restore_from_either(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.last_access(entry.hash, entry.sequence(), entry.written));
        }
    }

    /// When what a mutation put was last asked for, by what is known.
    fn last_access(&self, hash: KeyHash, sequence: Sequence, written: Timestamp) -> Timestamp {
        let is_held = |entry: &Entry| entry.sequence() == sequence && entry.is_held();
        let known = self.l1.find(hash, is_held).and_then(|entry| entry.last_access());
        known.unwrap_or_else(|| self.access_times.last(hash, written))
    }

    /// The same of what a directory lists. It matters where there is an idle ttl.
    pub(crate) fn of_listed(&self, position: Position, blob: &BlobSummary<'_>) -> Timestamp {
        let written = blob.life().written;
        match blob.idle {
            Some(_) => self.last_access(KeyHash(blob.hash), Sequence(position.value()), written),
            None => written,
        }
    }
}
