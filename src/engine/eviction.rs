//! Making room in memory: SIEVE's victims go, of all namespaces or of one that has a quota.

use std::sync::Arc;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::l1::{L1, Owner, Reservation, Room, Scarce, Victim};
use crate::namespace::Namespace;
use crate::pending::PendingInvalidations;
use crate::sweep::SweepReport;

/// See the module.
pub(crate) struct Eviction {
    counters: Arc<Counters>,
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    last_access: LastAccess,
    visibility: Visibility,
    removal: Removal,
    cleanup: Cleanup,
}

impl Eviction {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            last_access: LastAccess::new(parts),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            cleanup: Cleanup::new(parts),
        }
    }

    /// Evicts entries of priorities up to `priority`, until there is so much room. False where only
    /// those above it are left.
    pub(crate) async fn make_room(&self, room: Room, priority: u8) -> bool {
        // Bounded: a step in each turn, then a pause.
        loop {
            if self.l1.is_over(room) {
                // What is hidden already makes room as well.
                self.cleanup.help_along(BATCH_ENTRIES);
            }
            let mut steps = BATCH_ENTRIES;
            // Bounded: by the steps that are left.
            while let Some(victim) = self.l1.evict(room, priority, &mut steps, self) {
                self.let_go(&victim);
            }
            if !self.l1.is_over(room) {
                return true;
            }
            if steps > 0 {
                return false;
            }
            yield_now().await;
        }
    }

    /// Makes room for an entry of a namespace and sets it aside: first in the namespace's quota, if
    /// it has one, where only its own entries give way, and then in memory. None where only entries
    /// above `priority` are left, or puts under way have taken the quota: then the entry is as good
    /// as evicted.
    ///
    /// Nothing is set aside from one poll to the next before it returns.
    pub(crate) async fn reserve(
        &self,
        namespace: &Namespace,
        room: Room,
        priority: u8,
    ) -> Option<Reservation<'_>> {
        let quota = namespace.quota().map(|quota| quota.number);
        let begun = self.pending.round();
        let mut steps = BATCH_ENTRIES;
        // Bounded: a step in each turn, then a pause.
        loop {
            let number = match (self.l1.reserve(room, quota), quota) {
                (Ok(reservation), _) => return Some(reservation),
                (Err(Scarce::Quota), Some(number)) => number,
                (Err(Scarce::Quota | Scarce::Budget), _) => {
                    if !self.make_room(room, priority).await {
                        return None;
                    }
                    continue;
                }
            };
            if self.evict_of(number, priority, &mut steps).await {
                continue;
            }
            // What was flushed may be of any priority, and counts until the round comes by.
            let is_all_alive = self.l1.bytes_of(number) <= namespace.bytes();
            if is_all_alive || self.pending.round().is_round_since(begun) {
                return None;
            }
            self.cleanup.run_round_batch(BATCH_ENTRIES, true, &mut SweepReport::default());
            yield_now().await;
        }
    }

    /// Evicts entries of a namespace that has a quota, until what it holds is within it.
    pub(crate) async fn keep_to_quota(&self, namespace: &Namespace) {
        let Some(quota) = namespace.quota() else { return };
        let (number, mut steps) = (quota.number, BATCH_ENTRIES);
        // Bounded: by the steps that are left, then a pause.
        while self.l1.is_beyond(number) && self.evict_of(number, u8::MAX, &mut steps).await {}
    }

    /// Evicts an entry of the namespace that has the quota of that number, and pauses where `steps`
    /// are used up. False where only those above `priority` are left.
    async fn evict_of(&self, quota: usize, priority: u8, steps: &mut usize) -> bool {
        // Bounded: by the steps that are left, then a pause.
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
            Victim::Gone(entry) => _ = self.removal.remove_dead(entry),
        }
    }

    /// Settles what hangs on an entry that was evicted.
    fn evicted(&self, victim: &Entry) {
        let covering = self.pending.matching(victim);
        let is_hidden = covering.is_some() || victim.namespace.has_ended();
        // What has a slot is counted when that is buried.
        let below = victim.namespace.live_slot(victim.hash, victim.sequence());
        let counting = covering.as_deref().filter(|_| below.is_none());
        self.removal.release_accounting(victim, counting, &mut self.commit_lock.section());
        if !is_hidden {
            self.counters.count(Event::Eviction);
            self.counters.add(Event::Forgotten, u64::from(below.is_none()));
            // Hits may have been given while it left.
            self.last_access.record(victim);
        }
    }
}

impl Owner for Eviction {
    fn is_gone(&self, entry: &Entry) -> bool {
        entry.namespace.has_ended() || self.visibility.freshness(entry).is_gone()
    }

    /// Whoever finds that memory does not hold it judges by what is known elsewhere.
    fn leaves(&self, entry: &Entry) {
        self.last_access.record(entry);
    }
}
