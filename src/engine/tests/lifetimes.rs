//! Every policy of a grid, in memory, on disk, and after a restart, at each of its deadlines and
//! one nanosecond before and after, against a short specification.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, two_tiers};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::hit::CacheTier;
use crate::modes::{BackgroundSweep, L1Admission, L2PromotionPolicy};
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::{BlobCachePut, Value};

const START: Duration = Duration::from_secs(1_000_000);

/// In nanoseconds after the put.
#[derive(Clone, Copy, Debug)]
struct Policy {
    ttl: Option<u64>,
    expires_at: Option<u64>,
    stale: Option<u64>,
    idle: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Fresh,
    /// With the rest of the window.
    Stale(u64),
    Gone,
}

const FOREVER: u64 = u64::MAX;

impl Policy {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for ttl in [None, Some(0), Some(10), Some(25), Some(FOREVER)] {
            for expires_at in [None, Some(0), Some(20)] {
                for stale in [None, Some(0), Some(1), Some(7), Some(FOREVER)] {
                    for idle in [None, Some(0), Some(15), Some(FOREVER)] {
                        all.push(Self { ttl, expires_at, stale, idle });
                    }
                }
            }
        }
        all
    }

    fn expected(self, age: u64) -> Expected {
        let expires = self.ttl.unwrap_or(FOREVER).min(self.expires_at.unwrap_or(FOREVER));
        let gone = expires.saturating_add(self.stale.unwrap_or(0));
        if self.idle.is_some_and(|idle| age > idle) {
            Expected::Gone
        } else if age < expires {
            Expected::Fresh
        } else if age < gone {
            Expected::Stale(gone - age)
        } else {
            Expected::Gone
        }
    }

    /// Each deadline, and the times next to it.
    fn moments(self) -> Vec<u64> {
        let expires = self.ttl.unwrap_or(FOREVER).min(self.expires_at.unwrap_or(FOREVER));
        let deadlines = [0, expires, expires.saturating_add(self.stale.unwrap_or(0))];
        let deadlines = deadlines.into_iter().chain(self.idle).filter(|at| *at < 1_000);
        let beside = |at: u64| [at.saturating_sub(1), at, at + 1];
        let mut moments: Vec<u64> = deadlines.flat_map(beside).chain([900]).collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }

    fn put(self, admission: L1Admission) -> BlobCachePut {
        let nanos = |nanos| match nanos {
            FOREVER => Duration::MAX,
            nanos => Duration::from_nanos(nanos),
        };
        let mut policy = BlobCachePolicy::default().l1_admission(admission);
        if let Some(ttl) = self.ttl {
            policy = policy.ttl(nanos(ttl));
        }
        if let Some(at) = self.expires_at {
            policy = policy.expires_at(UNIX_EPOCH + START + Duration::from_nanos(at));
        }
        let extended = ExtendedTtlPolicy {
            stale_serve: self.stale.map(nanos),
            idle_ttl: self.idle.map(nanos),
            jitter_pct: 0,
        };
        BlobCachePut::new("value").with_policy(policy.extended(extended))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Location {
    Memory,
    Disk,
    /// On disk, recovered by an open.
    Reopened,
}

fn get(bench: &mut Bench, cache: &BlobCache, key: &str) -> (Expected, Option<CacheTier>) {
    let Some(hit) = bench.run(cache.get("a", key)) else { return (Expected::Gone, None) };
    let left = hit.stale_window_remaining().map(|left| u64::try_from(left.as_nanos()).unwrap());
    (left.map_or(Expected::Fresh, Expected::Stale), Some(hit.tier()))
}

fn check(location: Location) {
    let clock = Clock::manual(UNIX_EPOCH + START);
    let mut bench = Bench::with(1, two_tiers(&clock).build().unwrap());
    let admission =
        if location == Location::Memory { L1Admission::Always } else { L1Admission::Never };
    let policies = Policy::all();
    let mut asked = Vec::new();
    let cache = bench.cache();
    for (number, policy) in policies.iter().enumerate() {
        for moment in policy.moments() {
            // A get is an access, so each entry is read once.
            let key = format!("{number}/{moment}");
            bench.run(cache.put("a", &key, policy.put(admission))).unwrap();
            asked.push((moment, *policy, key));
        }
    }
    bench.run(cache.sync()).unwrap();
    if location == Location::Reopened {
        bench.run(cache.close()).unwrap();
        bench.reopen();
    }
    let cache = bench.cache();
    asked.sort_by_key(|(moment, ..)| *moment);
    let mut hits = 0;
    for (moment, policy, key) in asked {
        clock.set(UNIX_EPOCH + START + Duration::from_nanos(moment));
        let expected = policy.expected(moment);
        let (found, tier) = get(&mut bench, &cache, &key);
        // The saturated end of a window is not exact to the nanosecond.
        let is_long = |left| left > FOREVER / 4;
        let is_same = match (found, expected) {
            (Expected::Stale(found), Expected::Stale(left)) if is_long(left) => is_long(found),
            (found, expected) => found == expected,
        };
        assert!(is_same, "{location:?} {policy:?} at {moment}: {found:?}, not {expected:?}");
        let expected_tier =
            if location == Location::Memory { CacheTier::L1 } else { CacheTier::L2 };
        assert!(tier.is_none_or(|tier| tier == expected_tier), "{location:?} {policy:?}: {tier:?}");
        hits += u32::from(tier.is_some());
    }
    assert!(hits > 500, "{hits}");
}

#[test]
fn in_memory() {
    check(Location::Memory);
}

#[test]
fn on_disk() {
    check(Location::Disk);
}

#[test]
fn after_a_restart() {
    check(Location::Reopened);
}

#[test]
fn a_clock_that_steps_back_revives_nothing_and_adds_no_idle_time() {
    let at = |nanos| -> SystemTime { UNIX_EPOCH + START + Duration::from_nanos(nanos) };
    for admission in [L1Admission::Always, L1Admission::Never] {
        let clock = Clock::manual(at(0));
        let mut bench = Bench::with(1, two_tiers(&clock).build().unwrap());
        let cache = bench.cache();
        let mortal = Policy { ttl: Some(10), expires_at: None, stale: None, idle: None };
        let idle = Policy { ttl: None, expires_at: None, stale: None, idle: Some(10) };
        bench.run(cache.put("a", "mortal", mortal.put(admission))).unwrap();
        bench.run(cache.put("a", "idle", idle.put(admission))).unwrap();
        clock.set(at(0) - Duration::from_secs(5));
        assert_eq!(get(&mut bench, &cache, "idle").0, Expected::Fresh, "no idle time");
        assert_eq!(get(&mut bench, &cache, "mortal").0, Expected::Fresh);
        clock.set(at(10));
        assert_eq!(get(&mut bench, &cache, "mortal").0, Expected::Gone);
        clock.set(at(5));
        assert_eq!(get(&mut bench, &cache, "mortal").0, Expected::Gone, "it stays expired");
    }
}

/// Idle time across both tiers, against the one-line specification: a memory that holds few
/// entries, entries on disk only, promoted at once or later, read at random.
#[test]
fn idle_time_continues_across_evictions() {
    let (mut on_disk, mut in_memory, mut gone) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Clock::manual(UNIX_EPOCH + START);
        let promotion = [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit];
        let config = two_tiers(&clock)
            .l1_bytes_max(64 << 10)
            .l2_promotion_policy(promotion[usize::from(random.random_bool(0.5))]);
        let mut bench = Bench::with(seed, config.build().unwrap());
        let cache = bench.cache();
        let (keys, idle) = (24, 100);
        let policy = Policy { ttl: None, expires_at: None, stale: None, idle: Some(idle) };
        let put = |key: usize| {
            let admission = if key % 3 == 0 { L1Admission::Never } else { L1Admission::Always };
            let mut put = policy.put(admission);
            put.value = Value::Exact(vec![7; 6000].into());
            cache.put("a", format!("{key}"), put)
        };
        (0..keys).for_each(|key| bench.run(put(key)).unwrap());
        let mut accessed = vec![0; keys];
        let mut now = 0;
        for _ in 0..400 {
            now += random.random_range(0..6);
            clock.set(UNIX_EPOCH + START + Duration::from_nanos(now));
            let key = random.random_range(0..keys);
            let (found, tier) = get(&mut bench, &cache, &format!("{key}"));
            let is_idle = now - accessed[key] > idle;
            let expected = if is_idle { Expected::Gone } else { Expected::Fresh };
            assert_eq!(found, expected, "seed {seed}: {key} at {now}, {tier:?}");
            match tier {
                Some(CacheTier::L1) => in_memory += 1,
                Some(_) => on_disk += 1,
                None => {
                    gone += 1;
                    bench.run(put(key)).unwrap();
                }
            }
            accessed[key] = now;
        }
    }
    assert!(on_disk > 9000 && in_memory > 9000 && gone > 3000, "{on_disk} {in_memory} {gone}");
}

/// Access times do not survive the process, and a small table may lose some.
#[test]
fn idle_time_counts_from_the_write_without_a_known_access() {
    let at = |seconds| UNIX_EPOCH + START + Duration::from_secs(seconds);
    let clock = Clock::manual(at(0));
    let config = two_tiers(&clock).l2_index_bytes_max(64 << 10);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    let idle = Policy { ttl: None, expires_at: None, stale: None, idle: Some(10_000_000_000) };
    let keys: Vec<String> = (0..1000).map(|key| key.to_string()).collect();
    for key in &keys {
        bench.run(cache.put("a", key, idle.put(L1Admission::Never))).unwrap();
    }
    let ask = |bench: &mut Bench, seconds| -> usize {
        clock.set(at(seconds));
        let cache = bench.cache();
        let found = |key: &&String| get(bench, &cache, key).1.is_some();
        keys.iter().filter(found).count()
    };
    assert_eq!(ask(&mut bench, 9), 1000);
    let known = ask(&mut bench, 18);
    // 8 KiB of 24 bytes per place, in sets that fill unevenly.
    assert!((200..340).contains(&known), "{known}");
    assert!(cache.stats().memory_index_bytes() >= 8 << 10);
    bench.run(cache.close()).unwrap();
    bench.reopen();
    assert_eq!(ask(&mut bench, 19), 0);
}

#[test]
fn a_hit_while_the_clock_is_back_does_not_shorten_an_idle_life() {
    let at = |seconds| UNIX_EPOCH + START + Duration::from_secs(seconds);
    let clock = Clock::manual(at(100));
    let config = BlobCacheConfig::builder().clock(clock.clone()).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let idle = Policy { ttl: None, expires_at: None, stale: None, idle: Some(10_000_000_000) };
    block_on(cache.put("a", "k", idle.put(L1Admission::Always))).unwrap();
    for seconds in [105, 50, 115] {
        clock.set(at(seconds));
        assert!(block_on(cache.get("a", "k")).is_some(), "at {seconds}");
    }
    clock.set(at(126));
    assert!(block_on(cache.get("a", "k")).is_none());
}

/// SIEVE spares accessed entries, but not expired ones.
#[test]
fn expired_entries_make_room_although_they_were_accessed() {
    let clock = Clock::manual(UNIX_EPOCH + START);
    let config = BlobCacheConfig::builder()
        .clock(clock.clone())
        .l1_bytes_max(400_000)
        .shard_count(1)
        .l1_charge(|_, _| 1000)
        .background_sweep(BackgroundSweep::Off);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let endless = Policy { ttl: None, expires_at: None, stale: None, idle: None };
    let mortal = Policy { ttl: Some(10), ..endless };
    let idle = Policy { idle: Some(10), ..endless };
    let kinds = [endless, mortal, endless, idle];
    let put = |key: usize, policy: Policy| {
        block_on(cache.put("a", key.to_le_bytes(), policy.put(L1Admission::Always))).unwrap();
    };
    let get = |key: usize| block_on(cache.get("a", key.to_le_bytes())).is_some();
    (0..400).for_each(|key| put(key, kinds[key % 4]));
    assert!((0..400).all(get));
    clock.advance(Duration::from_nanos(11));
    (400..600).for_each(|key| put(key, endless));
    assert!((0..400).filter(|key| key % 2 == 0).all(get), "none of them had to be evicted");
    let stats = cache.stats();
    assert_eq!((stats.evictions(), stats.expirations()), (0, 200));
    assert_eq!(stats.l1_idle_evicts_total(), 100);
}
