//! Streams of deletes, whose inner store takes many paths before it deletes one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};

use super::object_store::path::Path;
use super::object_store::{Error, ObjectStore, ObjectStoreExt, Result};
use super::origin::Origin;
use super::{content, memory, small};
use crate::cached::CachedObjectStore;

async fn read(store: &CachedObjectStore, path: &Path) -> Result<Vec<u8>> {
    Ok(store.get(path).await?.bytes().await?.to_vec())
}

fn refused() -> Result<Path> {
    Err(Error::NotFound { path: "a list".into(), source: "the caller has none".into() })
}

/// The caller's own error says nothing of the paths before it, though it looks as if it did.
#[tokio::test]
async fn an_error_of_the_callers_settles_no_path() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.takes_all.store(true, Ordering::SeqCst);
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    for is_answered in [true, false] {
        store.put(&path, content(1, 100).into()).await.unwrap();
        read(&store, &path).await.unwrap();
        origin.before_deletes.shut();
        let items = [Ok(path.clone()), refused()];
        let mut deletes = store.delete_stream(stream::iter(items).boxed());
        deletes.next().await.unwrap().unwrap_err();
        // It has not been deleted, and may be at any moment.
        origin.asked();
        for _ in 0..2 {
            assert_eq!(read(&store, &path).await.unwrap(), content(1, 100));
        }
        assert_eq!(origin.asked().len(), 2, "it is not cached");
        if is_answered {
            origin.before_deletes.open();
            assert_eq!(deletes.next().await.unwrap().unwrap(), path);
            assert!(deletes.next().await.is_none());
        } else {
            // Nobody hears of its answer.
            drop(deletes);
            origin.inner.delete(&path).await.unwrap();
        }
        assert!(matches!(read(&store, &path).await, Err(Error::NotFound { .. })));
    }
}

#[tokio::test]
async fn an_error_of_the_callers_in_its_turn_unsettles_no_path() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let store = small(origin.clone(), &cache).immutable(|_| true).build().unwrap();
    let [a, b] = ["a", "b"].map(Path::from);
    for path in [&a, &b] {
        store.put(path, content(1, 100).into()).await.unwrap();
        read(&store, path).await.unwrap();
    }
    let items = [Ok(a.clone()), refused(), Ok(b.clone())];
    let deletes = store.delete_stream(stream::iter(items).boxed());
    let answers: Vec<_> = deletes.collect().await;
    assert!(matches!(&answers[..], [Ok(_), Err(_), Ok(_)]), "{answers:?}");
    for path in [&a, &b] {
        assert!(matches!(read(&store, path).await, Err(Error::NotFound { .. })));
        origin.put_past(path, content(2, 100)).await;
        origin.asked();
        for _ in 0..2 {
            assert_eq!(read(&store, path).await.unwrap(), content(2, 100));
        }
        assert_eq!(origin.asked().len(), 1, "it is cached again");
    }
}

/// How many paths a store takes of a stream until it has told of three deletes.
async fn taken_for_three(store: &dyn ObjectStore) -> u32 {
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    let paths = stream::iter(0..1000).map(move |number: u32| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(Path::from(number.to_string()))
    });
    let mut deletes = store.delete_stream(paths.boxed());
    for _ in 0..3 {
        deletes.next().await.unwrap().unwrap();
    }
    count.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_stream_of_deletes_takes_as_many_paths_as_the_inner_store() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let store = small(origin.clone(), &cache).build().unwrap();
    let of_inner = taken_for_three(&*origin).await;
    assert_eq!((taken_for_three(&store).await, of_inner), (3, 3));
}

/// As many as a stream of deletes keeps.
const TAKEN_MAX: u32 = 1 << 15;

/// The answer of a path that was given up comes when it is cached again.
#[tokio::test]
async fn a_path_that_was_given_up_is_forgotten_when_its_answer_comes() {
    let ((cache, _), origin, path) = (memory().await, Origin::new(), Path::from("a"));
    origin.takes_all.store(true, Ordering::SeqCst);
    let store = small(origin.clone(), &cache).immutable(|_| true).unknown_writes(Duration::ZERO);
    let store = store.build().unwrap();
    store.put(&path, content(1, 100).into()).await.unwrap();
    origin.before_deletes.shut();
    let others = (0..TAKEN_MAX).map(|number| Path::from(format!("{number}")));
    let items: Vec<_> = std::iter::once(path.clone()).chain(others).map(Ok).collect();
    let count = items.len();
    let mut deletes = store.delete_stream(stream::iter(items).boxed());
    let deleted = tokio::spawn(async move {
        let first = deletes.next().await;
        (first, deletes)
    });
    origin.before_deletes.arrival().await;
    origin.asked();
    for _ in 0..2 {
        assert_eq!(read(&store, &path).await.unwrap(), content(1, 100));
    }
    assert_eq!(origin.asked().len(), 1, "it was given up, and is cached");
    let last = Path::from("0");
    for _ in 0..2 {
        assert!(matches!(read(&store, &last).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(store.stats().passed_through, 2, "others are being written");
    origin.before_deletes.open();
    let (first, rest) = deleted.await.unwrap();
    assert_eq!(first.unwrap().unwrap(), path);
    assert!(matches!(read(&store, &path).await, Err(Error::NotFound { .. })));
    assert_eq!(rest.count().await, count - 1);
}
