//! `Agenda`: what a cache knows of what there is to be swept, and by when.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::invalidation::Round;
use crate::sweeper::Tenancy;

#[derive(Debug)]
pub(super) struct Agenda {
    /// No entry in memory ends before that, by what was known of it.
    soonest: AtomicU64,
    /// Where the background sweeper's round began, while it is under way.
    pub(super) round: Mutex<Option<Round>>,
    /// Where the first of the sweeps began that have stopped at their limits since one came round.
    pub(super) pass: Mutex<Option<Round>>,
    /// None where nothing is swept in the background.
    pub(super) tenancy: OnceLock<Tenancy>,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self {
            soonest: AtomicU64::new(Timestamp::NEVER.0),
            round: Mutex::default(),
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
}
