//! Soft invalidation above a disk: what is stale before its time stays so, whatever happens.

use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::super::bench::Bench;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, plant};
use crate::hit::BlobCacheHit;
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;
use crate::sweep::SweepLimit;

const WINDOW: Duration = Duration::from_secs(100);

type Call = fn(BlobCache) -> BoxFuture<'static, Result<usize, CacheError>>;

/// Each covers the key "covered", with and without a window, and not "other".
const VERBS: [(&str, Call); 5] = [
    ("key", |cache| {
        async move {
            let bare = cache.expire_key("a", "covered bare").await?;
            Ok(bare + cache.expire_key("a", "covered").await?)
        }
        .boxed()
    }),
    ("prefix", |cache| async move { cache.expire_prefix("a", "covered").await }.boxed()),
    ("tag", |cache| async move { cache.expire_tags("a", &["t", "none"]).await }.boxed()),
    ("dependency everywhere", |cache| {
        async move { cache.expire_dependencies(NamespaceScope::All, &["d"]).await }.boxed()
    }),
    ("namespace", |cache| {
        async move { cache.expire_namespace("a").await.map(|known| 2 * usize::from(known)) }.boxed()
    }),
];

fn put(value: &'static str, window: Duration) -> BlobCachePut {
    BlobCachePut::new(value).with_policy(BlobCachePolicy::default().stale_serve(window))
}

/// Puts in memory and on disk, or on disk only.
fn fill(bench: &mut Bench, admission: L1Admission) {
    let cache = bench.cache();
    let policy = |window| BlobCachePolicy::default().stale_serve(window).l1_admission(admission);
    for (key, window) in [("covered", WINDOW), ("covered bare", Duration::ZERO)] {
        let put = BlobCachePut::new("old").with_tags(["t"]).with_dependencies(["d"]);
        bench.run(cache.put("a", key, put.with_policy(policy(window)))).unwrap();
    }
    let other = BlobCachePut::new("kept").with_policy(policy(WINDOW));
    bench.run(cache.put("b", "other", other)).unwrap();
    bench.run(cache.sync()).unwrap();
}

fn bench(clock: &Clock) -> Bench {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
        .clock(clock.clone());
    Bench::with(1, config.build().unwrap())
}

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30))
}

fn get(bench: &mut Bench, key: &str) -> Option<BlobCacheHit> {
    let cache = bench.cache();
    let namespace = if key == "other" { "b" } else { "a" };
    bench.run(cache.get(namespace, key))
}

/// Unlike a drop, it leaves an image of the index where it can.
fn close(bench: &mut Bench) {
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
}

/// Stale, with this much of the window left; and the others are as they should be.
fn check(bench: &mut Bench, left: Duration, told: &str) {
    // In both tiers, if the first one promotes it.
    for _ in 0..3 {
        let hit = get(bench, "covered").unwrap_or_else(|| panic!("gone {told}"));
        assert_eq!(hit.stale_window_remaining(), Some(left), "{told}");
        assert!(get(bench, "covered bare").is_none(), "{told}");
        let other = get(bench, "other").unwrap_or_else(|| panic!("the other is gone {told}"));
        assert!(!other.is_stale(), "{told}");
    }
}

#[test]
fn stale_in_both_tiers_after_a_kill_and_after_a_close_until_the_window_ends() {
    let ends: [fn(&mut Bench); 2] = [Bench::kill, close];
    for (name, verb) in VERBS {
        for admission in [L1Admission::Always, L1Admission::Never] {
            for (end, how) in ends.into_iter().zip(["a kill", "a close"]) {
                let told = format!("{name}, {admission:?}, {how}");
                let clock = clock();
                let mut bench = bench(&clock);
                fill(&mut bench, admission);
                let cache = bench.cache();
                assert_eq!(bench.run(verb(cache.clone())), Ok(2), "{told}");
                let again = bench.run(verb(cache)).unwrap();
                assert!(again == 0 || name == "namespace", "{told}: {again} again");
                check(&mut bench, WINDOW, &told);
                clock.advance(WINDOW / 4);
                check(&mut bench, 3 * WINDOW / 4, &told);
                end(&mut bench);
                check(&mut bench, 3 * WINDOW / 4, &told);
                // Not even a clock that steps back makes it fresh.
                clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 29));
                check(&mut bench, WINDOW, &told);
                end(&mut bench);
                check(&mut bench, WINDOW, &told);
                clock.set(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30) + WINDOW);
                assert!(get(&mut bench, "covered").is_none(), "{told}");
                assert!(get(&mut bench, "other").is_some(), "{told}");
            }
        }
    }
}

#[test]
fn dropped_after_its_first_poll_it_is_in_force() {
    for (name, verb) in VERBS.into_iter().skip(1) {
        for admission in [L1Admission::Always, L1Admission::Never] {
            let clock = clock();
            let mut bench = bench(&clock);
            fill(&mut bench, admission);
            assert!(verb(bench.cache()).now_or_never().is_none(), "{name}");
            check(&mut bench, WINDOW, name);
            let cache = bench.cache();
            bench.run(cache.sync()).unwrap();
            drop(cache);
            bench.kill();
            check(&mut bench, WINDOW, name);
        }
    }
}

#[test]
fn only_a_newer_value_is_fresh_again() {
    for (name, verb) in VERBS {
        let clock = clock();
        let mut bench = bench(&clock);
        fill(&mut bench, L1Admission::Auto);
        let cache = bench.cache();
        let point = cache.read_point();
        bench.run(verb(cache.clone())).unwrap();
        let late = put("late", WINDOW).with_tags(["t"]).with_dependencies(["d"]).read_at(point);
        bench.run(cache.put("a", "covered", late)).unwrap();
        check(&mut bench, WINDOW, name);
        bench.run(cache.put("a", "covered", put("new", WINDOW))).unwrap();
        drop(cache);
        for _ in 0..2 {
            let hit = get(&mut bench, "covered").unwrap();
            assert!(!hit.is_stale() && hit.value() == b"new", "{name}");
            bench.kill();
        }
    }
}

/// A fetch that began before is answered to its caller and not stored; the next one is.
#[test]
fn a_fetch_that_began_before_makes_nothing_fresh() {
    let clock = clock();
    let mut bench = bench(&clock);
    fill(&mut bench, L1Admission::Auto);
    let cache = bench.cache();
    bench.run(cache.expire_key("a", "covered")).unwrap();
    let fetched = bench.run(cache.get_or_fetch("a", "covered", || async {
        cache.expire_key("a", "covered").await.unwrap();
        Ok::<_, CacheError>(put("older", WINDOW))
    }));
    assert_eq!(fetched.unwrap().value(), b"older");
    assert!(get(&mut bench, "covered").unwrap().is_stale());
    let fetch = || async { Ok::<_, CacheError>(put("newer", WINDOW)) };
    let fetched = bench.run(cache.get_or_fetch("a", "covered", fetch));
    assert_eq!(fetched.unwrap().value(), b"newer");
    assert!(!get(&mut bench, "covered").unwrap().is_stale());
    // The same version renews it.
    let versioned = |value: &'static str| {
        let policy = BlobCachePolicy::default().stale_serve(WINDOW).version(7);
        BlobCachePut::new(value).with_policy(policy)
    };
    for admission in [L1Admission::Always, L1Admission::Never] {
        let mut put = versioned("same");
        let policy = BlobCachePolicy::default().stale_serve(WINDOW).version(7);
        put = put.with_policy(policy.l1_admission(admission));
        bench.run(cache.invalidate_key("a", "v")).unwrap();
        bench.run(cache.put("a", "v", put)).unwrap();
        bench.run(cache.expire_tags("a", &["none"])).unwrap();
        assert_eq!(bench.run(cache.expire_prefix("a", "v")), Ok(1));
        let fetch = || async { Ok::<_, CacheError>(versioned("same again")) };
        bench.run(cache.get_or_fetch("a", "v", fetch)).unwrap();
        let hit = get(&mut bench, "v").unwrap();
        assert!(!hit.is_stale() && hit.value() == b"same again", "{admission:?}");
    }
}

/// A record that is stale before its time is in use, and its segment is reclaimed.
#[test]
fn reclaim_never_makes_it_fresh() {
    for (name, verb) in VERBS {
        let clock = clock();
        let mut bench = bench(&clock);
        fill(&mut bench, L1Admission::Never);
        let cache = bench.cache();
        bench.run(verb(cache.clone())).unwrap();
        for number in 0..200 {
            let filler = BlobCachePut::new(vec![7; 6000]);
            bench.run(cache.put("filler", format!("{number}"), filler)).unwrap();
            for _ in 0..2 {
                let hit = get(&mut bench, "covered");
                assert!(hit.is_none_or(|hit| hit.is_stale()), "{name}, after {number}");
            }
            assert!(get(&mut bench, "other").is_some(), "in use, {name}, after {number}");
        }
        assert!(cache.stats().l2_reclaimed_segments() > 8);
        drop(cache);
        bench.kill();
        assert!(get(&mut bench, "covered").is_none_or(|hit| hit.is_stale()), "{name}");
    }
}

/// Memory has no room for the times of all; and an open with a smaller budget for even fewer.
#[test]
fn what_the_table_of_times_has_no_room_for_is_gone_and_never_fresh() {
    let clock = clock();
    let builder = |index: usize| {
        BlobCacheConfig::builder()
            .l1_bytes_max(1 << 20)
            .l2_path("simulated")
            .l2_bytes_max(8 << 20)
            .l2_segment_bytes(1 << 20)
            .l2_index_bytes_max(index)
            .clock(clock.clone())
            .build()
            .unwrap()
    };
    let mut bench = Bench::with(1, builder(256 << 10));
    let cache = bench.cache();
    for number in 0..4000 {
        let policy = BlobCachePolicy::default().stale_serve(WINDOW);
        let policy = policy.l1_admission(L1Admission::Never);
        let put = BlobCachePut::new("v").with_policy(policy);
        bench.run(cache.put("a", format!("{number}"), put)).unwrap();
    }
    assert_eq!(bench.run(cache.expire_prefix("a", "")), Ok(4000));
    drop(cache);
    let mut found = Vec::new();
    for index in [256 << 10, 256 << 10, 64 << 10] {
        let cache = bench.cache();
        let hits: Vec<_> =
            (0..4000).filter_map(|number| bench.run(cache.get("a", format!("{number}")))).collect();
        assert!(hits.iter().all(BlobCacheHit::is_stale));
        found.push(hits.len());
        drop(cache);
        bench.config = builder(index);
        bench.kill();
    }
    assert!(found[..2].iter().all(|found| (100..1000).contains(found)), "{found:?}");
    assert!(found[2] < 1000, "{found:?}");
}

/// An image of the index has no times: there is none as long as something is stale before its time.
#[test]
fn an_image_is_written_again_once_nothing_is_stale_before_its_time() {
    for (name, verb) in VERBS {
        let clock = clock();
        let mut bench = bench(&clock);
        fill(&mut bench, L1Admission::Auto);
        close(&mut bench);
        assert!(bench.cache().stats().recovery_from_image(), "{name}");
        let cache = bench.cache();
        bench.run(verb(cache.clone())).unwrap();
        drop(cache);
        close(&mut bench);
        assert!(!bench.cache().stats().recovery_from_image(), "{name}");
        check(&mut bench, WINDOW, name);
        let cache = bench.cache();
        bench.run(cache.invalidate_namespace("a")).unwrap();
        drop(cache);
        close(&mut bench);
        close(&mut bench);
        assert!(bench.cache().stats().recovery_from_image(), "{name}");
    }
}

/// Each entry in memory and each record counts once, however often it is read meanwhile.
#[test]
fn what_was_made_stale_is_counted_once() {
    for (name, verb) in VERBS.into_iter().skip(1) {
        for admission in [L1Admission::Always, L1Admission::Never] {
            let clock = clock();
            let mut bench = bench(&clock);
            fill(&mut bench, admission);
            let cache = bench.cache();
            assert!(verb(cache.clone()).now_or_never().is_none(), "{name}");
            check(&mut bench, WINDOW, name);
            bench.run(cache.sweep_expired(SweepLimit::Entries(1000)));
            check(&mut bench, WINDOW, name);
            let stats = cache.stats();
            let expected = match (admission, name) {
                (L1Admission::Never, "namespace") => (0, 0),
                // Whether that without a window has one is not known until it is read.
                (L1Admission::Never, _) => (1, 2),
                _ => (1, 1),
            };
            let range = expected.0..=expected.1;
            assert!(range.contains(&stats.entries_made_stale()), "{name}, {admission:?}");
        }
    }
}

/// Memory holds more of the namespace than the table of times has room for, and lets them go.
#[test]
fn a_namespace_made_stale_as_a_whole_needs_no_room_in_the_table() {
    let clock = clock();
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_index_bytes_max(256 << 10)
        .clock(clock.clone());
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    for number in 0..1500 {
        bench.run(cache.put("a", format!("{number}"), put("v", WINDOW))).unwrap();
    }
    assert_eq!(bench.run(cache.expire_namespace("a")), Ok(true));
    assert_eq!(bench.run(cache.expire_prefix("a", "")), Ok(0), "they were stale before");
    for number in 0..200 {
        bench.run(cache.put("b", format!("{number}"), BlobCachePut::new(vec![1; 8000]))).unwrap();
    }
    assert!(cache.stats().entries() < 1000, "memory has let them go");
    for number in 0..1500 {
        let hit = bench.run(cache.get("a", format!("{number}")));
        assert!(hit.is_some_and(|hit| hit.is_stale()), "{number}");
    }
}

/// An entry is read, then made stale, then promoted. Whether it is found to be stale after that.
fn promoted_after_an_expiry() -> Option<bool> {
    let clock = clock();
    let mut bench = bench(&clock);
    fill(&mut bench, L1Admission::Always);
    bench.kill();
    let read = get(&mut bench, "covered").unwrap().entry;
    let cache = bench.cache();
    drop(cache.engine.parts.l1.remove(read.hash, |_| true));
    assert_eq!(bench.run(cache.expire_key("a", "covered")), Ok(1));
    bench.run(cache.engine.promoter.promote(&read));
    get(&mut bench, "covered").map(|hit| hit.is_stale())
}

#[test]
fn what_was_read_before_it_was_made_stale_is_not_promoted_as_fresh() {
    assert_eq!(promoted_after_an_expiry(), Some(true));
    let _planted = plant(Failpoint::ExpiryNotPromoted);
    assert_eq!(promoted_after_an_expiry(), Some(false), "the bug is not found");
}
