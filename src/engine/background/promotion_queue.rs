//! `Promotions`: the queue of entries that were read from disk, on their way into memory.
//! A hit on disk offers its entry and never waits: a full queue drops its oldest entry. A task
//! inserts one entry after another in a commit section if its slot is still in the index, so that
//! it cannot replace a later mutation. While entries keep coming, the task wakes up once for all
//! entries of a [`PAUSE`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::future::{BoxFuture, select};
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::disposal::Remains;
use crate::entry::Entry;
use crate::meter;

/// How long the task lets entries collect.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

/// The queue may take this share of the memory budget.
const L1_SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Promotions {
    queue: Mutex<QueuedEntries>,
    waker: AtomicWaker,
    /// Whether the task collects a batch, and needs no wakeup before the batch is large.
    is_collecting: AtomicBool,
    values_max: usize,
    bytes_max: AtomicUsize,
    pub(crate) queued: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) completed: AtomicU64,
}

#[derive(Debug, Default)]
struct QueuedEntries {
    /// Each with the bytes that it keeps in memory.
    entries: VecDeque<(Arc<Entry>, usize)>,
    bytes: usize,
    is_closed: bool,
}

impl Promotions {
    pub(crate) fn new(values_max: usize, l1_bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            waker: AtomicWaker::new(),
            is_collecting: AtomicBool::new(false),
            values_max,
            bytes_max: AtomicUsize::new(l1_bytes_max / L1_SHARE),
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        }
    }

    /// The share of another memory budget. Drops the oldest entries that exceed it.
    pub(crate) async fn fit(&self, l1_bytes_max: usize) {
        self.bytes_max.store(l1_bytes_max / L1_SHARE, Ordering::Relaxed);
        // Bounded: a batch in each turn, then a yield.
        loop {
            let pushed_out = self.push_out();
            if pushed_out.is_empty() {
                return;
            }
            self.dropped.fetch_add(pushed_out.len() as u64, Ordering::Relaxed);
            drop(pushed_out);
            yield_now().await;
        }
    }

    /// A batch of the oldest entries that there is no room for.
    fn push_out(&self) -> Vec<Arc<Entry>> {
        let (mut pushed_out, mut queue) = (Vec::new(), self.queue.lock());
        while queue.bytes > self.bytes_max() && pushed_out.len() < BATCH_ENTRIES {
            meter::entries(1);
            pushed_out.extend(queue.take());
        }
        pushed_out
    }

    fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Adds an entry. Drops the oldest ones if there is no room.
    pub(crate) fn offer(&self, entry: &Arc<Entry>, bytes: usize) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        let mut pushed_out = Vec::new();
        let mut queue = self.queue.lock();
        if queue.is_closed || bytes > self.bytes_max() {
            drop(queue);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += bytes;
        queue.entries.push_back((Arc::clone(entry), bytes));
        let is_over = |queue: &QueuedEntries| {
            queue.bytes > self.bytes_max() || queue.entries.len() > self.values_max
        };
        while is_over(&queue) && pushed_out.len() < BATCH_ENTRIES {
            meter::entries(1);
            pushed_out.extend(queue.take());
        }
        // An entry that would drop more than a batch is not worth it.
        if is_over(&queue) {
            queue.bytes -= bytes;
            pushed_out.extend(queue.entries.pop_back().map(|(entry, _)| entry));
        }
        let is_due = self.is_due(&queue);
        drop(queue);
        self.dropped.fetch_add(pushed_out.len() as u64, Ordering::Relaxed);
        if is_due || !self.is_collecting.load(Ordering::Acquire) {
            self.waker.wake();
        }
    }

    /// Counts an entry that was taken from the queue: whether it was inserted.
    pub(crate) fn count(&self, is_done: bool) {
        let counter = if is_done { &self.completed } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an entry that did not have to wait.
    pub(crate) fn count_unqueued(&self, is_done: bool) {
        self.queued.fetch_add(1, Ordering::Relaxed);
        self.count(is_done);
    }

    /// The next entry; None after a close. When the queue has become empty, collects a batch for
    /// as long as `pause` lasts, so that many reads cost one wakeup.
    pub(crate) async fn next(
        &self,
        pause: impl FnOnce() -> BoxFuture<'static, ()>,
    ) -> Option<Arc<Entry>> {
        if let Some(next) = self.try_next() {
            return next;
        }
        self.is_collecting.store(true, Ordering::Release);
        let due = poll_fn(|context| {
            self.waker.register(context.waker());
            if self.is_due(&self.queue.lock()) { Poll::Ready(()) } else { Poll::Pending }
        });
        select(pause(), due).await;
        self.is_collecting.store(false, Ordering::Release);
        poll_fn(|context| {
            self.waker.register(context.waker());
            self.try_next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Whether the queue is to be emptied at once.
    fn is_due(&self, queue: &QueuedEntries) -> bool {
        let is_half_full =
            2 * queue.bytes > self.bytes_max() || 2 * queue.entries.len() > self.values_max;
        is_half_full || queue.is_closed
    }

    /// The next entry, or None after a close. None if there is neither.
    fn try_next(&self) -> Option<Option<Arc<Entry>>> {
        let mut queue = self.queue.lock();
        match queue.take() {
            _ if queue.is_closed => Some(None),
            Some(entry) => Some(Some(entry)),
            None => None,
        }
    }

    /// Drops the waiting entries, and ends the task.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        let left = std::mem::take(&mut queue.entries);
        queue.bytes = 0;
        drop(queue);
        self.dropped.fetch_add(left.len() as u64, Ordering::Relaxed);
        drop(Remains::new(left.into_iter().map(|_| 1)));
        self.waker.wake();
    }

    pub(crate) fn depth(&self) -> usize {
        self.queue.lock().entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }
}

impl QueuedEntries {
    fn take(&mut self) -> Option<Arc<Entry>> {
        let (entry, bytes) = self.entries.pop_front()?;
        self.bytes -= bytes;
        Some(entry)
    }
}
