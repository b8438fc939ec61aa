//! Accounting balances: each entry that came in is held, or was counted out exactly once.

use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, two_tiers};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::modes::{BackgroundSweep, L1Admission};
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::stats::BlobCacheStats;
use crate::sweep::SweepLimit;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000))
}

fn keys(most: u64) -> impl Iterator<Item = (&'static str, String)> {
    let of = move |namespace| (0..most).map(move |key| (namespace, format!("k{key}")));
    NAMESPACES.into_iter().flat_map(of)
}

fn assert_balanced(stats: &BlobCacheStats, held: u64, what: &str) {
    let come = stats.insertions() + stats.recovery_records();
    let gone = stats.expirations()
        + stats.invalidations()
        + stats.replacements()
        + stats.entries_flushed()
        + stats.forgotten();
    assert_eq!(come, held + gone, "{what}: {held} held, {stats:#?}");
}

/// Runs a random operation; other tests check its result.
async fn one(cache: &BlobCache, clock: &Clock, random: &mut StdRng, (keys, bytes): (u64, usize)) {
    let namespace = NAMESPACES[random.random_range(0..3)];
    let key = format!("k{}", random.random_range(0..keys));
    match random.random_range(0..1000) {
        0..600 => {
            let mut policy = BlobCachePolicy::default();
            policy = match random.random_range(0..4) {
                0 => policy.ttl(Duration::from_secs(random.random_range(0..30))),
                1 => policy.extended(ExtendedTtlPolicy {
                    idle_ttl: Some(Duration::from_secs(random.random_range(1..30))),
                    ..Default::default()
                }),
                _ => policy,
            };
            let admissions = [L1Admission::Auto, L1Admission::Always];
            policy = policy.l1_admission(admissions[random.random_range(0..2)]);
            let put = BlobCachePut::new(vec![1; random.random_range(0..bytes)]);
            let put = put.with_tags([["t", "u"][random.random_range(0..2)]]).with_policy(policy);
            cache.put(namespace, &key, put).await.unwrap();
        }
        600..640 => {
            let policy = BlobCachePolicy::default();
            let policy = match random.random_range(0..3) {
                0 => policy.ttl(Duration::from_secs(random.random_range(0..30))),
                1 => policy.idle_ttl(Duration::from_secs(random.random_range(1..30))),
                _ => policy,
            };
            cache.touch(namespace, &key, &policy).await.unwrap();
        }
        640..750 => _ = cache.get(namespace, &key).await,
        750..850 => _ = cache.invalidate_key(namespace, &key).await.unwrap(),
        850..880 => _ = cache.invalidate_prefix(namespace, &key).await.unwrap(),
        880..890 => _ = cache.invalidate_tags(namespace, &["t"]).await.unwrap(),
        890..900 => _ = cache.invalidate_namespace(namespace).await.unwrap(),
        900..905 => cache.invalidate_all().await.unwrap(),
        905..930 => _ = cache.sweep_expired(SweepLimit::Entries(50)).await,
        _ => clock.advance(Duration::from_secs(random.random_range(0..3))),
    }
}

#[test]
fn in_memory() {
    for seed in 0..20 {
        let (clock, mut random) = (clock(), StdRng::seed_from_u64(seed));
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .clock(clock.clone())
            .background_sweep(BackgroundSweep::Off);
        let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
        for _ in 0..4000 {
            block_on(one(&cache, &clock, &mut random, (100, 600)));
        }
        let held =
            keys(100).filter(|(namespace, key)| block_on(cache.get(namespace, key)).is_some());
        let held = held.count() as u64;
        block_on(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
        let stats = cache.stats();
        assert_balanced(&stats, held, &format!("seed {seed}"));
        assert_eq!(stats.entries() as u64, held);
        assert!(stats.forgotten() == stats.evictions() && stats.evictions() > 0);
        assert!(stats.replacements() > 0 && stats.expirations() > 0 && stats.invalidations() > 0);
    }
}

/// With a kill and a clean close in between. Entries found on file count as recovered. The log has
/// room for all of them, so nothing is reclaimed.
#[test]
fn in_both_tiers() {
    for seed in 0..20 {
        let (clock, mut random) = (clock(), StdRng::seed_from_u64(seed));
        let config = two_tiers(&clock).l1_bytes_max(64 << 10).build().unwrap();
        let mut bench = Bench::with(seed, config);
        for life in 0..3 {
            let cache = bench.cache();
            for _ in 0..1000 {
                bench.run(one(&cache, &clock, &mut random, (100, 3000)));
            }
            bench.pass(Duration::from_secs(1));
            let mut held = 0;
            for (namespace, key) in keys(100) {
                held += u64::from(bench.run(cache.get(namespace, &key)).is_some());
            }
            bench.run(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
            assert_balanced(&cache.stats(), held, &format!("seed {seed}, life {life}"));
            drop(cache);
            if life == 0 {
                bench.kill();
            } else {
                bench.run(bench.cache().close()).unwrap();
                bench.reopen();
            }
        }
    }
}

#[test]
fn an_expired_entry_is_counted_although_a_mutation_finds_it_first() {
    type Mutate = fn(&BlobCache, &str);
    let mutations: [Mutate; 4] = [
        |cache, key| _ = block_on(cache.invalidate_key("a", key)),
        |cache, key| _ = block_on(cache.invalidate_prefix("a", key)),
        |cache, key| _ = block_on(cache.invalidate_tags("a", &[key])),
        |cache, key| block_on(cache.put("a", key, "new")).unwrap(),
    ];
    for (number, mutate) in mutations.into_iter().enumerate() {
        let clock = clock();
        let config = BlobCacheConfig::builder().clock(clock.clone());
        let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
        for key in &keys {
            let policy = BlobCachePolicy::default().ttl(Duration::from_secs(1));
            let put = BlobCachePut::new("old").with_tags([key]).with_policy(policy);
            block_on(cache.put("a", key, put)).unwrap();
        }
        clock.advance(Duration::from_secs(2));
        keys.iter().for_each(|key| mutate(&cache, key));
        let stats = cache.stats();
        assert_eq!((stats.expirations(), stats.invalidations()), (10, 0), "mutation {number}");
        assert_eq!(stats.replacements(), 0);
    }
}
