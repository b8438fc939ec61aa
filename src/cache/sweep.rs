//! Sweeping: memory of what has expired, was flushed, or is covered by an invalidation, comes back
//! without waiting for SIEVE's hand.
//!
//! There is one round over all entries, which everybody helps on: mutations while invalidations are
//! unfinished, callers of `sweep_expired`, and the background sweeper. Space on disk comes back by
//! reclaim, which gives what has expired no second chance.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::cache::shared::Shared;
use crate::clock::Timestamp;
use crate::invalidation::Round;
use crate::step::{STEP_ENTRIES, pause};
use crate::sweep::{SweepLimit, SweepReport};
use crate::sweeper::{Sweep, Tenancy};

/// The least time between two steps of the background sweeper, and between two of its rounds.
const STEP_PAUSE: Duration = Duration::from_millis(1);
const ROUND_PAUSE: Duration = Duration::from_secs(1);

/// How long others have to finish an invalidation before the sweeper helps.
const GRACE: Duration = Duration::from_millis(100);

impl Shared {
    /// Has the cache swept in the background from now on.
    pub(super) fn be_swept(self: &Arc<Self>) {
        let weak: Weak<dyn Sweep> = Arc::<Self>::downgrade(self);
        self.agenda.tenancy.get_or_init(|| Tenancy::new(&weak));
    }

    /// An entry is in memory that ends by itself then. Not to be called in a section.
    pub(super) fn note_end(&self, ends: Timestamp) {
        if self.agenda.note(ends) {
            if let Some(tenancy) = self.agenda.tenancy.get() {
                tenancy.wants(self.until(ends));
            }
        }
    }

    /// An invalidation has been made, whose caller may go away.
    pub(super) fn note_rule(&self) {
        if let Some(tenancy) = self.agenda.tenancy.get().filter(|_| self.rules.any_pending()) {
            tenancy.wants(GRACE);
        }
    }

    /// How long it is until then, with some time to let others end as well.
    fn until(&self, ends: Timestamp) -> Duration {
        let ended = ends.saturating_since(self.clock.timestamp()).saturating_add(ROUND_PAUSE);
        ended.max(self.agenda.rest_left())
    }

    pub(super) async fn sweep_expired(&self, limit: SweepLimit) -> SweepReport {
        let mut report = SweepReport::default();
        let started = Instant::now();
        // What comes later is another sweep's.
        let (mut rules, begun) = (self.rules.over_labels(), self.rules.round());
        // Bounded: a step in each turn, then a pause.
        while !self.order.is_closed() {
            let left = limit.entries().saturating_sub(report.entries_visited);
            if left == 0 || started.elapsed() >= limit.duration() {
                report.truncated = !self.ends_pass(begun);
                return report;
            }
            let most = left.min(STEP_ENTRIES);
            // Bounded: by the most rules at one time.
            rules.retain(|rule| !self.rules.is_withdrawn(rule));
            if let Some(rule) = rules.first() {
                self.step_through_postings(rule, most, true, &mut report);
            } else if self.sweep_step(begun, most, &mut report) {
                *self.agenda.pass.lock() = None;
                break;
            }
            pause().await;
        }
        report
    }

    /// A sweep that began there has stopped at its limit. True where those before it and this one
    /// have come round.
    fn ends_pass(&self, begun: Round) -> bool {
        let mut pass = self.agenda.pass.lock();
        let is_round = self.rules.round().is_round_since(*pass.get_or_insert(begun));
        if is_round {
            *pass = None;
        }
        is_round
    }

    /// A step of a round that began there. True once it is done.
    fn sweep_step(&self, begun: Round, limit: usize, report: &mut SweepReport) -> bool {
        let at = self.step_of_round(limit, true, report);
        at.is_some_and(|at| at.is_round_since(begun))
    }

    /// Whether the background sweeper's round is under way, or to be begun.
    pub(super) fn is_round_due(&self) -> bool {
        let is_under_way = self.agenda.background.lock().round.is_some();
        let has_ended = || self.agenda.soonest() <= self.clock.timestamp();
        is_under_way || (self.agenda.rest_left().is_zero() && has_ended())
    }

    /// A step of the background sweeper's round. True once it is done.
    pub(super) fn sweep_some(&self) -> bool {
        let mut background = self.agenda.background.lock();
        let begun = *background.round.get_or_insert_with(|| {
            // What comes in from here on says when it ends, and what is there will be met.
            self.agenda.forget();
            self.rules.round()
        });
        let (started, mut report) = (Instant::now(), SweepReport::default());
        let is_done = self.sweep_step(begun, STEP_ENTRIES, &mut report);
        background.lap.work += started.elapsed();
        background.lap.visited += report.entries_visited;
        background.lap.removed += report.entries_removed();
        if is_done {
            self.agenda.rest(&mut background);
        }
        is_done
    }
}

impl Sweep for Shared {
    fn sweep(&self) -> Option<Duration> {
        if self.order.is_closed() {
            return None;
        }
        let is_helping = self.rules.any_pending();
        self.help_along(STEP_ENTRIES);
        let is_round_left = self.is_round_due() && !self.sweep_some();
        if is_helping || is_round_left {
            return Some(STEP_PAUSE);
        }
        let soonest = self.agenda.soonest();
        (soonest != Timestamp::NEVER).then(|| self.until(soonest))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::SystemTime;
    use std::{hint, thread};

    use futures::FutureExt;
    use futures::executor::block_on;

    use super::*;
    use crate::cache::BlobCache;
    use crate::clock::Clock;
    use crate::config::BlobCacheConfig;
    use crate::modes::BackgroundSweep;
    use crate::policy::BlobCachePolicy;
    use crate::put::BlobCachePut;

    /// A cache that is swept by its tests alone.
    fn unswept(clock: &Clock) -> BlobCache {
        let config = BlobCacheConfig::builder().shard_count(1).clock(clock.clone());
        let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
        block_on(BlobCache::open(config)).unwrap()
    }

    /// Invalidations walk the same round.
    #[test]
    fn a_round_that_others_help_on_hears_when_entries_end() {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let cache = unswept(&clock);
        let entries = 4 * STEP_ENTRIES as u64;
        for number in 0..entries {
            let ttl = Duration::from_secs(10_000 - number);
            let put = BlobCachePut::new("v").with_policy(BlobCachePolicy::default().ttl(ttl));
            block_on(cache.put("a", number.to_le_bytes(), put)).unwrap();
        }
        let shared = &cache.shared;
        assert!(!shared.sweep_some(), "a first step");
        block_on(cache.invalidate_prefix("a", "none such")).unwrap();
        while !shared.sweep_some() {}
        let first = clock.timestamp().saturating_add(Duration::from_secs(10_001 - entries));
        assert_eq!(shared.agenda.soonest(), first);
    }

    #[test]
    fn rules_under_way_keep_nobody_from_expiring() {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let cache = unswept(&clock);
        let mortal = BlobCachePolicy::default().ttl(Duration::from_secs(10));
        block_on(cache.put("soon", "key", BlobCachePut::new("v").with_policy(mortal))).unwrap();
        clock.advance(Duration::from_secs(100));
        for _ in 0..20 {
            for number in 0..300u64 {
                let put = BlobCachePut::new("v").with_tags(["t"]);
                block_on(cache.put("tagged", number.to_le_bytes(), put)).unwrap();
            }
            assert!(cache.invalidate_tags("tagged", &["t"]).now_or_never().is_none());
            assert!(cache.shared.sweep().is_some());
        }
        assert_eq!(cache.namespace_stats("soon").map_or(0, |stats| stats.entries()), 0);
    }

    /// Whoever takes a step while a flush is under way may see its entries alive for the last time.
    #[test]
    fn what_was_flushed_is_gone_once_its_round_is_over() {
        let cache = unswept(&Clock::system());
        let (shared, is_over) = (&cache.shared, AtomicBool::new(false));
        let mut left = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    shared.step_of_round(1, true, &mut SweepReport::default());
                    (0..50).for_each(|_| hint::spin_loop());
                }
            });
            for _ in 0..400_000 {
                block_on(cache.put("a", "key", "old")).unwrap();
                block_on(cache.invalidate_all()).unwrap();
                while shared.rules.any_pending() {
                    hint::spin_loop();
                }
                left += usize::from(shared.l1.bytes() > 0);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(left, 0);
    }
}
