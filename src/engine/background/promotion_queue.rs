//! `Promotions`: the queue of entries that were read from disk, on their way into memory.
//! A hit on disk offers its entry and never waits: a full queue drops its oldest entry. A task
//! copies one value after another and inserts it in a commit section if its slot is still in the
//! index, so that it cannot replace a later mutation.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::batch::BATCH_ENTRIES;
use crate::disposal::Remains;
use crate::entry::Entry;
use crate::meter;

/// The queue may take this share of the memory budget.
const L1_SHARE: usize = 8;

#[derive(Debug)]
pub(crate) struct Promotions {
    queue: Mutex<QueuedEntries>,
    waker: AtomicWaker,
    values_max: usize,
    bytes_max: usize,
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
            values_max,
            bytes_max: l1_bytes_max / L1_SHARE,
            queued: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            completed: AtomicU64::new(0),
        }
    }

    /// Adds an entry. Drops the oldest ones if there is no room.
    pub(crate) fn offer(&self, entry: &Arc<Entry>, bytes: usize) {
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
        let is_over = |queue: &QueuedEntries| {
            queue.bytes > self.bytes_max || queue.entries.len() > self.values_max
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
        drop(queue);
        self.dropped.fetch_add(pushed_out.len() as u64, Ordering::Relaxed);
        self.waker.wake();
    }

    pub(crate) async fn next(&self) -> Option<Arc<Entry>> {
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
