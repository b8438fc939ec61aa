//! Many callers at once, callers that go away, and callers that are not polled.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::{join_all, poll_immediate};
use futures::{FutureExt, StreamExt};

use super::object_store::path::Path;
use super::object_store::{Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use super::origin::Origin;
use super::{KIB, content, memory, small};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_one_object_are_one_request() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 700 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    origin.before_get.shut();
    let callers = (0..50).map(|_| {
        let (store, path) = (store.clone(), path.clone());
        tokio::spawn(async move { store.get_range(&path, 0..200 * KIB).await.unwrap() })
    });
    let callers: Vec<_> = callers.collect();
    origin.before_get.arrival().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    origin.before_get.open();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), content(1, 200 * KIB));
    }
    assert_eq!(origin.asked().len(), 1);

    // Blocks of a known object, in ranges that overlap: each block is fetched once.
    origin.before_get.shut();
    let callers = (0..50).map(|number| {
        let (store, path) = (store.clone(), path.clone());
        let range = (250 + number) * KIB..(650 + number) * KIB;
        tokio::spawn(async move { store.get_range(&path, range).await.unwrap() })
    });
    let callers: Vec<_> = callers.collect();
    origin.before_get.arrival().await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    origin.before_get.open();
    for (number, caller) in join_all(callers).await.into_iter().enumerate() {
        let part = caller.unwrap();
        assert_eq!(part, content(1, 700 * KIB)[(250 + number) << 10..(650 + number) << 10]);
    }
    assert_eq!(store.stats().inner_bytes, 700 * KIB);
}

#[tokio::test]
async fn an_error_is_every_waiting_callers_own() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).build().unwrap();
    for is_down in [false, true] {
        origin.fails.store(is_down, Ordering::SeqCst);
        origin.before_get.shut();
        let callers = (0..5).map(|_| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move { store.get(&path).await })
        });
        let callers: Vec<_> = callers.collect();
        // The request of the first is of before the others came: it says nothing to them. They
        // share the next one.
        origin.before_get.arrival().await;
        origin.before_get.let_one_pass();
        origin.before_get.arrival().await;
        origin.before_get.open();
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            if is_down {
                assert_eq!(error.to_string(), "Generic Origin error: it is down");
            } else {
                assert!(matches!(error, Error::NotFound { .. }), "{error}");
            }
        }
        assert_eq!(origin.asked().len(), 2);
    }
}

/// Dropped at each of its polls in turn, a get leaves a cache that answers the next one.
#[tokio::test]
async fn a_get_may_be_dropped_at_any_poll() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    origin.turns.store(4, Ordering::SeqCst);
    // Of an unknown object, and of a known one: a request with the meta, or one for each window.
    for is_known in [false, true] {
        let mut polls = 0;
        loop {
            let path = Path::from(format!("{is_known} {polls}"));
            origin.put_past(&path, content(polls, 600 * KIB)).await;
            if is_known {
                store.head(&path).await.unwrap();
            }
            let whole = async { store.get(&path).await.unwrap().bytes().await.unwrap() };
            let has_ended = poll_times(whole, polls).await.is_some();
            let part = tokio::time::timeout(
                Duration::from_secs(20),
                store.get_range(&path, 100..300 * KIB),
            );
            let part = part.await.expect("it waits for one that was dropped").unwrap();
            assert_eq!(part, content(polls, 600 * KIB)[100..300 << 10]);
            if has_ended {
                break;
            }
            polls += 1;
        }
        let requests = if is_known { 3 } else { 1 };
        assert!(polls > requests, "it was dropped {polls} times only");
    }
}

/// Polls a future so often, and drops it.
async fn poll_times<T>(future: impl Future<Output = T>, times: u64) -> Option<T> {
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        if let Some(output) = poll_immediate(&mut future).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// One caller has sent a request and is not polled again. Another one asks for the same.
#[tokio::test]
async fn nobody_waits_for_a_get_that_is_not_polled() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 600 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    // The request that brings the meta along, and one for blocks.
    for range in [0..128 * KIB, 256 * KIB..500 * KIB] {
        origin.before_get.shut();
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(range.clone())));
        let mut asleep = store.get_opts(&path, options).boxed();
        assert!(asleep.as_mut().now_or_never().is_none());
        origin.before_get.arrival().await;
        origin.before_get.open();
        let awake = store.get_range(&path, range.clone());
        let awake = tokio::time::timeout(Duration::from_secs(20), awake).await;
        let bytes = awake.expect("it waits for who sleeps").unwrap();
        assert_eq!(bytes.len() as u64, range.end - range.start);
        drop(asleep);
    }
    // A stream that nobody reads on with.
    let mut asleep = store.get(&path).await.unwrap().into_stream();
    asleep.next().await.unwrap().unwrap();
    let awake = tokio::time::timeout(Duration::from_secs(20), store.get(&path)).await;
    assert_eq!(awake.unwrap().unwrap().bytes().await.unwrap(), content(1, 600 * KIB));
}

/// A leader goes away with its request; those who waited fetch what it was fetching, together.
#[tokio::test]
async fn who_waited_for_a_dropped_get_goes_on_with_one_request() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 600 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    store.head(&path).await.unwrap();
    origin.asked();
    origin.before_get.shut();
    let mut leader = store.get_range(&path, 0..256 * KIB).boxed();
    assert!(leader.as_mut().now_or_never().is_none());
    origin.before_get.arrival().await;
    let mut follower = store.get_range(&path, 0..256 * KIB).boxed();
    assert!(follower.as_mut().now_or_never().is_none());
    assert_eq!(origin.asked().len(), 1);
    drop(leader);
    origin.before_get.open();
    assert_eq!(follower.await.unwrap(), content(1, 256 * KIB));
    assert_eq!(origin.asked().len(), 1, "its blocks are neighbours");
}

/// An error may be about the range of one caller alone.
#[tokio::test]
async fn nobody_is_told_the_error_of_anothers_range() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 100)).await;
    let store = small(origin.clone(), &cache).build().unwrap();
    let beyond = || store.get_range(&path, 900 * KIB..901 * KIB);
    origin.before_get.shut();
    let callers = async {
        tokio::join!(
            beyond(),
            beyond(),
            beyond(),
            store.get(&path),
            store.head(&path),
            store.get_range(&path, 5..10),
        )
    };
    let doorman = async {
        // All come while the first one asks, and wait for what the second asks then.
        origin.before_get.arrival().await;
        origin.before_get.let_one_pass();
        origin.before_get.arrival().await;
        let beyond = Some(GetRange::Bounded(896 * KIB..960 * KIB));
        assert_eq!(origin.asked_ranges(), [beyond.clone(), beyond]);
        origin.before_get.open();
    };
    let ((first, second, third, whole, head, part), ()) = tokio::join!(callers, doorman);
    for answer in [first, second, third] {
        assert!(answer.unwrap_err().to_string().contains("Wanted range"));
    }
    assert_eq!(whole.unwrap().bytes().await.unwrap(), content(1, 100));
    assert_eq!((head.unwrap().size, part.unwrap().len()), (100, 5));
}
