//! Calling what is not ours: wakers, closures and drops of callers' values.
//!
//! A caller's code may panic, block, or call the cache again. So it runs while no lock is held, and
//! a panic in it goes no further than here: not into a task that others need, and not out of a
//! drop, where a second one would abort the process.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs what is the caller's. None where it panics: neither that, nor what was thrown when it is
/// dropped, goes any further.
pub(crate) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    let thrown = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => return Some(done),
        Err(thrown) => thrown,
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(thrown))) {
        mem::forget(again);
    }
    None
}

/// Wakes a caller. Not to be called while a lock is held.
pub(crate) fn wake(waker: Waker) {
    contained(|| waker.wake());
}

/// Drops what is the caller's, a waker or a value. Not to be called while a lock is held.
pub(crate) fn discard<T>(value: T) {
    contained(|| drop(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    #[test]
    fn a_panic_goes_no_further_nor_does_what_it_has_thrown() {
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(contained(|| panic!("told")), None::<()>);
        assert_eq!(contained(|| std::panic::panic_any(Bomb)), None::<()>);
        discard(Bomb);
    }
}
