//! What governed namespaces answer while their gate is closed, in memory and on disk.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures::future::{join_all, poll_immediate};

use super::bench::{Bench, two_tiers};
use crate::batch::yield_now;
use crate::boot_clock::BootClock;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::error::FetchError;
use crate::gate::{Gate, WhileClosed};
use crate::hit::{BlobCacheHit, CachePresence, CacheTier};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SECOND: Duration = Duration::from_secs(1);

/// Namespaces of all modes, `a` being one of `while_closed`, under one gate.
fn bench(while_closed: WhileClosed, gate: &Gate, clock: &Clock) -> Bench {
    let config = two_tiers(clock)
        .namespace("a", |own| own.gate(gate, while_closed))
        .namespace("own", |own| own.gate(gate, WhileClosed::Miss))
        .build()
        .unwrap();
    Bench::with(1, config)
}

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
}

fn value(text: &str, admission: L1Admission, ttl: Option<u32>) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(admission).version(7);
    let policy = match ttl {
        Some(seconds) => policy.ttl(seconds * SECOND).stale_serve(3 * SECOND),
        None => policy,
    };
    BlobCachePut::copy_from_slice(text.as_bytes()).with_policy(policy)
}

/// `k` in memory, `d` on disk, `o` in a namespace without a gate.
fn fill(bench: &mut Bench, ttl: Option<u32>) -> BlobCache {
    let cache = bench.cache();
    bench.run(cache.put("a", "k", value("k", L1Admission::Always, ttl))).unwrap();
    bench.run(cache.put("a", "d", value("d", L1Admission::Never, ttl))).unwrap();
    bench.run(cache.put("free", "o", "o")).unwrap();
    cache
}

/// Whether each get has an entry, and whether that is stale.
fn gets(bench: &mut Bench, keys: &[&str]) -> Vec<Option<bool>> {
    let cache = bench.cache();
    let stale = |hit: &BlobCacheHit| hit.is_stale();
    let mut found = Vec::new();
    for key in keys {
        let hit = bench.run(cache.get("a", key));
        found.push(hit.as_ref().map(stale));
    }
    let many = bench.run(cache.get_many("a", keys));
    assert_eq!(many.iter().map(|hit| hit.as_ref().map(stale)).collect::<Vec<_>>(), found);
    let plain = cache.namespace("a").typed::<String, _>(crate::Plain);
    for (key, found) in keys.iter().zip(&found) {
        let typed = bench.run(plain.get(key));
        assert_eq!(typed.map(|typed| typed.hit().is_stale()), *found);
    }
    found
}

#[test]
fn a_closed_gate_is_a_miss_in_both_tiers() {
    let (gate, clock) = (Gate::new(), clock());
    let mut bench = bench(WhileClosed::Miss, &gate, &clock);
    let cache = fill(&mut bench, None);
    assert_eq!(gets(&mut bench, &["k", "d"]), [None, None]);
    assert_eq!(cache.stats().gate_misses(), 6);
    assert_eq!(cache.exists("a", "k"), CachePresence::Absent);
    assert_eq!(cache.exists("a", "d"), CachePresence::Absent);
    assert!(bench.run(cache.get("free", "o")).is_some());
    gate.open();
    assert_eq!(gets(&mut bench, &["k", "d"]), [Some(false), Some(false)]);
    assert_eq!(cache.exists("a", "k"), CachePresence::Present);
    assert_eq!(cache.exists("a", "d"), CachePresence::MaybePresent);
    assert_eq!(bench.run(cache.get("a", "absent")).map(|_| ()), None);
    assert_eq!((cache.stats().gate_misses(), cache.stats().misses()), (6, 7));
}

#[test]
fn a_closed_gate_makes_all_stale_or_changes_nothing() {
    for ttl in [None, Some(60)] {
        let (gate, clock) = (Gate::new(), clock());
        let mut stale = bench(WhileClosed::Stale, &gate, &clock);
        let cache = fill(&mut stale, ttl);
        assert_eq!(gets(&mut stale, &["k", "d"]), [Some(true), Some(true)]);
        assert_eq!(cache.exists("a", "k"), CachePresence::Present);
        for key in ["k", "d"] {
            let left = stale.run(cache.get("a", key)).unwrap().stale_window_remaining().unwrap();
            assert!(ttl.is_none_or(|ttl| left == (ttl + 3) * SECOND), "{left:?}");
            assert!(ttl.is_some() || left > Duration::from_secs(1 << 32), "{left:?}");
        }
        gate.open();
        assert_eq!(gets(&mut stale, &["k", "d"]), [Some(false), Some(false)]);
        let stats = cache.stats();
        assert_eq!((stats.l1_stale_serves_total(), stats.gate_misses()), (8, 0));
        gate.close();
        let mut answers = bench(WhileClosed::Answer, &gate, &clock);
        fill(&mut answers, ttl);
        assert_eq!(gets(&mut answers, &["k", "d"]), [Some(false), Some(false)]);
    }
}

#[test]
fn what_has_expired_is_not_answered_as_stale() {
    let (gate, clock) = (Gate::new(), clock());
    let mut bench = bench(WhileClosed::Stale, &gate, &clock);
    fill(&mut bench, Some(60));
    clock.advance(61 * SECOND);
    assert_eq!(gets(&mut bench, &["k", "d"]), [Some(true), Some(true)]);
    clock.advance(2 * SECOND);
    assert_eq!(gets(&mut bench, &["k", "d"]), [None, None]);
}

#[test]
fn a_namespace_stays_governed_when_it_is_emptied_and_when_the_store_is_opened_again() {
    let (gate, clock) = (Gate::new(), clock());
    let mut bench = bench(WhileClosed::Miss, &gate, &clock);
    let cache = fill(&mut bench, None);
    assert!(bench.run(cache.invalidate_namespace("a")).unwrap());
    fill(&mut bench, None);
    assert_eq!(gets(&mut bench, &["k", "d"]), [None, None]);
    bench.run(cache.invalidate_all()).unwrap();
    fill(&mut bench, None);
    assert_eq!(gets(&mut bench, &["k", "d"]), [None, None]);
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
    assert_eq!(gets(&mut bench, &["k", "d"]), [None, None]);
    gate.open();
    assert_eq!(gets(&mut bench, &["k", "d"]), [Some(false), Some(false)]);
}

#[test]
fn a_lease_that_ends_closes_the_gate() {
    let boot = BootClock::manual(100 * SECOND);
    let (gate, clock) = (Gate::with_clock(boot.clone()), clock());
    let mut bench = bench(WhileClosed::Miss, &gate, &clock);
    fill(&mut bench, None);
    gate.open_until(gate.now() + SECOND);
    assert_eq!(gets(&mut bench, &["k"]), [Some(false)]);
    boot.advance(SECOND);
    assert_eq!(gets(&mut bench, &["k"]), [None]);
}

#[test]
fn a_fetch_behind_a_closed_gate_replaces_what_it_keeps_back() {
    let (gate, clock) = (Gate::new(), clock());
    let mut bench = bench(WhileClosed::Miss, &gate, &clock);
    let cache = fill(&mut bench, None);
    for key in ["k", "d"] {
        // Of the same version.
        let fetch = || async { Ok::<_, Infallible>(value("new", L1Admission::Always, None)) };
        let hit = bench.run(cache.get_or_fetch("a", key, fetch)).unwrap();
        assert_eq!((hit.value(), hit.tier()), (b"new".as_slice(), CacheTier::Fetched));
    }
    assert_eq!(cache.stats().fetches_not_stored(), 0);
    gate.open();
    for key in ["k", "d"] {
        assert_eq!(bench.run(cache.get("a", key)).unwrap().value(), b"new");
    }
}

#[test]
fn a_failed_fetch_falls_back_to_what_the_gate_lets_be_answered() {
    let fails = || async { Err::<BlobCachePut, _>("down") };
    for (while_closed, has_stale) in [(WhileClosed::Miss, false), (WhileClosed::Stale, true)] {
        let (gate, clock) = (Gate::new(), clock());
        let mut bench = bench(while_closed, &gate, &clock);
        let cache = fill(&mut bench, Some(60));
        for at in [0, 61] {
            clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + at));
            for key in ["k", "d"] {
                let fetched = bench.run(cache.get_or_fetch("a", key, fails));
                match fetched {
                    Ok(hit) => assert!(has_stale && hit.is_stale()),
                    Err(error) => assert!(!has_stale && matches!(error, FetchError::Fetch(_))),
                }
                let refreshed = bench.run(cache.get_or_refresh("a", key, fails));
                match refreshed {
                    Ok((hit, _)) => assert!(has_stale && hit.is_stale()),
                    Err(_) => assert!(!has_stale),
                }
            }
        }
        // The gate alone has kept it back.
        gate.open();
        assert!(bench.run(cache.get_or_fetch("a", "k", fails)).is_ok_and(|hit| hit.is_stale()));
    }
}

#[test]
fn a_stale_hit_of_a_closed_gate_comes_with_a_refresh() {
    let (gate, clock) = (Gate::new(), clock());
    let mut bench = bench(WhileClosed::Stale, &gate, &clock);
    let cache = fill(&mut bench, None);
    let fetch = || async { Ok::<_, Infallible>(value("new", L1Admission::Always, None)) };
    let (hit, refresh) = bench.run(cache.get_or_refresh("a", "k", fetch)).unwrap();
    assert_eq!((hit.value(), hit.is_stale()), (b"k".as_slice(), true));
    assert_eq!(bench.run(refresh.unwrap()).unwrap().value(), b"new");
    gate.open();
    assert_eq!(bench.run(cache.get("a", "k")).unwrap().value(), b"new");
}

#[test]
fn calls_behind_a_closed_gate_share_one_fetch_that_began_after_them() {
    let boot = BootClock::manual(100 * SECOND);
    let (gate, clock) = (Gate::with_clock(boot.clone()), clock());
    let mut bench = bench(WhileClosed::Miss, &gate, &clock);
    let cache = bench.cache();
    let begun = std::cell::Cell::new(0);
    let fetch = || {
        begun.set(begun.get() + 1);
        let number = begun.get().to_string();
        async move {
            for _ in 0..20 {
                yield_now().await;
            }
            Ok::<_, Infallible>(value(&number, L1Admission::Always, None))
        }
    };
    let values = bench.run(async {
        let mut first = Box::pin(cache.get_or_fetch("a", "k", fetch));
        assert!(poll_immediate(&mut first).await.is_none());
        boot.advance(SECOND);
        let others = (0..50).map(|_| cache.get_or_fetch("a", "k", fetch));
        let (first, others) = futures::join!(first, join_all(others));
        let mut values = vec![first.unwrap()];
        values.extend(others.into_iter().map(Result::unwrap));
        values
    });
    assert_eq!(values[0].value(), b"1");
    assert!(values[1..].iter().all(|hit| hit.value() == b"2"), "{values:?}");
    assert_eq!(begun.get(), 2);
    // While it is open, they would have shared the first one.
    gate.open();
    bench.run(cache.invalidate_key("a", "k")).unwrap();
    bench.run(async {
        let mut first = Box::pin(cache.get_or_fetch("a", "k", fetch));
        assert!(poll_immediate(&mut first).await.is_none());
        boot.advance(SECOND);
        let (first, second) = futures::join!(first, cache.get_or_fetch("a", "k", fetch));
        assert_eq!(first.unwrap().value(), second.unwrap().value());
    });
}
