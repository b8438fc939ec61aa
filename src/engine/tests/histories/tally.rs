//! `Tally`: counts of events in histories, so that a cache that always misses does not pass.

use std::ops::AddAssign;

use crate::hit::{BlobCacheHit, CacheTier};
use crate::stats::BlobCacheStats;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) gets: u64,
    pub(super) dropped: u64,
    pub(super) hits_l1: u64,
    pub(super) hits_l2: u64,
    pub(super) hits_after_open: u64,
    pub(super) recovered: u64,
    pub(super) opens_by_image: u64,
    pub(super) evicted: u64,
    pub(super) promoted: u64,
    pub(super) reclaimed: u64,
    pub(super) second_chances: u64,
    pub(super) refused: u64,
    pub(super) not_admitted: u64,
    pub(super) over_rate: u64,
    pub(super) mismatches: u64,
    pub(super) invalidated: u64,
    pub(super) stale_serves: u64,
    pub(super) touched: u64,
    /// Hits through typed handles, and values that did not decode there.
    pub(super) typed: u64,
    pub(super) undecoded: u64,
    /// Hits on values with the policy of their namespace.
    pub(super) defaults: u64,
    /// Held errors and fetches that took too long, by a fetch policy of their namespace's own.
    pub(super) by_namespace: u64,
    /// Calls about dependencies in all namespaces that have found entries.
    pub(super) over_namespaces: u64,
    /// Other budgets of memory while the cache was open, and those of them that were smaller.
    pub(super) budgets: u64,
    pub(super) budgets_smaller: u64,
    pub(super) expired: u64,
    /// Fetches in tasks, soft timeouts, refreshes ahead, and hits on values whose callers had gone.
    pub(super) spawned: u64,
    pub(super) soft: u64,
    pub(super) ahead: u64,
    pub(super) timed_out: u64,
    /// Errors of fetches given to other calls than theirs.
    pub(super) held: u64,
    pub(super) left: u64,
    /// Events, and misses of entries of whose ends they had told.
    pub(super) events: u64,
    pub(super) misses_told: u64,
    pub(super) failures: u64,
    /// Calls put aside, and those of them polled again.
    pub(super) asleep: u64,
    pub(super) woken: u64,
    /// Misbehaviour of wakers.
    pub(super) panics: u64,
    pub(super) reentries: u64,
    pub(super) drops: u64,
    /// Opens with a smaller budget than before.
    pub(super) smaller: u64,
    /// The most steps of the simulation that any call has taken.
    pub(super) steps_most: u64,
    pub(super) reads_bytes_most: u64,
    pub(super) buffers_bytes_most: u64,
    pub(super) index_bytes_most: u64,
}

impl Tally {
    pub(super) fn hit(&mut self, hit: &BlobCacheHit) {
        match hit.tier() {
            CacheTier::L1 => self.hits_l1 += 1,
            _ => self.hits_l2 += 1,
        }
    }

    /// Adds the statistics of a process.
    pub(super) fn take(&mut self, stats: &BlobCacheStats) {
        self.evicted += stats.evictions();
        self.promoted += stats.promotion_completed();
        self.reclaimed += stats.l2_reclaimed_segments();
        self.second_chances += stats.l2_reinserted();
        self.refused += stats.stale_sets_refused();
        self.not_admitted += stats.l2_not_admitted();
        self.over_rate += stats.l2_write_rate_rejections();
        self.mismatches += stats.version_mismatches();
        self.invalidated += stats.invalidations();
        self.stale_serves += stats.l1_stale_serves_total();
        self.undecoded += stats.values_undecoded();
        self.expired += stats.expirations();
        self.spawned += stats.fetches_spawned();
        self.soft += stats.soft_timeouts();
        self.ahead += stats.refreshes_ahead();
        self.failures += stats.l2_io_errors() + stats.l2_corruptions();
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.gets += other.gets;
        self.dropped += other.dropped;
        self.hits_l1 += other.hits_l1;
        self.hits_l2 += other.hits_l2;
        self.hits_after_open += other.hits_after_open;
        self.recovered += other.recovered;
        self.opens_by_image += other.opens_by_image;
        self.evicted += other.evicted;
        self.promoted += other.promoted;
        self.reclaimed += other.reclaimed;
        self.second_chances += other.second_chances;
        self.refused += other.refused;
        self.not_admitted += other.not_admitted;
        self.over_rate += other.over_rate;
        self.mismatches += other.mismatches;
        self.invalidated += other.invalidated;
        self.stale_serves += other.stale_serves;
        self.touched += other.touched;
        self.typed += other.typed;
        self.undecoded += other.undecoded;
        self.defaults += other.defaults;
        self.by_namespace += other.by_namespace;
        self.over_namespaces += other.over_namespaces;
        self.budgets += other.budgets;
        self.budgets_smaller += other.budgets_smaller;
        self.expired += other.expired;
        self.spawned += other.spawned;
        self.soft += other.soft;
        self.ahead += other.ahead;
        self.timed_out += other.timed_out;
        self.held += other.held;
        self.left += other.left;
        self.events += other.events;
        self.misses_told += other.misses_told;
        self.failures += other.failures;
        self.asleep += other.asleep;
        self.woken += other.woken;
        self.panics += other.panics;
        self.reentries += other.reentries;
        self.drops += other.drops;
        self.smaller += other.smaller;
        self.steps_most = self.steps_most.max(other.steps_most);
        self.reads_bytes_most = self.reads_bytes_most.max(other.reads_bytes_most);
        self.buffers_bytes_most = self.buffers_bytes_most.max(other.buffers_bytes_most);
        self.index_bytes_most = self.index_bytes_most.max(other.index_bytes_most);
    }
}
