//! `FetchPolicy` of plain fetches: `retry_after` by the cache's clock, `hard_timeout` by a timer.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheNamespace, BlobCachePolicy, BlobCachePut, CacheError,
    Clock, FetchError, FetchPolicy, SweepLimit,
};

use crate::{
    Answer, Call, Outcome, Ready, briefly, call, clock, counted, joined, leading, never, threads,
    told, value,
};

const PAUSE: Duration = Duration::from_secs(5);

fn after(pause: Duration) -> FetchPolicy {
    FetchPolicy::default().retry_after(pause)
}

fn open(policy: FetchPolicy) -> (BlobCache, Clock) {
    let clock = clock();
    let builder = BlobCacheConfig::builder().clock(clock.clone()).fetch_policy(policy);
    (block_on(BlobCache::open(builder.build().unwrap())).unwrap(), clock)
}

fn asked<F, Fut>(cache: &BlobCache, fetch: F) -> Outcome
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Answer>,
{
    block_on(cache.get_or_fetch("n", "key", fetch))
}

fn fail() -> std::future::Ready<Answer> {
    std::future::ready(Err("down"))
}

fn is_down(outcome: &Outcome) -> bool {
    matches!(outcome, Err(FetchError::Fetch(error)) if **error == "down")
}

#[test]
fn after_a_failure_nobody_fetches_for_the_pause() {
    let (cache, clock) = open(after(PAUSE));
    assert!(is_down(&asked(&cache, fail)));
    for _ in 0..10 {
        assert!(is_down(&asked(&cache, never)));
    }
    assert!(is_down(&block_on(cache.get_or_refresh("n", "key", never)).map(|(hit, _)| hit)));
    clock.advance(PAUSE - Duration::from_millis(1));
    assert!(is_down(&asked(&cache, never)));
    clock.advance(Duration::from_millis(1));
    assert_eq!(value(&asked(&cache, || async { Ok("new".into()) })), b"new");
    let stats = cache.stats().fetch();
    assert_eq!((stats.begun(), stats.errors(), stats.held_off()), (2, 1, 12));
    assert_eq!(stats.under_way(), 0);
    // Keys and types of error are apart.
    let (cache, clock) = open(after(PAUSE));
    assert!(is_down(&asked(&cache, fail)));
    let other = block_on(cache.get_or_fetch("n", "other", || async { Answer::Ok("v".into()) }));
    assert_eq!(value(&other), b"v");
    let typed = || async { Err::<BlobCachePut, u32>(7) };
    let failed = block_on(cache.get_or_fetch("n", "key", typed));
    assert!(matches!(failed, Err(FetchError::Fetch(error)) if *error == 7));
    clock.set(clock.now() - Duration::from_secs(1));
    assert!(asked(&cache, || async { Ok("v".into()) }).is_ok(), "a clock that was set back");
}

#[test]
fn a_stale_entry_is_given_in_place_of_the_error() {
    let (cache, clock) = open(after(PAUSE));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(11));
    for fetch in [fail as fn() -> Ready, || panic!("not again")] {
        let hit = asked(&cache, fetch).unwrap();
        assert!(hit.is_stale() && hit.value() == b"old");
        // At first the key rests, later the error is held.
        let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", never)).unwrap();
        assert!(hit.is_stale() && refresh.is_none());
        clock.advance(Duration::from_secs(2));
    }
    assert_eq!(cache.stats().fetches_held_off(), 2, "a call of each kind");
    // Past its window there is the error alone.
    clock.advance(Duration::from_millis(500));
    assert!(is_down(&asked(&cache, never)));
}

#[test]
fn a_mutation_of_the_key_ends_the_pause() {
    let mutate: [fn(&BlobCache); 5] = [
        |cache| _ = block_on(cache.invalidate_key("n", "key")).unwrap(),
        |cache| _ = block_on(cache.invalidate_prefix("n", "k")).unwrap(),
        |cache| _ = block_on(cache.invalidate_namespace("n")).unwrap(),
        |cache| block_on(cache.invalidate_all()).unwrap(),
        |cache| {
            let gone = BlobCachePut::new("soon gone").with_ttl(Duration::ZERO);
            block_on(cache.put("n", "key", gone)).unwrap();
        },
    ];
    for mutate in mutate {
        let (cache, _) = open(after(PAUSE));
        block_on(cache.put("n", "other", "there is such a namespace")).unwrap();
        assert!(is_down(&asked(&cache, fail)));
        for key in 0..20_000_u32 {
            block_on(cache.put("n", key.to_le_bytes(), "v")).unwrap();
        }
        assert!(is_down(&asked(&cache, never)), "puts of other keys do not matter");
        mutate(&cache);
        assert_eq!(value(&asked(&cache, || async { Ok("new".into()) })), b"new");
        assert_eq!(cache.stats().fetch().begun(), 2);
    }
}

/// The mutation comes while the origin is asked, so that its failure may be about the time before.
#[test]
fn a_mutation_during_the_fetch_lets_the_next_call_fetch() {
    let (cache, _) = open(after(PAUSE));
    let (mut leader, tell) = leading(&cache);
    block_on(cache.invalidate_key("n", "key")).unwrap();
    tell.send(Err("not found")).unwrap();
    assert!(leader.run().unwrap().is_err());
    assert_eq!(value(&asked(&cache, || async { Ok("created".into()) })), b"created");
}

#[test]
fn panics_and_timeouts_are_held_too() {
    let (cache, _) = open(after(PAUSE).hard_timeout(Duration::from_millis(5)));
    let panics = || -> std::future::Ready<Answer> { panic!("as planned") };
    assert!(matches!(asked(&cache, panics), Err(FetchError::Panicked)));
    assert!(matches!(asked(&cache, never), Err(FetchError::Panicked)));
    block_on(cache.invalidate_all()).unwrap();
    assert!(matches!(asked(&cache, pending), Err(FetchError::TimedOut)));
    assert!(matches!(asked(&cache, never), Err(FetchError::TimedOut)));
    assert_eq!(cache.stats().fetch().timeouts(), 1);
}

#[test]
fn a_thousand_calls_of_a_failing_origin_fail_once() {
    let runtime = threads();
    let (cache, _) = open(after(PAUSE));
    let calls = Arc::new(AtomicUsize::new(0));
    let callers = (0..1000).map(|number| {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        runtime.spawn(async move {
            for _ in 0..number % 7 {
                tokio::task::yield_now().await;
            }
            if number % 50 == 0 {
                // Callers that come after a mutation are not given an error from before it.
                cache.put("n", format!("{number}"), "v").await.unwrap();
            }
            let fetch = || async {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
                Answer::Err("down")
            };
            cache.get_or_fetch("n", "key", fetch).await
        })
    });
    let outcomes = runtime.block_on(join_all(callers.collect::<Vec<_>>()));
    assert!(outcomes.into_iter().all(|outcome| is_down(&outcome.unwrap())));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[test]
fn a_fetch_that_hangs_is_dropped_and_all_are_told() {
    let runtime = threads();
    let (cache, _) = open(FetchPolicy::default().hard_timeout(Duration::from_millis(50)));
    let callers = (0..100).map(|_| {
        let cache = cache.clone();
        runtime.spawn(async move { cache.get_or_fetch("n", "key", pending::<Answer>).await })
    });
    let outcomes = runtime.block_on(join_all(callers.collect::<Vec<_>>()));
    assert!(outcomes.into_iter().all(|it| matches!(it.unwrap(), Err(FetchError::TimedOut))));
    assert_eq!(cache.stats().fetch().under_way(), 0);
    assert_eq!(value(&asked(&cache, || async { Ok("new".into()) })), b"new");
}

#[test]
fn a_fetch_that_hangs_gives_the_stale_entry() {
    let (cache, clock) = open(FetchPolicy::default().hard_timeout(Duration::from_millis(5)));
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    clock.advance(Duration::from_secs(11));
    assert!(asked(&cache, pending).unwrap().is_stale());
    let (_, refresh) = block_on(cache.get_or_refresh("n", "key", pending::<Answer>)).unwrap();
    assert!(refresh.is_none(), "it rests for a second");
    clock.advance(Duration::from_secs(1));
    let (_, refresh) = block_on(cache.get_or_refresh("n", "key", pending::<Answer>)).unwrap();
    assert!(matches!(block_on(refresh.unwrap()), Err(FetchError::TimedOut)));
}

/// One leads that has no limit; the one that waits has.
#[test]
fn a_caller_waits_for_another_no_longer_than_its_own_limit() {
    let (cache, _) = open(FetchPolicy::default());
    let (mut leader, tell) = leading(&cache);
    let limit = FetchPolicy::default().hard_timeout(Duration::from_millis(5));
    let handle = cache.namespace("n").with_fetch_policy(limit).unwrap();
    let timed_out = block_on(handle.get_or_fetch("key", never));
    assert!(matches!(timed_out, Err(FetchError::TimedOut)));
    let stats = cache.stats().fetch();
    assert_eq!((stats.timeouts(), stats.waits_timed_out()), (0, 1), "no fetch has ended");
    assert!(leader.run().is_none());
    tell.send(Ok("late".into())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"late");
    assert_eq!(value(&block_on(handle.get_or_fetch("key", never))), b"late");
}

#[test]
fn a_policy_holds_for_the_cache_or_a_handle_or_a_call() {
    fn one_more(handle: &BlobCacheNamespace, calls: &Arc<AtomicUsize>) -> usize {
        assert!(block_on(handle.get_or_fetch("key", counted(calls, Err("down")))).is_err());
        calls.load(Ordering::Relaxed)
    }
    let own_pause = FetchPolicy::default().retry_after(Duration::ZERO);
    let builder = BlobCacheConfig::builder()
        .fetch_policy(after(PAUSE))
        .namespace("eager", |eager| eager.fetch_policy(own_pause));
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    assert_eq!(cache.config().fetch_policy(), after(PAUSE));
    assert_eq!(cache.config().namespace("n").fetch_policy(), after(PAUSE));
    assert_eq!(cache.config().namespace("eager").fetch_policy(), own_pause);
    let eager = Arc::new(AtomicUsize::new(0));
    for handle in [cache.namespace("eager"), cache.namespace("eager").with_policy(briefly())] {
        assert!(block_on(handle.get_or_fetch("key", counted(&eager, Err("down")))).is_err());
    }
    assert_eq!(eager.load(Ordering::Relaxed), 2, "by namespace");
    let calls = Arc::new(AtomicUsize::new(0));
    let (by_cache, without) = (cache.namespace("n"), FetchPolicy::default());
    assert_eq!((one_more(&by_cache, &calls), one_more(&by_cache, &calls)), (1, 1));
    let own = by_cache.clone().with_fetch_policy(without).unwrap();
    assert_eq!((one_more(&own, &calls), one_more(&own, &calls)), (2, 3));
    assert_eq!(one_more(&by_cache, &calls), 3, "that of the first is still held");
    let briefer = by_cache.with_fetch_policy(after(Duration::ZERO)).unwrap();
    assert_eq!(one_more(&briefer, &calls), 4, "the pause is that of the caller");
    let zero = without.hard_timeout(Duration::ZERO);
    let refused = own.with_fetch_policy(zero).unwrap_err();
    assert!(matches!(refused, CacheError::InvalidConfig { field: "with_fetch_policy", .. }));
}

/// Dropped at each await, with a limit: nothing is left, and the next call fetches.
#[test]
fn a_call_with_limits_can_be_dropped_anywhere() {
    let policy = after(PAUSE).hard_timeout(Duration::from_secs(3600));
    for turns in 0..4 {
        let (cache, _) = open(policy);
        let (_tell, fetch) = told();
        let of_call = cache.clone();
        let mut call = Call::new(async move { of_call.get_or_fetch("n", "key", fetch).await });
        let mut joiner = crate::call(&cache, || async { Ok("next".into()) });
        for turn in 0..turns {
            assert!(call.poll().is_none() && (turn == 0 || joiner.poll().is_none()));
        }
        drop(call);
        assert_eq!(value(&joiner.run().unwrap()), b"next");
        assert_eq!(cache.stats().fetch().under_way(), 0);
    }
}

/// An error that is dropped late, by whoever pushes it out, may call the cache again or panic.
#[test]
fn held_errors_are_bounded_and_dropped_without_a_lock() {
    struct Hostile(BlobCache, Arc<AtomicUsize>);

    impl Drop for Hostile {
        fn drop(&mut self) {
            self.0.invalidate_key("n", "any").now_or_never().unwrap().unwrap();
            self.1.fetch_add(1, Ordering::Relaxed);
            panic!("in a drop");
        }
    }

    let (cache, _) = open(after(PAUSE));
    let dropped = Arc::new(AtomicUsize::new(0));
    for key in 0..3000_u32 {
        let fail = || async { Err::<BlobCachePut, _>(Hostile(cache.clone(), dropped.clone())) };
        let failed = block_on(cache.get_or_fetch("n", key.to_le_bytes(), fail));
        let error = failed.unwrap_err().into_inner().unwrap();
        assert!(Arc::into_inner(error).is_none(), "it is held");
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 3000 - 1024);
    let again = || async { Err::<BlobCachePut, _>(Hostile(cache.clone(), dropped.clone())) };
    for (key, begun) in [(2999_u32, 3000), (0, 3001)] {
        assert!(block_on(cache.get_or_fetch("n", key.to_le_bytes(), again)).is_err());
        assert_eq!(cache.stats().fetch().begun(), begun, "{key}");
    }
}

#[test]
fn held_errors_take_a_bounded_number_of_bytes() {
    let builder = BlobCacheConfig::builder().key_bytes_max(65_535).fetch_policy(after(PAUSE));
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let long = |number: u8| vec![number; 60_000];
    for number in 0..32 {
        assert!(block_on(cache.get_or_fetch("n", long(number), fail)).is_err());
    }
    assert!(block_on(cache.get_or_fetch("n", long(31), never)).is_err());
    // Seventeen such keys are over the bound.
    let calls = Arc::new(AtomicUsize::new(0));
    assert!(
        block_on(cache.get_or_fetch("n", long(31 - 17), counted(&calls, Err("down")))).is_err()
    );
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// The leader is woken by its limit and not polled, so another one leads by the time it is.
#[test]
fn a_leader_that_was_replaced_holds_no_error() {
    let (cache, _) = open(after(PAUSE));
    let policy = after(PAUSE).hard_timeout(Duration::from_millis(5));
    let handle = cache.namespace("n").with_fetch_policy(policy).unwrap();
    let mut sleeper = Call::new(async move { handle.get_or_fetch("key", pending::<Answer>).await });
    assert!(sleeper.poll().is_none());
    let (tell, fetch) = told();
    let mut next = call(&cache, fetch);
    assert!(next.run().is_none());
    while !next.is_woken() {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(sleeper.is_woken() && next.run().is_none(), "it leads");
    assert!(matches!(sleeper.run().unwrap(), Err(FetchError::TimedOut)));
    let mut later = joined(&cache);
    tell.send(Ok("new".into())).unwrap();
    assert_eq!(value(&next.run().unwrap()), b"new");
    assert_eq!(value(&later.run().unwrap()), b"new");
    assert_eq!(cache.stats().fetch().held_off(), 0);
}

/// Even if its value is not stored, so that no put of the key tells of it.
#[test]
fn a_fetch_that_succeeds_ends_the_pause() {
    let (cache, _) = open(after(PAUSE));
    assert!(is_down(&asked(&cache, fail)));
    let eager = cache.namespace("n").with_fetch_policy(FetchPolicy::default()).unwrap();
    let large = || async {
        let policy = BlobCachePolicy::default().max_blob_bytes(1);
        Answer::Ok(BlobCachePut::new("large").with_policy(policy))
    };
    assert_eq!(value(&block_on(eager.get_or_fetch("key", large))), b"large");
    assert_eq!(cache.stats().fetches_not_stored(), 1);
    assert_eq!(value(&asked(&cache, || async { Ok("new".into()) })), b"new");
}

/// An error that owns a handle of the cache, and panics when it is dropped.
struct Owner(#[allow(dead_code, reason = "owned")] (Option<BlobCache>, Arc<()>));

impl Drop for Owner {
    fn drop(&mut self) {
        panic!("in a drop");
    }
}

fn fail_owned(cache: &BlobCache, key: &str, owner: Owner) {
    let owned = block_on(cache.get_or_fetch("n", key, || async { Err(owner) }));
    assert!(Arc::into_inner(owned.unwrap_err().into_inner().unwrap()).is_none(), "it is held");
}

#[test]
fn a_held_error_goes_before_the_cache() {
    let token = Arc::new(());
    // With the last handle.
    let (cache, _) = open(after(PAUSE));
    fail_owned(&cache, "key", Owner((None, token.clone())));
    drop(cache);
    assert_eq!(Arc::strong_count(&token), 1, "dropped, and the panic is contained");
    // With a close, if it owns a handle; so does the error of a fetch that ends later.
    let (cache, _) = open(after(PAUSE));
    fail_owned(&cache, "key", Owner((Some(cache.clone()), token.clone())));
    let (of_call, owner) = (cache.clone(), Owner((Some(cache.clone()), token.clone())));
    let (tell, told) = futures::channel::oneshot::channel::<()>();
    let mut under_way = Call::new(async move {
        let fetch = || async {
            told.await.unwrap();
            Err::<BlobCachePut, _>(owner)
        };
        of_call.get_or_fetch("n", "other", fetch).await.is_err()
    });
    assert!(under_way.run().is_none());
    block_on(cache.close()).unwrap();
    assert_eq!(Arc::strong_count(&token), 2, "the one that is not held yet");
    tell.send(()).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| under_way.run()));
    assert!(panicked.is_err(), "its only owner is the call");
    drop(cache);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn a_held_error_goes_when_its_time_is_over() {
    let token = Arc::new(());
    let ends: [fn(&BlobCache); 2] = [
        |cache| drop(block_on(cache.sweep_expired(SweepLimit::Entries(1)))),
        |cache| _ = block_on(cache.get_or_fetch("n", "third", fail)).unwrap_err(),
    ];
    for end in ends {
        let (cache, clock) = open(after(PAUSE));
        let bytes = cache.stats().memory().buffers_bytes();
        for key in ["key", "other"] {
            fail_owned(&cache, key, Owner((Some(cache.clone()), token.clone())));
        }
        assert!(cache.stats().memory().buffers_bytes() >= bytes + 2 * size_of::<Owner>());
        end(&cache);
        assert_eq!(Arc::strong_count(&token), 3, "they have time left");
        clock.advance(PAUSE);
        end(&cache);
        assert_eq!(Arc::strong_count(&token), 1);
        block_on(cache.invalidate_all()).unwrap();
    }
}
