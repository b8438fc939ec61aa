//! `Removal`: takes entries out of either tier and releases their accounting: budgets, postings and
//! counts, each once.

use std::ptr;
use std::sync::Arc;

use crate::commit_lock::{CommitLock, Section};
use crate::counters::{Counters, Event};
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::key::KeyHash;
use crate::l1::L1;
use crate::l2::Slot;
use crate::namespace::Namespace;
use crate::pending::PendingInvalidation;
use crate::policy::Freshness;
use crate::sequence::Sequence;

/// See the module.
pub(crate) struct Removal {
    counters: Arc<Counters>,
    commit_lock: Arc<CommitLock>,
    l1: Arc<L1>,
    visibility: Visibility,
    budget: Arc<IndexBudget>,
}

impl Removal {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            commit_lock: parts.commit_lock.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            budget: parts.budget.clone(),
        }
    }

    /// Settles what hangs on an entry that this caller has taken out of L1, which `covering`
    /// covered while it was there.
    pub(crate) fn release_accounting(
        &self,
        entry: &Entry,
        covering: Option<&PendingInvalidation>,
        section: &mut Section<'_>,
    ) {
        entry.namespace.shrink(entry.charge, section);
        if !entry.is(Mark::OnFile) {
            self.budget.remove_labels_of(entry);
        }
        // While its record is on disk, its labels must go on leading to it, though it be gone:
        // another open, with another clock, may see it otherwise. Where it has no record, the slot
        // is that of the tombstone which stands for it there.
        let (generation, sequence) = (&entry.namespace, entry.sequence());
        if !entry.is(Mark::OnFile) || !generation.has_slot(entry.hash, sequence) {
            section.labels().release(entry.hash, sequence);
        }
        if let Some(rule) = covering {
            let freshness = self.visibility.freshness(entry);
            if freshness.is_gone() {
                self.count_expired(freshness);
            } else {
                self.credit(rule);
            }
        }
    }

    /// Counts an entry that no rule has covered, and that was removed from memory by a mutation of
    /// its key, as `event`; unless it had ended.
    pub(crate) fn count_removed(&self, entry: &Entry, event: Event) {
        // What was flushed has been counted then.
        if entry.namespace.has_ended() {
            return;
        }
        let freshness = self.visibility.freshness(entry);
        if freshness.is_gone() {
            self.count_expired(freshness);
        } else {
            self.counters.count(event);
        }
    }

    pub(crate) fn count_expired(&self, freshness: Freshness) {
        self.counters.count(Event::Expiration);
        self.counters.add(Event::IdleExpiration, u64::from(freshness == Freshness::Idle));
    }

    /// A rule had covered what this caller has removed, though it has not come to it itself.
    pub(crate) fn credit(&self, rule: &PendingInvalidation) {
        rule.count();
        self.counters.count(Event::Invalidation);
    }

    /// What the disk holds of a key is about to be replaced or removed, with the entry that memory
    /// has of the same mutation: it lets go of its labels, and is counted by a rule in force that
    /// had made it gone. True where it was there until now, and not known to be expired. What has a
    /// slot is counted here, or where its slot is buried, and nowhere else.
    pub(crate) fn displace(
        &self,
        generation: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        held: Slot,
        in_memory: Option<&Arc<Entry>>,
        section: &mut Section<'_>,
    ) -> bool {
        let sequence = Sequence(held.position.value());
        let rule = match held.gone {
            true => None,
            false => self.visibility.matching_on_disk(generation, (key, hash), sequence, section),
        };
        section.labels().release(hash, sequence);
        if held.gone {
            return false;
        }
        let freshness = in_memory.map(|entry| self.visibility.freshness(entry));
        if let Some(freshness) = freshness.filter(|freshness| freshness.is_gone()) {
            self.count_expired(freshness);
            return false;
        }
        rule.as_deref().inspect(|rule| self.credit(rule)).is_none()
    }

    /// The slot of a hash holds nothing any more, if it still stands for that mutation. It stays,
    /// since its record is still on file and so may be what it shadows. False where it does not.
    pub(crate) fn mark_dead(
        &self,
        generation: &Namespace,
        hash: KeyHash,
        sequence: Sequence,
    ) -> bool {
        let is_it = |entry: &Entry| entry.sequence() == sequence && entry.is_held();
        let is_in_memory = self.l1.find(hash, is_it).is_some();
        let is_marked = generation.mark_dead(hash, sequence, &mut self.commit_lock.section());
        self.counters.add(Event::Forgotten, u64::from(is_marked && !is_in_memory));
        is_marked
    }

    /// Removes an entry that was found past its life in memory, from both tiers. False where
    /// somebody else has.
    #[cold]
    pub(crate) fn expire(&self, entry: &Entry, freshness: Freshness) -> bool {
        let slot = self.l1.slot(entry.hash);
        if !slot.entry().is_some_and(|held| ptr::eq(&**held, entry)) {
            return false;
        }
        let mut section = self.commit_lock.section();
        let Some(removed) = slot.remove() else { return false };
        removed.namespace.mark_dead(removed.hash, removed.sequence(), &mut section);
        self.release_accounting(&removed, None, &mut section);
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
    pub(crate) fn expire_on_disk(
        &self,
        generation: &Namespace,
        (hash, sequence): (KeyHash, Sequence),
        freshness: Freshness,
    ) {
        let slot = self.l1.slot(hash);
        let held = slot.entry().filter(|entry| entry.sequence() == sequence);
        let held = held.map(|entry| self.visibility.freshness(entry).is_gone());
        let mut section = self.commit_lock.section();
        let removed = match held {
            Some(true) => slot.remove(),
            Some(false) => return,
            None => None,
        };
        let is_marked = generation.mark_dead(hash, sequence, &mut section);
        removed.as_ref().inspect(|entry| self.release_accounting(entry, None, &mut section));
        let has_ended = generation.has_ended();
        drop(section);
        if (is_marked || removed.is_some()) && !has_ended {
            self.count_expired(freshness);
        }
    }

    /// Removes an entry whose namespace has ended, or that is past its life. None where it is not,
    /// or somebody else has.
    pub(crate) fn remove_dead(&self, entry: &Entry) -> Option<Gone> {
        if entry.namespace.has_ended() {
            let is_removed = self.l1.remove_entry(entry);
            if is_removed {
                self.release_accounting(entry, None, &mut self.commit_lock.section());
            }
            return is_removed.then_some(Gone::Dead);
        }
        let freshness = self.visibility.freshness(entry);
        let is_removed = freshness.is_gone() && self.expire(entry, freshness);
        is_removed.then_some(Gone::Expired)
    }
}

/// Why readers cannot be given an entry any more.
pub(crate) enum Gone {
    Expired,
    /// Its namespace was flushed.
    Dead,
}
