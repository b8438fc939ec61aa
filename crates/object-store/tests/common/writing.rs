//! What becomes of the cache when objects change: by this store, past it, or perhaps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt};
use tamis::SweepLimit;

use super::object_store::path::Path;
use super::object_store::{Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use super::origin::Origin;
use super::{KIB, content, memory, small};
use crate::cached::CachedObjectStore;

const MINUTE: Duration = Duration::from_secs(60);

async fn read(store: &CachedObjectStore, path: &Path) -> super::object_store::Result<Vec<u8>> {
    Ok(store.get(path).await?.bytes().await?.to_vec())
}

#[tokio::test]
async fn each_write_makes_the_cache_forget_what_it_changes() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(Path::from);
    let payload = |seed| PutPayload::from(content(seed, 200 * KIB));
    let is = async |path: &Path, seed| {
        assert_eq!(read(&store, path).await.unwrap(), content(seed, 200 * KIB), "{path}");
    };
    for path in [&a, &b, &c] {
        store.put(path, payload(0)).await.unwrap();
        is(path, 0).await;
    }
    store.put(&a, payload(1)).await.unwrap();
    is(&a, 1).await;
    store.copy(&a, &b).await.unwrap();
    is(&b, 1).await;
    store.put(&a, payload(2)).await.unwrap();
    store.rename(&a, &b).await.unwrap();
    is(&b, 2).await;
    assert!(matches!(read(&store, &a).await, Err(Error::NotFound { .. })));

    let mut upload = store.put_multipart(&c).await.unwrap();
    upload.put_part(payload(3)).await.unwrap();
    is(&c, 0).await;
    upload.complete().await.unwrap();
    is(&c, 3).await;

    let paths = vec![Ok(b.clone()), Ok(c.clone())];
    let deleted = store.delete_stream(futures::stream::iter(paths).boxed());
    assert_eq!(deleted.try_collect::<Vec<_>>().await.unwrap(), [b.clone(), c.clone()]);
    for path in [&a, &b, &c] {
        assert!(matches!(read(&store, path).await, Err(Error::NotFound { .. })));
    }
    // What is read after all of that is cached again.
    store.put(&a, payload(4)).await.unwrap();
    is(&a, 4).await;
    origin.asked();
    is(&a, 4).await;
    assert!(origin.asked().is_empty());
}

#[tokio::test]
async fn what_changes_nothing_forgets_nothing() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    store.put(&path, content(1, 100).into()).await.unwrap();
    read(&store, &path).await.unwrap();
    origin.asked();

    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part(content(2, 100).into()).await.unwrap();
    upload.abort().await.unwrap();
    // A stream of deletes that nobody polls deletes nothing.
    let never = futures::stream::poll_fn(|_| -> std::task::Poll<Option<_>> { unreachable!() });
    drop(store.delete_stream(never.boxed()));
    store.copy(&path, &Path::from("b")).await.unwrap();
    read(&store, &path).await.unwrap();
    assert!(origin.asked().is_empty());

    // A put that is refused has shown that what is known may be old.
    let error = store.put_opts(&path, "x".into(), PutMode::Create.into()).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists { .. }));
    read(&store, &path).await.unwrap();
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn an_object_that_has_not_changed_keeps_its_blocks() {
    let ((cache, clock), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 200 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    read(&store, &path).await.unwrap();
    for round in 1..4 {
        clock.advance(MINUTE);
        assert_eq!(read(&store, &path).await.unwrap(), content(1, 200 * KIB));
        let stats = store.stats();
        assert_eq!((stats.metas_fetched, stats.metas_confirmed), (1, round), "{stats:?}");
        assert_eq!((stats.inner_bytes, stats.inner_gets), (200 * KIB, 1 + round), "{stats:?}");
    }
    // A change past the store is seen when the time is over, and not before.
    origin.put_past(&path, content(2, 200 * KIB)).await;
    assert_eq!(read(&store, &path).await.unwrap(), content(1, 200 * KIB));
    clock.advance(MINUTE);
    assert_eq!(read(&store, &path).await.unwrap(), content(2, 200 * KIB));
    assert_eq!(store.stats().inner_bytes, 400 * KIB);
}

#[tokio::test]
async fn without_staleness_each_get_asks_and_none_is_old() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).build().unwrap();
    for seed in 0..5 {
        origin.put_past(&path, content(seed, 200 * KIB)).await;
        for _ in 0..2 {
            assert_eq!(read(&store, &path).await.unwrap(), content(seed, 200 * KIB));
        }
    }
    let stats = store.stats();
    assert_eq!((stats.inner_gets, stats.inner_bytes), (10, 5 * 200 * KIB), "{stats:?}");
}

/// Without an e-tag the inner store cannot be asked whether an object is still the same: each get
/// fetches it as another, and nothing leads to the blocks of the last one.
#[tokio::test]
async fn blocks_that_nothing_leads_to_leave_the_cache() {
    for has_no_e_tags in [false, true] {
        let ((cache, clock), origin, path) = (memory().await, Origin::new(), Path::from("a"));
        origin.has_no_e_tags.store(has_no_e_tags, Ordering::SeqCst);
        origin.put_past(&path, content(1, 640 * KIB)).await;
        let store = small(origin.clone(), &cache).build().unwrap();
        for _ in 0..5 {
            // Blocks come with the meta, as the stream goes on, and by themselves.
            assert_eq!(read(&store, &path).await.unwrap(), content(1, 640 * KIB));
            store.get_range(&path, 0..600 * KIB).await.unwrap();
        }
        let held = usize::try_from(640 * KIB).unwrap();
        let gets = if has_no_e_tags { 10 } else { 1 };
        assert!(cache.stats().bytes_in_use() > held * gets * 9 / 10);
        clock.advance(2 * MINUTE);
        cache.sweep_expired(SweepLimit::Entries(usize::MAX)).await;
        let left = cache.stats().bytes_in_use();
        assert_eq!(left < held, has_no_e_tags, "{left}");
        assert!(left < 2 * held, "{left}");
    }
}

/// With each time that is over the object counts as another one.
#[tokio::test]
async fn blocks_leave_a_minute_after_the_staleness() {
    let ((cache, clock), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.has_no_e_tags.store(true, Ordering::SeqCst);
    origin.put_past(&path, content(1, 640 * KIB)).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    let held = usize::try_from(640 * KIB).unwrap();
    for round in 0..20 {
        assert_eq!(read(&store, &path).await.unwrap(), content(1, 640 * KIB));
        assert_eq!(store.stats().inner_bytes, (round + 1) * 640 * KIB);
        clock.advance(MINUTE + MINUTE / 10);
        cache.sweep_expired(SweepLimit::Entries(usize::MAX)).await;
        let left = cache.stats().bytes_in_use();
        assert!(left < 3 * held, "{round}: {left}");
    }
}

/// Objects that change past the store, with what is known of them fresh, and half their blocks
/// held: an answer is of one version.
#[tokio::test]
async fn an_answer_begins_anew_when_the_object_has_changed() {
    for has_no_e_tags in [false, true] {
        let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
        origin.has_no_e_tags.store(has_no_e_tags, Ordering::SeqCst);
        origin.put_past(&path, content(1, 500 * KIB)).await;
        let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
        store.get_range(&path, 0..100 * KIB).await.unwrap();
        origin.put_past(&path, content(2, 500 * KIB)).await;

        // These blocks are held, and not too old.
        assert_eq!(store.get_range(&path, 0..8).await.unwrap(), content(1, 8));
        let part = store.get_range(&path, 0..300 * KIB).await.unwrap();
        assert_eq!(part, content(2, 300 * KIB));
        assert_eq!(store.stats().begun_anew, 1);

        let parts = [0..8, 400 * KIB..400 * KIB + 8];
        origin.put_past(&path, content(3, 500 * KIB)).await;
        let parts = store.get_ranges(&path, &parts).await.unwrap();
        let third = content(3, 500 * KIB);
        assert_eq!(parts.concat(), [&third[..8], &third[400 << 10..][..8]].concat());
        assert_eq!(store.stats().begun_anew, 2);
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_ends_rather_than_mixes_versions() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let (old, new) = (content(1, 1000 * KIB), content(2, 1000 * KIB));
    origin.put_past(&path, old.clone()).await;
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    store.head(&path).await.unwrap();
    let mut stream = store.get(&path).await.unwrap().into_stream();
    let first = stream.next().await.unwrap().unwrap();
    assert_eq!(first, old[..first.len()]);
    origin.put_past(&path, new.clone()).await;
    let mut read = first.len();
    let error = loop {
        match stream.next().await.unwrap() {
            Ok(chunk) => {
                assert_eq!(chunk, old[read..][..chunk.len()]);
                read += chunk.len();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Precondition { .. }), "{error}");
    assert_eq!(read, 256 << 10, "a window was in memory");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), new);
}

/// The get has seen the old object, the put returns, and then the get's answer arrives.
#[tokio::test]
async fn a_get_that_a_put_has_overtaken_leaves_nothing_in_the_cache() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 100)).await;
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    origin.after_get.shut();
    let slow = tokio::spawn({
        let (store, path) = (store.clone(), path.clone());
        async move { read(&store, &path).await }
    });
    origin.after_get.arrival().await;
    store.put(&path, content(2, 100).into()).await.unwrap();
    origin.after_get.open();
    assert_eq!(slow.await.unwrap().unwrap(), content(1, 100));
    assert_eq!(read(&store, &path).await.unwrap(), content(2, 100));
}

/// The put has been sent and not answered: what is read meanwhile is not stored, whichever it is.
#[tokio::test]
async fn nothing_that_is_read_during_a_write_is_stored() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 100)).await;
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    read(&store, &path).await.unwrap();
    origin.before_write.shut();
    let put = tokio::spawn({
        let (store, path) = (store.clone(), path.clone());
        async move { store.put(&path, content(2, 100).into()).await }
    });
    origin.before_write.arrival().await;
    origin.asked();
    for _ in 0..2 {
        assert_eq!(read(&store, &path).await.unwrap(), content(1, 100));
    }
    assert_eq!(origin.asked().len(), 2);
    // Other paths are not concerned.
    let other = Path::from("b");
    origin.put_past(&other, content(3, 100)).await;
    for _ in 0..2 {
        assert_eq!(read(&store, &other).await.unwrap(), content(3, 100));
    }
    assert_eq!(origin.asked().len(), 1);
    origin.before_write.open();
    put.await.unwrap().unwrap();
    assert_eq!(read(&store, &path).await.unwrap(), content(2, 100));
}

/// The future of a put is dropped, and its request arrives later all the same.
#[tokio::test]
async fn a_put_that_was_dropped_may_still_arrive() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 100)).await;
    let builder = small(origin.clone(), &cache).immutable(|_| true);
    let store = builder.unknown_writes(Duration::from_millis(300)).build().unwrap();
    assert_eq!(read(&store, &path).await.unwrap(), content(1, 100));
    origin.before_write.shut();
    assert!(store.put(&path, content(2, 100).into()).now_or_never().is_none());

    assert_eq!(read(&store, &path).await.unwrap(), content(1, 100));
    origin.put_past(&path, content(2, 100)).await;
    assert_eq!(read(&store, &path).await.unwrap(), content(2, 100));
    assert_eq!(store.stats().passed_through, 2);
    // When the time is over the path is cached again.
    tokio::time::sleep(Duration::from_millis(400)).await;
    for _ in 0..2 {
        assert_eq!(read(&store, &path).await.unwrap(), content(2, 100));
    }
    assert_eq!(store.stats().passed_through, 2);
}

#[tokio::test]
async fn a_write_that_fails_without_saying_what_it_did_is_of_unknown_outcome() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    for deletes in [false, true] {
        let path = if deletes { Path::from("b") } else { path.clone() };
        store.put(&path, content(1, 100).into()).await.unwrap();
        read(&store, &path).await.unwrap();
        origin.fails.store(true, Ordering::SeqCst);
        if deletes {
            store.delete(&path).await.unwrap_err();
        } else {
            store.put(&path, content(2, 100).into()).await.unwrap_err();
        }
        origin.fails.store(false, Ordering::SeqCst);
        read(&store, &path).await.unwrap();
        origin.put_past(&path, content(2, 100)).await;
        assert_eq!(read(&store, &path).await.unwrap(), content(2, 100));
    }
    // One that says so is not: the path is cached at once.
    let missing = Path::from("missing");
    store.copy(&missing, &Path::from("c")).await.unwrap_err();
    origin.put_past(&Path::from("c"), content(4, 100)).await;
    origin.asked();
    for _ in 0..2 {
        read(&store, &Path::from("c")).await.unwrap();
    }
    assert_eq!(origin.asked().len(), 1);
}

#[tokio::test]
async fn the_outcome_of_a_failing_origin_is_its_own_error() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    let store = small(origin.clone(), &cache).staleness(MINUTE).build().unwrap();
    origin.put_past(&path, content(1, 300 * KIB)).await;
    origin.fails.store(true, Ordering::SeqCst);
    let error = read(&store, &path).await.unwrap_err();
    assert_eq!(error.to_string(), "Generic Origin error: it is down");
    origin.fails.store(false, Ordering::SeqCst);
    store.get_opts(&path, GetOptions::new().with_head(true)).await.unwrap();
    origin.fails.store(true, Ordering::SeqCst);
    let error = read(&store, &path).await.unwrap_err();
    assert_eq!(error.to_string(), "Generic Origin error: it is down");
    origin.fails.store(false, Ordering::SeqCst);
    assert_eq!(read(&store, &path).await.unwrap(), content(1, 300 * KIB));
}
