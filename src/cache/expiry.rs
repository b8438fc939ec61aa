//! Expiry: what is past its life goes, and counts once.
//!
//! When an entry with an idle ttl was last asked for is known to memory while that holds it, and
//! from the moment at which it lets go of it to the table of accesses. So whoever asks both, the
//! first one first, misses no access.

use crate::cache::shared::Shared;
use crate::clock::Timestamp;
use crate::counters::Event;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l2::{BlobSummary, Position};
use crate::namespace::Namespace;
use crate::policy::Freshness;
use crate::sequence::Sequence;

impl Shared {
    /// What the clock makes of an entry; it is not asked where it has no say.
    pub(super) fn freshness(&self, entry: &Entry) -> Freshness {
        if entry.is_endless() {
            return Freshness::Fresh;
        }
        entry.freshness(self.clock.timestamp())
    }

    /// Memory does not hold the entry, or is about to let go of it: if it is on disk, too, its last
    /// access is to be known there.
    pub(super) fn keep_access(&self, entry: &Entry) {
        if entry.is(Mark::OnFile) || entry.is(Mark::FromDisk) {
            self.accesses.keep(entry);
        }
    }

    /// Tells an entry that was read from disk when it was last asked for.
    pub(super) fn recall_access(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.accesses.last(entry.hash, entry.written));
        }
    }

    /// The freshness of what a directory lists; stale counts as fresh.
    pub(super) fn freshness_listed(&self, position: Position, blob: &BlobSummary<'_>) -> Freshness {
        let life = blob.life();
        life.freshness(self.clock.timestamp(), self.last_access_listed(position, blob))
    }

    /// The last access to what a directory lists, by what is known. It matters where there is an
    /// idle ttl.
    pub(super) fn last_access_listed(
        &self,
        position: Position,
        blob: &BlobSummary<'_>,
    ) -> Timestamp {
        let (hash, written) = (KeyHash(blob.hash), blob.life().written);
        if blob.idle.is_none() {
            return written;
        }
        let in_memory = self.l1.find(hash, |entry| entry.is_at(position) && entry.is_held());
        let known = in_memory.and_then(|entry| entry.last_access());
        known.unwrap_or_else(|| self.accesses.last(hash, written))
    }

    /// Removes an entry that was found past its life. False where somebody else has.
    #[cold]
    pub(super) fn expire(&self, entry: &Entry, freshness: Freshness) -> bool {
        let is_removed = self.l1.remove_entry(entry);
        if is_removed {
            self.expired(entry, freshness);
        }
        is_removed
    }

    /// Settles what hangs on an entry past its life that this caller has taken out of L1.
    pub(super) fn expired(&self, entry: &Entry, freshness: Freshness) {
        let mut section = self.order.section();
        // Whoever has buried its slot before has counted it.
        let was_found = self.has_record(entry);
        let is_buried = entry.namespace.bury(entry.hash, entry.sequence(), &mut section);
        self.settle(entry, None, &mut section);
        drop(section);
        if is_buried || !was_found {
            self.count_expired(freshness);
        }
    }

    /// Buries what the disk has of a mutation that is past its life.
    pub(super) fn expire_below(
        &self,
        generation: &Namespace,
        (hash, sequence): (KeyHash, Sequence),
        freshness: Freshness,
    ) {
        if self.bury(generation, hash, sequence) {
            self.count_expired(freshness);
        }
    }

    fn count_expired(&self, freshness: Freshness) {
        self.counters.count(Event::Expiration);
        self.counters.add(Event::IdleExpiration, u64::from(freshness == Freshness::Idle));
    }
}
