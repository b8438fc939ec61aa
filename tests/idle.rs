//! Idle ttls on real threads: a get within the idle ttl finds its key in whichever tier it is, or
//! while it moves between them, under concurrent gets of the same keys.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheTier, Clock,
    ExtendedTtlPolicy, L1Admission, L2PromotionPolicy,
};

const THREADS: u64 = 4;
const KEYS: usize = 20;
const IDLE_SECONDS: u64 = 800;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn put(cache: &BlobCache, key: usize) {
    let idle_ttl = Some(Duration::from_secs(IDLE_SECONDS));
    let extended = ExtendedTtlPolicy { idle_ttl, ..Default::default() };
    let policy = BlobCachePolicy::default().extended(extended).l1_admission(L1Admission::Always);
    let put = BlobCachePut::new("value").with_policy(policy);
    block_on(cache.put("a", key.to_string(), put)).unwrap();
}

#[derive(Debug, Default)]
struct Tally {
    in_memory: AtomicU64,
    on_disk: AtomicU64,
    gone: AtomicU64,
}

/// Gets keys with a skewed distribution, and puts the missing ones. `asked`: a lower bound of the
/// last get of each key.
fn ask(
    (cache, seed): (&BlobCache, u64),
    (seconds, asked): (&AtomicU64, &[AtomicU64]),
    (tally, is_over): (&Tally, &AtomicBool),
) {
    let order = Ordering::SeqCst;
    let mut random = StdRng::seed_from_u64(seed);
    while !is_over.load(order) {
        let key = (0..3).map(|_| random.random_range(0..KEYS)).min().unwrap();
        // The clock is set after this counter was incremented.
        let begun = seconds.load(order).saturating_sub(1);
        let last = asked[key].load(order);
        let hit = block_on(cache.get("a", key.to_string()));
        let count = match hit.map(|hit| hit.tier()) {
            Some(CacheTier::L1) => &tally.in_memory,
            Some(_) => &tally.on_disk,
            None => {
                let now = seconds.load(order);
                assert!(now - last > IDLE_SECONDS, "seed {seed}: {key} asked at {last}, now {now}");
                put(cache, key);
                &tally.gone
            }
        };
        count.fetch_add(1, order);
        asked[key].fetch_max(begun, order);
    }
}

#[test]
fn threads_agree_on_the_last_access() {
    for promotion in [L2PromotionPolicy::Immediate, L2PromotionPolicy::OnSecondHit] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let clock = Clock::manual(at(0));
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l1_charge(|_, _| 7 << 10)
            .l2_path(folder.path())
            .l2_bytes_max(8 << 20)
            .l2_promotion_policy(promotion)
            .background_sweep(BackgroundSweep::Off)
            .clock(clock.clone());
        let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
        (0..KEYS).for_each(|key| put(&cache, key));
        let (seconds, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let asked: Vec<_> = (0..KEYS).map(|_| AtomicU64::new(0)).collect();
        let tally = Tally::default();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|seed| {
                    let known = (&seconds, &*asked);
                    let (cache, ends) = (&cache, (&tally, &is_over));
                    scope.spawn(move || ask((cache, seed), known, ends))
                })
                .collect();
            // Twenty idle ttls.
            while seconds.load(Ordering::SeqCst) < 20 * IDLE_SECONDS
                && !threads.iter().any(thread::ScopedJoinHandle::is_finished)
            {
                clock.set(at(seconds.fetch_add(1, Ordering::SeqCst) + 1));
                thread::sleep(Duration::from_micros(20));
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let Tally { in_memory, on_disk, gone } = tally;
        let [in_memory, on_disk, gone] = [in_memory, on_disk, gone].map(AtomicU64::into_inner);
        assert!(in_memory > 100 && on_disk > 100 && gone > 0, "{in_memory} {on_disk} {gone}");
        // Also those that were not read since. Two threads may find one expired entry at once.
        let is_gone = |key: &usize| block_on(cache.get("a", key.to_string())).is_none();
        let gone = gone + (0..KEYS).filter(is_gone).count() as u64;
        let counted = cache.stats().l1_idle_evicts_total();
        assert!((1..=gone).contains(&counted), "{counted} counted of {gone}");
        block_on(cache.close()).unwrap();
    }
}
