//! `Freeing`: what the flushes of one cache have left. It counts as memory until it is free.
//!
//! A worker in the background frees it in batches. Whoever needs the memory helps, so nobody waits
//! for the worker alone, and what is left cannot grow as fast as callers fill the cache again.

use std::collections::VecDeque;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Remains;

#[derive(Debug, Default)]
pub(crate) struct Freeing {
    bytes: Arc<AtomicUsize>,
    queue: Mutex<FreeingQueue>,
}

#[derive(Default)]
struct FreeingQueue {
    waiting: VecDeque<Remains>,
    /// Taken out for a batch.
    in_hand: usize,
    /// The process of the worker: a forked child inherits the queue but not the worker.
    worker: Option<u32>,
}

/// Bytes that count as unfreed, until they are freed or this is dropped.
pub(crate) struct Unfreed {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

/// Remains that were taken out for a batch. They go back when it is dropped.
struct InHand<'a> {
    freeing: &'a Freeing,
    remains: Remains,
}

impl Freeing {
    /// One load.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, bytes: usize) -> Unfreed {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Unfreed { total: Arc::clone(&self.bytes), bytes }
    }

    /// True: the caller starts a worker, which calls [`Self::work`] until there is nothing left.
    #[must_use]
    pub(crate) fn add(&self, remains: Remains) -> bool {
        let mut queue = self.queue.lock();
        queue.waiting.push_back(remains);
        let process = process::id();
        if queue.worker == Some(process) {
            return false;
        }
        queue.worker = Some(process);
        queue.in_hand = 0;
        true
    }

    /// Whether [`Self::help`] and the worker are going to free something.
    pub(crate) fn is_at_work(&self) -> bool {
        self.bytes() > 0 && {
            let queue = self.queue.lock();
            !queue.waiting.is_empty() || queue.in_hand > 0
        }
    }

    /// Frees a batch, if anything is left.
    pub(crate) fn help(&self) {
        if self.bytes() > 0 {
            // Bounded: one.
            self.take().into_iter().for_each(InHand::free_some);
        }
    }

    /// A batch of the worker. False: nothing is left, and the worker ends.
    pub(crate) fn work(&self) -> bool {
        if let Some(remains) = self.take() {
            remains.free_some();
            return true;
        }
        let mut queue = self.queue.lock();
        let is_left = !queue.waiting.is_empty() || queue.in_hand > 0;
        if !is_left {
            queue.worker = None;
        }
        is_left
    }

    fn take(&self) -> Option<InHand<'_>> {
        let mut queue = self.queue.lock();
        let remains = queue.waiting.pop_front()?;
        queue.in_hand += 1;
        Some(InHand { freeing: self, remains })
    }
}

impl InHand<'_> {
    fn free_some(mut self) {
        self.remains.free_some();
    }
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let remains = self.remains.take();
        let mut queue = self.freeing.queue.lock();
        queue.in_hand = queue.in_hand.saturating_sub(1);
        // Bounded: one.
        remains.into_iter().for_each(|remains| queue.waiting.push_front(remains));
    }
}

impl Unfreed {
    pub(crate) fn freed(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.total.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Unfreed {
    fn drop(&mut self) {
        self.freed(self.bytes);
    }
}

impl std::fmt::Debug for FreeingQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("FreeingQueue").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BATCH_ENTRIES;
    use crate::meter::measured;

    fn remains(freeing: &Freeing, entries: usize) -> Remains {
        let mut unfreed = freeing.count(10 * entries);
        Remains::new((0..entries).map(move |_| {
            unfreed.freed(10);
            1
        }))
    }

    #[test]
    fn helpers_and_the_worker_free_in_batches_and_the_last_ends_it() {
        let freeing = Freeing::default();
        assert!(freeing.add(remains(&freeing, 1000)), "the first needs a worker");
        assert!(!freeing.add(remains(&freeing, 500)));
        assert_eq!(freeing.bytes(), 15_000);
        let ((), work) = measured(|| freeing.help());
        assert_eq!((work.entries, freeing.bytes()), (BATCH_ENTRIES, 15_000 - 10 * BATCH_ENTRIES));
        let (mut batches, mut entries) = (0, BATCH_ENTRIES);
        loop {
            let (is_left, work) = measured(|| freeing.work());
            assert!(work.entries <= BATCH_ENTRIES);
            if !is_left {
                break;
            }
            (batches, entries) = (batches + 1, entries + work.entries);
        }
        assert_eq!((entries, freeing.bytes()), (1500, 0));
        assert!(batches <= 7, "{batches}");
        assert!(freeing.add(remains(&freeing, 1)), "the worker has ended");
    }

    #[test]
    fn a_worker_does_not_end_while_a_helper_has_something_in_hand() {
        let freeing = Freeing::default();
        assert!(freeing.add(remains(&freeing, 1000)));
        let in_hand = freeing.take().unwrap();
        assert!(freeing.work(), "it comes back");
        in_hand.free_some();
        while freeing.work() {}
        assert_eq!(freeing.bytes(), 0);
    }

    #[test]
    fn what_is_dropped_early_counts_until_the_thread_has_freed_it() {
        let freeing = Arc::new(Freeing::default());
        assert!(freeing.add(remains(&freeing, 1000)));
        let bytes = Arc::clone(&freeing.bytes);
        drop(freeing);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while bytes.load(Ordering::Relaxed) > 0 && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(bytes.load(Ordering::Relaxed), 0);
    }
}
