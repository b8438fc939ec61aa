//! A meter of the work in one poll: entries visited and bytes handled.
//!
//! Every loop that grows with the data reports here, once per entry or per run of bytes. Tests
//! compare the thread's counts before and after a poll or a task, so that the length of a poll is
//! measured as work and not as time. Outside of tests only bytes are counted, for calls that drive
//! many others in one poll.

use std::cell::Cell;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

/// Bytes that this thread has handled, modulo the size of the address space.
pub(crate) fn bytes_so_far() -> usize {
    BYTES.get()
}

#[inline]
pub(crate) fn entries(count: usize) {
    #[cfg(test)]
    counting::add(Work { entries: count, bytes: 0 });
    let _ = count;
}

/// Counts bytes copied, hashed, compressed or compared.
#[inline]
pub(crate) fn bytes(count: usize) {
    #[cfg(test)]
    counting::add(Work { entries: 0, bytes: count });
    BYTES.set(BYTES.get().wrapping_add(count));
}

#[cfg(test)]
pub(crate) use self::counting::{Work, measured};

#[cfg(test)]
mod counting {
    use std::cell::Cell;

    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Work {
        pub(crate) entries: usize,
        pub(crate) bytes: usize,
    }

    impl Work {
        pub(crate) fn max(self, other: Self) -> Self {
            let (entries, bytes) = (self.entries.max(other.entries), self.bytes.max(other.bytes));
            Self { entries, bytes }
        }
    }

    thread_local! {
        static DONE: Cell<Work> = const { Cell::new(Work { entries: 0, bytes: 0 }) };
    }

    pub(super) fn add(work: Work) {
        let Work { entries, bytes } = DONE.get();
        DONE.set(Work { entries: entries + work.entries, bytes: bytes + work.bytes });
    }

    /// The result of `run`, and the work that it did on this thread.
    pub(crate) fn measured<T>(run: impl FnOnce() -> T) -> (T, Work) {
        let outside = DONE.replace(Work::default());
        let answer = run();
        let done = DONE.replace(outside);
        add(done);
        (answer, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_measurements_count_in_the_outer_one() {
        let ((), all) = measured(|| {
            entries(3);
            let ((), within) = measured(|| bytes(5));
            assert_eq!(within, Work { entries: 0, bytes: 5 });
        });
        assert_eq!(all, Work { entries: 3, bytes: 5 });
        assert_eq!(all.max(Work { entries: 1, bytes: 9 }), Work { entries: 3, bytes: 9 });
    }
}
