//! Events count as the figures do, over both tiers, whatever happens: random calls, expiry,
//! evictions, reclaim, promotions and flushes, with a listener that keeps up.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, two_tiers};
use crate::clock::Clock;
use crate::events::{BlobCacheEvent, BlobCacheEvents, EntryChange};
use crate::l2;
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::stats::BlobCacheStats;

#[derive(Default)]
struct Told {
    changes: BTreeMap<&'static str, u64>,
    without_key: u64,
}

impl Told {
    fn add(&mut self, what: &'static str, number: u64) {
        *self.changes.entry(what).or_default() += number;
    }

    fn of(&self, what: &str) -> u64 {
        self.changes.get(what).copied().unwrap_or_default()
    }

    fn read(&mut self, events: &mut BlobCacheEvents) {
        while let Some(Some(event)) = events.next().now_or_never() {
            match event {
                BlobCacheEvent::Entry(event) => {
                    self.without_key += u64::from(event.key().is_none());
                    if matches!(event.change(), EntryChange::Promoted | EntryChange::Reinserted) {
                        assert!(event.key().is_some() && event.bytes() > Some(0), "{event:?}");
                    }
                    self.add(
                        match event.change() {
                            EntryChange::Evicted { on_disk: true } => "evicted to disk",
                            EntryChange::Evicted { on_disk: false } => "evicted",
                            EntryChange::Expired { idle: true } => "idle",
                            EntryChange::Expired { idle: false } => "expired",
                            EntryChange::Invalidated => "invalidated",
                            EntryChange::Replaced => "replaced",
                            EntryChange::Dropped => "dropped",
                            EntryChange::Promoted => "promoted",
                            EntryChange::Reinserted => "reinserted",
                            EntryChange::Touched => "touched",
                        },
                        1,
                    );
                }
                BlobCacheEvent::Flushed { entries, .. } => self.add("flushed", entries),
                BlobCacheEvent::NamespaceExpired { entries, .. } => self.add("expired", entries),
                BlobCacheEvent::Recovered { records, .. } => self.add("recovered", records),
                BlobCacheEvent::Lost(_) => panic!("the listener keeps up"),
            }
        }
    }

    fn check(&self, stats: &BlobCacheStats, seed: u64) {
        let evicted = self.of("evicted") + self.of("evicted to disk");
        let expired = self.of("expired") + self.of("idle");
        for (what, told, counted) in [
            ("evicted", evicted, stats.evictions()),
            ("expired", expired, stats.expirations()),
            ("idle", self.of("idle"), stats.l1_idle_evicts_total()),
            ("invalidated", self.of("invalidated"), stats.invalidations()),
            ("replaced", self.of("replaced"), stats.replacements()),
            ("flushed", self.of("flushed"), stats.entries_flushed()),
            ("forgotten", self.of("evicted") + self.of("dropped"), stats.forgotten()),
            ("promoted", self.of("promoted"), stats.promotion_completed()),
            ("reinserted", self.of("reinserted"), stats.l2_reinserted()),
            ("touched", self.of("touched"), stats.touches()),
        ] {
            assert_eq!(told, counted, "seed {seed}: {what}");
        }
    }
}

fn put(random: &mut StdRng) -> BlobCachePut {
    let mut policy = BlobCachePolicy::default();
    match random.random_range(0..8) {
        0 => policy = policy.ttl(Duration::from_secs(random.random_range(1..60))),
        1 => policy = policy.idle_ttl(Duration::from_secs(random.random_range(1..60))),
        2 | 3 => policy = policy.l1_admission(L1Admission::Never),
        4 => policy = policy.ttl(Duration::from_secs(20)).stale_serve(Duration::from_secs(20)),
        _ => {}
    }
    let value = vec![7; random.random_range(10..30_000)];
    let put = BlobCachePut::new(value).with_policy(policy);
    if random.random_range(0..3) == 0 { put.with_tags(["tag"]) } else { put }
}

fn run(seed: u64, told: &mut Told) -> BlobCacheStats {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30));
    let config = two_tiers(&clock).l1_bytes_max(1 << 20).l2_bytes_max(8 << 20);
    let mut bench = Bench::with(seed, config.build().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let mut events = bench.cache.events().unwrap();
    for _ in 0..5000 {
        let cache = bench.cache();
        let name = ["a", "b"][random.random_range(0..2)];
        // Low numbers more often: they are in use when their segment is reused.
        let number = random.random_range(0..400_u32).min(random.random_range(0..400));
        let key = format!("key/{number}");
        match random.random_range(0..200) {
            0 if random.random_range(0..10) == 0 => {
                drop(bench.run(cache.invalidate_namespace(name)));
            }
            1 => drop(bench.run(cache.invalidate_tags(name, &["tag"]))),
            2 => drop(bench.run(cache.invalidate_prefix(name, "key/1"))),
            3 => clock.advance(Duration::from_secs(random.random_range(1..10))),
            4 => bench.pass(Duration::from_secs(2)),
            5..8 => drop(bench.run(cache.invalidate_key(name, key))),
            8..12 => drop(bench.run(cache.expire_key(name, key))),
            12 => drop(bench.run(cache.expire_prefix(name, "key/2"))),
            13 => drop(bench.run(cache.expire_tags(name, &["tag"]))),
            14 if random.random_range(0..10) == 0 => {
                drop(bench.run(cache.expire_namespace(name)));
            }
            15..20 => {
                let ttl = Duration::from_secs(random.random_range(0..60));
                let policy = BlobCachePolicy::default().ttl(ttl).idle_ttl(ttl * 2);
                drop(bench.run(cache.touch(name, key, &policy)));
            }
            20..100 => drop(bench.run(cache.put(name, key, put(&mut random)))),
            _ => drop(bench.run(cache.get(name, key))),
        }
        told.read(&mut events);
    }
    // What is under way ends.
    let cache = bench.cache();
    bench.run(cache.sync()).unwrap();
    bench.pass(Duration::from_secs(60));
    told.read(&mut events);
    bench.cache.stats()
}

#[test]
fn events_count_as_the_figures_do() {
    let mut seen = BTreeMap::<&str, u64>::new();
    let mut without_key = 0;
    for seed in 0..6 {
        let mut told = Told::default();
        let stats = run(seed, &mut told);
        assert_eq!(stats.events_lost(), 0);
        told.check(&stats, seed);
        without_key += told.without_key;
        for (what, number) in told.changes {
            *seen.entry(what).or_default() += number;
        }
    }
    println!("{seen:?}, {without_key} without a key");
    for what in [
        "evicted to disk",
        "expired",
        "idle",
        "invalidated",
        "replaced",
        "dropped",
        "promoted",
        "reinserted",
        "touched",
        "flushed",
    ] {
        assert!(seen.get(what).is_some_and(|&number| number > 3), "{what}: {seen:?}");
    }
}

/// Behind damage, or because fewer fit; their keys are not told.
#[test]
fn the_first_event_tells_how_many_segments_the_open_has_dropped() {
    const SEGMENT: u64 = 64 << 10;
    for (is_damaged, segments, dropped) in [(true, 8, 3..=3), (false, 4, 2..=4), (false, 8, 0..=0)]
    {
        let mut bench = Bench::new(1);
        for number in 0..90 {
            bench.put(&format!("k{number}"), &"v".repeat(4000), &[]);
        }
        assert_eq!(bench.cache.stats().l2_reclaimed_segments(), 0);
        if is_damaged {
            let third = l2::EMPTY_BYTES + 2 * SEGMENT;
            bench.disk.overwrite(third, &vec![7; usize::try_from(SEGMENT).unwrap()]);
        }
        bench.config.l2_bytes_max = segments * SEGMENT;
        bench.kill();
        let mut events = bench.cache.events().unwrap();
        let first = events.next().now_or_never().flatten();
        let Some(BlobCacheEvent::Recovered { records, segments_dropped }) = first else {
            panic!("{first:?}");
        };
        let stats = bench.cache.stats();
        let counted = (stats.recovery_records(), stats.recovery_dropped());
        assert_eq!((records, segments_dropped), counted);
        assert!(dropped.contains(&segments_dropped), "{segments_dropped} of {segments}");
        let found = (0..90).filter(|number| bench.get(&format!("k{number}")).is_some()).count();
        assert_eq!(found as u64, records);
        assert_eq!(found < 90, segments_dropped > 0, "{found}");
    }
}
