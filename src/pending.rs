//! `PendingInvalidations`: invalidations in force whose entries are still being removed.
//! An invalidation takes effect at once, as a [`PendingInvalidation`]: readers treat older entries
//! that it covers as removed. The caller removes them in bounded batches, or later mutations do.
//! When all are removed, it is withdrawn.
//! Invalidations of labels walk postings. Those of prefixes, and flushed namespaces, share one
//! round over all entries of L1: each is done when the round returns to where it was added.
//!
//! Locks: a walk is locked before everything else; the list is a leaf, locked inside the append
//! section to add an invalidation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::clock::Timestamp;
use crate::entry::{Entry, Mark};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::LabelHash;
use crate::l1::Cursor;
use crate::labels::Posting;
use crate::namespace::Generation;
use crate::sequence::Sequence;
use crate::waiters::Waiters;

/// The most invalidations in force; a further one waits for one of them to end. One call over many
/// namespaces may make more, if it is the only one.
const PENDING_MAX: usize = 256;

/// The entries that an invalidation covers, among older ones of its generation.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Sorted, without duplicates.
    Labels(Box<[LabelHash]>),
    Prefix(Box<[u8]>),
    /// All of them.
    All,
    /// Entries of ended namespaces, which no reader can find.
    Ended,
}

#[derive(Debug)]
pub(crate) struct PendingInvalidation {
    pub(crate) sequence: Sequence,
    pub(crate) scope: Scope,
    /// If it removes no entries with a stale window: they are stale since then.
    pub(crate) since: Option<Timestamp>,
    /// Removed entries that were not known to be expired.
    removed: AtomicUsize,
    /// Those that any made stale.
    made_stale: Arc<AtomicU64>,
    /// The walk over its postings; unused by those that share the round.
    pub(crate) walk: Mutex<LabelWalk>,
    /// The position of the round when it was added.
    round: RoundPosition,
    pub(crate) generation: Option<Arc<Generation>>,
    /// Whether the directories on disk are still to be scanned for it.
    is_scanning: AtomicBool,
}

/// A position in the walk over the postings of its labels.
#[derive(Debug, Default)]
pub(crate) struct LabelWalk {
    /// If they stay, the ones that it met last.
    pub(crate) met: Vec<Posting>,
    /// An index of its labels; past the last one when the walk is done. It begins anew with the
    /// oldest posting each time, if those that it met before are released.
    pub(crate) label: usize,
}

/// A position in the round over all entries, ordered: its number, and the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct RoundPosition {
    round: u64,
    cursor: Cursor,
}

impl RoundPosition {
    /// The next position; None starts the next round.
    fn to(self, cursor: Option<Cursor>) -> Self {
        match cursor {
            Some(cursor) => Self { cursor, ..self },
            None => Self { round: self.round + 1, cursor: Cursor::default() },
        }
    }

    /// Whether at least one whole round lies between `from` and here.
    pub(crate) fn is_round_since(self, from: Self) -> bool {
        self >= Self { round: from.round + 1, cursor: from.cursor }
    }
}

impl PendingInvalidation {
    fn covers(
        &self,
        generation: &Arc<Generation>,
        sequence: Sequence,
        key: &[u8],
        labels: &[LabelHash],
    ) -> bool {
        sequence < self.sequence
            && self.generation.as_ref().is_some_and(|covered| Arc::ptr_eq(covered, generation))
            && match &self.scope {
                Scope::Labels(covered) => {
                    // Bounded: by the labels of one entry.
                    labels.iter().any(|label| covered.binary_search(label).is_ok())
                }
                Scope::Prefix(prefix) => key.starts_with(prefix),
                Scope::All => true,
                Scope::Ended => false,
            }
    }

    /// Whether it hides the entry, which it covers. If it makes it stale, it has from here on.
    fn hides(&self, entry: &Entry) -> bool {
        let Some(since) = self.since.filter(|_| entry.stale_serve().is_some()) else { return true };
        let was_live = !entry.freshness(since).is_expired();
        // One that was read from its record is a copy: the record counts once, by its slot.
        if entry.expire(since) && was_live && !entry.is(Mark::FromDisk) {
            self.count_stale();
        }
        false
    }

    pub(crate) fn count(&self) {
        self.removed.fetch_add(1, Ordering::Release);
    }

    /// Counts an entry that it made stale.
    pub(crate) fn count_stale(&self) {
        self.count();
        self.made_stale.fetch_add(1, Ordering::Relaxed);
    }

    fn is_scanning(&self) -> bool {
        self.is_scanning.load(Ordering::Acquire)
    }

    pub(crate) fn removed(&self) -> usize {
        self.removed.load(Ordering::Acquire)
    }

    fn hides_entries(&self) -> bool {
        !matches!(self.scope, Scope::Ended)
    }
}

#[derive(Debug, Default)]
pub(crate) struct PendingInvalidations {
    /// Not withdrawn, oldest first.
    list: RwLock<Vec<Arc<PendingInvalidation>>>,
    /// The length of the list, readable without its lock.
    count: AtomicUsize,
    /// How many of them hide entries that readers may find.
    in_force: AtomicUsize,
    /// Entries that were made stale before their time, over all invalidations there ever were.
    made_stale: Arc<AtomicU64>,
    /// Whether a caller or a task is scanning the directories on disk.
    is_scanned: AtomicBool,
    scans: Waiters,
    /// Held during a step of the round.
    walker: Mutex<()>,
    /// The start of the next step. Held while a step collects its entries, so that an invalidation
    /// added meanwhile starts behind them.
    round: Mutex<RoundPosition>,
}

/// One step of the round over all entries.
#[derive(Debug)]
pub(crate) struct RoundStep<'a> {
    pending: &'a PendingInvalidations,
    /// The position of the round after the step.
    end: RoundPosition,
    _walker: MutexGuard<'a, ()>,
}

impl PendingInvalidations {
    /// Whether so many more would exceed the limit, unless they are the only ones. A false answer
    /// stays valid within the section.
    pub(crate) fn is_full(&self, more: usize) -> bool {
        let in_force = self.in_force.load(Ordering::Acquire);
        in_force > 0 && in_force + more > PENDING_MAX
    }

    /// Adds an invalidation, in the section. `is_scanning`: directories must be scanned for it.
    pub(crate) fn make(
        &self,
        sequence: Sequence,
        (scope, since): (Scope, Option<Timestamp>),
        generation: Option<&Arc<Generation>>,
        is_scanning: bool,
    ) -> Arc<PendingInvalidation> {
        let mut list = self.list.write();
        if matches!(scope, Scope::Ended) {
            // The newer one covers at least as much.
            // Bounded: by the most invalidations at one time.
            list.retain(|other| other.hides_entries());
        }
        // Held until it is in the list: steps that start behind this position see it.
        let round = self.round.lock();
        let invalidation = Arc::new(PendingInvalidation {
            sequence,
            scope,
            since,
            removed: AtomicUsize::new(0),
            made_stale: Arc::clone(&self.made_stale),
            walk: Mutex::default(),
            round: *round,
            generation: generation.cloned(),
            is_scanning: AtomicBool::new(is_scanning),
        });
        list.push(Arc::clone(&invalidation));
        self.recount(&list);
        drop(round);
        invalidation
    }

    /// Adds invalidations of labels, in the section. A reader sees all of them or none.
    pub(crate) fn make_of_labels(
        &self,
        (sequence, since): (Sequence, Option<Timestamp>),
        covered: Vec<(&Arc<Generation>, Vec<LabelHash>)>,
    ) -> Vec<Arc<PendingInvalidation>> {
        let mut list = self.list.write();
        let make = |(generation, labels): (&Arc<Generation>, Vec<LabelHash>)| {
            Arc::new(PendingInvalidation {
                sequence,
                scope: Scope::Labels(labels.into()),
                since,
                removed: AtomicUsize::new(0),
                made_stale: Arc::clone(&self.made_stale),
                walk: Mutex::default(),
                round: RoundPosition::default(),
                generation: Some(Arc::clone(generation)),
                is_scanning: AtomicBool::new(false),
            })
        };
        // Bounded: by the namespaces of one call.
        let made: Vec<_> = covered.into_iter().map(make).collect();
        list.extend_from_slice(&made);
        self.recount(&list);
        made
    }

    /// Counts entries that a call has made stale without ever being pending.
    pub(crate) fn count_stale(&self, entries: u64) {
        self.made_stale.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn made_stale(&self) -> u64 {
        self.made_stale.load(Ordering::Relaxed)
    }

    /// Requests a round that frees flushed entries. Called after the flush: an earlier step would
    /// take them for live. No invalidation hides them, since their namespace has ended.
    pub(crate) fn sweep_ended(&self) {
        self.make(Sequence::default(), (Scope::Ended, None), None, false);
    }

    /// Whether readers must ask `matching`. One load, of a cache line that seldom changes.
    pub(crate) fn any_in_force(&self) -> bool {
        self.in_force.load(Ordering::Acquire) > 0
    }

    pub(crate) fn any_pending(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// The first invalidation in force that hides the entry. Those before it that make the entry
    /// stale have done so when this returns.
    pub(crate) fn matching(&self, entry: &Entry) -> Option<Arc<PendingInvalidation>> {
        if !self.any_in_force() {
            return None;
        }
        let (generation, sequence) = (&entry.generation, entry.sequence());
        let covers = |invalidation: &&Arc<PendingInvalidation>| {
            invalidation.covers(generation, sequence, &entry.key, entry.labels())
        };
        let list = self.list.read();
        // Bounded: by the most invalidations at one time.
        list.iter().filter(covers).find(|invalidation| invalidation.hides(entry)).cloned()
    }

    /// Whether a record with these properties will be removed, or made stale.
    pub(crate) fn covers_record(
        &self,
        generation: &Arc<Generation>,
        sequence: Sequence,
        key: &[u8],
        labels: &[LabelHash],
    ) -> bool {
        self.any_in_force() && {
            let list = self.list.read();
            // Bounded: by the most invalidations at one time.
            list.iter().any(|invalidation| invalidation.covers(generation, sequence, key, labels))
        }
    }

    /// The first invalidation in force that removes a record with these properties, whether or not
    /// it has a stale window.
    pub(crate) fn matching_record(
        &self,
        generation: &Arc<Generation>,
        sequence: Sequence,
        key: &[u8],
        labels: &[LabelHash],
    ) -> Option<Arc<PendingInvalidation>> {
        if !self.any_in_force() {
            return None;
        }
        let covers = |invalidation: &&Arc<PendingInvalidation>| {
            invalidation.since.is_none() && invalidation.covers(generation, sequence, key, labels)
        };
        // Bounded: by the most invalidations at one time.
        self.list.read().iter().find(covers).cloned()
    }

    pub(crate) fn oldest(&self) -> Option<Arc<PendingInvalidation>> {
        self.list.read().first().cloned()
    }

    pub(crate) fn over_labels(&self) -> Vec<Arc<PendingInvalidation>> {
        let is_over_labels = |invalidation: &&Arc<PendingInvalidation>| {
            matches!(invalidation.scope, Scope::Labels(_))
        };
        // Bounded: by the most invalidations at one time.
        self.list.read().iter().filter(is_over_labels).cloned().collect()
    }

    pub(crate) fn withdraw(&self, invalidation: &Arc<PendingInvalidation>) {
        let mut list = self.list.write();
        // Bounded: by the most invalidations at one time.
        list.retain(|other| !Arc::ptr_eq(other, invalidation));
        self.recount(&list);
    }

    /// Claims the scan; false if one is in progress. It goes on until `to_scan` is empty.
    pub(crate) fn begin_scan(&self) -> bool {
        !self.is_scanned.swap(true, Ordering::AcqRel)
    }

    /// The invalidations to scan for. If there are none, the scan has ended.
    pub(crate) fn to_scan(&self) -> Vec<Arc<PendingInvalidation>> {
        // Bounded: by the invalidations added meanwhile.
        loop {
            let list = self.list.read();
            let wanting = list.iter().filter(|other| other.is_scanning()).cloned();
            // Bounded: by the most invalidations at one time.
            let wanting: Vec<_> = wanting.collect();
            if !wanting.is_empty() {
                return wanting;
            }
            drop(list);
            self.is_scanned.store(false, Ordering::Release);
            // Bounded: by the most invalidations at one time.
            let is_wanted = self.list.read().iter().any(|other| other.is_scanning());
            if !is_wanted || !self.begin_scan() {
                return Vec::new();
            }
        }
    }

    /// The directories on disk have been scanned for these invalidations.
    pub(crate) async fn scanned(&self, scanned: &[Arc<PendingInvalidation>]) {
        // Bounded: by the most invalidations at one time.
        scanned.iter().for_each(|other| other.is_scanning.store(false, Ordering::Release));
        self.scans.wake_all().await;
    }

    /// The same without an await, after the scan has failed.
    pub(crate) fn given_up(&self, scanned: &[Arc<PendingInvalidation>]) {
        // Bounded: by the most invalidations at one time.
        scanned.iter().for_each(|other| other.is_scanning.store(false, Ordering::Release));
        self.scans.wake_all_at_once();
    }

    /// Resolves once the scans for this one and for older ones of its namespace are done. Labels do
    /// not show which prefixes cover a record that is only on disk, and it counts for the oldest.
    pub(crate) async fn until_scanned(&self, invalidation: &PendingInvalidation) {
        self.scans.until((), || (!self.is_scanning_up_to(invalidation)).then_some(())).await;
    }

    fn is_scanning_up_to(&self, invalidation: &PendingInvalidation) -> bool {
        let is_of =
            |other: &&Arc<PendingInvalidation>| match (&other.generation, &invalidation.generation)
            {
                (Some(other), Some(generation)) => Arc::ptr_eq(other, generation),
                _ => false,
            };
        let list = self.list.read();
        let older = list.iter().take_while(|other| other.sequence <= invalidation.sequence);
        older.filter(is_of).any(|other| other.is_scanning())
    }

    pub(crate) fn is_withdrawn(&self, invalidation: &Arc<PendingInvalidation>) -> bool {
        // Bounded: by the most invalidations at one time.
        !self.list.read().iter().any(|other| Arc::ptr_eq(other, invalidation))
    }

    pub(crate) fn round(&self) -> RoundPosition {
        *self.round.lock()
    }

    /// Starts a step of the round: `collect` takes entries from the given cursor and returns the
    /// next one, None at the end. None if another step is in progress and `wait` is false.
    pub(crate) fn step(
        &self,
        wait: bool,
        collect: impl FnOnce(Cursor) -> Option<Cursor>,
    ) -> Option<RoundStep<'_>> {
        let walker = if wait { self.walker.lock() } else { self.walker.try_lock()? };
        let mut round = self.round.lock();
        *round = round.to(collect(round.cursor));
        Some(RoundStep { pending: self, end: *round, _walker: walker })
    }

    fn recount(&self, list: &[Arc<PendingInvalidation>]) {
        self.count.store(list.len(), Ordering::Release);
        let in_force = list.iter().filter(|other| other.hides_entries()).count();
        self.in_force.store(in_force, Ordering::Release);
    }
}

impl RoundStep<'_> {
    pub(crate) fn end(&self) -> RoundPosition {
        self.end
    }

    /// Ends the step once its entries are removed: withdraws invalidations whose round is complete.
    pub(crate) fn done(self) {
        let served = |invalidation: &PendingInvalidation| {
            !matches!(invalidation.scope, Scope::Labels(_))
                && (!invalidation.is_scanning() || failpoint(Failpoint::InvalidationWithdrawnEarly))
                && self.end.is_round_since(invalidation.round)
        };
        let mut list = self.pending.list.write();
        // Bounded: by the most invalidations at one time.
        list.retain(|other| !served(other));
        self.pending.recount(&list);
    }
}
