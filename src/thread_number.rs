//! Numbers for threads, to spread them over stripes and rings.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's number; `usize::MAX` until it is asked for.
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// The number of the calling thread, counted from zero in the order of the first calls.
#[inline]
pub(crate) fn thread_number() -> usize {
    THREAD.with(|number| {
        if number.get() == usize::MAX {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}
