//! `Clock` and `Timestamp`: wall time, real or hand-driven, with saturating arithmetic.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The source of a cache's time: the system's clock, or one that a test moves by hand.
///
/// Clones of a manual clock move together. Deadlines are wall-clock times, since they outlive the
/// process.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tamis::Clock;
///
/// let clock = Clock::manual(SystemTime::UNIX_EPOCH);
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
/// ```
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// The kernel's coarse wall clock: a few nanoseconds to read, and behind the exact time by at
    /// most one timer tick (1 to 10 ms, 4 ms on most kernels). On other systems than Linux the
    /// exact one. This is the default.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is moved.
    ///
    /// Times before 1970 count as 1970, times after 2554 as the end of 2554.
    #[must_use]
    pub fn manual(start: SystemTime) -> Self {
        Self(Source::Manual(Arc::new(AtomicU64::new(Timestamp::from(start).0))))
    }

    /// Moves a manual clock forward, up to its end in 2554. A system clock does not move.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(hand) = &self.0 {
            let step = |now| Some(Timestamp(now).saturating_add(by).0);
            let _ = hand.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
        }
    }

    /// Moves a manual clock to `time`, backwards too. A system clock does not move.
    pub fn set(&self, time: SystemTime) {
        if let Source::Manual(hand) = &self.0 {
            hand.store(Timestamp::from(time).0, Ordering::Release);
        }
    }

    /// The current time of this clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.timestamp().into()
    }

    #[inline]
    pub(crate) fn timestamp(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_time(),
            Source::Manual(hand) => Timestamp(hand.load(Ordering::Acquire)),
        }
    }
}

#[cfg(target_os = "linux")]
#[inline]
fn system_time() -> Timestamp {
    use rustix::time::{ClockId, clock_gettime};
    let now = clock_gettime(ClockId::RealtimeCoarse);
    let nanos = now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec);
    Timestamp(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
#[inline]
fn system_time() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

/// Nanoseconds since 1970, saturating at both ends. The maximum means "never".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timestamp(pub(crate) u64);

impl Timestamp {
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// The time since `earlier`; zero if the clock has stepped back.
    pub(crate) fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, nanos))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_nanos(timestamp.0)
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_saturate_at_both_ends() {
        assert_eq!(Timestamp::from(UNIX_EPOCH - Duration::from_secs(1)), Timestamp(0));
        assert_eq!(Timestamp(5).saturating_add(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp(5).saturating_since(Timestamp(9)), Duration::ZERO);
        let clock = Clock::manual(UNIX_EPOCH);
        clock.advance(Duration::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.timestamp(), Timestamp::NEVER);
    }

    #[test]
    fn the_coarse_clock_is_close_to_the_exact_one() {
        let exact = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let exact = Duration::new(
            u64::try_from(exact.tv_sec).unwrap(),
            u32::try_from(exact.tv_nsec).unwrap(),
        );
        let coarse = Clock::system().now().duration_since(UNIX_EPOCH).unwrap();
        assert!(exact.abs_diff(coarse) < Duration::from_secs(1), "{exact:?} against {coarse:?}");
    }
}
