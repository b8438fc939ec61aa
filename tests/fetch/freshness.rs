//! Stale entries returned for a failed fetch, and cached absences.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CacheTier, Clock,
    FetchError, L1Admission, L2PromotionPolicy,
};

use crate::{Answer, briefly, call, clock, counted, joined, leading, never, open_at, value};

/// A cache with an entry of that age, and its clock.
fn with_entry_of(age: Duration) -> (BlobCache, Clock) {
    let clock = clock();
    let cache = open_at(&clock);
    let put = BlobCachePut::new("old").with_tags(["tag"]).with_policy(briefly());
    block_on(cache.put("n", "key", put)).unwrap();
    clock.advance(age);
    (cache, clock)
}

const FRESH: Duration = Duration::from_secs(9);
const STALE: Duration = Duration::from_secs(10);
const LAST_STALE: Duration = Duration::from_nanos(14_999_999_999);
const GONE: Duration = Duration::from_secs(15);

#[test]
fn a_stale_entry_is_fetched_again() {
    let (cache, _) = with_entry_of(FRESH);
    assert_eq!(value(&block_on(cache.get_or_fetch("n", "key", never))), b"old");
    let (cache, _) = with_entry_of(STALE);
    let fetch = || async { Answer::Ok("new".into()) };
    assert_eq!(value(&block_on(cache.get_or_fetch("n", "key", fetch))), b"new");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new");
    assert_eq!(cache.stats().l1_stale_serves_total(), 0);
}

#[test]
fn a_stale_entry_replaces_an_error_within_its_window() {
    for (age, is_there) in [(STALE, true), (LAST_STALE, true), (GONE, false)] {
        for is_panic in [false, true] {
            let (cache, _) = with_entry_of(age);
            let fetch = || async move {
                assert!(!is_panic, "on purpose");
                Answer::Err("down")
            };
            match block_on(cache.get_or_fetch("n", "key", fetch)) {
                Ok(hit) => {
                    assert!(is_there && hit.is_stale() && hit.value() == b"old");
                    assert_eq!(hit.stale_window_remaining(), Some(GONE - age));
                    assert_eq!(cache.stats().l1_stale_serves_total(), 1);
                }
                Err(FetchError::Fetch(error)) => assert!(!is_there && !is_panic, "{error}"),
                Err(_) => assert!(!is_there && is_panic),
            }
            assert_eq!(cache.stats().fetch_errors(), 1);
        }
    }
}

#[test]
fn a_window_that_ends_during_the_fetch_has_ended() {
    let (cache, clock) = with_entry_of(LAST_STALE);
    let (mut leader, tell) = leading(&cache);
    clock.advance(Duration::from_nanos(1));
    tell.send(Err("down")).unwrap();
    assert!(matches!(leader.run().unwrap(), Err(FetchError::Fetch(_))));
}

#[test]
fn all_waiting_callers_are_given_the_stale_entry() {
    let (cache, _) = with_entry_of(STALE);
    let (mut leader, tell) = leading(&cache);
    let mut joiners: Vec<_> = (0..20).map(|_| joined(&cache)).collect();
    tell.send(Err("down")).unwrap();
    for call in [leader].iter_mut().chain(&mut joiners) {
        let hit = call.run().unwrap().unwrap();
        assert!(hit.is_stale() && hit.value() == b"old");
    }
    assert_eq!(cache.stats().fetches(), 1, "not one after the other");
    leader = call(&cache, || async { Answer::Ok("new".into()) });
    assert_eq!(value(&leader.run().unwrap()), b"new", "the error is not cached");
}

#[test]
fn a_stale_entry_that_is_invalidated_meanwhile_is_gone() {
    let (cache, _) = with_entry_of(STALE);
    let calls = Arc::new(AtomicUsize::new(0));
    let (mut leader, tell) = leading(&cache);
    let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
    assert!(joiner.run().is_none());
    assert_eq!(block_on(cache.invalidate_tags("n", &["tag"])), Ok(1));
    tell.send(Err("down")).unwrap();
    assert!(matches!(leader.run().unwrap(), Err(FetchError::Fetch(_))));
    assert!(matches!(joiner.run().unwrap(), Err(FetchError::Fetch(_))));
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_put_meanwhile_replaces_an_error() {
    let (cache, _) = with_entry_of(STALE);
    let (mut leader, tell) = leading(&cache);
    let mut joiner = joined(&cache);
    block_on(cache.put("n", "key", "put")).unwrap();
    tell.send(Err("down")).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"put");
    assert_eq!(value(&joiner.run().unwrap()), b"put");
}

fn absent_for(seconds: u64) -> BlobCachePut {
    let policy = BlobCachePolicy::default().ttl(Duration::from_secs(seconds));
    BlobCachePut::absent().with_policy(policy)
}

#[test]
fn absence_is_cached_for_its_own_time() {
    let clock = clock();
    let cache = open_at(&clock);
    let pages = cache.namespace("n").with_policy(briefly());
    let calls = Arc::new(AtomicUsize::new(0));
    let fetch = |put: BlobCachePut| counted(&calls, Ok(put));
    let outcome = block_on(pages.get_or_fetch("key", fetch(absent_for(3)))).unwrap();
    assert!(outcome.is_absent() && outcome.value().is_empty());
    clock.advance(Duration::from_secs(2));
    let hit = block_on(cache.get("n", "key")).unwrap();
    assert!(hit.is_absent(), "an absence is not a miss");
    assert!(block_on(pages.get_or_fetch("key", never)).unwrap().is_absent());
    assert!(!block_on(pages.get_or_fetch("empty", fetch("".into()))).unwrap().is_absent());
    clock.advance(Duration::from_secs(1));
    assert!(block_on(cache.get("n", "key")).is_none(), "its ttl is over");
    assert!(!block_on(pages.get_or_fetch("key", fetch("there".into()))).unwrap().is_absent());
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[test]
fn an_absence_is_invalidated_by_labels_and_shares_a_flight() {
    let cache = open_at(&clock());
    let (mut leader, tell) = leading(&cache);
    let mut joiner = joined(&cache);
    tell.send(Ok(absent_for(60).with_tags(["users"]))).unwrap();
    assert!(leader.run().unwrap().unwrap().is_absent());
    assert!(joiner.run().unwrap().unwrap().is_absent());
    assert_eq!(block_on(cache.invalidate_tags("n", &["users"])), Ok(1));
    assert!(block_on(cache.get("n", "key")).is_none());
}

fn open_on_disk(path: &std::path::Path, clock: &Clock) -> BlobCache {
    let builder = BlobCacheConfig::builder().l2_path(path).l2_bytes_max(8 << 20);
    block_on(BlobCache::open(builder.clock(clock.clone()).build().unwrap())).unwrap()
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn both_tiers_serve_and_store_fetched_values() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = clock();
    let cache = open_on_disk(folder.path(), &clock);
    let below = |put: BlobCachePut| {
        let policy = briefly().l1_admission(L1Admission::Never);
        put.with_policy(policy)
    };
    let fetch = |key: &'static str, put: BlobCachePut| {
        block_on(cache.get_or_fetch("n", key, || async { Answer::Ok(put) })).unwrap()
    };
    assert_eq!(fetch("value", below("value".into())).tier(), CacheTier::Fetched);
    assert!(fetch("absent", below(BlobCachePut::absent())).is_absent());
    let large = vec![7; 500_000];
    assert_eq!(fetch("large", below(large.clone().into())).value(), large);
    let hit = block_on(cache.get_or_fetch("n", "value", never)).unwrap();
    assert_eq!((hit.tier(), hit.value()), (CacheTier::L2, &b"value"[..]));
    block_on(cache.close()).unwrap();

    let cache = open_on_disk(folder.path(), &clock);
    for key in ["value", "absent", "large"] {
        let hit = block_on(cache.get_or_fetch("n", key, never)).unwrap();
        assert_eq!((hit.is_absent(), hit.tier()), (key == "absent", CacheTier::L2), "{key}");
    }
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.l2_hits(), stats.misses()), (3, 3, 0));
    clock.advance(STALE);
    // Stale on disk: it is returned, and refreshed.
    let fail = || async { Answer::Err("down") };
    let hit = block_on(cache.get_or_fetch("n", "value", fail)).unwrap();
    assert!(hit.is_stale() && hit.value() == b"value");
    clock.advance(Duration::from_secs(1));
    let fetch = || async { Answer::Ok(below("new".into())) };
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "value", fetch)).unwrap();
    assert!(hit.is_stale());
    assert_eq!(block_on(refresh.unwrap()).unwrap().value(), b"new");
    let hit = block_on(cache.get("n", "value")).unwrap();
    assert_eq!((hit.tier(), hit.value()), (CacheTier::L2, &b"new"[..]));
    clock.advance(GONE);
    assert!(block_on(cache.get_or_fetch("n", "large", fail)).is_err());
    block_on(cache.close()).unwrap();
}

#[test]
fn a_caller_polled_after_the_window_is_not_given_the_stale_entry() {
    let (cache, clock) = with_entry_of(Duration::from_secs(11));
    let (mut leader, tell) = leading(&cache);
    let calls = Arc::default();
    let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
    assert!(joiner.poll().is_none());
    tell.send(Err("down")).unwrap();
    assert!(leader.run().unwrap().unwrap().is_stale());
    clock.advance(Duration::from_secs(3600));
    assert_eq!(value(&joiner.run().unwrap()), b"new");
}

/// An origin that answers "unchanged" makes a stale entry fresh; an older version does not.
#[test]
fn the_version_of_a_stale_entry_may_be_fetched_again() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for is_on_disk in [false, cfg!(all(feature = "disk", target_os = "linux"))] {
        let clock = clock();
        let cache = if is_on_disk { open_on_disk(folder.path(), &clock) } else { open_at(&clock) };
        let policy = match is_on_disk {
            true => briefly().l1_admission(L1Admission::Never),
            false => briefly(),
        };
        let put = |version| BlobCachePut::new("value").with_policy(policy.clone().version(version));
        block_on(cache.put("n", "key", put(7))).unwrap();
        let again = block_on(cache.put("n", "key", put(7)));
        assert!(matches!(again, Err(CacheError::VersionMismatch { existing: 7, attempted: 7 })));
        clock.advance(Duration::from_secs(11));
        assert!(block_on(cache.get("n", "key")).unwrap().is_stale());
        let again = block_on(cache.put("n", "key", put(7)));
        assert!(again.is_err(), "a put is not a renewal");
        let fetch = |version| {
            block_on(cache.get_or_fetch("n", "key", || async move { Answer::Ok(put(version)) }))
        };
        assert!(fetch(6).is_ok());
        assert!(block_on(cache.get("n", "key")).unwrap().is_stale(), "6 is not above 7");
        assert!(fetch(7).is_ok());
        let hit = block_on(cache.get("n", "key")).unwrap();
        assert_eq!((hit.is_stale(), hit.version()), (false, Some(7)), "on disk: {is_on_disk}");
        assert_eq!(cache.stats().fetches(), 2);
        assert_eq!(cache.stats().fetches_not_stored(), 1);
        block_on(cache.close()).unwrap();
    }
}

/// The origin itself may be late.
#[test]
fn a_value_fetched_past_its_own_deadline_is_stale() {
    let clock = clock();
    let cache = open_at(&clock);
    let fetch = |age: u64| {
        let policy = briefly().expires_at(clock.now() - Duration::from_secs(age));
        let put = BlobCachePut::new("late").with_policy(policy);
        block_on(cache.get_or_fetch("n", "key", || async { Answer::Ok(put) })).unwrap()
    };
    let hit = fetch(2);
    assert_eq!(hit.stale_window_remaining(), Some(Duration::from_secs(3)));
    assert_eq!(hit.tier(), CacheTier::Fetched);
    assert_eq!(cache.stats().l1_stale_serves_total(), 1);
    let hit = block_on(cache.get("n", "key")).unwrap();
    assert_eq!(hit.stale_window_remaining(), Some(Duration::from_secs(3)));
    // Beyond its window it is returned to this caller only.
    assert_eq!(fetch(6).value(), b"late");
    assert!(block_on(cache.get("n", "key")).is_none());
}

/// A refresh checks the entry that it replaces; that is not a second access.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn one_refresh_of_a_stale_record_is_one_access_of_it() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = clock();
    let builder = BlobCacheConfig::builder().l2_path(folder.path()).l2_bytes_max(8 << 20);
    let builder = builder.l2_promotion_policy(L2PromotionPolicy::OnSecondHit);
    let config = builder.clock(clock.clone()).build().unwrap();
    let cache = block_on(BlobCache::open(config.clone())).unwrap();
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    block_on(cache.close()).unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    clock.advance(STALE);
    let fetch = std::future::pending::<Answer>;
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", fetch)).unwrap();
    assert!(hit.is_stale());
    // A mutation meanwhile makes it look again before it fetches.
    block_on(cache.put("n", "other", "value")).unwrap();
    let mut refresh = refresh.unwrap();
    while cache.stats().fetches() == 0 {
        assert!((&mut refresh).now_or_never().is_none());
    }
    assert_eq!(cache.stats().promotion_queued(), 0);
    assert!(block_on(cache.get("n", "key")).unwrap().is_stale());
    assert_eq!(cache.stats().promotion_queued(), 1);
    block_on(cache.close()).unwrap();
}
