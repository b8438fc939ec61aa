//! `Failpoint`: bugs that the model test plants, to show that it finds them.
//!
//! Each breaks one rule of the consistency that the README promises. Outside of tests [`failpoint`]
//! is the constant false.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// A write makes the cache forget nothing, neither before the inner call nor after it.
    NothingForgotten,
    /// A rename makes the cache forget the object's new path alone.
    SourceNotForgotten,
    /// What is read from a path whose write has an unknown outcome is stored.
    UnknownOutcomeIgnored,
    /// A write whose future was dropped counts as one that has ended.
    DroppedWriteKnown,
    /// Blocks are taken from whatever version the answer is of.
    BlocksUnchecked,
    /// A new version of an object has the generation of the one before.
    GenerationReused,
    /// What is known of a version that was asked for by name is kept as if it were the newest.
    VersionNotInKey,
    /// A get's precondition is refused by what was known before the get was called.
    StaleRefusal,
    /// A caller takes what a fetch has found that began before the caller came.
    EarlierFetchTaken,
    /// The age of what is known counts from the inner store's answer, and not from the question.
    AgedFromAnswer,
    /// A caller is told the error of another caller's range.
    ErrorOfRangeShared,
}

#[cfg(not(test))]
pub(crate) const fn failpoint(_failpoint: Failpoint) -> bool {
    false
}

#[cfg(test)]
pub(crate) use self::planting::{failpoint, plant};

#[cfg(test)]
mod planting {
    use std::cell::Cell;

    use super::Failpoint;

    thread_local! {
        static PLANTED: Cell<Option<Failpoint>> = const { Cell::new(None) };
    }

    /// Plants the bug on this thread until it is dropped.
    pub(crate) struct Planted(());

    pub(crate) fn plant(failpoint: Failpoint) -> Planted {
        PLANTED.set(Some(failpoint));
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    pub(crate) fn failpoint(failpoint: Failpoint) -> bool {
        PLANTED.get() == Some(failpoint)
    }
}
