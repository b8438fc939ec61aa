//! Making room in memory: SIEVE's victims go, of all namespaces or of one that has a quota.

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::Entry;
use crate::namespace::Namespace;
use crate::step::{STEP_ENTRIES, pause};

impl Shared {
    /// Evicts entries of priorities up to `priority`, until no more than the budget and `spare` is
    /// in use. False where only those above it are left.
    pub(super) async fn make_room(&self, spare: usize, priority: u8) -> bool {
        loop {
            if self.l1.is_over(spare) {
                // What is gone anyway goes first.
                self.help_along(STEP_ENTRIES);
            }
            let mut steps = STEP_ENTRIES;
            while let Some(victim) = self.l1.evict(spare, priority, &mut steps) {
                self.evicted(&victim);
            }
            if !self.l1.is_over(spare) {
                return true;
            }
            if steps > 0 {
                return false;
            }
            pause().await;
        }
    }

    /// Evicts entries of a namespace that has a quota, until what it holds and `wanted` are within
    /// that and `spare`. Likewise.
    pub(super) async fn make_room_in(
        &self,
        namespace: &Namespace,
        (wanted, spare): (usize, usize),
        priority: u8,
    ) -> bool {
        let Some(quota) = namespace.quota() else { return true };
        let max = quota.limits.l1_bytes_max.map_or(usize::MAX, |max| max.saturating_add(spare));
        let is_over = || namespace.bytes().saturating_add(wanted) > max;
        while is_over() {
            let mut steps = STEP_ENTRIES;
            while is_over() {
                let Some(victim) = self.l1.evict_of(quota.number, priority, &mut steps) else {
                    break;
                };
                self.evicted(&victim);
            }
            if is_over() && steps > 0 {
                return false;
            }
            pause().await;
        }
        true
    }

    /// Settles what hangs on an entry that was evicted.
    fn evicted(&self, victim: &Entry) {
        let covering = self.rules.covering(victim);
        // What has a slot is counted when that is buried.
        let below = victim.namespace.live_slot(victim.hash, victim.sequence());
        let counting = covering.as_deref().filter(|_| below.is_none());
        self.settle(victim, counting, &mut self.order.section());
        if covering.is_none() && !victim.namespace.has_ended() {
            self.counters.count(Event::Eviction);
        }
    }
}
