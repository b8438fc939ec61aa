//! When all namespace slots are taken, namespaces without live entries give up theirs at once.

use std::time::{Duration, SystemTime};

use futures::executor::block_on;

use super::bench::{Bench, two_tiers};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::meter::measured;
use crate::modes::{BackgroundSweep, L1Admission};
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy};
use crate::put::BlobCachePut;
use crate::sweep::SweepLimit;

const MAX: usize = 8;

const SHORT: Duration = Duration::from_millis(50);

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000))
}

fn brief(ttl: Duration) -> BlobCachePut {
    BlobCachePut::new("v").with_policy(BlobCachePolicy::default().ttl(ttl))
}

fn in_memory(clock: &Clock) -> BlobCache {
    let config = BlobCacheConfig::builder().max_namespaces(MAX).clock(clock.clone());
    let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

fn fill(cache: &BlobCache, names: std::ops::Range<usize>) {
    for number in names {
        block_on(cache.put(&format!("n{number}"), "k", brief(SHORT))).unwrap();
    }
}

fn is_refused(put: Result<(), CacheError>) -> bool {
    put == Err(CacheError::TooManyNamespaces { max: MAX })
}

#[test]
fn expired_namespaces_in_memory_give_up_their_slots_without_a_sweep() {
    let clock = clock();
    let cache = in_memory(&clock);
    fill(&cache, 0..MAX);
    let refused = block_on(cache.put("ninth", "k", "v"));
    assert!(is_refused(refused.clone()));
    let told = refused.unwrap_err().to_string();
    assert!(told.contains("flush") && told.contains("max_namespaces"), "{told}");
    clock.advance(SHORT * 4);
    for number in 0..MAX {
        block_on(cache.put(&format!("new{number}"), "k", "v")).unwrap();
    }
    assert_eq!(cache.stats().expirations(), MAX as u64);
    assert!(is_refused(block_on(cache.put("ninth", "k", "v"))), "those are alive");
    for number in 0..MAX {
        assert!(block_on(cache.get(&format!("new{number}"), "k")).is_some());
        assert!(block_on(cache.get(&format!("n{number}"), "k")).is_none());
    }
}

#[test]
fn a_namespace_of_short_lived_entries_delays_no_other() {
    let clock = clock();
    let cache = in_memory(&clock);
    for number in 0..20_000u64 {
        let put = brief(Duration::from_millis(number * 180));
        block_on(cache.put("tenant", number.to_le_bytes(), put)).unwrap();
    }
    fill(&cache, 1..MAX);
    clock.advance(SHORT * 4);
    let (put, work) = measured(|| block_on(cache.put("ninth", "k", "v")));
    put.unwrap();
    assert!(work.entries < 1000, "{work:?}: the namespace is not walked");
}

/// The second entry of a key expires sooner than the first would have.
#[test]
fn an_overwritten_entry_no_longer_counts() {
    let clock = clock();
    let cache = in_memory(&clock);
    for number in 0..MAX {
        block_on(cache.put(&format!("n{number}"), "k", "endless")).unwrap();
    }
    fill(&cache, 0..MAX);
    clock.advance(SHORT * 4);
    block_on(cache.put("ninth", "k", "v")).unwrap();
}

#[test]
fn an_accessed_entry_keeps_its_slot() {
    let clock = clock();
    let cache = in_memory(&clock);
    let idle = ExtendedTtlPolicy { idle_ttl: Some(SHORT), ..Default::default() };
    for number in 0..MAX {
        let put = BlobCachePut::new("v").with_policy(BlobCachePolicy::default().extended(idle));
        block_on(cache.put(&format!("n{number}"), "k", put)).unwrap();
    }
    for _ in 0..10 {
        clock.advance(SHORT / 2);
        assert!(block_on(cache.get("n0", "k")).is_some());
    }
    for number in 1..MAX {
        block_on(cache.put(&format!("new{number}"), "k", "v")).unwrap();
    }
    assert!(is_refused(block_on(cache.put("ninth", "k", "v"))));
    assert!(block_on(cache.get("n0", "k")).is_some());
}

#[test]
fn a_failed_search_is_not_repeated() {
    let cache = in_memory(&clock());
    for number in 0..MAX {
        block_on(cache.put(&format!("n{number}"), "k", "endless")).unwrap();
    }
    let refused = || measured(|| block_on(cache.put("ninth", "k", "v"))).1.entries;
    assert!(refused() > 0);
    assert_eq!(refused(), 0);
}

#[derive(Debug, Clone, Copy)]
enum End {
    Clock,
    Sweep,
    Keys,
    Restart,
}

/// Also for entries that are only on disk.
#[test]
fn a_namespace_with_only_dead_slots_gives_up_its_slot_for_good() {
    for end in [End::Clock, End::Sweep, End::Keys, End::Restart] {
        for admission in [L1Admission::Never, L1Admission::Always] {
            let clock = clock();
            let mut bench = Bench::with(1, two_tiers(&clock).max_namespaces(MAX).build().unwrap());
            let cache = bench.cache();
            for number in 0..MAX {
                let policy = BlobCachePolicy::default().ttl(SHORT).l1_admission(admission);
                let put = BlobCachePut::new("old").with_tags(["t"]).with_policy(policy);
                bench.run(cache.put(&format!("n{number}"), "k", put)).unwrap();
            }
            assert!(is_refused(bench.run(cache.put("ninth", "k", "v"))));
            drop(cache);
            match end {
                End::Keys => {
                    for number in 0..MAX {
                        let cache = bench.cache();
                        bench.run(cache.invalidate_key(&format!("n{number}"), "k")).unwrap();
                    }
                }
                _ => clock.advance(SHORT * 4),
            }
            match end {
                End::Sweep => {
                    let cache = bench.cache();
                    bench.run(cache.sweep_expired(SweepLimit::Entries(1000)));
                }
                End::Restart => {
                    let cache = bench.cache();
                    bench.run(cache.close()).unwrap();
                    drop(cache);
                    bench.reopen();
                }
                _ => {}
            }
            let what = format!("{end:?}, {admission:?}");
            for number in 0..MAX {
                let cache = bench.cache();
                let name = format!("new{number}");
                assert_eq!(bench.run(cache.put(&name, "k", "new")), Ok(()), "{what}");
            }
            let cache = bench.cache();
            assert_eq!(cache.stats().namespaces(), MAX, "{what}");
            bench.run(cache.sync()).unwrap();
            drop(cache);
            // If the clock is set back, expired entries would be alive again.
            bench.config = two_tiers(&self::clock()).max_namespaces(MAX).build().unwrap();
            bench.kill();
            for number in 0..MAX {
                let cache = bench.cache();
                let name = format!("n{number}");
                assert!(bench.run(cache.get(&name, "k")).is_none(), "{what}");
                let name = format!("new{number}");
                assert!(bench.run(cache.get(&name, "k")).is_some(), "{what}");
            }
        }
    }
}
