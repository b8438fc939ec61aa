//! `Deadlines`: when the next entry in memory ends, and when the background sweeper is due.

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

/// See the module.
pub(crate) struct Deadlines {
    clock: Clock,
    pending: Arc<PendingInvalidations>,
    /// No entry in memory ends before that, as far as is known.
    soonest: AtomicU64,
    /// The background begins no round before that, in nanoseconds since `opened`.
    rested: AtomicU64,
    opened: Instant,
    /// None where nothing is swept in the background.
    tenancy: OnceLock<Registration>,
}

impl Deadlines {
    pub(crate) fn new(clock: Clock, pending: Arc<PendingInvalidations>) -> Self {
        Self {
            clock,
            pending,
            soonest: AtomicU64::new(Timestamp::NEVER.0),
            rested: AtomicU64::new(0),
            opened: Instant::now(),
            tenancy: OnceLock::new(),
        }
    }

    /// From now on the background sweeper calls `sweep`.
    pub(crate) fn register(&self, sweep: &Weak<dyn Sweep>) {
        self.tenancy.get_or_init(|| Registration::new(sweep));
    }

    pub(crate) fn soonest(&self) -> Timestamp {
        Timestamp(self.soonest.load(Ordering::Relaxed))
    }

    /// Whether an entry has ended since the last round, as far as is known.
    pub(crate) fn has_passed(&self) -> bool {
        self.soonest() <= self.clock.timestamp()
    }

    /// An entry in memory ends by itself then. Not to be called in a section.
    pub(crate) fn note_end(&self, ends: Timestamp) {
        let is_first =
            ends < self.soonest() && self.soonest.fetch_min(ends.0, Ordering::Relaxed) > ends.0;
        if let Some(tenancy) = self.tenancy.get().filter(|_| is_first) {
            tenancy.schedule(self.until(ends));
        }
    }

    /// An invalidation has been made, whose caller may go away.
    pub(crate) fn note_invalidation(&self) {
        if let Some(tenancy) = self.tenancy.get().filter(|_| self.pending.any_pending()) {
            tenancy.schedule(GRACE);
        }
    }

    /// How long it is until then, with some time to let others end as well.
    pub(crate) fn until(&self, ends: Timestamp) -> Duration {
        let ended = ends.saturating_since(self.clock.timestamp()).saturating_add(ROUND_PAUSE);
        ended.max(self.rest_left())
    }

    /// A round begins, which learns the deadlines of all entries anew.
    pub(crate) fn forget(&self) {
        self.soonest.store(Timestamp::NEVER.0, Ordering::Relaxed);
    }

    /// A background round is over: the next begins no sooner than after `pause`.
    pub(crate) fn rest(&self, pause: Duration) {
        let rested = self.opened.elapsed().saturating_add(pause);
        self.rested.store(nanos(rested), Ordering::Relaxed);
    }

    /// How long until the background may begin a round.
    pub(crate) fn rest_left(&self) -> Duration {
        let rested = Duration::from_nanos(self.rested.load(Ordering::Relaxed));
        rested.saturating_sub(self.opened.elapsed())
    }
}
