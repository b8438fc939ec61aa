//! `Counters`: event counters, striped over cache lines.
//!
//! A thread whose number is low enough has a stripe that no other thread writes, and counts without
//! a read-modify-write, which would be a fifth of a hit in memory. The others share further
//! stripes. A sum visits all.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::thread_number::thread_number;

/// A counted event. The discriminant is the index in a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Miss,
    /// A miss of a namespace whose gate was closed.
    GateMiss,
    Insertion,
    Eviction,
    Expiration,
    IdleExpiration,
    Invalidation,
    /// An entry replaced by a put of its key.
    Replacement,
    /// An entry whose deadlines were renewed.
    Touch,
    /// An entry of a flushed namespace.
    Flushed,
    /// An entry dropped by the last tier that held it, to make room.
    Forgotten,
    NamespaceFlush,
    VersionMismatch,
    StaleSetRefused,
    StaleServe,
    /// A fetch begun.
    Fetch,
    /// A fetch that failed or panicked.
    FetchError,
    /// A fetch that took too long.
    FetchTimeout,
    /// A caller given the failure of an earlier fetch, or the stale entry in its place.
    FetchHeldOff,
    /// A fetch whose value could not be stored.
    FetchNotStored,
    /// A fetch given to a task.
    FetchSpawned,
    /// A fetch that was to run in a task and did not.
    FetchNotSpawned,
    /// A refresh begun while the entry was fresh.
    RefreshAhead,
    /// A stale answer to a call whose fetch went on.
    SoftTimeout,
    /// A caller given another caller's fetch.
    FlightJoined,
    FlightTimeout,
    /// A call that found a value that does not decode.
    ValueUndecoded,
    /// A hit from disk.
    L2Hit,
    /// A put refused by the disk tier, for the index budget or a quota.
    L2Full,
    /// A put whose value the full disk tier did not take.
    L2NotAdmitted,
    /// A put whose value the write rate kept off the disk tier.
    L2OverRate,
    /// A value stored uncompressed although compression is on.
    CompressionSkipped,
    /// A disk lookup that the synopsis answered: absent.
    SynopsisAnswer,
    /// A disk lookup that went on to the index.
    IndexAnswer,
    /// A get that the synopsis answered.
    NegativeSkip,
    /// Bytes of values before compression.
    CompressedFrom,
    /// Bytes of values after compression.
    CompressedTo,
}

const EVENTS: usize = Event::CompressedTo as usize + 1;

type Stripe = [AtomicU64; EVENTS];

/// A handle: its clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Counters {
    /// Those of one thread each, then the shared ones, whose number is a power of two.
    stripes: Arc<[CachePadded<Stripe>]>,
    /// The number of the former.
    own: usize,
}

impl Counters {
    pub(crate) fn new(cores: usize) -> Self {
        let (own, shared) = (4 * cores, 2 * cores);
        let (own, shared) = (own.clamp(16, 256), shared.next_power_of_two().min(128));
        let stripe = |_| CachePadded::new(array::from_fn(|_| AtomicU64::new(0)));
        // Bounded: by the cores.
        let stripes = (0..own + shared).map(stripe).collect();
        Self { stripes, own }
    }

    #[inline]
    pub(crate) fn count(&self, event: Event) {
        self.add(event, 1);
    }

    #[inline]
    pub(crate) fn add(&self, event: Event, number: u64) {
        let thread = thread_number();
        if thread < self.own {
            let count = &self.stripes[thread][event as usize];
            count.store(count.load(Ordering::Relaxed).wrapping_add(number), Ordering::Relaxed);
        } else {
            self.add_shared(thread, event, number);
        }
    }

    #[inline(never)]
    fn add_shared(&self, thread: usize, event: Event, number: u64) {
        let (_, shared) = self.stripes.split_at(self.own);
        let stripe = &shared[thread & (shared.len() - 1)];
        stripe[event as usize].fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self, event: Event) -> u64 {
        // Bounded: by the stripes, one for each core.
        self.stripes.iter().map(|stripe| stripe[event as usize].load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::rounds::rounds;

    /// Three times as many threads as have stripes of their own, at the same time; then others.
    #[test]
    fn counts_of_all_threads_are_summed() {
        let counters = Counters::new(2);
        let (threads, misses) = (3 * counters.own, rounds(1000, 10));
        for round in 1..=3 {
            let begin = Barrier::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        counters.count(Event::Insertion);
                        begin.wait();
                        (0..misses).for_each(|_| counters.count(Event::Miss));
                    });
                }
            });
            let threads = threads as u64;
            assert_eq!(counters.sum(Event::Miss), round * threads * misses);
            assert_eq!(counters.sum(Event::Insertion), round * threads);
        }
        assert_eq!(counters.sum(Event::Fetch), 0);
    }
}
