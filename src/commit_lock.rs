//! `CommitLock`: the lock under which mutations commit, in one total order.
//!
//! A mutation commits inside a [`Section`]: it is assigned a [`Sequence`], raises watermarks and
//! sets postings under one lock that is never held across an await. A caller that changes the entry
//! of a key locks the key's L1 shard before it opens the section. Lock order: L1 shard, section,
//! SIEVE list, access time tables.

use std::hint;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::key::KeyHash;
use crate::moment::{Moment, ReadPoint};
use crate::sequence::Sequence;
use crate::watermarks::Watermarks;

/// How often a caller tries to enter before it sleeps: for about 5 us, some sections long. To wake
/// a thread takes ten times as long, and whoever wakes it pays for a call of the kernel.
const TRIES: usize = 100;

#[derive(Debug)]
pub(crate) struct CommitLock {
    /// The last moment. Written under the lock; read points load it without the lock.
    last: AtomicU64,
    /// Distinguishes read points of this open from those of others.
    instance: u64,
    /// Set under the lock, never cleared.
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    watermarks: Watermarks,
    /// The last sequence assigned to an entry or an invalidation.
    sequence: Sequence,
}

/// The commit lock, held. Everything done until its drop is atomic to other callers.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    order: &'a CommitLock,
    state: MutexGuard<'a, State>,
}

impl CommitLock {
    pub(crate) fn new(instance: u64, key_watermarks: usize) -> Self {
        let watermarks = Watermarks::new(key_watermarks);
        let state = Mutex::new(State { watermarks, sequence: Sequence::default() });
        // 1, since moment 0 is before all others.
        Self { last: AtomicU64::new(1), instance, closed: AtomicBool::new(false), state }
    }

    pub(crate) fn section(&self) -> Section<'_> {
        let attempt = || {
            let state = self.state.try_lock();
            if state.is_none() {
                hint::spin_loop();
            }
            state
        };
        // Bounded: by the tries.
        let state = (0..TRIES).find_map(|_| attempt()).unwrap_or_else(|| self.state.lock());
        Section { order: self, state }
    }

    /// Whether a caller is committing at this moment.
    pub(crate) fn is_busy(&self) -> bool {
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
    /// Assigns the next moment, for watermarks and read points. Only mutations take one.
    pub(crate) fn moment(&mut self) -> Moment {
        let next = self.order.last.load(Ordering::Relaxed) + 1;
        self.order.last.store(next, Ordering::Release);
        Moment(next)
    }

    /// The last moment: every committed mutation has this one or an earlier one.
    pub(crate) fn now(&self) -> Moment {
        Moment(self.order.last.load(Ordering::Relaxed))
    }

    /// The sequence of this section's mutation: the log position of its record, or, without a
    /// record, the previous sequence plus one. Positions are assigned in the same order. So the
    /// caller must leave a gap before the next record ([`is_gap_before`](Self::is_gap_before)),
    /// unless the log has ended and no mutation will have a record again.
    pub(crate) fn sequence(&mut self, record: Option<u64>) -> Sequence {
        let behind = self.state.sequence.0 + 1;
        let sequence = Sequence(record.unwrap_or(behind));
        debug_assert!(sequence.0 >= behind, "positions must increase");
        self.state.sequence = sequence;
        sequence
    }

    /// The last sequence that was assigned.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.state.sequence
    }

    /// Whether a mutation without a record can still be numbered before a record at `tail`.
    pub(crate) fn is_gap_before(&self, tail: u64) -> bool {
        self.state.sequence.0 + 1 < tail
    }

    pub(crate) fn watermarks(&mut self) -> &mut Watermarks {
        &mut self.state.watermarks
    }

    pub(crate) fn has_given(&self, point: ReadPoint) -> bool {
        point.instance == self.order.instance
    }

    /// A read point for a key, which is tracked exactly until `unwatch`.
    pub(crate) fn watch(&mut self, hash: KeyHash) -> ReadPoint {
        let moment = self.now();
        self.watermarks().watch(hash, moment);
        ReadPoint { moment, instance: self.order.instance }
    }

    /// Like [`CommitLock::is_closed`], but stable: closing takes this section.
    pub(crate) fn is_closed(&self) -> bool {
        self.order.is_closed()
    }

    /// Closes the order: no sequence is assigned from now on. False if it was closed before.
    pub(crate) fn close(&mut self) -> bool {
        !self.order.closed.swap(true, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_point_follows_earlier_mutations_and_belongs_to_one_cache() {
        let order = CommitLock::new(1, 64);
        let first = order.section().moment();
        let point = order.read_point();
        let second = order.section().moment();
        assert!(first <= point.moment && point.moment < second);
        assert!(order.section().has_given(point));
        assert!(!order.section().has_given(ReadPoint { instance: 2, ..point }));
    }
}
