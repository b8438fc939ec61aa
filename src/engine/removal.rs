//! `Removal`: removes entries from either tier and releases their accounting (budgets, postings,
//! counts) exactly once.

use std::ptr;
use std::sync::Arc;

use crate::commit_lock::{CommitLock, Section};
use crate::counters::{Counters, Event};
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::events::{About, EntryChange, Events};
use crate::key::{HashedKey, KeyHash};
use crate::l1::L1;
use crate::l2::Slot;
use crate::namespace::Generation;
use crate::pending::PendingInvalidation;
use crate::policy::{ExpiredBy, Freshness, Lifetime};
use crate::sequence::Sequence;

pub(crate) struct Removal {
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    l1: Arc<L1>,
    visibility: Visibility,
    renewed: RenewedSlots,
    budget: Arc<IndexBudget>,
}

impl Removal {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            renewed: RenewedSlots::new(parts),
            budget: parts.budget.clone(),
        }
    }

    /// Releases the accounting of an entry that the caller has removed from memory. `matching`: the
    /// pending invalidation that matched it there. True if its record keeps its postings.
    pub(crate) fn release_accounting(
        &self,
        entry: &Entry,
        matching: Option<&PendingInvalidation>,
        section: &mut Section<'_>,
    ) -> bool {
        entry.generation.shrink(entry.charge, section);
        self.budget.remove_labels_of(entry, section);
        // Keep the postings while the record exists, even if it has expired: after another open,
        // with another clock, it may not have. An entry without a record may share its slot with a
        // tombstone.
        let (generation, sequence) = (&entry.generation, entry.sequence());
        let has_record = || entry.is(Mark::Recorded) && generation.has_slot(entry.hash, sequence);
        let keeps_postings = !entry.labels().is_empty() && has_record();
        if !entry.labels().is_empty() && !keeps_postings {
            self.release_labels(generation, entry.hash, sequence, section);
        }
        if let Some(invalidation) = matching {
            let freshness = self.visibility.freshness(entry);
            if freshness.is_expired() {
                self.count_expired(freshness, || About::of(entry));
            } else {
                self.credit(invalidation, || About::of(entry));
            }
        }
        keeps_postings
    }

    /// Releases the postings of a mutation. Those of an ended generation are freed with it.
    pub(crate) fn release_labels(
        &self,
        generation: &Generation,
        hash: KeyHash,
        sequence: Sequence,
        section: &mut Section<'_>,
    ) {
        if !generation.has_ended() {
            self.budget.remove_postings(generation.labels(section).release(hash, sequence));
        }
    }

    /// Counts an entry that a put of its key has replaced, or as expired.
    pub(crate) fn count_replaced(&self, entry: &Entry) {
        // The flush has counted it.
        if entry.generation.has_ended() {
            return;
        }
        let freshness = self.visibility.freshness(entry);
        if freshness.is_expired() {
            self.count_expired(freshness, || About::of(entry));
        } else {
            self.counters.count(Event::Replacement);
            self.events.tell(EntryChange::Replaced, || About::of(entry));
        }
    }

    pub(crate) fn count_expired<'a>(
        &self,
        freshness: Freshness,
        about: impl FnOnce() -> About<'a>,
    ) {
        let idle = freshness == Freshness::Expired(ExpiredBy::IdleTtl);
        self.counters.count(Event::Expiration);
        self.counters.add(Event::IdleExpiration, u64::from(idle));
        self.events.tell(EntryChange::Expired { idle }, about);
    }

    /// Credits an invalidation for an entry that another caller removed.
    pub(crate) fn credit<'a>(
        &self,
        invalidation: &PendingInvalidation,
        about: impl FnOnce() -> About<'a>,
    ) {
        invalidation.count();
        self.counters.count(Event::Invalidation);
        self.events.tell(EntryChange::Invalidated, about);
    }

    /// Prepares to replace or remove the record of a key: releases its labels, and credits a
    /// pending invalidation that matches it. `in_memory`: the entry of the same mutation. True if
    /// the record was visible and not known to be expired. Entries with a slot are counted here, or
    /// when their slot is marked dead, and nowhere else.
    pub(crate) fn displace(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        slot: Slot,
        in_memory: Option<&Arc<Entry>>,
        section: &mut Section<'_>,
    ) -> bool {
        let sequence = Sequence(slot.position.value());
        let invalidation = if slot.dead {
            None
        } else {
            self.visibility.matching_on_disk(generation, key, sequence, section)
        };
        self.release_labels(generation, key.hash, sequence, section);
        if slot.dead {
            return false;
        }
        let about = || match in_memory {
            Some(entry) => About::of(entry),
            None => About::on_disk(generation.name(), key.bytes, Some(slot)),
        };
        let freshness = in_memory.map(|entry| self.visibility.freshness(entry));
        if let Some(freshness) = freshness.filter(|freshness| freshness.is_expired()) {
            self.count_expired(freshness, about);
            return false;
        }
        if let Some(invalidation) = &invalidation {
            self.credit(invalidation, about);
        }
        invalidation.is_none()
    }

    /// Marks the slot of a mutation as dead. The slot stays: its record is still on file, and may
    /// shadow older ones. False if the slot is another mutation's.
    pub(crate) fn mark_dead(
        &self,
        generation: &Generation,
        hash: KeyHash,
        sequence: Sequence,
    ) -> bool {
        let is_it = |entry: &Entry| entry.sequence() == sequence && entry.is_held();
        let is_in_memory = self.l1.find(hash, is_it).is_some();
        let is_marked = generation.mark_dead(hash, sequence, &mut self.commit_lock.section());
        if is_marked && !is_in_memory {
            self.counters.count(Event::Forgotten);
            let about = || About::on_disk(generation.name(), &[], None);
            self.events.tell(EntryChange::Dropped, about);
        }
        is_marked
    }

    /// Removes an expired entry from both tiers. False if another caller has.
    #[cold]
    pub(crate) fn expire(&self, entry: &Entry, freshness: Freshness) -> bool {
        let place = self.l1.lock_place(entry.hash);
        if !place.entry().is_some_and(|current| ptr::eq(&**current, entry)) {
            return false;
        }
        let mut section = self.commit_lock.section();
        let Some(removed) = place.remove() else { return false };
        removed.generation.mark_dead(removed.hash, removed.sequence(), &mut section);
        self.release_accounting(&removed, None, &mut section);
        // A flush has counted it.
        let has_ended = removed.generation.has_ended();
        drop(section);
        self.l1.give_back(removed.hash);
        if !has_ended {
            self.count_expired(freshness, || About::of(entry));
        }
        true
    }

    /// The same for an entry that was found expired on disk, unless memory has a later access, or
    /// it was touched since. `judged`: its life since the last touch, asked before it was judged.
    pub(crate) fn expire_on_disk(
        &self,
        generation: &Generation,
        (key, sequence): (HashedKey<'_>, Sequence),
        (freshness, judged): (Freshness, Option<Lifetime>),
    ) {
        let hash = key.hash;
        let place = self.l1.lock_place(hash);
        let in_memory = place.entry().filter(|entry| entry.sequence() == sequence);
        let is_expired = in_memory.map(|entry| self.visibility.freshness(entry).is_expired());
        let mut section = self.commit_lock.section();
        let slot = generation.live_slot(hash, sequence);
        if slot.is_some_and(|slot| self.renewed.of(hash, slot) != judged) {
            return;
        }
        let removed = match is_expired {
            Some(true) => place.remove(),
            Some(false) => return,
            None => None,
        };
        let is_marked = generation.mark_dead(hash, sequence, &mut section);
        removed.as_ref().inspect(|entry| _ = self.release_accounting(entry, None, &mut section));
        let has_ended = generation.has_ended();
        drop(section);
        if (is_marked || removed.is_some()) && !has_ended {
            self.count_expired(freshness, || match &removed {
                Some(entry) => About::of(entry),
                None => About::on_disk(generation.name(), key.bytes, None),
            });
        }
    }

    /// Removes a flushed or expired entry. None if it is neither, or another caller has.
    pub(crate) fn remove_dead(&self, entry: &Entry) -> Option<Removed> {
        if entry.generation.has_ended() {
            let is_removed = self.l1.remove_entry(entry);
            if is_removed {
                self.release_accounting(entry, None, &mut self.commit_lock.section());
            }
            return is_removed.then_some(Removed::Flushed);
        }
        let freshness = self.visibility.freshness(entry);
        let is_removed = freshness.is_expired() && self.expire(entry, freshness);
        is_removed.then_some(Removed::Expired)
    }
}

pub(crate) enum Removed {
    Expired,
    Flushed,
}
