//! `Sweeping`: frees entries that have expired, were flushed or match an invalidation, before
//! SIEVE's hand reaches them.
//!
//! One round over all entries serves everyone: mutations while invalidations are pending, callers
//! of `sweep_expired`, and the background sweeper. Reclaim frees space on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::clock::{Clock, Timestamp};
use crate::commit_lock::CommitLock;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::background::sweep_progress::SweepProgress;
use crate::engine::fetch::held::HeldErrors;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::parts::Parts;
use crate::pending::{PendingInvalidations, RoundPosition};
use crate::sweep::{SweepLimit, SweepReport};
use crate::sweeper::Sweep;
use crate::telemetry::{spanned, tell};

/// The least time between two batches of the background sweeper.
const STEP_PAUSE: Duration = Duration::from_millis(1);

pub(crate) struct Sweeping {
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    deadlines: Arc<Deadlines>,
    progress: Arc<SweepProgress>,
    cleanup: Cleanup,
    clock: Clock,
    held_errors: Arc<HeldErrors>,
}

impl Sweeping {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            commit_lock: Arc::clone(&parts.commit_lock),
            pending: Arc::clone(&parts.pending),
            deadlines: Arc::clone(&parts.deadlines),
            progress: Arc::clone(&parts.sweep_progress),
            cleanup: Cleanup::new(parts),
            clock: parts.clock.clone(),
            held_errors: Arc::clone(&parts.held_errors),
        }
    }

    pub(crate) async fn sweep_expired(&self, limit: SweepLimit) -> SweepReport {
        let span = || tracing::debug_span!(target: "tamis::sweep", "sweep");
        let report = spanned(span, self.sweep_within(limit)).await;
        let (visited, removed) = (report.entries_visited, report.entries_removed());
        tell!(debug, "sweep", visited, removed, truncated = report.truncated, "a sweep is over");
        report
    }

    async fn sweep_within(&self, limit: SweepLimit) -> SweepReport {
        let mut report = SweepReport::default();
        let started = Instant::now();
        self.held_errors.expire(self.clock.timestamp());
        // Later invalidations are another sweep's.
        let (mut invalidations, begun) = (self.pending.over_labels(), self.pending.round());
        // Bounded: a batch in each turn, then a yield.
        while !self.commit_lock.is_closed() {
            let left = limit.entries().saturating_sub(report.entries_visited);
            if left == 0 || started.elapsed() >= limit.duration() {
                report.truncated = !self.progress.ends_limited(begun, self.pending.round());
                return report;
            }
            let most = left.min(BATCH_ENTRIES);
            // Bounded: by the most invalidations at one time.
            invalidations.retain(|invalidation| !self.pending.is_withdrawn(invalidation));
            if let Some(invalidation) = invalidations.first() {
                self.cleanup.run_postings_batch(invalidation, most, true, &mut report);
            } else if self.run_batch(begun, most, &mut report) {
                self.progress.end_limited();
                break;
            }
            yield_now().await;
        }
        report
    }

    /// A batch of a round that began at `begun`. True once the round is over.
    fn run_batch(&self, begun: RoundPosition, limit: usize, report: &mut SweepReport) -> bool {
        let at = self.cleanup.run_round_batch(limit, true, report);
        at.is_some_and(|at| at.is_round_since(begun))
    }

    /// Whether the background round is under way, or due.
    pub(crate) fn is_round_due(&self) -> bool {
        self.progress.background().is_under_way()
            || (self.deadlines.rest_left().is_zero() && self.deadlines.has_passed())
    }

    /// A batch of the background round. True once the round is over.
    pub(crate) fn run_background_batch(&self) -> bool {
        let mut background = self.progress.background();
        let begun = background.begun_or(|| {
            // Later puts note their deadlines, and the round meets all others.
            self.deadlines.forget();
            self.pending.round()
        });
        let (started, mut report) = (Instant::now(), SweepReport::default());
        let is_over = self.run_batch(begun, BATCH_ENTRIES, &mut report);
        background.add(report.entries_visited, report.entries_removed(), started.elapsed());
        if is_over {
            self.deadlines.rest(background.end());
        }
        is_over
    }
}

impl Sweep for Sweeping {
    fn sweep(&self) -> Option<Duration> {
        if self.commit_lock.is_closed() {
            return None;
        }
        let is_helping = self.pending.any_pending();
        self.cleanup.help_along(BATCH_ENTRIES);
        let is_round_left = self.is_round_due() && !self.run_background_batch();
        if is_helping || is_round_left {
            return Some(STEP_PAUSE);
        }
        let soonest = self.deadlines.soonest();
        (soonest != Timestamp::NEVER).then(|| self.deadlines.until(soonest))
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
    use crate::config::BlobCacheConfig;
    use crate::modes::BackgroundSweep;
    use crate::policy::BlobCachePolicy;
    use crate::put::BlobCachePut;

    fn unswept(clock: &Clock) -> BlobCache {
        let config = BlobCacheConfig::builder().shard_count(1).clock(clock.clone());
        let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
        block_on(BlobCache::open(config)).unwrap()
    }

    #[test]
    fn a_round_run_in_part_by_others_still_notes_the_next_expiry() {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH);
        let cache = unswept(&clock);
        let entries = 4 * BATCH_ENTRIES as u64;
        for number in 0..entries {
            let ttl = Duration::from_secs(10_000 - number);
            let put = BlobCachePut::new("v").with_policy(BlobCachePolicy::default().ttl(ttl));
            block_on(cache.put("a", number.to_le_bytes(), put)).unwrap();
        }
        let engine = &cache.engine;
        assert!(!engine.sweeping.run_background_batch(), "a first step");
        block_on(cache.invalidate_prefix("a", "none such")).unwrap();
        while !engine.sweeping.run_background_batch() {}
        let first = clock.timestamp().saturating_add(Duration::from_secs(10_001 - entries));
        assert_eq!(engine.parts.deadlines.soonest(), first);
    }

    #[test]
    fn entries_expire_while_invalidations_are_pending() {
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
            assert!(cache.engine.sweeping.sweep().is_some());
        }
        assert_eq!(cache.namespace_stats("soon").map_or(0, |stats| stats.entries()), 0);
    }

    /// A batch during a flush may see the flushed entries as alive.
    #[test]
    fn flushed_entries_leave_memory_by_the_end_of_the_round() {
        let cache = unswept(&Clock::system());
        let (engine, is_over) = (&cache.engine, AtomicBool::new(false));
        let mut left = 0;
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    engine.sweeping.cleanup.run_round_batch(1, true, &mut SweepReport::default());
                    (0..50).for_each(|_| hint::spin_loop());
                }
            });
            for _ in 0..100_000 {
                block_on(cache.put("a", "key", "old")).unwrap();
                block_on(cache.invalidate_all()).unwrap();
                while engine.parts.pending.any_pending() {
                    hint::spin_loop();
                }
                left += usize::from(engine.parts.l1.bytes() > 0);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(left, 0);
    }
}
