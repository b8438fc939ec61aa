//! `Failpoint`: bugs for this project's own checkers to find, each of which breaks one rule.
//!
//! A checker that has never found anything may be blind. A test can plant one of these on its
//! thread, and show how soon it is found; outside of tests [`failpoint`] is the constant false.

/// A rule, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// What was read from disk is installed without asking whether its slot still stands.
    PromotionUnchecked,
    /// A hit on disk is served without asking the rules in force.
    RuleNotAsked,
    /// A prefix rule is withdrawn before the directories on disk have been looked through.
    RuleWithdrawnEarly,
    /// Slots of the oldest segment go before the head mark has moved past it on file.
    SlotsDroppedEarly,
    /// A record gets its second chance whatever has happened to its key since it was chosen.
    SecondChanceUnchecked,
    /// Behind a tear the log goes on at the next block, and leaves a gap.
    TailAppendedAfterTear,
    /// A segment that ends with a tear is sealed, and the log goes on in the next one.
    TornSegmentSealed,
    /// What a crash has cut off is left as it is when the log goes on in its place.
    TearLeft,
    /// A unit is acknowledged when the writer takes it, before it and those ahead are on file.
    AcknowledgedOutOfOrder,
    /// Power mode acknowledges what has been written and not synced.
    AcknowledgedUnsynced,
    /// A put into a flushed namespace is acknowledged before the flush is on file.
    FlushNotAwaited,
    /// A key invalidation leaves no record of what it shadows on disk.
    TombstoneOmitted,
    /// A write that has failed for good is taken for done.
    FailedWriteIgnored,
    /// Recovery goes on behind a segment that it cannot read.
    DamageSkipped,
    /// Labels are not rebuilt at open.
    LabelsForgotten,
    /// What is on file is served though the machine has booted since.
    BootIgnored,
    /// A value that was read at a point is stored over what has been put since.
    StaleFillStored,
    /// Those who wait for the log are woken while it is locked.
    WokenUnderLock,
    /// A record is served for whatever key has its hash.
    KeyNotCompared,
    /// A leader that was woken and is not polled is waited for without end.
    LeadKeptBySleeper,
    /// A segment that is read from stays pinned for as long as the reader's future is there.
    PinInFuture,
    /// Whoever has been let in or called keeps its part of a budget, polled or not.
    PermitKeptBySleeper,
    /// An open takes over what is on file, whatever its budget.
    ReplayUnbounded,
}

#[cfg(not(test))]
pub(crate) const fn failpoint(_flaw: Failpoint) -> bool {
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

    /// Until this is dropped, the flaw is there for whatever runs on this thread.
    pub(crate) struct Planted(());

    pub(crate) fn plant(flaw: Failpoint) -> Planted {
        PLANTED.set(Some(flaw));
        Planted(())
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }

    pub(crate) fn failpoint(flaw: Failpoint) -> bool {
        PLANTED.get() == Some(flaw)
    }
}
