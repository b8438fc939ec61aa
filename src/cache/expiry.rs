//! Expiry: what is past its life goes, and counts once.
//!
//! When an entry with an idle ttl was last asked for is known to memory while that holds it, and
//! from the moment at which it lets go of it to the table of accesses. So whoever reads the clock
//! and then asks both, memory first, misses no access up to then. Where an entry comes back into
//! memory, its place there is locked while they are asked.

use std::ptr;

use crate::cache::shared::Shared;
use crate::clock::Timestamp;
use crate::counters::Event;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l2::{BlobSummary, Position};
use crate::namespace::Namespace;
use crate::policy::Freshness;
use crate::sequence::Sequence;

/// Why readers cannot be given an entry any more.
pub(super) enum Gone {
    Expired,
    /// Its namespace was flushed.
    Dead,
}

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

    /// Tells an entry that was read from disk when it was last asked for, where memory does not
    /// hold it.
    pub(super) fn recall_access(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.accesses.last(entry.hash, entry.written));
        }
    }

    /// The same, wherever it is. Not to be called while its place in memory is locked.
    pub(super) fn ask_last_access(&self, entry: &Entry) {
        if entry.idle_ttl().is_some() {
            entry.accessed(self.last_access(entry.hash, entry.sequence(), entry.written));
        }
    }

    /// When what a mutation put was last asked for, by what is known.
    fn last_access(&self, hash: KeyHash, sequence: Sequence, written: Timestamp) -> Timestamp {
        let is_held = |entry: &Entry| entry.sequence() == sequence && entry.is_held();
        let known = self.l1.find(hash, is_held).and_then(|entry| entry.last_access());
        known.unwrap_or_else(|| self.accesses.last(hash, written))
    }

    /// The same of what a directory lists. It matters where there is an idle ttl.
    pub(super) fn last_access_listed(
        &self,
        position: Position,
        blob: &BlobSummary<'_>,
    ) -> Timestamp {
        let written = blob.life().written;
        match blob.idle {
            Some(_) => self.last_access(KeyHash(blob.hash), Sequence(position.value()), written),
            None => written,
        }
    }

    /// The freshness of what a directory lists; stale counts as fresh.
    pub(super) fn freshness_listed(&self, position: Position, blob: &BlobSummary<'_>) -> Freshness {
        let now = self.clock.timestamp();
        blob.life().freshness(now, self.last_access_listed(position, blob))
    }

    /// Removes an entry that was found past its life in memory, from both tiers. False where
    /// somebody else has.
    #[cold]
    pub(super) fn expire(&self, entry: &Entry, freshness: Freshness) -> bool {
        let slot = self.l1.slot(entry.hash);
        if !slot.entry().is_some_and(|held| ptr::eq(&**held, entry)) {
            return false;
        }
        let mut section = self.order.section();
        let Some(removed) = slot.remove() else { return false };
        removed.namespace.bury(removed.hash, removed.sequence(), &mut section);
        self.settle(&removed, None, &mut section);
        // A flush has counted it.
        let has_ended = removed.namespace.has_ended();
        drop(section);
        self.l1.give_back(removed.hash);
        if !has_ended {
            self.count_expired(freshness);
        }
        true
    }

    /// The same of a mutation that was found past its life on disk, unless memory knows better.
    pub(super) fn expire_below(
        &self,
        generation: &Namespace,
        (hash, sequence): (KeyHash, Sequence),
        freshness: Freshness,
    ) {
        let slot = self.l1.slot(hash);
        let held = slot.entry().filter(|entry| entry.sequence() == sequence);
        let held = held.map(|entry| self.freshness(entry).is_gone());
        let mut section = self.order.section();
        let removed = match held {
            Some(true) => slot.remove(),
            Some(false) => return,
            None => None,
        };
        let is_buried = generation.bury(hash, sequence, &mut section);
        removed.as_ref().inspect(|entry| self.settle(entry, None, &mut section));
        let has_ended = generation.has_ended();
        drop(section);
        if (is_buried || removed.is_some()) && !has_ended {
            self.count_expired(freshness);
        }
    }

    /// Removes an entry whose namespace has ended, or that is past its life. None where it is not,
    /// or somebody else has.
    pub(super) fn remove_gone(&self, entry: &Entry) -> Option<Gone> {
        if entry.namespace.has_ended() {
            let is_removed = self.l1.remove_entry(entry);
            if is_removed {
                self.settle(entry, None, &mut self.order.section());
            }
            return is_removed.then_some(Gone::Dead);
        }
        let freshness = self.freshness(entry);
        let is_removed = freshness.is_gone() && self.expire(entry, freshness);
        is_removed.then_some(Gone::Expired)
    }

    pub(super) fn count_expired(&self, freshness: Freshness) {
        self.counters.count(Event::Expiration);
        self.counters.add(Event::IdleExpiration, u64::from(freshness == Freshness::Idle));
    }
}
