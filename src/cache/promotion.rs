//! `Promotions`: values that were read from disk, on their way into memory.
//!
//! A hit on disk is answered at once. Its entry is offered to a queue, which never waits: where it
//! is full, what has waited longest goes. A task on the disk's side copies one value after the
//! other and installs it in an append section, if the slot that it was read by still stands, so
//! that it cannot come between a later mutation and those who have seen it. Nothing is read twice.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::cache::shared::Shared;
use crate::entry::Entry;
use crate::flaw::{Flaw, planted};
use crate::io::BLOCK_BYTES;
use crate::put::Value;

/// The part of the memory tier's budget that values in the queue may take.
const L1_SHARE: usize = 8;

#[derive(Debug)]
pub(super) struct Promotions {
    queue: Mutex<Queue>,
    /// The task's.
    waker: AtomicWaker,
    values_max: usize,
    bytes_max: usize,
    pub(super) queued: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) completed: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    /// With what each keeps in memory.
    entries: VecDeque<(Arc<Entry>, usize)>,
    bytes: usize,
    is_closed: bool,
}

impl Promotions {
    pub(super) fn new(values_max: usize, l1_bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            values_max,
            bytes_max: l1_bytes_max / L1_SHARE,
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        }
    }

    /// Puts an entry into the queue, and what has waited longest out of it where there is no room.
    fn offer(&self, entry: &Arc<Entry>, bytes: usize) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        let mut pushed_out = Vec::new();
        let mut queue = self.queue.lock();
        if queue.is_closed || bytes > self.bytes_max {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += bytes;
        queue.entries.push_back((Arc::clone(entry), bytes));
        while queue.bytes > self.bytes_max || queue.entries.len() > self.values_max {
            pushed_out.extend(queue.take());
        }
        drop(queue);
        self.dropped.fetch_add(pushed_out.len() as u64, Ordering::Relaxed);
        self.waker.wake();
    }

    /// The next one; None once the queue is closed.
    async fn next(&self) -> Option<Arc<Entry>> {
        poll_fn(|context| {
            self.waker.register(context.waker());
            let mut queue = self.queue.lock();
            match queue.take() {
                _ if queue.is_closed => Poll::Ready(None),
                Some(entry) => Poll::Ready(Some(entry)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Lets go of what waits, and ends the task.
    pub(super) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        let left = std::mem::take(&mut queue.entries);
        queue.bytes = 0;
        drop(queue);
        self.dropped.fetch_add(left.len() as u64, Ordering::Relaxed);
        self.waker.wake();
    }

    /// How many wait.
    pub(super) fn depth(&self) -> usize {
        self.queue.lock().entries.len()
    }

    /// What they keep in memory.
    pub(super) fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }
}

impl Queue {
    fn take(&mut self) -> Option<Arc<Entry>> {
        let (entry, bytes) = self.entries.pop_front()?;
        self.bytes -= bytes;
        Some(entry)
    }
}

/// The task: promotes until the queue is closed or the cache is gone.
pub(super) async fn promote(promotions: Arc<Promotions>, shared: Weak<Shared>) {
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
    async fn promote(&self, read: &Arc<Entry>) -> bool {
        let is_current = || {
            !self.is_off()
                && self.is_on_disk(&read.namespace, read.hash, read.sequence())
                && self.rules.covering(read).is_none()
                && !self.freshness(read).is_gone()
        };
        if !is_current() && !planted(Flaw::PromotionUnchecked) {
            return false;
        }
        let reservation = self.l1.reserve(read.charge);
        let own = (read.charge, 0);
        if !self.make_room_in(&read.namespace, own, read.priority).await
            || !self.make_room(0, read.priority).await
        {
            return false;
        }
        let value = Value::Shared(read.value.clone()).into_exact().await;
        let entry = read.promoted(value, read.charge, self.clock.timestamp());
        let slot = self.l1.slot(read.hash);
        let mut section = self.order.section();
        let is_wanted = slot.entry().is_none() && is_current();
        if section.is_closed() || !(is_wanted || planted(Flaw::PromotionUnchecked)) {
            return false;
        }
        entry.namespace.grow(entry.charge);
        let ends = entry.ends();
        drop(reservation);
        let replaced = slot.put(Arc::new(entry));
        if let Some(replaced) = &replaced {
            // Of a generation that has ended, of another namespace with the same hash.
            self.settle(replaced, None, &mut section);
        }
        drop(section);
        self.note_end(ends);
        true
    }
}
