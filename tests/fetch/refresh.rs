//! `get_or_refresh`: the stale entry at once, and at most one refresh.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, BlobCacheRefresh, Clock, FetchError,
    L1Admission,
};

use crate::{
    Answer, Call, Ready, Told, briefly, call, clock, counted, joined, leading, never, open_at,
    threads, told, value,
};

/// A cache with a stale entry.
fn stale() -> (BlobCache, Clock) {
    let clock = clock();
    let cache = open_at(&clock);
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(10));
    (cache, clock)
}

/// Calls once; the stale entry is there.
fn ask<F, Fut>(cache: &BlobCache, fetch: F) -> Option<BlobCacheRefresh<F, Fut, &'static str>>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Answer>,
{
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", fetch)).unwrap();
    assert!(hit.is_stale() && hit.value() == b"old");
    refresh
}

fn new() -> BlobCachePut {
    BlobCachePut::new("new").with_policy(briefly())
}

#[test]
fn a_fresh_entry_needs_no_refresh_and_a_missing_one_is_fetched() {
    let cache = open_at(&clock());
    let calls = Arc::new(AtomicUsize::new(0));
    let fetch = || counted(&calls, Ok(new()));
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", fetch())).unwrap();
    assert!(refresh.is_none() && hit.value() == b"new");
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", fetch())).unwrap();
    assert!(refresh.is_none() && hit.value() == b"new" && !hit.is_stale());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let fail = || async { Answer::Err("down") };
    let failed = block_on(cache.get_or_refresh("n", "other", fail));
    assert!(matches!(failed, Err(FetchError::Fetch(_))));
}

#[test]
fn one_of_many_callers_gets_the_refresh() {
    let (cache, _) = stale();
    let calls = Arc::new(AtomicUsize::new(0));
    let asked = (0..1000).filter_map(|_| ask(&cache, counted(&calls, Ok(new()))));
    let mut refreshes: Vec<_> = asked.collect();
    assert_eq!((refreshes.len(), calls.load(Ordering::Relaxed)), (1, 0), "nothing until polled");
    assert_eq!(value(&block_on(refreshes.remove(0))), b"new");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", never)).unwrap();
    assert!(refresh.is_none() && !hit.is_stale() && hit.value() == b"new");
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.misses(), stats.l1_stale_serves_total()), (1001, 0, 1000));
}

#[test]
fn on_many_threads_one_refreshes_and_all_are_answered_at_once() {
    let runtime = threads();
    let (cache, _) = stale();
    let calls = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..2000)
        .map(|_| {
            let (cache, calls) = (cache.clone(), Arc::clone(&calls));
            runtime.spawn(async move {
                let fetch = move || async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Answer::Ok(new())
                };
                let (hit, refresh) = cache.get_or_refresh("n", "key", fetch).await.unwrap();
                assert!(hit.is_stale() || hit.value() == b"new");
                // The refresh may move to another task.
                refresh.map(tokio::spawn)
            })
        })
        .collect();
    runtime.block_on(async {
        for caller in join_all(callers).await {
            if let Some(refreshing) = caller.unwrap() {
                refreshing.await.unwrap().unwrap();
            }
        }
    });
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new");
}

#[test]
fn dropping_a_refresh_frees_the_claim() {
    let (cache, _) = stale();
    for _ in 0..3 {
        let refresh = ask(&cache, never).expect("no other fetch is in progress");
        assert!(ask(&cache, never).is_none(), "claimed");
        drop(refresh);
    }
    // Once begun, it is a flight: its first waiting caller leads next.
    let (_tell, fetch) = told();
    let mut refreshing = Call::new(ask(&cache, fetch).unwrap());
    assert!(refreshing.run().is_none());
    let mut joiner = call(&cache, || async { Answer::Ok(new()) });
    assert!(joiner.run().is_none());
    drop(refreshing);
    assert!(joiner.is_woken());
    assert_eq!(value(&joiner.run().unwrap()), b"new");
}

/// Asks for a refresh in its drop, and tells whether there was one.
struct AskedInDrop {
    cache: BlobCache,
    told: Arc<Mutex<Vec<bool>>>,
}

impl Drop for AskedInDrop {
    fn drop(&mut self) {
        let is_given = ask(&self.cache, never).is_some();
        self.told.lock().unwrap().push(is_given);
    }
}

#[test]
fn others_can_fetch_before_an_uncalled_fetch_is_dropped_and_after_a_called_one_is() {
    let told = Arc::new(Mutex::new(Vec::new()));
    for is_called in [false, true] {
        let (cache, _) = stale();
        let asked = AskedInDrop { cache: cache.clone(), told: Arc::clone(&told) };
        let fetch = move || async move {
            let _asked = asked;
            pending::<Answer>().await
        };
        let mut refreshing = Call::new(ask(&cache, fetch).expect("nobody fetches"));
        assert!(!is_called || refreshing.run().is_none());
        drop(refreshing);
        assert!(ask(&cache, never).is_some(), "the claim or the lead is free");
    }
    assert_eq!(*told.lock().unwrap(), [true, false]);
}

#[test]
fn an_unpolled_refresh_delays_no_caller() {
    let (cache, _) = stale();
    let calls = Arc::new(AtomicUsize::new(0));
    let refresh = ask(&cache, counted(&calls, Ok(new()))).unwrap();
    let fetch = || async { Answer::Ok(BlobCachePut::new("newest").with_policy(briefly())) };
    assert_eq!(value(&block_on(cache.get_or_fetch("n", "key", fetch))), b"newest");
    // When it is polled at last, there is nothing left to do.
    assert_eq!(value(&block_on(refresh)), b"newest");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_refresh_kept_too_long_loses_its_claim() {
    let (cache, clock) = stale();
    let calls = Arc::new(AtomicUsize::new(0));
    let kept = ask(&cache, counted(&calls, Ok(new()))).unwrap();
    clock.advance(Duration::from_millis(999));
    assert!(ask(&cache, never).is_none(), "claimed");
    clock.advance(Duration::from_millis(1));
    let (tell, fetch) = told();
    let mut second = Call::new(ask(&cache, fetch).expect("the first has not begun"));
    assert!(ask(&cache, never).is_none(), "claimed");
    assert_eq!(cache.stats().flights_under_way(), 1);
    assert!(second.run().is_none());
    // It waits for the other like any joined caller.
    let mut kept = Call::new(kept);
    assert!(kept.run().is_none());
    clock.advance(Duration::from_secs(2));
    assert!(ask(&cache, never).is_none(), "a begun refresh is not passed on");
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&second.run().unwrap()), b"new");
    assert_eq!(value(&kept.run().unwrap()), b"new");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    // Dropped unpolled, it leaves nothing behind.
    let (cache, clock) = stale();
    let kept = ask(&cache, never).unwrap();
    clock.advance(Duration::from_secs(1));
    let second = ask(&cache, never).expect("passed on");
    drop(kept);
    assert!(ask(&cache, never).is_none(), "claimed");
    drop(second);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn a_refresh_that_lost_its_claim_waits_like_other_callers() {
    let (cache, _) = stale();
    let mut refreshing = Call::new(ask(&cache, never).unwrap());
    let (tell, fetch) = told();
    let mut leader = call(&cache, fetch);
    assert!(leader.run().is_none());
    assert!(refreshing.run().is_none());
    assert!(ask(&cache, never).is_none());
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"new");
    assert_eq!(value(&refreshing.run().unwrap()), b"new");
    // Or it is dropped without a trace.
    let (cache, _) = stale();
    let refresh = ask(&cache, never).unwrap();
    let (tell, fetch) = told();
    let mut leader = call(&cache, fetch);
    assert!(leader.run().is_none());
    drop(refresh);
    let mut joiner = joined(&cache);
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"new");
    assert_eq!(value(&joiner.run().unwrap()), b"new");
}

#[test]
fn during_a_fetch_there_is_no_refresh() {
    let (cache, _) = stale();
    let (tell, fetch) = told();
    let mut leader = call(&cache, fetch);
    assert!(leader.run().is_none());
    assert!(ask(&cache, never).is_none());
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"new");
}

#[test]
fn a_failed_refresh_returns_its_error_and_the_next_one_waits() {
    let (cache, clock) = stale();
    let fail = || async { Answer::Err("down") };
    let mut asked = 0;
    for _ in 0..3000 {
        let Some(refresh) = ask(&cache, fail) else {
            clock.advance(Duration::from_millis(1));
            continue;
        };
        asked += 1;
        assert!(matches!(block_on(refresh), Err(FetchError::Fetch(_))));
        let hit = block_on(cache.get("n", "key")).unwrap();
        assert!(hit.is_stale(), "it is still there");
    }
    assert_eq!((asked, cache.stats().fetch_errors()), (3, 3), "one a second");
    clock.advance(Duration::from_secs(1));
    let refresh = ask(&cache, || async { Answer::Ok(new()) }).unwrap();
    assert_eq!(value(&block_on(refresh)), b"new");
    assert!(!block_on(cache.get("n", "key")).unwrap().is_stale());
}

#[test]
fn a_clock_that_is_set_back_does_not_put_refreshes_off() {
    let (cache, clock) = stale();
    clock.advance(Duration::from_secs(3));
    let fail = || async { Answer::Err("down") };
    assert!(block_on(ask(&cache, fail).unwrap()).is_err());
    assert!(ask(&cache, fail).is_none());
    clock.set(clock.now() - Duration::from_secs(2));
    assert!(ask(&cache, fail).is_some());
}

/// Whoever fetches in its place.
#[test]
fn a_refresh_that_joins_a_fetch_that_fails_is_told() {
    let (cache, _) = stale();
    let mut refreshing = Call::new(ask(&cache, never).unwrap());
    let (mut leader, tell) = leading(&cache);
    assert!(refreshing.run().is_none(), "it joins");
    let served = cache.stats().l1_stale_serves_total();
    tell.send(Err("down")).unwrap();
    assert!(leader.run().unwrap().unwrap().is_stale());
    match refreshing.run().unwrap() {
        Err(FetchError::Fetch(error)) => assert_eq!(*error, "down"),
        other => panic!("{other:?}"),
    }
    assert_eq!(cache.stats().l1_stale_serves_total(), served + 1, "the leader's");
    assert!(ask(&cache, never).is_none(), "it rests, whoever has fetched");
}

/// On disk only, or refused: the key rests, not an entry.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn the_rest_holds_whatever_holds_the_entry() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = clock();
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(folder.path());
    let builder = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).clock(clock.clone());
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let on_disk = briefly().l1_admission(L1Admission::Never).version(7);
    let put = BlobCachePut::new("old").with_policy(on_disk);
    block_on(cache.put("n", "key", put)).unwrap();
    clock.advance(Duration::from_secs(10));
    let fail = || async { Answer::Err("down") };
    assert!(block_on(ask(&cache, fail).unwrap()).is_err());
    assert!(ask(&cache, never).is_none(), "it is on disk only");
    clock.advance(Duration::from_secs(1));
    let refused = || async { Answer::Ok(new().with_policy(briefly().version(3))) };
    assert!(block_on(ask(&cache, refused).unwrap()).is_ok());
    assert_eq!(cache.stats().fetches_not_stored(), 1);
    assert!(ask(&cache, never).is_none(), "its value was refused");
    block_on(cache.close()).unwrap();
}

/// They have no entry yet.
#[test]
fn callers_that_wait_for_a_failed_refresh_are_given_the_stale_entry() {
    let (cache, _) = stale();
    let (tell, fetch) = told();
    let mut refreshing = Call::new(ask(&cache, fetch).unwrap());
    assert!(refreshing.run().is_none());
    let mut joiner = joined(&cache);
    tell.send(Err("down")).unwrap();
    assert!(matches!(refreshing.run().unwrap(), Err(FetchError::Fetch(_))));
    assert!(joiner.run().unwrap().unwrap().is_stale());
}

#[test]
fn an_invalidation_before_a_refresh_ends_is_not_undone() {
    let (cache, _) = stale();
    let (tell, fetch) = told();
    let mut refreshing = Call::new(ask(&cache, fetch).unwrap());
    assert!(refreshing.run().is_none());
    assert_eq!(block_on(cache.invalidate_key("n", "key")), Ok(1));
    tell.send(Ok(new())).unwrap();
    assert_eq!(value(&refreshing.run().unwrap()), b"new");
    assert!(block_on(cache.get("n", "key")).is_none());
}

/// `Send` and without borrows, if its fetch is.
const fn is_send_and_lasting<T: Send + 'static>() {}

const _: () = is_send_and_lasting::<BlobCacheRefresh<fn() -> Ready, Ready, &'static str>>();
const _: () = is_send_and_lasting::<BlobCacheRefresh<fn() -> Told, Told, std::io::Error>>();

#[test]
fn an_unpolled_refresh_keeps_no_value_of_other_fetches() {
    struct Owner(Arc<[u8]>);

    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    let (cache, _clock) = stale();
    let refresh = ask(&cache, || async { Ok(new()) });
    assert!(refresh.is_some());
    let owned: Arc<[u8]> = Arc::from(&b"value"[..]);
    // Not stored, so that the value is shared without a copy.
    let policy = BlobCachePolicy::default().max_blob_bytes(1);
    let put = BlobCachePut::new(Bytes::from_owner(Owner(Arc::clone(&owned)))).with_policy(policy);
    let mut leader = call(&cache, || async { Ok(put) });
    assert_eq!(value(&leader.run().unwrap()), b"value");
    drop(leader);
    assert_eq!(Arc::strong_count(&owned), 1);
    drop(refresh);
    assert_eq!(cache.stats().flights_under_way(), 0);
}
