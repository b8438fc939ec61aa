//! The same scenarios on every executor: multi-threaded tokio, current-thread tokio, tokio-uring
//! and a bare `block_on`. Futures are `Send`, handles can move between threads, and nothing happens
//! before the first poll.
//!
//! If the kernel refuses io_uring, its tests print that and are skipped.

use std::future::Future;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCacheNamespace, BlobCachePolicy, BlobCachePut,
    BlobCacheStats, CacheError, CachePresence, Clock, ExtendedTtlPolicy, FetchError, Latency,
    LatencyStats, NamespaceConfig, NamespaceConfigBuilder, NamespaceStats, Plain, ReadPoint,
    TypedError, TypedHit, TypedNamespace, TypedPut,
};

/// Copied in batches, since the capacity behind `Bytes` is unknown.
const LARGE_BYTES: usize = 8 << 20;

/// Enough that every invalidation of them takes several batches.
const MANY: usize = 2000;

type Outcome = Result<(), CacheError>;

async fn open() -> Result<BlobCache, CacheError> {
    BlobCache::open(BlobCacheConfig::default()).await
}

async fn every_method_works() -> Outcome {
    let cache = open().await?;
    let metadata = [("content-type".to_owned(), "text/html".to_owned())];
    let put = BlobCachePut::new("one").with_content_metadata(metadata).with_tags(["t"]);
    cache.put("pages", "a/1", put).await?;
    let pages = cache.namespace("pages").with_policy(BlobCachePolicy::default().version(1));
    pages.put("a/2", BlobCachePut::new("two").with_dependencies(["d"])).await?;
    pages.put("b", "three").await?;

    let hit = pages.get("a/1").await.expect("just put");
    assert_eq!((hit.value(), hit.version()), (b"one".as_slice(), None));
    assert_eq!(hit.content_metadata()["content-type"], "text/html");
    assert_eq!(cache.get("pages", "a/2").await.expect("just put").version(), Some(1));
    assert_eq!(cache.exists("pages", "b"), CachePresence::Present);
    let mismatch = CacheError::VersionMismatch { existing: 1, attempted: 1 };
    assert_eq!(pages.put("b", "four").await, Err(mismatch));

    let point = cache.read_point();
    assert_eq!(pages.invalidate_tags(&["t"]).await?, 1);
    assert_eq!(cache.invalidate_dependencies("pages", &["d"]).await?, 1);
    cache.put("pages", "a/1", BlobCachePut::new("old").with_tags(["t"]).read_at(point)).await?;
    assert!(cache.get("pages", "a/1").await.is_none());
    assert_eq!(pages.invalidate_key("b").await?, 1);
    assert_eq!(pages.invalidate_prefix("").await?, 0);
    assert!(pages.invalidate().await?);
    assert!(!cache.invalidate_namespace("pages").await?);
    cache.invalidate_all().await?;
    cache.sync().await?;
    cache.close().await?;
    assert_eq!(cache.sync().await, Err(CacheError::Closed));
    Ok(())
}

async fn a_large_value_is_copied_in_batches() -> Outcome {
    let cache = open().await?;
    let value: Bytes = (0..LARGE_BYTES).map(|at| at.to_le_bytes()[at % 3]).collect();
    cache.put("n", "large", value.clone()).await?;
    let hit = cache.get("n", "large").await.expect("an eighth of the budget may be larger");
    assert!(hit.value() == value);
    assert_ne!(hit.value().as_ptr(), value.as_ptr(), "the cache owns its bytes");
    let values = join_all((0..4).map(|key| cache.put("n", format!("{key}"), value.clone())));
    values.await.into_iter().collect::<Outcome>()?;
    assert_eq!(cache.stats().entries(), 5);
    assert_eq!(cache.stats().memory_buffers_bytes(), 0);
    Ok(())
}

async fn large_invalidations_take_several_polls() -> Outcome {
    let cache = open().await?;
    let fill = async || {
        for key in 0..MANY {
            let put = BlobCachePut::new("value").with_tags(["t"]).with_dependencies(["d"]);
            cache.put("n", format!("k/{key}"), put).await?;
        }
        cache.put("n", "other", "value").await
    };
    fill().await?;
    assert_eq!(cache.invalidate_prefix("n", "k/").await?, MANY);
    fill().await?;
    assert_eq!(cache.invalidate_tags("n", &["t", "t", "u"]).await?, MANY);
    fill().await?;
    assert_eq!(cache.invalidate_dependencies("n", &["d"]).await?, MANY);
    assert_eq!((cache.stats().entries(), cache.stats().memory_labels_bytes()), (1, 0));
    fill().await?;
    assert!(cache.invalidate_namespace("n").await?);
    assert_eq!(cache.stats().entries(), 0);
    fill().await?;
    cache.close().await?;
    assert_eq!(cache.stats().bytes_in_use(), 0);
    Ok(())
}

async fn concurrent_calls_wait_for_each_other() -> Outcome {
    let cache = open().await?;
    for key in 0..MANY {
        let put = BlobCachePut::new("value").with_tags([format!("t{}", key % 4)]);
        cache.put("n", format!("{}/{key}", key % 3), put).await?;
    }
    // Disjoint by tag, all at the same time; the prefixes find what the tags have left.
    let tags = join_all(["t0", "t1"].map(|tag| {
        let cache = cache.clone();
        async move { cache.invalidate_tags("n", &[tag]).await }
    }));
    let prefixes = join_all(["0/", "1/", "2/"].map(|prefix| cache.invalidate_prefix("n", prefix)));
    let (tags, prefixes) = futures::join!(tags, prefixes);
    let mut removed = 0;
    for found in tags.into_iter().chain(prefixes) {
        removed += found?;
    }
    assert_eq!(removed, MANY);
    assert_eq!(cache.stats().bytes_in_use(), 0);
    Ok(())
}

async fn the_clock_determines_the_time() -> Outcome {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let cache = BlobCache::open(BlobCacheConfig::builder().clock(clock.clone()).build()?).await?;
    let extended =
        ExtendedTtlPolicy { stale_serve: Some(Duration::from_secs(5)), ..Default::default() };
    let policy = BlobCachePolicy::default().ttl(Duration::from_secs(10)).extended(extended);
    cache.put("n", "key", BlobCachePut::new("value").with_policy(policy)).await?;
    let mut left = Vec::new();
    for _ in 0..16 {
        clock.advance(Duration::from_secs(1));
        let hit = cache.get("n", "key").await;
        left.push(hit.map(|hit| hit.stale_window_remaining().map(|left| left.as_secs())));
    }
    let stale = (1..=5).rev().map(|seconds| Some(Some(seconds)));
    let expected: Vec<_> = [Some(None); 9].into_iter().chain(stale).chain([None; 2]).collect();
    assert_eq!(left, expected);
    Ok(())
}

async fn callers_share_a_fetch() -> Outcome {
    let cache = open().await?;
    let fetches = std::sync::atomic::AtomicUsize::new(0);
    let fetch = || async {
        fetches.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok::<_, CacheError>(BlobCachePut::from(vec![7; 1000]))
    };
    let hits = join_all((0..1000).map(|_| cache.get_or_fetch("n", "key", fetch))).await;
    assert!(hits.into_iter().all(|hit| hit.expect("it is fetched").value() == [7; 1000]));
    assert_eq!(fetches.load(std::sync::atomic::Ordering::Relaxed), 1);
    let (hit, refresh) = cache.get_or_refresh("n", "other", fetch).await.expect("it is fetched");
    assert!(refresh.is_none() && hit.value().len() == 1000);
    let fail = || async { Err(CacheError::Closed) };
    let failed = cache.get_or_fetch("n", "none", fail).await.expect_err("it fails");
    assert!(matches!(failed, FetchError::Fetch(error) if *error == CacheError::Closed));
    Ok(())
}

fn on_tokio_threads<F: Future<Output = Outcome> + Send + 'static>(scenario: F) -> Option<Outcome> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("threads can be started");
    Some(runtime.block_on(async { tokio::spawn(scenario).await.expect("no panic") }))
}

fn on_current_thread_tokio<F: Future<Output = Outcome>>(scenario: F) -> Option<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    Some(runtime.expect("it starts nothing").block_on(scenario))
}

/// None if the kernel refuses.
fn on_tokio_uring<F: Future<Output = Outcome>>(scenario: F) -> Option<Outcome> {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => Some(runtime.block_on(scenario)),
        Err(error) => {
            println!("skipped: no io_uring here: {error}");
            None
        }
    }
}

fn on_block_on<F: Future<Output = Outcome>>(scenario: F) -> Option<Outcome> {
    Some(futures::executor::block_on(scenario))
}

macro_rules! on_every_runtime {
    (@ $runtime:ident: $($scenario:ident)*) => {
        mod $runtime {
            $(
                #[test]
                fn $scenario() {
                    let outcome = super::$runtime(super::$scenario());
                    assert!(outcome.is_none_or(|outcome| outcome == Ok(())));
                }
            )*
        }
    };
    ($($scenario:ident)*) => {
        on_every_runtime!(@ on_tokio_threads: $($scenario)*);
        on_every_runtime!(@ on_current_thread_tokio: $($scenario)*);
        on_every_runtime!(@ on_tokio_uring: $($scenario)*);
        on_every_runtime!(@ on_block_on: $($scenario)*);
    };
}

on_every_runtime! {
    every_method_works
    a_large_value_is_copied_in_batches
    large_invalidations_take_several_polls
    concurrent_calls_wait_for_each_other
    the_clock_determines_the_time
    callers_share_a_fetch
}

/// Tasks of several threads share one cache, and the executor moves them between threads.
#[test]
fn tasks_share_a_cache() {
    let outcome = on_tokio_threads(async {
        let cache = open().await?;
        let tasks = (0..8u32).map(|task| {
            let pages = cache.namespace("pages");
            tokio::spawn(async move {
                for turn in 0..200u32 {
                    let key = turn.to_le_bytes();
                    pages.put(key, BlobCachePut::copy_from_slice(&task.to_le_bytes())).await?;
                    tokio::task::yield_now().await;
                    assert!(pages.get(key).await.is_some());
                }
                pages.invalidate_prefix("none").await
            })
        });
        for removed in join_all(tasks).await {
            assert_eq!(removed.expect("no panic")?, 0);
        }
        assert_eq!(cache.stats().entries(), 200);
        Ok(())
    });
    assert_eq!(outcome, Some(Ok(())));
}

const fn goes_anywhere<T: Clone + Send + Sync + 'static>() {}

const _: () = {
    goes_anywhere::<BlobCache>();
    goes_anywhere::<BlobCacheNamespace>();
    goes_anywhere::<BlobCacheConfig>();
    goes_anywhere::<NamespaceConfig>();
    goes_anywhere::<NamespaceConfigBuilder>();
    // The value's type is bound to its thread; the handle is not.
    goes_anywhere::<TypedNamespace<std::rc::Rc<()>, Plain>>();
    goes_anywhere::<TypedHit<String>>();
    goes_anywhere::<TypedPut<String>>();
    goes_anywhere::<TypedError<CacheError>>();
    goes_anywhere::<BlobCacheHit>();
    goes_anywhere::<BlobCachePut>();
    goes_anywhere::<BlobCachePolicy>();
    goes_anywhere::<BlobCacheStats>();
    goes_anywhere::<NamespaceStats>();
    goes_anywhere::<LatencyStats>();
    goes_anywhere::<Latency>();
    goes_anywhere::<CacheError>();
    goes_anywhere::<Clock>();
    goes_anywhere::<ReadPoint>();
};

/// A fetch that is not `Send` is accepted; its future is not `Send` either.
#[test]
fn a_fetch_may_be_bound_to_its_thread() {
    let outcome = on_tokio_uring(async {
        let cache = open().await?;
        let page = std::rc::Rc::new(String::from("page"));
        let fetch = || {
            let page = std::rc::Rc::clone(&page);
            async move {
                tokio::task::yield_now().await;
                Ok::<_, CacheError>(BlobCachePut::copy_from_slice(page.as_bytes()))
            }
        };
        let hit = cache.get_or_fetch("n", "key", fetch).await.expect("it is fetched");
        assert_eq!(hit.value(), b"page");
        let (hit, refresh) = cache.get_or_refresh("n", "key", fetch).await.expect("it is there");
        assert!(hit.value() == b"page" && refresh.is_none());
        Ok(())
    });
    assert!(outcome.is_none_or(|outcome| outcome == Ok(())));
}

/// Compiles only for futures that are `Send`, and drops them unpolled.
fn is_send<F: Future + Send>(future: F) {
    drop(future);
}

#[test]
fn every_future_is_send_and_does_nothing_until_polled() {
    let cache = futures::executor::block_on(async {
        let cache = open().await?;
        cache.put("n", "key", BlobCachePut::new("value").with_tags(["t"])).await?;
        Ok::<_, CacheError>(cache)
    })
    .expect("nothing refuses it");
    let before = cache.stats();
    let handle = cache.namespace("n");
    let key = String::from("key");

    is_send(BlobCache::open(BlobCacheConfig::default()));
    is_send(cache.get("n", &key));
    is_send(cache.reopen_l2());
    is_send(cache.set_l1_bytes_max(1 << 20));
    is_send(cache.set_l2_bytes_max(1 << 30));
    is_send(cache.backup("copy"));
    let typed = handle.typed::<String, _>(Plain);
    let text = || async { Ok::<_, CacheError>(String::from("value")) };
    is_send(typed.get(&key));
    is_send(typed.put(&key, String::from("value")));
    is_send(typed.get_or_fetch(&key, text));
    is_send(typed.get_or_refresh(&key, text));
    is_send(typed.get_or_fetch_spawned(&key, text));
    is_send(typed.get_or_refresh_spawned(&key, text));
    is_send(cache.get("n", key.clone()));
    is_send(cache.put("n", &key, "new"));
    is_send(cache.put("n", key.clone(), Bytes::from("new")));
    let fetch = || async { Ok::<_, String>(BlobCachePut::new("new")) };
    is_send(cache.get_or_fetch("n", &key, fetch));
    is_send(cache.get_or_refresh("n", key.clone(), fetch));
    is_send(cache.get_or_fetch_spawned("n", &key, fetch));
    is_send(cache.get_or_refresh_spawned("n", key.clone(), fetch));
    let policy = BlobCachePolicy::default();
    is_send(cache.touch("n", &key, &policy));
    is_send(handle.touch(&key, &policy));
    is_send(typed.touch(&key, &policy));
    is_send(cache.invalidate_key("n", &key));
    is_send(cache.invalidate_prefix("n", &key));
    is_send(cache.invalidate_tags("n", &["t"]));
    is_send(cache.invalidate_dependencies("n", &["t"]));
    is_send(cache.invalidate_namespace("n"));
    is_send(cache.expire_key("n", &key));
    is_send(cache.expire_prefix("n", &key));
    is_send(cache.expire_tags(tamis::NamespaceScope::All, &["t"]));
    is_send(cache.expire_dependencies(&["n", "m"], &["t"]));
    is_send(cache.expire_namespace("n"));
    is_send(cache.invalidate_all());
    is_send(cache.keys("n", &key).next());
    is_send(cache.sync());
    is_send(cache.close());

    is_send(handle.get(&key));
    is_send(handle.put(&key, vec![1, 2, 3]));
    is_send(handle.put(key.clone(), String::from("new")));
    is_send(handle.get_or_fetch(&key, fetch));
    is_send(handle.get_or_refresh(key.clone(), fetch));
    is_send(handle.get_or_fetch_spawned(&key, fetch));
    is_send(handle.get_or_refresh_spawned(key.clone(), fetch));
    is_send(handle.invalidate_key(&key));
    is_send(handle.invalidate_prefix(&key));
    is_send(handle.invalidate_tags(&["t"]));
    is_send(handle.invalidate_dependencies(&["t"]));
    is_send(handle.invalidate());
    is_send(handle.expire_key(&key));
    is_send(handle.expire_prefix(&key));
    is_send(handle.expire_tags(&["t"]));
    is_send(handle.expire_dependencies(&["t"]));
    is_send(handle.expire());

    assert_eq!(cache.stats(), before);
    assert_eq!(handle.exists("key"), CachePresence::Present);
}
