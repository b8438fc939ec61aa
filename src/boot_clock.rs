//! `BootClock`: the time since the machine was booted, real or hand-driven.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::nanos;

/// The source of a [`Gate`](crate::Gate)'s time: the time since the machine was booted, which goes
/// on while the machine sleeps and no one can set; or one that a test moves by hand.
///
/// Clones of a manual clock move together.
///
/// ```
/// use std::time::Duration;
/// use tamis::BootClock;
///
/// let clock = BootClock::manual(Duration::from_secs(60));
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), Duration::from_secs(65));
/// ```
#[derive(Debug, Clone, Default)]
pub struct BootClock(Option<Arc<AtomicU64>>);

impl BootClock {
    /// The kernel's `CLOCK_BOOTTIME`. On other systems than Linux the clock of
    /// [`Instant`](std::time::Instant), which may stand still while the machine sleeps. This is the
    /// default.
    #[must_use]
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `start` until it is moved.
    #[must_use]
    pub fn manual(start: Duration) -> Self {
        Self(Some(Arc::new(AtomicU64::new(nanos(start)))))
    }

    /// Moves a manual clock forward, for 584 years at most. A system clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Some(hand) = &self.0 {
            let step = |now: u64| Some(now.saturating_add(nanos(by)));
            let _ = hand.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        }
    }

    /// The current time of this clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.nanos())
    }

    #[inline]
    pub(crate) fn nanos(&self) -> u64 {
        match &self.0 {
            None => system_nanos(),
            Some(hand) => hand.load(Ordering::Acquire),
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn system_nanos() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::Boottime);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    // Never negative. If it were, all leases would be over.
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(not(target_os = "linux"))]
fn system_nanos() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static FIRST: OnceLock<Instant> = OnceLock::new();
    nanos(FIRST.get_or_init(Instant::now).elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_counts_from_the_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = BootClock::system().now();
        assert!((now.as_secs_f64() - seconds).abs() < 5.0, "{now:?} after {seconds} s");
        assert!(BootClock::default().now() >= now);
    }

    #[test]
    fn a_manual_clock_moves_with_its_clones_and_saturates() {
        let clock = BootClock::manual(Duration::from_secs(1));
        clock.clone().advance(Duration::from_secs(1));
        assert_eq!(clock.now(), Duration::from_secs(2));
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.nanos(), u64::MAX);
    }
}
