//! `Agenda`: what a cache knows of what there is to be swept, and by when.

use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cache::pace::{Lap, Pace};
use crate::clock::{Timestamp, nanos};
use crate::invalidation::Round;
use crate::sweeper::Tenancy;

/// What the background sweeper has begun.
#[derive(Debug, Default)]
pub(super) struct Background {
    /// Where its round began, while it is under way.
    pub(super) round: Option<Round>,
    pub(super) lap: Lap,
    pace: Pace,
}

#[derive(Debug)]
pub(super) struct Agenda {
    /// No entry in memory ends before that, by what was known of it.
    soonest: AtomicU64,
    pub(super) background: Mutex<Background>,
    /// No round is begun in the background before that, in nanoseconds since `opened`.
    rested: AtomicU64,
    opened: Instant,
    /// Where the first of the sweeps began that have stopped at their limits since one came round.
    pub(super) pass: Mutex<Option<Round>>,
    /// None where nothing is swept in the background.
    pub(super) tenancy: OnceLock<Tenancy>,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self {
            soonest: AtomicU64::new(Timestamp::NEVER.0),
            background: Mutex::default(),
            rested: AtomicU64::new(0),
            opened: Instant::now(),
            pass: Mutex::default(),
            tenancy: OnceLock::new(),
        }
    }

    pub(super) fn soonest(&self) -> Timestamp {
        Timestamp(self.soonest.load(Ordering::Relaxed))
    }

    /// An entry ends then. True where none was known to end so soon.
    pub(super) fn note(&self, ends: Timestamp) -> bool {
        ends < self.soonest() && self.soonest.fetch_min(ends.0, Ordering::Relaxed) > ends.0
    }

    /// A round begins, which will hear of all that is there.
    pub(super) fn forget(&self) {
        self.soonest.store(Timestamp::NEVER.0, Ordering::Relaxed);
    }

    /// A round in the background is over: the next one has time.
    pub(super) fn rest(&self, background: &mut Background) {
        background.round = None;
        let pause = background.pace.after(mem::take(&mut background.lap));
        let rested = self.opened.elapsed().saturating_add(pause);
        self.rested.store(nanos(rested), Ordering::Relaxed);
    }

    /// How long no round is to be begun in the background.
    pub(super) fn rest_left(&self) -> Duration {
        let rested = Duration::from_nanos(self.rested.load(Ordering::Relaxed));
        rested.saturating_sub(self.opened.elapsed())
    }
}
