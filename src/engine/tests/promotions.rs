//! Who inserts what was read from disk into memory, and when.

use std::time::Duration;

use super::bench::{Bench, two_tiers};
use crate::clock::Clock;
use crate::stats::BlobCacheStats;

/// A cache with `k`, of `bytes`, on disk and not in memory.
fn on_disk_only(bytes: usize) -> Bench {
    let config = two_tiers(&Clock::system()).build().unwrap();
    let mut bench = Bench::with(1, config);
    let cache = bench.cache();
    bench.run(cache.put("a", "k", vec![7; bytes])).unwrap();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
    bench
}

/// Offered, inserted, dropped, waiting.
fn promotions(stats: &BlobCacheStats) -> (u64, u64, u64, usize) {
    let (offered, inserted) = (stats.promotion_queued(), stats.promotion_completed());
    (offered, inserted, stats.promotion_dropped(), stats.promotion_queue_depth())
}

#[test]
fn a_get_inserts_a_short_value_itself() {
    let mut bench = on_disk_only(4096);
    let cache = bench.cache();
    assert!(bench.run(cache.get("a", "k")).is_some());
    assert_eq!(promotions(&cache.stats()), (1, 1, 0, 0));
    assert!(cache.stats().bytes_in_use() > 4096);
}

#[test]
fn a_long_value_is_left_to_the_task() {
    let mut bench = on_disk_only(100_000);
    let cache = bench.cache();
    assert!(bench.run(cache.get("a", "k")).is_some());
    assert_eq!(promotions(&cache.stats()), (1, 0, 0, 1));
    bench.pass(Duration::from_millis(10));
    assert_eq!(promotions(&cache.stats()), (1, 1, 0, 0));
}

#[test]
fn nobody_waits_for_another_commit_to_promote() {
    let mut bench = on_disk_only(4096);
    let cache = bench.cache();
    let read = bench.run(cache.get("a", "k")).unwrap().entry;
    let engine = &cache.engine;
    assert!(engine.parts.l1.remove(read.hash, |_| true).is_some());
    let section = engine.parts.commit_lock.section();
    engine.promoter.offer(&read, 4096);
    assert_eq!(promotions(&cache.stats()), (2, 1, 0, 1));
    drop(section);
    bench.pass(Duration::from_millis(10));
    assert_eq!(promotions(&cache.stats()), (2, 2, 0, 0));
}
