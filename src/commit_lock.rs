//! `CommitLock`: the one order in which all mutations take effect, and the section where they do.
//!
//! A mutation takes effect inside a [`Section`]: it is dealt a [`Sequence`], raises the watermarks
//! of what it touches, and sets the postings, all under one lock that is never held across an
//! await. Whoever changes an entry of a key holds the key's L1 shard before it opens the section;
//! lock order is L1 shard, section, SIEVE list, and behind that the tables of last accesses.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::key::KeyHash;
use crate::labels::LabelIndex;
use crate::moment::{Moment, ReadPoint};
use crate::sequence::Sequence;
use crate::watermarks::Watermarks;

#[derive(Debug)]
pub(crate) struct CommitLock {
    /// The last moment. Written under the lock; read without it by read points.
    last: AtomicU64,
    /// Tells the read points of one opened cache from those of another.
    instance: u64,
    /// Set under the lock, never cleared.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watermarks: Watermarks,
    labels: LabelIndex,
    /// The last sequence given to an entry or a rule.
    sequence: Sequence,
}

/// The append section, entered. Everything between here and its drop is one step to all others.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    order: &'a CommitLock,
    state: MutexGuard<'a, State>,
}

impl CommitLock {
    pub(crate) fn new(instance: u64, key_watermarks: usize) -> Self {
        let watermarks = Watermarks::new(key_watermarks);
        let state = Mutex::new(State {
            watermarks,
            labels: LabelIndex::default(),
            sequence: Sequence::default(),
        });
        // Behind the moment that stands before all.
        Self { last: AtomicU64::new(1), instance, closed: AtomicBool::new(false), state }
    }

    pub(crate) fn section(&self) -> Section<'_> {
        Section { order: self, state: self.state.lock() }
    }

    /// Whether the section is entered.
    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.is_locked()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn read_point(&self) -> ReadPoint {
        let moment = Moment(self.last.load(Ordering::Acquire));
        ReadPoint { moment, instance: self.instance }
    }
}

impl Section<'_> {
    /// The next moment in the order, for watermarks and read points. Only mutations take one.
    pub(crate) fn moment(&mut self) -> Moment {
        let next = self.order.last.load(Ordering::Relaxed) + 1;
        self.order.last.store(next, Ordering::Release);
        Moment(next)
    }

    /// The last moment: every mutation that has taken effect so far has had one up to it.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.order.last.load(Ordering::Relaxed))
    }

    /// The sequence of what this section puts or invalidates: the position of its record, or the
    /// number behind the last one where it has no record. Positions are dealt in the same order.
    /// So there is to be a gap before the next one ([`is_gap_before`](Self::is_gap_before)), or
    /// the log has ended, and then no mutation has a record any more.
    pub(crate) fn sequence(&mut self, record: Option<u64>) -> Sequence {
        let behind = self.state.sequence.0 + 1;
        let sequence = Sequence(record.unwrap_or(behind));
        debug_assert!(sequence.0 >= behind, "the log has gone back");
        self.state.sequence = sequence;
        sequence
    }

    /// Whether there is a number left for a mutation without a record, where the next one that has
    /// a record will have the position `tail`, or one behind it.
    pub(crate) fn is_gap_before(&self, tail: u64) -> bool {
        self.state.sequence.0 + 1 < tail
    }

    pub(crate) fn watermarks(&mut self) -> &mut Watermarks {
        &mut self.state.watermarks
    }

    pub(crate) fn labels(&mut self) -> &mut LabelIndex {
        &mut self.state.labels
    }

    /// Whether `point` was given by this cache.
    pub(crate) fn has_given(&self, point: ReadPoint) -> bool {
        point.instance == self.order.instance
    }

    /// A read point, from which on an eye is kept on a key, until that is ended.
    pub(crate) fn watch(&mut self, hash: KeyHash) -> ReadPoint {
        let moment = self.now();
        self.watermarks().watch(hash, moment);
        ReadPoint { moment, instance: self.order.instance }
    }

    /// The same as of the whole order, but lasting: nobody can close it meanwhile.
    pub(crate) fn is_closed(&self) -> bool {
        self.order.is_closed()
    }

    /// Ends the order: nothing is dealt from here on. False where it had been closed before.
    pub(crate) fn close(&mut self) -> bool {
        !self.order.closed.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_stands_behind_what_was_before_it_and_belongs_to_its_own_cache() {
        let order = CommitLock::new(1, 64);
        let first = order.section().moment();
        let point = order.read_point();
        let second = order.section().moment();
        assert!(first <= point.moment && point.moment < second);
        assert!(order.section().has_given(point));
        assert!(!order.section().has_given(ReadPoint { instance: 2, ..point }));
    }
}
