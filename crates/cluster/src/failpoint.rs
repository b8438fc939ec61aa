//! `Failpoint`: bugs that the model test plants, to show that it finds them.
//!
//! Each breaks one rule that the promise rests on. Outside of tests [`failpoint`] is the constant
//! false.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// Numbers are not compared: a record that is missing goes unnoticed.
    GapIgnored,
    /// The record at the anchor is not compared with the one that was applied, nor the head.
    AnchorIgnored,
    /// A log that was created anew is taken for the one before: neither epoch nor anchor tells.
    EpochIgnored,
    /// A server that has lost records is taken for the one before.
    ServerIgnored,
    /// The lease counts from the answer, and not from the question.
    LeaseFromAnswer,
    /// The gate opens while records are still missing.
    OpenDuringReplay,
    /// The position is saved before the invalidations that it covers are applied.
    PositionFirst,
    /// A record that is not understood is skipped.
    UnknownSkipped,
    /// A record that the server has not acknowledged is not sent again.
    SentOnce,
    /// What is fetched is stored whatever was invalidated meanwhile. (Of the model.)
    #[cfg(test)]
    FillPastPoint,
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
