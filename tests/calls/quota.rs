//! Quotas: a namespace at its quota evicts among its own entries, in memory and on disk.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use futures::executor::block_on;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy,
    BlobCachePut, BlobLimit, CacheError, Clock, L1Admission, L2Compression, NamespaceQuota,
    SweepLimit,
};

const MIB: usize = 1 << 20;

fn key(number: usize) -> [u8; 8] {
    number.to_le_bytes()
}

fn fill(
    cache: &BlobCache,
    namespace: &str,
    numbers: std::ops::Range<usize>,
    admission: L1Admission,
) {
    let policy = BlobCachePolicy::default().l1_admission(admission);
    for number in numbers {
        let put = BlobCachePut::new(vec![7; 1000]).with_policy(policy.clone());
        block_on(cache.put(namespace, key(number), put)).unwrap();
    }
}

fn hits(cache: &BlobCache, namespace: &str, numbers: std::ops::Range<usize>) -> usize {
    numbers.filter(|&number| block_on(cache.get(namespace, key(number))).is_some()).count()
}

#[test]
fn in_memory_a_tenant_evicts_only_its_own_entries() {
    let quota = NamespaceQuota { l1_bytes_max: Some(MIB), ..Default::default() };
    let config = BlobCacheConfig::builder().l1_bytes_max(8 * MIB).quota("tenant", quota);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    assert_eq!(cache.config().quota("tenant"), quota);
    fill(&cache, "other", 0..4000, L1Admission::Auto);
    fill(&cache, "tenant", 0..200, L1Admission::Auto);
    for number in 200..20_000 {
        // Entries that the tenant reads all the time stay.
        assert_eq!(hits(&cache, "tenant", 0..10), 10, "at {number}");
        fill(&cache, "tenant", number..number + 1, L1Admission::Auto);
        if number % 1000 == 0 {
            let tenant = cache.namespace_stats("tenant").unwrap();
            assert!(tenant.bytes_in_use() <= MIB, "{tenant:?}");
            assert!(tenant.bytes_in_use() > MIB * 9 / 10, "{tenant:?}");
        }
    }
    assert_eq!(hits(&cache, "other", 0..4000), 4000);
    let evicted = usize::try_from(cache.stats().evictions()).unwrap();
    assert_eq!(evicted + cache.namespace_stats("tenant").unwrap().entries(), 20_000);
    let large = block_on(cache.put("tenant", "large", vec![7; MIB + 1]));
    match large {
        Err(CacheError::BlobTooLarge { max, limit, .. }) => {
            assert_eq!((max, limit), (MIB, BlobLimit::Quota));
        }
        other => panic!("{other:?}"),
    }
    // The whole budget limits the tenant too.
    fill(&cache, "other", 4000..30_000, L1Admission::Auto);
    assert!(cache.stats().bytes_in_use() <= 8 * MIB);
    assert!(cache.stats().entries() > 5000);
}

#[test]
fn at_its_quota_a_tenant_keeps_its_higher_priorities() {
    let quota = NamespaceQuota { l1_bytes_max: Some(64 << 10), ..Default::default() };
    let config = BlobCacheConfig::builder().l1_bytes_max(8 * MIB).quota("tenant", quota);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let put = |number: usize, priority| {
        let policy = BlobCachePolicy::default().priority(priority);
        let put = BlobCachePut::new(vec![7; 1000]).with_policy(policy);
        block_on(cache.put("tenant", key(number), put)).unwrap();
    };
    (0..100).for_each(|number| put(number, 200));
    let held = cache.namespace_stats("tenant").unwrap().entries();
    (1000..1100).for_each(|number| put(number, 100));
    assert_eq!(hits(&cache, "tenant", 1000..1100), 0, "no room among higher ones");
    assert_eq!(cache.namespace_stats("tenant").unwrap().entries(), held);
    (2000..2100).for_each(|number| put(number, 250));
    assert_eq!(hits(&cache, "tenant", 2000..2100), held, "they have evicted all others");
}

#[test]
fn on_disk_a_tenant_stays_within_its_quota() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let quota = NamespaceQuota { l2_bytes_max: Some(2 << 20), ..Default::default() };
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(MIB)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(32 << 20)
        .l2_compression(L2Compression::Off)
        .quota("tenant", quota)
        .build()
        .unwrap();
    let cache = block_on(BlobCache::open(config.clone())).unwrap();
    fill(&cache, "other", 0..8000, L1Admission::Never);
    let stats = |cache: &BlobCache| cache.namespace_stats("tenant").unwrap().l2_bytes_in_use();
    fill(&cache, "tenant", 0..6000, L1Admission::Never);
    let refused = cache.stats().l2_full_rejections();
    let held = hits(&cache, "tenant", 0..6000);
    assert_eq!(held as u64 + refused, 6000);
    // A record is slightly larger than its value; the estimate is within a few percent.
    assert!((1650..2100).contains(&held), "{held}");
    assert!(stats(&cache) <= 2 << 20);
    assert_eq!(hits(&cache, "other", 0..8000), 8000);
    // Overwrites reuse the room of the replaced records.
    fill(&cache, "tenant", 0..500, L1Admission::Never);
    assert!(hits(&cache, "tenant", 0..500) > 450);
    let before = stats(&cache);
    block_on(cache.close()).unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    assert_eq!(stats(&cache), before, "found again at open");
    for number in 0..500 {
        block_on(cache.invalidate_key("tenant", key(number))).unwrap();
    }
    assert!(stats(&cache) < before * 4 / 5, "{} of {before}", stats(&cache));
    fill(&cache, "tenant", 7000..7300, L1Admission::Never);
    assert!(hits(&cache, "tenant", 7000..7300) > 290);
    assert!(block_on(cache.invalidate_namespace("tenant")).unwrap());
    fill(&cache, "tenant", 8000..9000, L1Admission::Never);
    assert_eq!(hits(&cache, "tenant", 8000..9000), 1000);
    block_on(cache.close()).unwrap();
}

#[test]
fn quotas_are_bounded() {
    let mut builder = BlobCacheConfig::builder();
    for number in 0..257 {
        builder = builder.quota(&format!("tenant{number}"), NamespaceQuota::default());
    }
    let refused = builder.build();
    assert!(matches!(refused, Err(CacheError::InvalidConfig { field: "quota", .. })));
}

/// Misses of a seeded run over a namespace with a quota in a roomy cache, or over one that has a
/// cache of that size to itself.
fn misses(seed: u64, is_quota: bool, invalidates: bool) -> usize {
    let budget = 64 << 10;
    let quota = NamespaceQuota { l1_bytes_max: Some(budget), ..Default::default() };
    let config = BlobCacheConfig::builder().shard_count(1);
    let config = match is_quota {
        true => config.l1_bytes_max(8 * MIB).quota("tenant", quota),
        false => config.l1_bytes_max(budget),
    };
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    if is_quota {
        fill(&cache, "other", 0..10, L1Admission::Auto);
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut misses = 0;
    for _ in 0..20_000 {
        let number = random.random_range(0..300) * random.random_range(0..300) / 300;
        if invalidates && random.random_ratio(1, 20) {
            block_on(cache.invalidate_key("tenant", key(number))).unwrap();
        } else if hits(&cache, "tenant", number..number + 1) == 0 {
            misses += 1;
            fill(&cache, "tenant", number..number + 1, L1Admission::Auto);
        }
    }
    misses
}

/// Both use the same algorithm.
#[test]
fn a_tenant_misses_like_a_cache_of_the_size_of_its_quota() {
    for seed in 0..6 {
        for invalidates in [false, true] {
            let of = |is_quota| misses(seed, is_quota, invalidates);
            assert_eq!(of(true), of(false), "seed {seed}, invalidates: {invalidates}");
        }
    }
}

#[test]
fn a_tenant_that_fills_and_flushes_evicts_no_other() {
    let quota = NamespaceQuota { l1_bytes_max: Some(MIB), ..Default::default() };
    for sweep in [BackgroundSweep::On, BackgroundSweep::Off] {
        let config = BlobCacheConfig::builder().l1_bytes_max(8 * MIB).background_sweep(sweep);
        let config = config.quota("tenant", quota).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        fill(&cache, "other", 0..5000, L1Admission::Auto);
        for round in 0..50 {
            for number in 0..4 {
                let value = vec![7; 250_000];
                block_on(cache.put("tenant", key(round * 100 + number), value)).unwrap();
            }
            block_on(cache.invalidate_namespace("tenant")).unwrap();
        }
        assert_eq!(cache.namespace_stats("other").unwrap().entries(), 5000, "{sweep:?}");
    }
}

#[test]
fn many_puts_at_once_stay_within_a_quota() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let quota = NamespaceQuota { l1_bytes_max: Some(700 << 10), ..Default::default() };
    for is_on_disk in [false, true] {
        let mut config = BlobCacheConfig::builder().l1_bytes_max(8 * MIB).quota("tenant", quota);
        if is_on_disk {
            config = config
                .l2_path(folder.path())
                .l2_engine(crate::engine::engine(0))
                .l2_bytes_max(256 << 20);
        }
        let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
        fill(&cache, "other", 0..6000, L1Admission::Auto);
        let before = cache.namespace_stats("other").unwrap().entries();
        for _ in 0..3 {
            let puts = (0..32).map(|number| cache.put("tenant", key(number), vec![1; 600_000]));
            for done in block_on(join_all(puts)) {
                done.unwrap();
            }
        }
        assert_eq!(cache.namespace_stats("other").unwrap().entries(), before);
        assert!(cache.namespace_stats("tenant").unwrap().bytes_in_use() <= 700 << 10);
        block_on(cache.close()).unwrap();
    }
}

/// However many threads there are, every reservation is returned.
#[test]
fn a_quota_is_kept_by_many_threads() {
    let quota = NamespaceQuota { l1_bytes_max: Some(300 << 10), ..Default::default() };
    let config = BlobCacheConfig::builder().l1_bytes_max(4 * MIB);
    let config = config.quota("a", quota).quota("b", quota).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let spell = |seed| {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..20_000 {
            let namespace = ["a", "b", "c"][random.random_range(0..3)];
            let key = key(random.random_range(0..500));
            match random.random_range(0..1000) {
                0 => drop(block_on(cache.invalidate_namespace(namespace)).unwrap()),
                1..100 => drop(block_on(cache.invalidate_key(namespace, key)).unwrap()),
                100..500 => drop(block_on(cache.get(namespace, key))),
                _ => {
                    let policy = BlobCachePolicy::default().priority(random.random());
                    let put = BlobCachePut::new(vec![7; random.random_range(0..20_000)]);
                    block_on(cache.put(namespace, key, put.with_policy(policy))).unwrap();
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let spell = &spell;
            scope.spawn(move || spell(seed));
        }
    });
    for name in ["a", "b"] {
        assert!(cache.namespace_stats(name).is_none_or(|stats| stats.bytes_in_use() <= 300 << 10));
    }
    block_on(cache.invalidate_all()).unwrap();
    block_on(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
    assert_eq!((cache.stats().bytes_in_use(), cache.stats().entries()), (0, 0));
    // No reservation is left: the whole quota can be used.
    fill(&cache, "a", 0..1000, L1Admission::Auto);
    assert!(cache.namespace_stats("a").unwrap().bytes_in_use() > 297 << 10);
}

fn on_disk(folder: &Path, l2_bytes_max: u64) -> BlobCacheConfigBuilder {
    let quota = NamespaceQuota { l1_bytes_max: Some(0), l2_bytes_max: Some(l2_bytes_max) };
    BlobCacheConfig::builder()
        .l1_bytes_max(MIB)
        .l2_path(folder)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(32 << 20)
        .l2_compression(L2Compression::Off)
        .quota("tenant", quota)
}

#[test]
fn refused_puts_take_no_room_from_others_on_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let config = on_disk(folder.path(), 0).l1_bytes_max(8 * MIB);
    let config =
        config.quota("tenant", NamespaceQuota { l2_bytes_max: Some(0), ..Default::default() });
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    fill(&cache, "other", 0..8000, L1Admission::Never);
    block_on(cache.sync()).unwrap();
    let before = cache.stats().l2_write_bytes();
    for number in 0..100_000 {
        let put = BlobCachePut::new("small").with_tags(["tag"]);
        block_on(cache.put("tenant", key(number % 30_000), put)).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let written = cache.stats().l2_write_bytes() - before;
    // Each refusal needs a sequence, and a record of other namespaces provides a few dozen.
    assert!(written < 100_000 * 3, "{written} bytes for refused puts");
    assert_eq!(cache.stats().l2_full_rejections(), 100_000);
    assert_eq!(hits(&cache, "other", 0..8000), 8000);
    let in_memory = cache.namespace_stats("tenant").unwrap().entries();
    assert!(in_memory > 10_000);
    assert_eq!(block_on(cache.invalidate_tags("tenant", &["tag"])).unwrap(), in_memory);
    block_on(cache.close()).unwrap();
}

/// Records from before the quota was lowered are shadowed by one tombstone each.
#[test]
fn refused_overwrites_write_a_tombstone_once() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = |l2_bytes_max| {
        let quota = NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(l2_bytes_max) };
        let config = on_disk(folder.path(), 0).quota("tenant", quota).build().unwrap();
        block_on(BlobCache::open(config)).unwrap()
    };
    let cache = open(1 << 20);
    let put = |cache: &BlobCache, number, value: &str| {
        let put = BlobCachePut::copy_from_slice(value.as_bytes());
        block_on(cache.put("tenant", key(number), put)).unwrap();
    };
    (0..100).for_each(|number| put(&cache, number, "old"));
    block_on(cache.close()).unwrap();

    let cache = open(0);
    let before = cache.stats().l2_bytes_in_use();
    for round in 0..100 {
        (0..100).for_each(|number| put(&cache, number, &format!("new {round}")));
    }
    block_on(cache.sync()).unwrap();
    assert_eq!(cache.stats().l2_full_rejections(), 10_000);
    // One in about fifty puts needs a record for its sequence; frames and the tail's block add a
    // little.
    let written = cache.stats().l2_bytes_in_use() - before;
    assert!(written < 100_000, "{written} bytes of log");
    assert_eq!(block_on(cache.get("tenant", key(7))).unwrap().value(), b"new 99");
    block_on(cache.close()).unwrap();
    let cache = open(0);
    assert_eq!(hits(&cache, "tenant", 0..100), 0, "none is found again");
    block_on(cache.close()).unwrap();
}

#[test]
fn expired_records_make_room_in_a_quota() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let config = on_disk(folder.path(), 2 << 20).clock(clock.clone()).build().unwrap();
    let mut cache = block_on(BlobCache::open(config.clone())).unwrap();
    let put = |cache: &BlobCache, number| {
        let policy = BlobCachePolicy::default().ttl(Duration::from_secs(60));
        let put = BlobCachePut::new(vec![7; 1000]).with_policy(policy);
        block_on(cache.put("tenant", key(number), put)).unwrap();
    };
    for day in 0..4 {
        (0..2500).for_each(|number| put(&cache, day * 10_000 + number));
        let held = hits(&cache, "tenant", day * 10_000..day * 10_000 + 2500);
        assert!(held > 1600, "day {day}: {held}");
        if day == 2 {
            // A reopened store has no expiry times in memory.
            block_on(cache.close()).unwrap();
            cache = block_on(BlobCache::open(config.clone())).unwrap();
        }
        clock.advance(Duration::from_secs(86_400));
        let end = Instant::now() + Duration::from_secs(60);
        let mut more = day * 10_000 + 5000..;
        while cache.namespace_stats("tenant").unwrap().l2_bytes_in_use() > 1 << 20 {
            assert!(Instant::now() < end, "day {day}: it is full of expired records");
            more.by_ref().take(5).for_each(|number| put(&cache, number));
            std::thread::sleep(Duration::from_millis(10));
        }
        clock.advance(Duration::from_secs(86_400));
    }
    block_on(cache.close()).unwrap();
}

#[test]
fn records_beyond_a_lowered_quota_are_not_reinserted() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let open = |bytes| block_on(BlobCache::open(on_disk(folder.path(), bytes).build().unwrap()));
    let cache = open(6 << 20).unwrap();
    fill(&cache, "tenant", 0..5000, L1Admission::Never);
    block_on(cache.close()).unwrap();
    let cache = open(1 << 20).unwrap();
    for round in 0..48 {
        if round % 2 == 0 {
            assert!(hits(&cache, "tenant", 0..5000) > 100, "records within the quota stay");
        }
        for first in (round * 1000..(round + 1) * 1000).step_by(50) {
            fill(&cache, "other", first..first + 50, L1Admission::Never);
            // Puts that fill the log as fast as it drains would leave no room for reinsertion.
            block_on(cache.sync()).unwrap();
        }
    }
    let stats = cache.namespace_stats("tenant").unwrap();
    assert!(stats.l2_bytes_in_use() <= 1 << 20, "{stats:?}");
    assert!(cache.stats().l2_reinserted() > 0);
    block_on(cache.close()).unwrap();
}

/// A quota that is never reached changes nothing, whatever the budget evicts.
#[test]
fn a_quota_that_is_never_reached_changes_nothing() {
    let quota = NamespaceQuota { l1_bytes_max: Some(200 << 10), ..Default::default() };
    let misses = |seed, whose: &str| {
        let config = BlobCacheConfig::builder().l1_bytes_max(256 << 10).shard_count(1);
        let config = config.quota(whose, quota).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        let mut misses = [0, 0];
        for _ in 0..20_000 {
            let of = random.random_range(0..2);
            let namespace = ["tenant", "other"][of];
            let number = random.random_range(0..600) * random.random_range(0..600) / 600;
            match random.random_range(0..20) {
                0 => _ = block_on(cache.invalidate_key(namespace, key(number))).unwrap(),
                1..4 => fill(&cache, namespace, number..number + 1, L1Admission::Auto),
                _ if hits(&cache, namespace, number..number + 1) == 0 => {
                    misses[of] += 1;
                    fill(&cache, namespace, number..number + 1, L1Admission::Auto);
                }
                _ => {}
            }
        }
        misses
    };
    for seed in 0..6 {
        assert_eq!(misses(seed, "tenant"), misses(seed, "nobody"), "seed {seed}");
    }
}

/// Flushed entries count until they are swept, but must not keep out new ones.
#[test]
fn a_flushed_namespace_accepts_lower_priorities() {
    for sweep in [BackgroundSweep::Off, BackgroundSweep::On] {
        let quota = NamespaceQuota { l1_bytes_max: Some(1 << 20), ..Default::default() };
        let builder = BlobCacheConfig::builder().l1_bytes_max(64 << 20).background_sweep(sweep);
        let config = builder.quota("tenant", quota).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let put = |key: String, bytes, priority| {
            let policy = BlobCachePolicy::default().priority(priority);
            let put = BlobCachePut::new(vec![7; bytes]).with_policy(policy);
            block_on(cache.put("tenant", key, put)).unwrap();
        };
        (0..10_000).for_each(|number| put(format!("high{number}"), 100, 200));
        block_on(cache.invalidate_namespace("tenant")).unwrap();
        for number in 0..100 {
            put(format!("low{number}"), 500_000, 100);
            let hit = block_on(cache.get("tenant", format!("low{number}")));
            assert!(hit.is_some(), "{sweep:?}: {number}");
        }
    }
}
