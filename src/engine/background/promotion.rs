//! `Promoter`: inserts entries that were read from disk into memory.
//!
//! The caller that has read an entry inserts it, if that takes one batch and no other caller is
//! committing: it is awake anyway, and a wakeup of another thread costs more than the insertion.
//! Otherwise the entry goes into the queue, which a task empties.

use std::sync::{Arc, Weak};

use futures::FutureExt;

use crate::commit_lock::CommitLock;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::background::promotion_queue::{PAUSE, Promotions};
use crate::engine::disk_tier::DiskTier;
use crate::engine::eviction::Eviction;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::events::{About, EntryChange, Events};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::TaskRunner;
use crate::l1::{L1, Room};
use crate::pending::PendingInvalidations;
use crate::put::Value;

pub(crate) struct Promoter {
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    last_access: LastAccess,
    visibility: Visibility,
    removal: Removal,
    expired: ExpiredSlots,
    renewed: RenewedSlots,
    disk: Arc<DiskTier>,
    deadlines: Arc<Deadlines>,
    eviction: Eviction,
    events: Events,
    queue: Arc<Promotions>,
}

impl Promoter {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            last_access: LastAccess::new(parts),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            expired: ExpiredSlots::new(parts),
            renewed: RenewedSlots::new(parts),
            disk: parts.disk.clone(),
            deadlines: parts.deadlines.clone(),
            eviction: Eviction::new(parts),
            events: parts.events.clone(),
            queue: parts.promotions.clone(),
        }
    }

    /// Inserts an entry that was read, now or later. Waiting, it keeps `bytes` in memory.
    pub(crate) fn offer(&self, read: &Arc<Entry>, bytes: usize) {
        // A value that is still to be copied is left to the task: the caller's poll has been long.
        // The caller has just judged the entry, so only the section asks again.
        let is_short = read.is(Mark::Exact) && !self.commit_lock.is_busy();
        match is_short.then(|| self.promote(read).now_or_never()).flatten() {
            Some(is_done) => self.queue.count_unqueued(is_done),
            None => self.queue.offer(read, bytes),
        }
    }

    /// Makes an entry as stale as its record is. False if that is not live any more, or has other
    /// deadlines by now.
    fn is_restored(&self, read: &Entry) -> bool {
        if failpoint(Failpoint::ExpiryNotPromoted) {
            return self.visibility.is_on_disk(&read.generation, read.hash, read.sequence());
        }
        let is_renewed = !self.renewed.are_current(read);
        self.expired.restore(read) && (!is_renewed || failpoint(Failpoint::RenewalNotPromoted))
    }

    /// Whether its key has not been mutated since it was read, and it has not expired.
    fn is_current(&self, read: &Entry) -> bool {
        self.last_access.restore(read);
        !self.disk.is_off()
            && self.pending.matching(read).is_none()
            && self.is_restored(read)
            && !self.visibility.freshness(read).is_expired()
    }

    /// Inserts an entry that has waited. One that is not current any more evicts nothing.
    async fn promote_later(&self, read: &Arc<Entry>) -> bool {
        let is_current = self.is_current(read) || failpoint(Failpoint::PromotionUnchecked);
        is_current && self.promote(read).await
    }

    /// Inserts an entry, if it is current. Cancelled, it leaves nothing behind.
    pub(crate) async fn promote(&self, read: &Arc<Entry>) -> bool {
        let room = Room { bytes: read.charge, spare: 0 };
        let reservation = self.eviction.reserve(&read.generation, room, read.priority).await;
        let Some(reservation) = reservation else { return false };
        let value = read.value.clone();
        let is_exact = read.is(Mark::Exact);
        let value = if is_exact { Value::Exact(value) } else { Value::Shared(value) };
        let value = value.into_exact().await;
        let entry = read.promoted(value, read.charge);
        let place = self.l1.lock_place(read.hash);
        let mut section = self.commit_lock.section();
        let is_wanted = place.entry().is_none() && self.is_current(read);
        if section.is_closed() || !(is_wanted || failpoint(Failpoint::PromotionUnchecked)) {
            return false;
        }
        // Readers may have hit it meanwhile.
        entry.accessed_like(read);
        entry.expire_like(read);
        entry.generation.grow(entry.charge, &mut section);
        let ends = entry.ends();
        let replaced = place.put(Arc::new(entry));
        drop(reservation);
        if let Some(replaced) = &replaced {
            // An entry of an ended generation, or of another namespace with the same hash.
            self.removal.release_accounting(replaced, None, &mut section);
        }
        drop(section);
        self.deadlines.note_end(ends);
        self.events.tell(EntryChange::Promoted, || About::of(read));
        true
    }
}

/// The task: promotes until the queue is closed or the cache is gone.
pub(crate) async fn run(
    promotions: Arc<Promotions>,
    runner: Arc<dyn TaskRunner>,
    promoter: Weak<Promoter>,
) {
    // Bounded: a wait in each turn.
    while let Some(entry) = promotions.next(|| runner.sleep(PAUSE)).await {
        let Some(promoter) = promoter.upgrade() else { return };
        let is_done = promoter.promote_later(&entry).await;
        promotions.count(is_done);
    }
}
