//! `Counters`: what has happened so far, striped over cache lines.
//!
//! Threads that count at the same time do so on lines of their own; only a reader of the sum
//! visits them all.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// What is counted. The discriminant is the place in a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Hit,
    Miss,
    Insertion,
    Eviction,
    Expiration,
    IdleExpiration,
    Invalidation,
    /// An entry that another one of its key took the place of.
    Replacement,
    /// An entry of a namespace that was flushed.
    Flushed,
    /// An entry that the last tier which held it has made room of.
    Forgotten,
    NamespaceFlush,
    VersionMismatch,
    StaleSetRefused,
    StaleServe,
    /// A fetch that has begun.
    Fetch,
    /// Of those, one that failed or panicked.
    FetchError,
    /// Of those, one whose value could not be stored.
    FetchNotStored,
    /// A caller who got what another one fetched.
    FlightJoined,
    /// Of the hits, those that came from disk.
    L2Hit,
    /// A put that the index had no room for.
    L2Full,
    /// A value that was stored as it is though compression is on.
    CompressionSkipped,
    /// A look for something on disk that the synopsis answered with no.
    SynopsisAnswer,
    /// Another, which went on to the index.
    IndexAnswer,
    /// A get among the former.
    NegativeSkip,
    /// Bytes of values before they were compressed.
    CompressedFrom,
    /// And after.
    CompressedTo,
}

const EVENTS: usize = Event::CompressedTo as usize + 1;

type Stripe = [AtomicU64; EVENTS];

#[derive(Debug)]
pub(crate) struct Counters {
    /// A power of two of them.
    stripes: Box<[CachePadded<Stripe>]>,
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's number, dealt at its first count; `usize::MAX` until then.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn thread_number() -> usize {
    THREAD.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
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
    fn nothing_is_lost_between_threads() {
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
