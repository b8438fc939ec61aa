//! `SweepInterval`: the pause between two background rounds over all entries.
//!
//! If a round finds few expired entries, it was early, and the next pause is longer; if it finds
//! many, it was late. The pause grows with the cost of a round, up to a limit, so that a cache in
//! which few entries expire is almost idle.

use std::time::Duration;

/// One of so many visited entries should have expired.
const YIELD: u32 = 8;

/// The most by which a pause is longer or shorter than the one before.
const STEEPNESS: f64 = 8.0;

/// The longest pause: this many times the work of a round, and this long.
const WORK_MULTIPLE: u32 = 1000;
const PAUSE_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pass {
    pub(crate) visited: usize,
    pub(crate) removed: usize,
    pub(crate) work: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct SweepInterval {
    pause: Duration,
}

impl SweepInterval {
    pub(crate) fn after(&mut self, pass: Pass) -> Duration {
        let most = pass.work.saturating_mul(WORK_MULTIPLE).min(PAUSE_MAX);
        let wanted = pass.visited as f64 / f64::from(YIELD);
        let factor = (wanted / pass.removed.max(1) as f64).clamp(STEEPNESS.recip(), STEEPNESS);
        // A pause of zero would not grow.
        self.pause = self.pause.max(pass.work).mul_f64(factor).min(most);
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VISIT: Duration = Duration::from_nanos(200);

    /// An hour. `ended`: entries expired by a millisecond. Returns time spent, most expired.
    fn hour(entries: usize, ended: impl Fn(usize) -> usize) -> (Duration, usize) {
        let mut interval = SweepInterval::default();
        let (mut now, mut removed, mut most) = (Duration::ZERO, 0, 0);
        let mut work = Duration::ZERO;
        while now < Duration::from_secs(3600) {
            let gone = ended(usize::try_from(now.as_millis()).unwrap()) - removed;
            most = most.max(gone);
            let visited = entries - removed;
            let pass =
                Pass { visited, removed: gone, work: VISIT * u32::try_from(visited).unwrap() };
            removed += gone;
            work += pass.work;
            // The sweeper rests for twenty times its work, and a second between rounds.
            now += (interval.after(pass) + pass.work * 20).max(Duration::from_secs(1));
        }
        (work, most)
    }

    #[test]
    fn what_ends_little_by_little_costs_next_to_nothing() {
        for entries in [1_000, 100_000, 500_000, 5_000_000] {
            let (work, most) = hour(entries, |now| entries * now / 3_600_000);
            assert!(work < Duration::from_secs(18), "{entries}: {work:?} is over half a percent");
            assert!(most < entries / 5, "{entries}: {most} were gone");
        }
    }

    #[test]
    fn what_ends_at_once_goes_soon_and_costs_a_few_visits_each() {
        for entries in [1_000, 100_000, 500_000] {
            // From half an hour on, within ten seconds.
            let ended =
                |now: usize| entries * (now.clamp(1_800_000, 1_810_000) - 1_800_000) / 10_000;
            let (work, _) = hour(entries, ended);
            assert!(work < Duration::from_secs(18), "{entries}: {work:?}");
        }
        let mut interval = SweepInterval::default();
        let pass = |removed| Pass { visited: 1000, removed, work: Duration::from_millis(1) };
        (0..10).for_each(|_| _ = interval.after(pass(0)));
        assert_eq!(interval.after(pass(0)), Duration::from_secs(1), "a thousand times the work");
        assert_eq!(interval.after(pass(125)), Duration::from_secs(1), "as it should be");
        (0..10).for_each(|_| _ = interval.after(pass(1000)));
        assert!(interval.after(pass(1000)) <= Duration::from_millis(1));
    }

    #[test]
    fn a_round_that_met_nobody_leaves_no_pause() {
        assert_eq!(SweepInterval::default().after(Pass::default()), Duration::ZERO);
    }
}
