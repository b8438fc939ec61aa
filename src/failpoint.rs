//! `Failpoint`: bugs that tests plant to show that the checkers find them.
//!
//! Each breaks one rule. A test plants one on its own thread and measures how soon a checker
//! detects it. Outside of tests [`failpoint`] is the constant false.

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failpoint {
    /// A promotion installs a value without checking that its slot is unchanged.
    PromotionUnchecked,
    /// A disk hit is served without checking the pending invalidations.
    PendingInvalidationIgnored,
    /// A prefix invalidation is withdrawn before the directories on disk are scanned.
    InvalidationWithdrawnEarly,
    /// Slots of the oldest segment are removed before the head mark on file moves past it.
    SlotsDroppedEarly,
    /// Reclaim keeps what is in use although a put waits for its bytes in the index.
    WantedIndexRoomKept,
    /// Labels of an entry that only memory holds count for the index after its record has left.
    LabelsLeftBelow,
    /// A record is reinserted even if its key has changed since it was selected.
    ReinsertionUnchecked,
    /// After a tear the log continues at the next block and leaves a gap.
    TailAppendedAfterTear,
    /// A segment that ends with a tear is sealed, and the log continues in the next one.
    TornSegmentSealed,
    /// The torn bytes after a crash stay when the log continues in their place.
    TearLeft,
    /// A batch is acknowledged when the writer takes it, before it and earlier ones are on file.
    AcknowledgedOutOfOrder,
    /// Power mode acknowledges writes that are not synced.
    AcknowledgedUnsynced,
    /// A put into a flushed namespace is acknowledged before the flush is on file.
    FlushNotAwaited,
    /// A key invalidation writes no tombstone for the records that it shadows.
    TombstoneOmitted,
    /// A call for many keys does not wait for the tombstones of its keys.
    ManyNotAwaited,
    /// A read for one of many keys answers another one.
    ManyMisplaced,
    /// A permanently failed write counts as done.
    FailedWriteIgnored,
    /// A disk tier that has failed and begins anew leaves its old records in the log on file.
    RestartKeepsRecords,
    /// A cache that could not open its store acknowledges before it has left a mark.
    VoidMarkOmitted,
    /// An open serves the store though a mark says that it is void.
    VoidMarkIgnored,
    /// An open removes the mark before the store is void or empty on file.
    VoidMarkRemovedEarly,
    /// A store is taken over without being voided first.
    TakenOverUnvoided,
    /// An open overwrites a superblock though the other one may be in the kernel's memory alone.
    SuperblockNotKept,
    /// An open trusts that the last frame is on the device.
    LastFrameNotKept,
    /// Recovery continues behind a segment that it cannot read.
    DamageSkipped,
    /// Recovery does not know that records are stale before their time.
    ExpiryForgotten,
    /// An entry that is stale before its time comes back into memory as it was put.
    ExpiryNotPromoted,
    /// A record that is stale before its time is reinserted as it was put.
    ExpiryNotReinserted,
    /// Recovery does not know that records were touched.
    RenewalForgotten,
    /// An entry that was touched comes back into memory with its old deadlines.
    RenewalNotPromoted,
    /// A record that was touched is reinserted with its old deadlines.
    RenewalNotReinserted,
    /// A touch counts as a mutation of its key.
    TouchVoidsFills,
    /// Recovery does not rebuild labels.
    LabelsForgotten,
    /// Process mode serves the store's entries after a reboot.
    BootIgnored,
    /// A put with a read point overwrites later mutations.
    StaleFillStored,
    /// Callers waiting for the log are woken under its lock.
    WokenUnderLock,
    /// A typed caller is given another's value that it cannot decode.
    UndecodedShared,
    /// A typed caller is given the value of an entry that it has looked at before.
    DecodedOfAnother,
    /// What a namespace has of its own does not count.
    NamespaceDefaultsIgnored,
    /// A smaller budget of memory is in force before what exceeds it has left.
    ExcessKept,
    /// A call over several namespaces reaches the first of them.
    SeveralCutShort,
    /// An overwrite is refused as a new key would be, and leaves the old record on file.
    OverwriteRefused,
    /// A record is served for any key of the same hash.
    KeyNotCompared,
    /// Waiters wait forever for a leader that was woken and is not polled.
    LeadKeptBySleeper,
    /// A caller waits forever for a task that was woken and is not polled.
    WorkKeptBySleeper,
    /// A task that was woken and is not polled in time loses its work, whoever is polled next.
    WorkTakenByAlarm,
    /// A fetch that is given to a task counts as not woken, so that its lead waits for the task.
    LeadNotMoved,
    /// A fetch takes its read point once it has answered, and not before it begins.
    PointTakenLate,
    /// A read segment stays pinned as long as the reader's future exists.
    PinInFuture,
    /// A caller keeps its permit, polled or not.
    PermitKeptBySleeper,
    /// A permit is dropped without returning its bytes.
    PermitLost,
    /// A pin is dropped without releasing its segment.
    PinLost,
    /// A caller that stops watching its key leaves it watched.
    WatchLost,
    /// A get asks its gate once it has found the entry to be in force.
    GateAskedLate,
    /// A read from disk asks no gate.
    GateUnaskedOnDisk,
    /// A call that began with its gate closed shares a fetch that began before.
    SharedThroughClosedGate,
    /// A segment does not repeat the saved positions.
    PositionNotCarried,
    /// An open by an image of the index does not look for saved positions.
    PositionNotInImage,
    /// A saved position of an older segment counts.
    PositionFromOlder,
    /// A listing takes any record for the live one of its hash.
    ListedUnchecked,
    /// A listing forgets what it has listed.
    ListedTwice,
    /// A listing does not go through what the log has gained since it began.
    ListedGone,
    /// A listing leaves out what memory still holds of a record that has left the log.
    ListedUnheld,
    /// A listing by labels starts again with what it has listed, once the place is lost.
    ListedAgain,
    /// A listing by labels takes an entry as listed that has got an earlier label too late.
    ListedByEarlier,
    /// An open restores the whole store, whatever the budget.
    ReplayUnbounded,
    /// A backup takes the header of a segment as it is read.
    BackupHeaderUnseen,
    /// A backup copies what is not on file yet.
    BackupNotAwaited,
    /// An error is held though its key has changed.
    HeldOverChange,
    /// An error is held for ever.
    HeldTooLong,
    /// A backup gets its superblock before the rest is durable.
    BackupUnsynced,
    /// A copy from outside takes what it has read of a segment for the segment.
    #[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
    OverwrittenCopied,
    /// An image of the index counts whatever state of the store it belongs to.
    ImageOfAnotherState,
    /// The chunks of an image are not compared with their checksums.
    ImageUnchecked,
    /// A segment is moved with its header first.
    HeaderMovedFirst,
    /// A store becomes smaller on file before its segments have been moved.
    ShrunkBeforeMoved,
    /// The copies of a moved segment are not durable when a superblock counts on them.
    CopiedUnsynced,
    /// A moved segment leaves its header at its old place.
    MovedHeaderLeft,
    /// An image is written although invalidations are still being carried out.
    ImageBeforeInvalidations,
    /// An image keeps what only the running cache knew.
    ImageUnsettled,
    /// A segment that is moved is copied as one read gives it.
    CopiedUnseen,
    /// An open takes the end of the log as one read gives it.
    TearUnseen,
    /// A put that replaces an entry in both tiers tells its listener twice.
    ReplacementToldTwice,
    /// A listener is not told of records that leave with their segment.
    DropUntold,
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
