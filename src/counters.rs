//! `Counters`: event counters, striped over cache lines.
//!
//! Each thread counts in its own stripe, so that threads do not contend; a sum visits all stripes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::thread_number::thread_number;

/// A counted event. The discriminant is the index in a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Hit,
    Miss,
    Insertion,
    Eviction,
    Expiration,
    IdleExpiration,
    Invalidation,
    /// An entry replaced by a put of its key.
    Replacement,
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
    /// A fetch whose value could not be stored.
    FetchNotStored,
    /// A caller given another caller's fetch.
    FlightJoined,
    /// A hit from disk.
    L2Hit,
    /// A put refused by the disk tier, for the index budget or a quota.
    L2Full,
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
    /// Their number is a power of two.
    stripes: Arc<[CachePadded<Stripe>]>,
}

impl Counters {
    pub(crate) fn new(cores: usize) -> Self {
        let stripes = (2 * cores).next_power_of_two().min(128);
        // Bounded: by the cores.
        Self { stripes: (0..stripes).map(|_| CachePadded::new(Stripe::default())).collect() }
    }

    pub(crate) fn count(&self, event: Event) {
        self.add(event, 1);
    }

    pub(crate) fn add(&self, event: Event, number: u64) {
        let stripe = &self.stripes[thread_number() & (self.stripes.len() - 1)];
        stripe[event as usize].fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self, event: Event) -> u64 {
        // Bounded: by the stripes, one for each core.
        self.stripes.iter().map(|stripe| stripe[event as usize].load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_summed() {
        let counters = Counters::new(2);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..1000).for_each(|_| counters.count(Event::Hit)));
            }
        });
        assert_eq!(counters.sum(Event::Hit), 16_000);
        assert_eq!(counters.sum(Event::Miss), 0);
    }
}
