//! What one poll does, counted: the entries it visits and the bytes it handles.
//!
//! Every loop that grows with the data passes here, once for each entry or for each run of bytes.
//! Outside of tests that costs nothing. In tests whoever polls a future, or a task beside it, asks
//! before and after what has been counted on this thread, so that no poll is long is a matter of
//! work and not of time.

/// So many entries are visited.
#[inline]
pub(crate) fn entries(count: usize) {
    #[cfg(test)]
    counting::add(Work { entries: count, bytes: 0 });
    let _ = count;
}

/// So many bytes are copied, hashed, compressed or compared.
#[inline]
pub(crate) fn bytes(count: usize) {
    #[cfg(test)]
    counting::add(Work { entries: 0, bytes: count });
    let _ = count;
}

#[cfg(test)]
pub(crate) use self::counting::{Work, measured};

#[cfg(test)]
mod counting {
    use std::cell::Cell;

    /// What has been done.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Work {
        pub(crate) entries: usize,
        pub(crate) bytes: usize,
    }

    impl Work {
        /// The greater of each.
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

    /// What `run` does on this thread, besides its answer.
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
    fn what_is_measured_within_counts_outside_too() {
        let ((), all) = measured(|| {
            entries(3);
            let ((), within) = measured(|| bytes(5));
            assert_eq!(within, Work { entries: 0, bytes: 5 });
        });
        assert_eq!(all, Work { entries: 3, bytes: 5 });
        assert_eq!(all.max(Work { entries: 1, bytes: 9 }), Work { entries: 3, bytes: 9 });
    }
}
