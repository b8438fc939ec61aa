//! Numbers for threads, to spread them over stripes and rings.
//!
//! No two threads have the same number at the same time. A thread that ends gives its number back,
//! and the lowest free one is given out first: so numbers stay about as low as the most threads
//! that there were at a time, and what a thread has written under its number happens before what
//! the next one does.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, PoisonError};

static NUMBERS: Mutex<Numbers> = Mutex::new(Numbers { unused: 0, free: BinaryHeap::new() });

struct Numbers {
    /// This number and all above it were never given out.
    unused: usize,
    /// Given back.
    free: BinaryHeap<Reverse<usize>>,
}

thread_local! {
    /// This thread's number; `usize::MAX` until it is asked for. Apart from its lease, because a
    /// value without a destructor is found faster.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };

    static LEASE: Lease = const { Lease(Cell::new(None)) };
}

/// Gives the number back when its thread ends.
struct Lease(Cell<Option<usize>>);

impl Drop for Lease {
    fn drop(&mut self) {
        // Destructors that run later may ask again.
        THREAD.set(usize::MAX);
        if let Some(number) = self.0.take() {
            numbers(|numbers| numbers.free.push(Reverse(number)));
        }
    }
}

/// The number of the calling thread, counted from zero.
#[inline]
pub(crate) fn thread_number() -> usize {
    match THREAD.get() {
        usize::MAX => begin(),
        number => number,
    }
}

#[cold]
fn begin() -> usize {
    let number = numbers(|numbers| match numbers.free.pop() {
        Some(Reverse(number)) => number,
        None => {
            numbers.unused += 1;
            numbers.unused - 1
        }
    });
    THREAD.set(number);
    // A thread that is about to end has no lease any more. Its number is not given out again.
    let _ = LEASE.try_with(|lease| lease.0.set(Some(number)));
    number
}

fn numbers<T>(change: impl FnOnce(&mut Numbers) -> T) -> T {
    change(&mut NUMBERS.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn numbers_of_living_threads_differ_and_those_of_ended_ones_come_back() {
        const THREADS: usize = 16;
        let most = (0..20).flat_map(|_| {
            let all_begun = Barrier::new(THREADS);
            let numbers: Vec<usize> = thread::scope(|scope| {
                let ask = || {
                    let number = thread_number();
                    all_begun.wait();
                    assert_eq!(thread_number(), number);
                    number
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), THREADS);
            numbers
        });
        // Other tests have threads as well, but not so many.
        assert!(most.max().unwrap() < 10 * THREADS);
    }
}
