//! `Eviction`: makes room in memory, at the cost of all namespaces or of one that has a quota.

use std::sync::Arc;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::disk_admission::DiskAdmission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::index_budget::IndexBudget;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::events::{About, EntryChange, Events};
use crate::l1::{EntryOwner, L1, Reservation, Room, Scarce, Victim};
use crate::l2::Slot;
use crate::namespace::Generation;
use crate::pending::PendingInvalidations;
use crate::sweep::SweepReport;

pub(crate) struct Eviction {
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    last_access: LastAccess,
    visibility: Visibility,
    removal: Removal,
    cleanup: Cleanup,
    disk: Arc<DiskTier>,
    disk_admission: Arc<DiskAdmission>,
    budget: Arc<IndexBudget>,
}

impl Eviction {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            last_access: LastAccess::new(parts),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            cleanup: Cleanup::new(parts),
            disk: parts.disk.clone(),
            disk_admission: parts.disk_admission.clone(),
            budget: parts.budget.clone(),
        }
    }

    /// Evicts entries up to `priority` until there is room. False if only higher ones are left.
    pub(crate) async fn make_room(&self, room: Room, priority: u8) -> bool {
        // Bounded: a batch in each turn, then a yield.
        while self.l1.is_over(room) {
            // Removing entries that readers cannot see makes room as well.
            self.cleanup.help_along(BATCH_ENTRIES);
            let mut steps = BATCH_ENTRIES;
            // Bounded: by the steps that are left.
            while let Some(victim) = self.l1.evict(room, priority, &mut steps, self) {
                self.let_go(&victim);
            }
            if !self.l1.is_over(room) {
                return true;
            }
            // Steps are also left if there was room for a moment, which another caller has taken.
            if steps > 0 && !self.l1.holds_any(priority) {
                return false;
            }
            yield_now().await;
        }
        true
    }

    /// Reserves room for an entry: first in its namespace's quota, if there is one, at the cost of
    /// that namespace only; then in memory. None if only entries above `priority` are left, or if
    /// puts under way have taken the quota, or if memory is too small for it.
    ///
    /// Holds no reservation across an await.
    pub(crate) async fn reserve(
        &self,
        generation: &Generation,
        room: Room,
        priority: u8,
    ) -> Option<Reservation<'_>> {
        let quota = generation.quota().map(|quota| quota.number);
        // Only a quota waits for a round.
        let begun = quota.map(|_| self.pending.round()).unwrap_or_default();
        let mut steps = BATCH_ENTRIES;
        // Bounded: a batch in each turn, then a yield.
        loop {
            let number = match (self.l1.reserve(room, quota), quota) {
                (Ok(reservation), _) => return Some(reservation),
                (Err(Scarce::Quota), Some(number)) => number,
                (Err(Scarce::Quota | Scarce::Budget), _) => {
                    // The budget may have become smaller since the entry was admitted.
                    if !self.l1.could_hold(room) || !self.make_room(room, priority).await {
                        return None;
                    }
                    continue;
                }
            };
            if self.evict_of(number, priority, &mut steps).await {
                continue;
            }
            // Flushed entries of any priority count until the round removes them.
            let is_all_alive = self.l1.bytes_of(number) <= generation.bytes();
            if is_all_alive || self.pending.round().is_round_since(begun) {
                return None;
            }
            self.cleanup.run_round_batch(BATCH_ENTRIES, true, &mut SweepReport::default());
            yield_now().await;
        }
    }

    pub(crate) async fn keep_to_quota(&self, generation: &Generation) {
        let Some(quota) = generation.quota() else { return };
        let (number, mut steps) = (quota.number, BATCH_ENTRIES);
        // Bounded: by the steps that are left, then a yield.
        while self.l1.is_beyond(number) && self.evict_of(number, u8::MAX, &mut steps).await {}
    }

    /// Evicts one entry of the quota's namespace. False if only ones above `priority` are left.
    async fn evict_of(&self, quota: usize, priority: u8, steps: &mut usize) -> bool {
        // Bounded: by the steps that are left, then a yield.
        loop {
            if *steps == 0 {
                yield_now().await;
                *steps = BATCH_ENTRIES;
            }
            if let Some(victim) = self.l1.evict_of(quota, priority, steps, self) {
                self.let_go(&victim);
                return true;
            }
            if *steps > 0 {
                return false;
            }
        }
    }

    fn let_go(&self, victim: &Victim) {
        match victim {
            Victim::Evicted(entry) => self.evicted(entry),
            Victim::Dead(entry) => _ = self.removal.remove_dead(entry),
        }
    }

    fn evicted(&self, victim: &Entry) {
        let matching = self.pending.matching(victim);
        let is_hidden = matching.is_some() || victim.generation.has_ended();
        // An entry with a slot is counted when its slot is marked dead.
        let below = victim.generation.live_slot(victim.hash, victim.sequence());
        let counting = matching.as_deref().filter(|_| below.is_none());
        self.removal.release_accounting(victim, counting, &mut self.commit_lock.section());
        if !is_hidden {
            self.counters.count(Event::Eviction);
            let change = EntryChange::Evicted { on_disk: below.is_some() };
            self.events.tell(change, || About::of(victim));
            self.counters.add(Event::Forgotten, u64::from(below.is_none()));
            if victim.hits.is_in_use() {
                self.hand_down(victim, below);
            }
            // Readers may have hit it while it left.
            self.last_access.record(victim);
        }
    }

    /// Memory answered instead of the disk, which learns now that the entry is in use.
    fn hand_down(&self, victim: &Entry, below: Option<Slot>) {
        match below {
            // As for the log, it was used once.
            Some(slot) => _ = victim.generation.index().mark_read(victim.hash, slot.position),
            // The disk may have refused it: it is known when it comes back.
            None if self.disk.is_off() => {}
            None => drop(self.disk_admission.left_memory(victim.hash, || self.budget.usage())),
        }
    }
}

impl EntryOwner for Eviction {
    fn is_dead(&self, entry: &Entry) -> bool {
        entry.generation.has_ended() || self.visibility.freshness(entry).is_expired()
    }

    /// A reader that misses it in memory asks the access times.
    fn leaves(&self, entry: &Entry) {
        self.last_access.record(entry);
    }
}
