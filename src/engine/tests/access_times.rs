//! Last accesses of entries with an idle ttl while they move between the tiers.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, two_tiers};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfigBuilder;
use crate::engine::eviction::Eviction;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::hit::{BlobCacheHit, CacheTier};
use crate::l1::{Room, Victim};
use crate::modes::{BackgroundSweep, L1Admission, L2PromotionPolicy};
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::quota::NamespaceQuota;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

/// Without a background sweep, so that gets find expired entries.
fn config(clock: &Clock) -> BlobCacheConfigBuilder {
    two_tiers(clock).background_sweep(BackgroundSweep::Off)
}

fn idle(seconds: u64) -> BlobCachePolicy {
    let idle_ttl = Some(Duration::from_secs(seconds));
    BlobCachePolicy::default().extended(ExtendedTtlPolicy { idle_ttl, ..Default::default() })
}

fn value(policy: BlobCachePolicy) -> BlobCachePut {
    BlobCachePut::new("value").with_policy(policy)
}

/// A cache with `k` on disk and not in memory, whose reads end after the poll that issues them.
fn on_disk_only(config: BlobCacheConfigBuilder, put: BlobCachePut) -> (Bench, BlobCache) {
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    bench.run(cache.put("a", "k", put)).unwrap();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
    bench.disk.plan(|plan| plan.delay_polls_min = 1);
    let cache = bench.cache();
    (bench, cache)
}

fn in_memory(cache: &BlobCache, key: &str) -> Arc<Entry> {
    let engine = &cache.engine;
    let named = engine.parts.hasher.namespace("a");
    let key = engine.parts.hasher.hashed(named.seed, key.as_bytes());
    Visibility::new(&engine.parts).visible(named, key).unwrap()
}

fn fill_until_the_log_wraps(bench: &mut Bench, cache: &BlobCache) {
    let begun = cache.stats().l2_reclaimed_segments();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    for key in 0u32.. {
        let put = BlobCachePut::new(vec![7; 20_000]).with_policy(policy.clone());
        bench.run(cache.put("filler", key.to_le_bytes(), put)).unwrap();
        if cache.stats().l2_reclaimed_segments() >= begun + 16 {
            return;
        }
    }
}

/// A get that has issued its read, and is not polled until `k` is in memory.
fn slow_get(bench: &mut Bench) -> BoxFuture<'static, Option<BlobCacheHit>> {
    let cache = bench.cache();
    let mut slow = async move { cache.get("a", "k").await }.boxed();
    assert!((&mut slow).now_or_never().is_none());
    let cache = bench.cache();
    assert!(bench.run(cache.get("a", "k")).is_some());
    bench.pass(Duration::from_millis(50));
    slow
}

#[test]
fn a_slow_get_finds_an_entry_that_memory_kept_alive() {
    let clock = Clock::manual(at(0));
    let (mut bench, cache) = on_disk_only(config(&clock), value(idle(10)));
    clock.set(at(5));
    let slow = slow_get(&mut bench);
    for seconds in [12, 20] {
        clock.set(at(seconds));
        assert_eq!(bench.run(cache.get("a", "k")).unwrap().tier(), CacheTier::L1);
    }
    clock.set(at(29));
    assert!(bench.run(slow).is_some(), "last accessed at 20, of 10 s");
    clock.set(at(38));
    assert!(bench.run(cache.get("a", "k")).is_some(), "last accessed at 29");
    assert_eq!(cache.stats().expirations(), 0);
}

#[test]
fn an_entry_that_expires_in_both_tiers_counts_once() {
    let clock = Clock::manual(at(0));
    let mortal = BlobCachePolicy::default().ttl(Duration::from_secs(10));
    let (mut bench, cache) = on_disk_only(config(&clock), value(mortal));
    clock.set(at(5));
    let slow = slow_get(&mut bench);
    assert_eq!(bench.run(cache.get("a", "k")).unwrap().tier(), CacheTier::L1);
    clock.set(at(11));
    assert!(bench.run(slow).is_none());
    assert_eq!(cache.stats().expirations(), 1);
    assert!(bench.run(cache.get("a", "k")).is_none());
    assert_eq!(cache.stats().expirations(), 1);
}

/// Another thread gets the entry between its removal from memory and the accounting of that.
#[test]
fn a_get_during_an_eviction_knows_the_last_access() {
    let clock = Clock::manual(at(0));
    let config = config(&clock).l2_promotion_policy(L2PromotionPolicy::OnSecondHit);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    let engine = &cache.engine;
    bench.run(cache.put("a", "k", value(idle(10)))).unwrap();
    clock.set(at(8));
    assert!(bench.run(cache.get("a", "k")).is_some());
    let found = in_memory(&cache, "k");
    let room = Room { bytes: 16 << 20, spare: 0 };
    let victim = engine.parts.l1.evict(room, u8::MAX, &mut 100, &Eviction::new(&engine.parts));
    assert!(matches!(victim, Some(Victim::Evicted(entry)) if entry.is_of("a", b"k")));
    clock.set(at(15));
    assert!(bench.run(cache.get("a", "k")).is_some(), "last accessed at 8, of 10 s");
    // It was found before its removal, and is hit only now.
    clock.set(at(17));
    assert!(Visibility::new(&engine.parts).judge(&found).is_ok());
    clock.set(at(26));
    assert!(bench.run(cache.get("a", "k")).is_some(), "last accessed at 17");
}

/// Another copy of the entry is hit while the promotion copies its value.
#[test]
fn a_promotion_keeps_the_last_access() {
    let clock = Clock::manual(at(0));
    let config = config(&clock).l2_promotion_policy(L2PromotionPolicy::OnSecondHit);
    let large = BlobCachePut::new(vec![7; 500_000]).with_policy(idle(10));
    let (mut bench, cache) = on_disk_only(config, large);
    let engine = &cache.engine;
    clock.set(at(5));
    let read = bench.run(cache.get("a", "k")).unwrap().entry;
    let other = Arc::new(read.promoted(read.value.clone(), read.charge));
    let mut promotion = Box::pin(engine.promoter.promote(&read));
    assert!((&mut promotion).now_or_never().is_none(), "half a megabyte is copied in batches");
    clock.set(at(12));
    assert!(Visibility::new(&engine.parts).judge(&other).is_ok());
    assert!(bench.run(promotion));
    clock.set(at(22));
    assert_eq!(bench.run(cache.get("a", "k")).unwrap().tier(), CacheTier::L1);
}

/// A full quota on disk regains the room of idle records, and read records stay.
#[test]
fn idle_records_make_room_in_a_quota() {
    let clock = Clock::manual(at(0));
    let quota = NamespaceQuota { l2_bytes_max: Some(256 << 10), ..Default::default() };
    let mut bench = Bench::with(1, config(&clock).quota("a", quota).build().unwrap());
    let cache = bench.cache();
    let put = |key: String, admission| {
        let policy = idle(10).l1_admission(admission);
        cache.put("a", key, BlobCachePut::new(vec![7; 20_000]).with_policy(policy))
    };
    bench.run(put("memory".to_owned(), L1Admission::Always)).unwrap();
    bench.run(put("promoted".to_owned(), L1Admission::Auto)).unwrap();
    bench.run(put("disk".to_owned(), L1Admission::Never)).unwrap();
    let mut filler = 0;
    while cache.stats().l2_full_rejections() == 0 {
        bench.run(put(filler.to_string(), L1Admission::Never)).unwrap();
        filler += 1;
    }
    let asked = ["memory", "promoted", "disk"];
    for seconds in [8, 16, 24] {
        clock.set(at(seconds));
        assert!(asked.iter().all(|key| bench.run(cache.get("a", *key)).is_some()));
    }
    bench.run(put("new".to_owned(), L1Admission::Never)).unwrap();
    assert!(bench.run(cache.get("a", "new")).is_none(), "it has no room");
    bench.pass(Duration::from_secs(2));
    bench.run(put("new".to_owned(), L1Admission::Never)).unwrap();
    assert!(bench.run(cache.get("a", "new")).is_some(), "unread entries have expired");
    assert_eq!(cache.stats().l1_idle_evicts_total(), filler - 1);
    bench.run(cache.close()).unwrap();
    drop(cache);
    // An entry without a recorded access counts as last accessed when it was written.
    bench.reopen();
    let cache = bench.cache();
    assert!(asked.iter().all(|key| bench.run(cache.get("a", *key)).is_none()));
    assert!(cache.namespace_stats("a").unwrap().l2_bytes_in_use() < 40_000, "one of them");
    assert!(bench.run(cache.get("a", "new")).is_some());
}

/// If the budget is used up before the first idle ttl, they are recorded after a wrap of the log.
#[test]
fn last_accesses_stay_within_the_index_budget() {
    for used_up in [false, true] {
        let clock = Clock::manual(at(0));
        let config = config(&clock).l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10);
        let config = config.l2_index_bytes_max(64 << 10);
        let mut bench = Bench::with(1, config.build().unwrap());
        let cache = bench.cache();
        let put = |key: u64, policy: BlobCachePolicy| {
            let policy = policy.l1_admission(L1Admission::Never);
            cache.put("a", key.to_le_bytes(), value(policy))
        };
        let get = |bench: &mut Bench, seconds, key: u64| {
            clock.set(at(seconds));
            bench.run(cache.get("a", key.to_le_bytes())).is_some()
        };
        let first = if used_up { BlobCachePolicy::default() } else { idle(10) };
        bench.run(put(0, first)).unwrap();
        let mut keys = 1..;
        let mut fill = |bench: &mut Bench, until: &dyn Fn() -> bool| {
            while !until() {
                let key = keys.next().unwrap();
                bench.run(put(key, BlobCachePolicy::default())).unwrap();
            }
        };
        // No record leaves yet, and the table has room besides, or has none.
        let slots = if used_up { 1850 } else { 1600 };
        fill(&mut bench, &|| cache.stats().l2_entries() >= slots);
        bench.run(put(0, idle(10))).unwrap();
        assert!(get(&mut bench, 9, 0));
        // Unless a segment has left the log meanwhile.
        assert!(get(&mut bench, 18, 0) || used_up);
        if used_up {
            let reclaimed = cache.stats().l2_reclaimed_segments();
            fill(&mut bench, &|| cache.stats().l2_reclaimed_segments() >= reclaimed + 16);
            bench.run(put(0, idle(10))).unwrap();
            assert!(get(&mut bench, 27, 0) && get(&mut bench, 36, 0), "there is room by now");
        }
        let bytes = cache.stats().memory_index_bytes();
        assert!(bytes <= 64 << 10, "{bytes}");
    }
}

/// Gets are begun, left and continued at random, above a memory of a few entries: each finds
/// exactly the entries accessed within their idle ttl, and each expiry counts once.
#[test]
fn slow_and_fast_gets_agree_on_the_last_access() {
    let (mut on_disk, mut in_memory, mut gone, mut promoted) = (0, 0, 0, 0);
    for seed in 0..2000 {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Clock::manual(at(0));
        let promotion = [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit];
        let config = config(&clock)
            .l1_bytes_max(64 << 10)
            .l1_charge(|_, _| 7 << 10)
            .l2_promotion_policy(promotion[usize::from(random.random_bool(0.5))]);
        let mut bench = Bench::with(seed, config.build().unwrap());
        let cache = bench.cache();
        let (keys, ttl) = (14, 40);
        let put = |key: usize| {
            let policy = idle(ttl).l1_admission(L1Admission::Always);
            cache.put("a", format!("{key}"), value(policy))
        };
        (0..keys).for_each(|key| bench.run(put(key)).unwrap());
        let mut accessed = vec![0; keys];
        let mut ended = 0;
        let mut now = 0;
        type Get<'a> = Pin<Box<dyn Future<Output = Option<BlobCacheHit>> + 'a>>;
        let mut gets: Vec<(usize, Get<'_>)> = Vec::new();
        for _ in 0..300 {
            now += random.random_range(0..3);
            clock.set(at(now));
            if random.random_bool(0.3) {
                bench.pass(Duration::from_millis(5));
            }
            if gets.len() < 6 && random.random_bool(0.7) {
                let key = random.random_range(0..keys);
                gets.push((key, Box::pin(cache.get("a", format!("{key}")))));
            }
            if gets.is_empty() {
                continue;
            }
            let chosen = random.random_range(0..gets.len());
            let Some(found) = (&mut gets[chosen].1).now_or_never() else { continue };
            let key = gets.swap_remove(chosen).0;
            let is_alive = now - accessed[key] <= ttl;
            assert_eq!(found.is_some(), is_alive, "seed {seed}: {key} at {now}");
            match found.map(|hit| hit.tier()) {
                Some(CacheTier::L1) => in_memory += 1,
                Some(_) => on_disk += 1,
                None => {
                    (gone, ended) = (gone + 1, ended + 1);
                    bench.run(put(key)).unwrap();
                }
            }
            accessed[key] = now;
        }
        drop(gets);
        let gone_now = |key: &usize| bench.run(cache.get("a", format!("{key}"))).is_none();
        ended += (0..keys).filter(gone_now).count() as u64;
        assert_eq!(cache.stats().expirations(), ended, "seed {seed}");
        promoted += cache.stats().promotion_completed();
    }
    assert!(on_disk > 20_000 && in_memory > 20_000, "{on_disk} {in_memory}");
    assert!(gone > 5_000 && promoted > 10_000, "{gone} {promoted}");
}

/// An entry with a slot is counted when the slot is marked dead, and memory drops it then.
#[test]
fn an_expired_entry_counts_once_although_its_record_leaves() {
    let clock = Clock::manual(at(0));
    let mortal = BlobCachePolicy::default().ttl(Duration::from_secs(10));
    let (mut bench, cache) = on_disk_only(config(&clock), value(mortal));
    clock.set(at(5));
    let slow = slow_get(&mut bench);
    clock.set(at(11));
    assert!(bench.run(slow).is_none());
    assert_eq!((cache.stats().expirations(), cache.stats().entries()), (1, 0));
    fill_until_the_log_wraps(&mut bench, &cache);
    assert!(bench.run(cache.get("a", "k")).is_none());
    assert_eq!(cache.stats().expirations(), 1);
}

/// Its record may have been lost to damage before.
#[test]
fn an_expiry_in_memory_counts_although_its_slot_is_dead() {
    let clock = Clock::manual(at(0));
    let mut bench = Bench::with(1, config(&clock).build().unwrap());
    let cache = bench.cache();
    let mortal = BlobCachePolicy::default().ttl(Duration::from_secs(10));
    bench.run(cache.put("a", "k", value(mortal))).unwrap();
    let entry = in_memory(&cache, "k");
    assert!(Removal::new(&cache.engine.parts).mark_dead(
        &entry.generation,
        entry.hash,
        entry.sequence()
    ));
    clock.set(at(9));
    assert!(bench.run(cache.get("a", "k")).is_some(), "memory has it");
    clock.set(at(10));
    assert!(bench.run(cache.get("a", "k")).is_none());
    assert_eq!(cache.stats().expirations(), 1);
}

/// A version that is alive because of an access known only to memory, when a put reads its record.
#[test]
fn a_put_knows_the_last_access_to_the_version_on_disk() {
    let clock = Clock::manual(at(0));
    let (mut bench, cache) = on_disk_only(config(&clock), value(idle(10).version(5)));
    clock.set(at(5));
    let large = Bytes::from(vec![7; 1_200_000]).slice(0..600_000);
    let lower = BlobCachePut::new(large).with_policy(BlobCachePolicy::default().version(1));
    let mut put = Box::pin(cache.put("a", "k", lower));
    assert!((&mut put).now_or_never().is_none(), "it reads the version");
    assert!(bench.run(cache.get("a", "k")).is_some());
    bench.pass(Duration::from_millis(50));
    for seconds in [12, 20] {
        clock.set(at(seconds));
        assert_eq!(bench.run(cache.get("a", "k")).unwrap().tier(), CacheTier::L1);
    }
    clock.set(at(29));
    let outcome = loop {
        if let Some(outcome) = (&mut put).now_or_never() {
            break outcome;
        }
        assert!(
            cache.engine.parts.copies.bytes() < 600_000,
            "it is refused before room is made for it"
        );
        bench.pass(Duration::from_millis(1));
    };
    assert!(matches!(outcome, Err(CacheError::VersionMismatch { existing: 5, .. })), "{outcome:?}");
}

#[test]
fn a_full_table_replaces_the_oldest_access() {
    let clock = Clock::manual(at(0));
    let config = config(&clock).l2_index_bytes_max(64 << 10);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    let accesses = &cache.engine.parts.access_times;
    let mut asked = |seconds: u64| -> Vec<_> {
        let keys = (0..400).map(|key| format!("{seconds} {key}"));
        let put = |key: String| {
            bench.run(cache.put("a", &key, value(idle(100)))).unwrap();
            let entry = in_memory(&cache, &key);
            entry.accessed(at(seconds).into());
            accesses.record(&entry);
            entry
        };
        keys.map(put).collect()
    };
    let is_known = |entry: &&Arc<Entry>| accesses.last(entry.hash, entry.written) > entry.written;
    let late = asked(50);
    let known = late.iter().filter(is_known).count();
    assert!(known > 150, "{known}");
    let early = asked(1);
    assert_eq!(late.iter().filter(is_known).count(), known);
    assert!(early.iter().filter(is_known).count() < 400 - known);
    asked(60);
    assert!(late.iter().filter(is_known).count() < known);
}

#[test]
fn memory_only_entries_reserve_nothing_of_the_index() {
    let clock = Clock::manual(at(0));
    let quota = NamespaceQuota { l2_bytes_max: Some(0), ..Default::default() };
    let mut bench = Bench::with(1, config(&clock).quota("a", quota).build().unwrap());
    let cache = bench.cache();
    bench.run(cache.put("a", "k", value(idle(10)))).unwrap();
    assert_eq!(cache.engine.parts.access_times.bytes_reserved(), 0);
    bench.run(cache.put("b", "k", value(idle(10)))).unwrap();
    assert!(cache.engine.parts.access_times.bytes_reserved() > 0);
}

/// Idle records are known to be expired; accessed ones are not.
#[test]
fn a_prefix_counts_accessed_entries() {
    let clock = Clock::manual(at(0));
    let mut bench = Bench::with(1, config(&clock).build().unwrap());
    let cache = bench.cache();
    let put = |key| cache.put("a", key, value(idle(10).l1_admission(L1Admission::Never)));
    for key in ["k1", "k2", "k3"] {
        bench.run(put(key)).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    clock.set(at(8));
    assert!(bench.run(cache.get("a", "k1")).is_some());
    clock.set(at(15));
    assert_eq!(bench.run(cache.invalidate_prefix("a", "k")).unwrap(), 1);
}
