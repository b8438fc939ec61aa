//! `Deadlines`: when the next entry in memory expires, and when the background sweeper is due.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::clock::{Clock, Timestamp, nanos};
use crate::pending::PendingInvalidations;
use crate::sweeper::{Registration, Sweep};

/// The least time between two rounds of the background sweeper.
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// How long callers have to finish an invalidation before the sweeper helps.
const GRACE: Duration = Duration::from_millis(100);

pub(crate) struct Deadlines {
    clock: Clock,
    pending: Arc<PendingInvalidations>,
    /// No entry in memory expires before that, as far as is known.
    soonest: AtomicU64,
    /// The background begins no round before that. Nanoseconds since `opened`.
    rested: AtomicU64,
    opened: Instant,
    /// None if the background sweep is off.
    registration: OnceLock<Registration>,
}

impl Deadlines {
    pub(crate) fn new(clock: Clock, pending: Arc<PendingInvalidations>) -> Self {
        Self {
            clock,
            pending,
            soonest: AtomicU64::new(Timestamp::NEVER.0),
            rested: AtomicU64::new(0),
            opened: Instant::now(),
            registration: OnceLock::new(),
        }
    }

    pub(crate) fn register(&self, sweep: &Weak<dyn Sweep>) {
        self.registration.get_or_init(|| Registration::new(sweep));
    }

    pub(crate) fn soonest(&self) -> Timestamp {
        Timestamp(self.soonest.load(Ordering::Relaxed))
    }

    /// Whether an entry has expired since the last round, as far as is known.
    pub(crate) fn has_passed(&self) -> bool {
        self.soonest() <= self.clock.timestamp()
    }

    /// An entry in memory expires at `ends`. Not to be called in a section.
    pub(crate) fn note_end(&self, ends: Timestamp) {
        let is_first =
            ends < self.soonest() && self.soonest.fetch_min(ends.0, Ordering::Relaxed) > ends.0;
        if let Some(registration) = self.registration.get().filter(|_| is_first) {
            registration.schedule(self.until(ends));
        }
    }

    /// An invalidation is pending, and its caller may go away.
    pub(crate) fn note_invalidation(&self) {
        if let Some(registration) = self.registration.get().filter(|_| self.pending.any_pending()) {
            registration.schedule(GRACE);
        }
    }

    /// The time until then, and some more so that other entries expire meanwhile.
    pub(crate) fn until(&self, ends: Timestamp) -> Duration {
        let ended = ends.saturating_since(self.clock.timestamp()).saturating_add(ROUND_PAUSE);
        ended.max(self.rest_left())
    }

    /// A round begins, which learns all deadlines anew.
    pub(crate) fn forget(&self) {
        self.soonest.store(Timestamp::NEVER.0, Ordering::Relaxed);
    }

    /// A background round is over. The next begins after `pause` at the earliest.
    pub(crate) fn rest(&self, pause: Duration) {
        let rested = self.opened.elapsed().saturating_add(pause);
        self.rested.store(nanos(rested), Ordering::Relaxed);
    }

    pub(crate) fn rest_left(&self) -> Duration {
        let rested = Duration::from_nanos(self.rested.load(Ordering::Relaxed));
        rested.saturating_sub(self.opened.elapsed())
    }
}
