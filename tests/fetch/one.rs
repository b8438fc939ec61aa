//! One fetch per key at a time, and values that cannot be stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheTier, FetchError, L1Admission,
};

use crate::{Answer, Call, call, counted, joined, leading, never, open, threads, told, value};

const CALLERS: usize = 10_000;

#[test]
fn ten_thousand_callers_on_many_threads_run_one_fetch() {
    let runtime = threads();
    for _ in 0..5 {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        let callers = (0..CALLERS).map(|_| {
            let (cache, calls) = (cache.clone(), Arc::clone(&calls));
            runtime.spawn(async move {
                let fetch = || async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Answer::Ok(BlobCachePut::from(vec![7; 1000]))
                };
                cache.get_or_fetch("n", "key", fetch).await.unwrap()
            })
        });
        let callers: Vec<_> = callers.collect();
        let hits = runtime.block_on(join_all(callers));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let place = hits[0].as_ref().unwrap().value().as_ptr();
        assert!(hits.iter().all(|hit| hit.as_ref().unwrap().value().as_ptr() == place));
        let stats = cache.stats();
        assert_eq!((stats.fetches(), stats.insertions()), (1, 1));
        assert_eq!(stats.hits() + stats.misses(), CALLERS as u64);
    }
}

#[test]
fn ten_thousand_callers_on_one_thread_run_one_fetch() {
    let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
    let hits = block_on(join_all((0..CALLERS).map(|_| {
        cache.get_or_fetch("n", "key", || async {
            calls.fetch_add(1, Ordering::Relaxed);
            assert_eq!(cache.stats().flights_under_way(), 1);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Answer::Ok(BlobCachePut::from("value"))
        })
    })));
    assert_eq!(cache.stats().flights_under_way(), 0);
    assert!(hits.iter().all(|hit| value(hit) == b"value"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(cache.stats().flights_joined(), CALLERS as u64 - 1);
}

#[test]
fn a_fetched_value_is_stored_and_shares_its_memory() {
    let cache = open();
    let policy = BlobCachePolicy::default().version(3).ttl(Duration::from_secs(60));
    let put = BlobCachePut::from(vec![7; 1000])
        .with_content_metadata([("kind", "page")])
        .with_tags(["tag"])
        .with_policy(policy);
    let fetched = block_on(cache.get_or_fetch("n", "key", || async { Answer::Ok(put) })).unwrap();
    let hit = block_on(cache.get_or_fetch("n", "key", never)).unwrap();
    assert_eq!((fetched.tier(), hit.tier()), (CacheTier::Fetched, CacheTier::L1));
    assert_eq!(fetched.value().as_ptr(), hit.value().as_ptr());
    assert_eq!(fetched.content_metadata(), hit.content_metadata());
    assert_eq!((fetched.version(), hit.version()), (Some(3), Some(3)));
    assert_eq!(fetched.expires_at(), hit.expires_at());
    assert_eq!(fetched.written_at(), hit.written_at());
    assert!(!fetched.is_stale() && !fetched.is_absent());
    assert_eq!(block_on(cache.invalidate_tags("n", &["tag"])), Ok(1));
    let stats = cache.stats();
    assert_eq!((stats.fetches(), stats.hits(), stats.misses()), (1, 1, 1));
}

#[test]
fn a_handle_applies_its_policy() {
    let cache = open();
    let pages = cache.namespace("n").with_policy(BlobCachePolicy::default().version(5));
    let fetch = || async { Answer::Ok("value".into()) };
    assert_eq!(block_on(pages.get_or_fetch("key", fetch)).unwrap().version(), Some(5));
    assert_eq!(block_on(pages.get("key")).unwrap().version(), Some(5));
    let own =
        || async { Answer::Ok(BlobCachePut::from("own").with_policy(BlobCachePolicy::default())) };
    assert_eq!(block_on(pages.get_or_refresh("own", own)).unwrap().0.version(), None);
}

#[test]
fn keys_whose_hashes_collide_do_not_join_each_other() {
    let config = BlobCacheConfig::builder().key_hash_bits(1).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let hits = block_on(join_all((0..100u8).map(|key| {
        let cache = cache.clone();
        async move {
            let namespace = if key % 2 == 0 { "a" } else { "b" };
            let fetch = || async {
                tokio::task::yield_now().await;
                Answer::Ok(BlobCachePut::from(vec![key]))
            };
            cache.get_or_fetch(namespace, [key], fetch).await
        }
    })));
    for (key, hit) in (0..).zip(&hits) {
        assert_eq!(value(hit), [key]);
    }
}

#[test]
fn different_error_types_do_not_share_a_flight() {
    let cache = open();
    let (mut leader, tell) = leading(&cache);
    let other = || async { Err::<BlobCachePut, String>("another error".into()) };
    match block_on(cache.get_or_fetch("n", "key", other)) {
        Err(FetchError::Fetch(error)) => assert_eq!(*error, "another error"),
        other => panic!("{other:?}"),
    }
    let mut joiner = joined(&cache);
    tell.send(Ok("value".into())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"value");
    assert_eq!(value(&joiner.run().unwrap()), b"value");
}

/// Two concurrent callers get a value that is refused as a put.
fn is_answered_unstored(
    cache: &BlobCache,
    (namespace, key): (&'static str, Vec<u8>),
    value: impl AsRef<[u8]>,
    dressed: impl Fn(BlobCachePut) -> BlobCachePut,
) {
    let before = cache.stats();
    let put = dressed(BlobCachePut::copy_from_slice(value.as_ref()));
    let calls = Arc::new(AtomicUsize::new(0));
    let (tell, fetch) = told();
    let (first, second) = (cache.clone(), cache.clone());
    let (again, same_key) = (counted(&calls, Ok(put.clone())), key.clone());
    let mut leader = Call::new(async move { first.get_or_fetch(namespace, key, fetch).await });
    assert!(leader.run().is_none());
    let mut other = Call::new(async move { second.get_or_fetch(namespace, same_key, again).await });
    let answered = other.run();
    tell.send(Ok(put)).unwrap();
    assert_eq!(crate::value(&leader.run().unwrap()), value.as_ref());
    let answered = answered.or_else(|| other.run()).unwrap();
    assert_eq!(crate::value(&answered), value.as_ref());
    let stats = cache.stats();
    let fetches = 1 + calls.load(Ordering::Relaxed) as u64;
    assert_eq!(stats.fetches_not_stored() - before.fetches_not_stored(), fetches);
    assert_eq!(stats.entries(), before.entries());
}

#[test]
fn a_value_that_cannot_be_stored_is_returned() {
    let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).max_namespaces(1);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let (plain, place) = (|put| put, || ("n", b"key".to_vec()));
    is_answered_unstored(&cache, place(), vec![7; 300_000], plain);
    let small = BlobCachePolicy::default().max_blob_bytes(3);
    is_answered_unstored(&cache, place(), "four", |put| put.with_policy(small.clone()));
    let metadata = [("key".to_owned(), "v".repeat(5000))];
    is_answered_unstored(&cache, place(), "value", |put| {
        put.with_content_metadata(metadata.clone())
    });
    is_answered_unstored(&cache, place(), "value", |put| {
        put.with_tags((0..1000).map(|tag| tag.to_string()))
    });
    // No caller waits for a value that can never be stored.
    is_answered_unstored(&cache, ("n", vec![1; 5000]), "long key", plain);
    is_answered_unstored(&cache, ("n", vec![1; 70_000]), "longer than any key", plain);
    let long: &'static str = Box::leak("n".repeat(300).into_boxed_str());
    is_answered_unstored(&cache, (long, b"key".to_vec()), "long name", plain);
    block_on(cache.put("n", "other", "value")).unwrap();
    is_answered_unstored(&cache, ("one too many", b"key".to_vec()), "value", plain);
    block_on(cache.close()).unwrap();
    is_answered_unstored(&cache, place(), "closed", plain);
}

#[test]
fn a_version_that_is_not_above_is_returned_and_not_stored() {
    let cache = open();
    let of_version = |value: &'static str, version| {
        BlobCachePut::new(value).with_policy(BlobCachePolicy::default().version(version))
    };
    let (mut leader, tell) = leading(&cache);
    block_on(cache.put("n", "key", of_version("newer", 7))).unwrap();
    tell.send(Ok(of_version("older", 6))).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"older");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"newer");
    assert_eq!(cache.stats().fetches_not_stored(), 1);
}

#[test]
fn a_value_that_memory_does_not_admit_is_fetched_each_time() {
    let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
    let never_in_memory = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    for number in 1..4 {
        let put = BlobCachePut::new("value").with_policy(never_in_memory.clone());
        let mut caller = call(&cache, counted(&calls, Ok(put)));
        assert_eq!(value(&caller.run().unwrap()), b"value");
        assert_eq!(calls.load(Ordering::Relaxed), number);
    }
}
