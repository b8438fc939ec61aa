//! `SweepProgress`: the progress of the sweeps under way.

use std::mem;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use crate::engine::background::sweep_interval::{Pass, SweepInterval};
use crate::pending::RoundPosition;

#[derive(Debug, Default)]
pub(crate) struct Background {
    /// Where it began; None if none is under way.
    begun: Option<RoundPosition>,
    pass: Pass,
    interval: SweepInterval,
}

#[derive(Debug, Default)]
pub(crate) struct SweepProgress {
    background: Mutex<Background>,
    /// Where the first sweep began that stopped at its limit since the last complete round.
    limited: Mutex<Option<RoundPosition>>,
}

impl SweepProgress {
    pub(crate) fn background(&self) -> MutexGuard<'_, Background> {
        self.background.lock()
    }

    /// A sweep from `begun` has stopped at its limit. True if such sweeps have come round.
    pub(crate) fn ends_limited(&self, begun: RoundPosition, now: RoundPosition) -> bool {
        let mut limited = self.limited.lock();
        let has_come_round = now.is_round_since(*limited.get_or_insert(begun));
        if has_come_round {
            *limited = None;
        }
        has_come_round
    }

    pub(crate) fn end_limited(&self) {
        *self.limited.lock() = None;
    }
}

impl Background {
    pub(crate) fn is_under_way(&self) -> bool {
        self.begun.is_some()
    }

    pub(crate) fn begun_or(&mut self, begin: impl FnOnce() -> RoundPosition) -> RoundPosition {
        *self.begun.get_or_insert_with(begin)
    }

    pub(crate) fn add(&mut self, visited: usize, removed: usize, work: Duration) {
        self.pass.visited += visited;
        self.pass.removed += removed;
        self.pass.work += work;
    }

    /// Ends the round. Gives the pause until the next.
    pub(crate) fn end(&mut self) -> Duration {
        self.begun = None;
        self.interval.after(mem::take(&mut self.pass))
    }
}
