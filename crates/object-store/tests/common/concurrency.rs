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
    let callers = (0..50).map(|number| {
        let (store, path) = (store.clone(), path.clone());
        let range = (250 + number) * KIB..(650 + number) * KIB;
        tokio::spawn(async move { store.get_range(&path, range).await.unwrap() })
    });
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
    let callers = (0..5).map(|_| store.get(&path));
    for answer in join_all(callers).await {
        assert!(matches!(answer, Err(Error::NotFound { .. })));
    }
    origin.fails.store(true, Ordering::SeqCst);
    let callers = (0..5).map(|_| store.get(&path));
    for answer in join_all(callers).await {
        assert_eq!(answer.unwrap_err().to_string(), "Generic Origin error: it is down");
    }
}

/// Dropped at each of its polls in turn, a get leaves a cache that answers the next one.
#[tokio::test]
async fn a_get_may_be_dropped_at_any_poll() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    for polls in 0..12 {
        let path = Path::from(format!("{polls}"));
        origin.put_past(&path, content(polls, 600 * KIB)).await;
        let whole = async { store.get(&path).await.unwrap().bytes().await.unwrap() };
        let mut whole = std::pin::pin!(whole);
        let mut rest = std::pin::pin!(async {
            for _ in 0..polls {
                if poll_immediate(&mut whole).await.is_some() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        rest.as_mut().await;
        let part = store.get_range(&path, 100..300 * KIB).await.unwrap();
        assert_eq!(part, content(polls, 600 * KIB)[100..300 << 10]);
    }
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
    let beyond = (0..3).map(|_| store.get_range(&path, 900 * KIB..901 * KIB));
    let (beyond, whole, head, part) = tokio::join!(
        join_all(beyond),
        store.get(&path),
        store.head(&path),
        store.get_range(&path, 5..10),
    );
    for answer in beyond {
        assert!(answer.unwrap_err().to_string().contains("Wanted range"));
    }
    assert_eq!(whole.unwrap().bytes().await.unwrap(), content(1, 100));
    assert_eq!((head.unwrap().size, part.unwrap().len()), (100, 5));
}
