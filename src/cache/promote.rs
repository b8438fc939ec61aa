//! Promoting: what was read from disk is offered to memory, and installed there by a task.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::cache::promotions::Promotions;
use crate::cache::shared::Shared;
use crate::entry::Entry;
use crate::flaw::{Flaw, planted};
use crate::io::BLOCK_BYTES;
use crate::l1::Room;
use crate::put::Value;

/// The task: promotes until the queue is closed or the cache is gone.
pub(super) async fn promote(promotions: Arc<Promotions>, shared: Weak<Shared>) {
    // Bounded: a wait in each turn.
    while let Some(entry) = promotions.next().await {
        let Some(shared) = shared.upgrade() else { return };
        let done = shared.promote(&entry).await;
        let counter = if done { &promotions.completed } else { &promotions.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Offers an entry that was read from disk to memory, if memory may hold it. Until it has been
    /// copied it keeps all the blocks that were read for it.
    pub(super) fn offer(&self, entry: &Arc<Entry>, blocks: u16) {
        let quota = entry.namespace.quota().and_then(|quota| quota.limits.l1_bytes_max);
        let max = self.l1_charge_max(entry.admission).min(quota.unwrap_or(usize::MAX));
        if entry.charge <= max {
            let read = usize::from(blocks) * BLOCK_BYTES;
            self.promotions.offer(entry, entry.charge.max(read));
        }
    }

    /// Installs an entry that was read from disk, if nothing has happened to its key since.
    pub(super) async fn promote(&self, read: &Arc<Entry>) -> bool {
        let is_current = || {
            self.recall_access(read);
            !self.is_off()
                && self.is_on_disk(&read.namespace, read.hash, read.sequence())
                && self.rules.covering(read).is_none()
                && !self.freshness(read).is_gone()
        };
        if !is_current() && !planted(Flaw::PromotionUnchecked) {
            return false;
        }
        let room = Room { bytes: read.charge, spare: 0 };
        let reservation = self.reserve(&read.namespace, room, read.priority).await;
        let Some(reservation) = reservation else { return false };
        let value = Value::Shared(read.value.clone()).into_exact().await;
        let entry = read.promoted(value, read.charge);
        let slot = self.l1.slot(read.hash);
        let mut section = self.order.section();
        let is_wanted = slot.entry().is_none() && is_current();
        if section.is_closed() || !(is_wanted || planted(Flaw::PromotionUnchecked)) {
            return false;
        }
        // It may have been asked for again meanwhile.
        entry.accessed_like(read);
        entry.namespace.grow(entry.charge, &mut section);
        let ends = entry.ends();
        let replaced = slot.put(Arc::new(entry));
        drop(reservation);
        if let Some(replaced) = &replaced {
            // Of a generation that has ended, of another namespace with the same hash.
            self.settle(replaced, None, &mut section);
        }
        drop(section);
        self.note_end(ends);
        true
    }
}
