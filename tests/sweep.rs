//! Sweeps free the memory of removed and expired entries, on demand and in the background.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, Clock,
    ExtendedTtlPolicy, NamespaceQuota, SweepLimit,
};

const ALL: SweepLimit = SweepLimit::Entries(usize::MAX);

fn open(clock: &Clock, sweep: BackgroundSweep) -> BlobCache {
    let config = BlobCacheConfig::builder().clock(clock.clone()).background_sweep(sweep);
    block_on(BlobCache::open(config.build().unwrap())).unwrap()
}

fn mortal(ttl: u64) -> BlobCachePut {
    let policy = BlobCachePolicy::default().ttl(Duration::from_secs(ttl));
    BlobCachePut::new(vec![7; 1000]).with_policy(policy)
}

fn fill(cache: &BlobCache, namespace: &str, entries: usize, put: &BlobCachePut) {
    for number in 0..entries {
        block_on(cache.put(namespace, number.to_le_bytes(), put.clone())).unwrap();
    }
}

#[test]
fn a_sweep_removes_exactly_the_expired_entries() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let cache = open(&clock, BackgroundSweep::Off);
    fill(&cache, "soon", 700, &mortal(10).with_tags(["tag"]));
    fill(&cache, "late", 300, &mortal(20));
    fill(&cache, "endless", 50, &BlobCachePut::new("value"));
    let extended =
        ExtendedTtlPolicy { idle_ttl: Some(Duration::from_secs(5)), ..Default::default() };
    let idle = BlobCachePut::new("value");
    fill(&cache, "idle", 30, &idle.with_policy(BlobCachePolicy::default().extended(extended)));
    clock.advance(Duration::from_secs(5));
    assert_eq!(block_on(cache.sweep_expired(ALL)).entries_removed(), 0, "equal is alive");
    let before = cache.stats();
    clock.advance(Duration::from_secs(5));
    let report = block_on(cache.sweep_expired(ALL));
    assert_eq!((report.entries_visited, report.truncated), (1080, false));
    let figures = |name| report.namespaces.get(name).copied().unwrap_or_default();
    assert_eq!((figures("soon").expired, figures("idle").expired), (700, 30));
    assert_eq!(report.namespaces.len(), 2);
    assert!(figures("soon").bytes > 700_000);
    let stats = cache.stats();
    assert_eq!(before.bytes_in_use() - stats.bytes_in_use(), report.bytes_removed());
    assert_eq!((stats.entries(), stats.expirations(), stats.memory_labels_bytes()), (350, 730, 0));
    assert_eq!(stats.l1_idle_evicts_total(), 30);
    assert_eq!((stats.hits(), stats.misses()), (0, 0), "a sweep is not an access");
    clock.advance(Duration::from_secs(10));
    assert_eq!(block_on(cache.sweep_expired(ALL)).entries_removed(), 300);
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(cache.sweep_expired(ALL)), tamis::SweepReport::default());
}

#[test]
fn a_limited_sweep_continues_where_the_last_one_stopped() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let cache = open(&clock, BackgroundSweep::Off);
    fill(&cache, "soon", 1000, &mortal(1));
    clock.advance(Duration::from_secs(1));
    let mut removed = 0;
    for _ in 0..9 {
        let report = block_on(cache.sweep_expired(SweepLimit::Entries(111)));
        assert!(report.truncated);
        assert_eq!((report.entries_visited, report.entries_removed()), (111, 111));
        removed += report.entries_removed();
    }
    let both = SweepLimit::Either { entries: 1000, duration: Duration::from_secs(3600) };
    let report = block_on(cache.sweep_expired(both));
    assert_eq!((removed + report.entries_removed(), report.truncated), (1000, false));
    fill(&cache, "soon", 1000, &mortal(1));
    let report = block_on(cache.sweep_expired(SweepLimit::Duration(Duration::ZERO)));
    assert_eq!((report.entries_visited, report.truncated), (0, true));
    let none = block_on(cache.sweep_expired(SweepLimit::Entries(0)));
    assert!(none.truncated);
}

/// All entries were visited, so there is nothing to continue.
#[test]
fn a_sweep_over_exactly_its_limit_is_complete() {
    for entries in [1usize, 7, 256, 257, 1000] {
        let cache = open(&Clock::system(), BackgroundSweep::Off);
        fill(&cache, "alive", entries, &BlobCachePut::new("value"));
        let most = SweepLimit::Entries(entries.max(128));
        let report = block_on(cache.sweep_expired(most));
        assert_eq!((report.entries_visited, report.truncated), (entries, false));
        let report = block_on(cache.sweep_expired(most));
        assert_eq!((report.entries_visited, report.truncated), (entries, false), "once more");
        if entries > 128 {
            let fewer = SweepLimit::Entries(entries - 1);
            let report = block_on(cache.sweep_expired(fewer));
            assert_eq!((report.entries_visited, report.truncated), (entries - 1, true));
        }
    }
}

#[test]
fn limited_sweeps_report_a_complete_pass() {
    let cache = open(&Clock::system(), BackgroundSweep::Off);
    fill(&cache, "alive", 1000, &BlobCachePut::new("value"));
    for _ in 0..3 {
        let mut visited = 0;
        loop {
            let report = block_on(cache.sweep_expired(SweepLimit::Entries(111)));
            visited += report.entries_visited;
            if !report.truncated {
                break;
            }
            assert!(visited < 1200, "it has visited every entry");
        }
        assert!(visited >= 1000, "{visited}");
    }
}

#[test]
fn a_sweep_removes_entries_of_flushes_and_dropped_invalidations() {
    let cache = open(&Clock::system(), BackgroundSweep::Off);
    fill(&cache, "flushed", 500, &BlobCachePut::new(vec![7; 1000]));
    fill(&cache, "tagged", 2000, &BlobCachePut::new(vec![7; 1000]).with_tags(["tag"]));
    assert!(block_on(cache.invalidate_namespace("flushed")).unwrap());
    let tags = cache.invalidate_prefix("tagged", "").now_or_never();
    assert!(tags.is_none(), "it was dropped after its first poll");
    let report = block_on(cache.sweep_expired(ALL));
    let dead = |name| report.namespaces.get(name).map_or(0, |namespace| namespace.dead);
    assert!(dead("flushed") > 300, "mutations have removed the rest: {report:?}");
    assert!(dead("tagged") > 1000, "{report:?}");
    assert_eq!(cache.stats().entries(), 0);
    assert_eq!(cache.stats().bytes_in_use(), 0);
}

fn until(done: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    done()
}

#[test]
fn the_background_sweeper_frees_memory_and_sleeps() {
    let cache = open(&Clock::system(), BackgroundSweep::On);
    let policy = BlobCachePolicy::default().ttl(Duration::from_millis(50));
    fill(&cache, "soon", 3000, &BlobCachePut::new(vec![7; 1000]).with_policy(policy));
    fill(&cache, "endless", 10, &BlobCachePut::new("value"));
    assert!(until(|| cache.stats().entries() == 10), "expired");
    fill(&cache, "flushed", 3000, &BlobCachePut::new(vec![7; 1000]));
    let before = cache.stats().bytes_in_use();
    assert!(block_on(cache.invalidate_namespace("flushed")).unwrap());
    assert!(until(|| cache.stats().bytes_in_use() < before / 100), "flushed");
    fill(&cache, "tagged", 3000, &BlobCachePut::new(vec![7; 1000]).with_tags(["tag"]));
    assert!(cache.invalidate_tags("tagged", &["tag"]).now_or_never().is_none());
    assert!(until(|| cache.stats().memory_labels_bytes() == 0), "abandoned");
    assert_eq!(cache.stats().entries(), 10);
    // Entries that expire in an hour, or never, cost nothing until then.
    fill(&cache, "late", 100, &mortal(3600));
    std::thread::sleep(Duration::from_millis(1500));
    let before = sweeper_ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sweeper_ticks(), before);
    assert_eq!(cache.stats().entries(), 110);
}

/// Processor time of the sweeper thread.
fn sweeper_ticks() -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let stat = stats.find(|stat| stat.contains("(tamis-sweeper)"))?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split(' ').collect();
    Some(fields[12].parse::<u64>().ok()? + fields[13].parse::<u64>().ok()?)
}

#[test]
fn caches_come_and_go() {
    for round in 0..20 {
        let caches: Vec<BlobCache> =
            (0..5).map(|_| open(&Clock::system(), Default::default())).collect();
        for cache in &caches {
            fill(cache, "soon", 300, &mortal(0));
            drop(cache.invalidate_prefix("soon", "").now_or_never());
        }
        if round % 2 == 0 {
            caches.iter().for_each(|cache| block_on(cache.close()).unwrap());
        }
    }
}

/// A sweep step that ran while the invalidation came into force must be repeated.
#[test]
fn an_invalidation_removes_its_entries_despite_a_concurrent_sweep() {
    let config = BlobCacheConfig::builder().shard_count(1).background_sweep(BackgroundSweep::Off);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let is_over = AtomicBool::new(false);
    let mut stale = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                block_on(cache.sweep_expired(SweepLimit::Entries(1)));
            }
        });
        for _ in 0..600_000 {
            block_on(cache.put("a", "key", "old")).unwrap();
            block_on(cache.invalidate_prefix("a", "k")).unwrap();
            stale += usize::from(block_on(cache.get("a", "key")).is_some());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(stale, 0);
}

/// However entries end and whichever call finds them first: each insertion is counted out once.
#[test]
fn every_entry_is_counted_out_once() {
    for seed in 0..4 {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let quota = NamespaceQuota { l1_bytes_max: Some(20_000), ..Default::default() };
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(100_000)
            .shard_count(2)
            .l1_charge(|_, _| 1000)
            .quota("tenant", quota)
            .background_sweep(BackgroundSweep::Off)
            .clock(clock.clone());
        let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
        thread::scope(|scope| {
            for thread in 0..3 {
                let (cache, clock) = (&cache, &clock);
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed * 10 + thread);
                    for number in 0..20_000u64 {
                        let namespace = ["tenant", "a", "b"][random.random_range(0..3)];
                        let key = |number: u64| [thread, number].map(u64::to_le_bytes).concat();
                        let idle_ttl = Some(Duration::from_secs(random.random_range(1..40)));
                        let extended = ExtendedTtlPolicy { idle_ttl, ..Default::default() };
                        let policy = BlobCachePolicy::default().priority(random.random_range(1..4));
                        let policy = match random.random_range(0..3) {
                            0 => policy,
                            1 => policy.ttl(Duration::from_secs(random.random_range(0..40))),
                            _ => policy.extended(extended),
                        };
                        let put = BlobCachePut::new("value").with_policy(policy);
                        block_on(cache.put(namespace, key(number), put)).unwrap();
                        let earlier = number.saturating_sub(random.random_range(0..60));
                        block_on(cache.get(namespace, key(earlier)));
                        if random.random_ratio(1, 15) {
                            clock.advance(Duration::from_secs(1));
                        }
                        if random.random_ratio(1, 50) {
                            block_on(cache.sweep_expired(SweepLimit::Entries(64)));
                        }
                    }
                });
            }
        });
        let stats = cache.stats();
        let left = stats.evictions() + stats.expirations();
        assert_eq!(stats.insertions(), left + stats.entries() as u64, "seed {seed}: {stats:?}");
        assert_eq!(stats.insertions(), 60_000);
        assert!(stats.evictions() > 1000 && stats.expirations() > 1000, "{stats:?}");
        assert_eq!(stats.bytes_in_use(), 1000 * stats.entries());
        clock.advance(Duration::from_secs(100));
        block_on(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
        let of = |name: &str| cache.namespace_stats(name).unwrap();
        let stats = ["tenant", "a", "b"].map(of);
        assert!(stats.iter().all(|it| it.bytes_in_use() == 1000 * it.entries()), "{stats:?}");
    }
}
