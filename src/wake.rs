//! Calls foreign code: wakers, closures and drops of callers' values.
//!
//! Such code may panic, block, or call the cache again. So it runs without locks, and its panics
//! are contained here: they neither reach tasks that others need nor leave a drop, where a second
//! panic would abort the process.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs foreign code. None if it panics; the panic payload is dropped here, contained as well.
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

/// Wakes a caller. The caller of this function must hold no lock.
pub(crate) fn wake(waker: Waker) {
    contained(|| waker.wake());
}

/// Drops a foreign value or waker. The caller of this function must hold no lock.
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
    fn a_panic_and_a_panicking_payload_are_contained() {
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(contained(|| panic!("told")), None::<()>);
        assert_eq!(contained(|| std::panic::panic_any(Bomb)), None::<()>);
        discard(Bomb);
    }
}
