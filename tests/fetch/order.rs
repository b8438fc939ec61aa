//! Mutations during a fetch: nothing newer is overwritten, and no caller that came after a mutation
//! is given a value fetched before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use futures::future::join_all;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};

use crate::{Answer, Call, call, counted, joined, leading, open, told, value};

/// An invalidation that covers the key, by name.
type Invalidation = (&'static str, fn(&BlobCache));

const INVALIDATIONS: [Invalidation; 7] = [
    ("key", |cache| _ = block_on(cache.invalidate_key("n", "key")).unwrap()),
    ("prefix", |cache| _ = block_on(cache.invalidate_prefix("n", "ke")).unwrap()),
    ("every prefix", |cache| _ = block_on(cache.invalidate_prefix("n", "")).unwrap()),
    ("tag", |cache| _ = block_on(cache.invalidate_tags("n", &["tag"])).unwrap()),
    ("dependency", |cache| _ = block_on(cache.invalidate_dependencies("n", &["dep"])).unwrap()),
    ("namespace", |cache| _ = block_on(cache.invalidate_namespace("n")).unwrap()),
    ("everything", |cache| block_on(cache.invalidate_all()).unwrap()),
];

/// Only the fetched value carries these labels, so they are unknown before.
fn fetched() -> BlobCachePut {
    BlobCachePut::new("fetched").with_tags(["tag"]).with_dependencies(["dep"])
}

#[test]
fn a_concurrent_invalidation_is_not_undone() {
    for (name, invalidate) in INVALIDATIONS {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        block_on(cache.put("n", "other", BlobCachePut::new("other"))).unwrap();
        let (mut leader, tell) = leading(&cache);
        let mut before = joined(&cache);
        invalidate(&cache);
        let mut after = call(&cache, counted(&calls, Ok(BlobCachePut::new("newer"))));
        assert!(after.run().is_none(), "{name}: it cannot know the labels yet");
        tell.send(Ok(fetched())).unwrap();
        assert_eq!(value(&leader.run().unwrap()), b"fetched", "{name}: its call began before");
        assert!(block_on(cache.get("n", "key")).is_none(), "{name}: not stored");
        assert_eq!(cache.stats().stale_sets_refused(), 1, "{name}");
        assert_eq!(value(&after.run().unwrap()), b"newer", "{name}: fetched again");
        assert_eq!(value(&before.run().unwrap()), b"fetched", "{name}: nothing came before it");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{name}");
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"newer", "{name}");
    }
}

/// An error often says that there is nothing.
#[test]
fn an_error_is_not_shared_with_callers_after_an_invalidation() {
    for (name, invalidate) in INVALIDATIONS {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        block_on(cache.put("n", "other", BlobCachePut::new("other"))).unwrap();
        let (mut leader, tell) = leading(&cache);
        let mut before = joined(&cache);
        invalidate(&cache);
        let mut after = call(&cache, counted(&calls, Ok(BlobCachePut::new("newer"))));
        assert!(after.run().is_none());
        tell.send(Err("not found")).unwrap();
        assert!(leader.run().unwrap().is_err() && before.run().unwrap().is_err(), "{name}");
        assert_eq!(value(&after.run().unwrap()), b"newer", "{name}");
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{name}");
    }
}

/// Two fetches, however many there are.
#[test]
fn callers_after_mutations_share_the_next_error() {
    let (cache, calls) = (open(), AtomicUsize::new(0));
    let callers = (0..100).map(|number| {
        let (cache, calls) = (&cache, &calls);
        async move {
            cache.put("n", format!("other {number}"), "other").await.unwrap();
            let fetch = || async {
                calls.fetch_add(1, Ordering::Relaxed);
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
                Answer::Err("down")
            };
            cache.get_or_fetch("n", "key", fetch).await.unwrap_err()
        }
    });
    assert_eq!(block_on(join_all(callers)).len(), 100);
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn an_invalidation_of_another_entry_has_no_effect() {
    let others: [Invalidation; 5] = [
        ("key", |cache| _ = block_on(cache.invalidate_key("n", "other")).unwrap()),
        ("prefix", |cache| _ = block_on(cache.invalidate_prefix("n", "kez")).unwrap()),
        ("tag", |cache| _ = block_on(cache.invalidate_tags("n", &["other"])).unwrap()),
        ("dependency", |cache| _ = block_on(cache.invalidate_dependencies("n", &["x"])).unwrap()),
        ("namespace", |cache| _ = block_on(cache.invalidate_namespace("other")).unwrap()),
    ];
    for (name, invalidate) in others {
        let cache = open();
        block_on(cache.put("other", "key", "value")).unwrap();
        let (mut leader, tell) = leading(&cache);
        let mut before = joined(&cache);
        invalidate(&cache);
        let mut after = joined(&cache);
        tell.send(Ok(fetched())).unwrap();
        assert_eq!(value(&leader.run().unwrap()), b"fetched");
        assert_eq!(value(&before.run().unwrap()), b"fetched", "{name}");
        assert_eq!(value(&after.run().unwrap()), b"fetched", "{name}");
        assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"fetched", "{name}");
    }
}

#[test]
fn a_concurrent_put_is_not_overwritten() {
    let cache = open();
    let (mut leader, tell) = leading(&cache);
    let mut before = joined(&cache);
    block_on(cache.put("n", "key", "put")).unwrap();
    // A new caller finds it, and does not wait.
    assert_eq!(value(&call(&cache, crate::never).run().unwrap()), b"put");
    tell.send(Ok(fetched())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"fetched");
    assert_eq!(value(&before.run().unwrap()), b"fetched");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"put");
}

#[test]
fn an_invalidated_put_still_voids_an_earlier_fetch() {
    let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
    let (mut leader, tell) = leading(&cache);
    block_on(cache.put("n", "key", "put")).unwrap();
    block_on(cache.invalidate_key("n", "key")).unwrap();
    let mut after = call(&cache, counted(&calls, Ok(BlobCachePut::new("newer"))));
    assert!(after.run().is_none());
    tell.send(Ok(fetched())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"fetched");
    assert_eq!(value(&after.run().unwrap()), b"newer");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"newer");
}

#[test]
fn a_put_before_the_fetch_begins_is_returned_instead() {
    let cache = open();
    let (leader, _tell) = leading(&cache);
    let mut joiner = joined(&cache);
    block_on(cache.put("n", "key", "put")).unwrap();
    drop(leader);
    // The new leader looks before it fetches.
    assert_eq!(value(&joiner.run().unwrap()), b"put");
    assert_eq!(cache.stats().fetches(), 1);
}

#[test]
fn the_older_of_two_read_points_counts() {
    let cache = open();
    let old = cache.read_point();
    block_on(cache.invalidate_tags("n", &["tag"])).unwrap();
    let fetch = || async { Answer::Ok(fetched().read_at(old)) };
    assert_eq!(value(&block_on(cache.get_or_fetch("n", "key", fetch))), b"fetched");
    assert!(block_on(cache.get("n", "key")).is_none(), "read before the invalidation");
    // A joiner that came after the invalidation does not get it either.
    let (mut leader, tell) = leading(&cache);
    let mut joiner = call(&cache, || async { Answer::Ok("newer".into()) });
    assert!(joiner.run().is_none());
    tell.send(Ok(fetched().read_at(old))).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"fetched");
    assert_eq!(value(&joiner.run().unwrap()), b"newer");

    let (mut leader, tell) = leading(&cache_without(&cache));
    tell.send(Ok(fetched().read_at(open().read_point()))).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"fetched");
    assert!(block_on(cache.get("n", "key")).is_none(), "a point of another cache");

    let (mut leader, tell) = leading(&cache);
    block_on(cache.invalidate_key("n", "key")).unwrap();
    tell.send(Ok(fetched().read_at(cache.read_point()))).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"fetched");
    assert!(
        block_on(cache.get("n", "key")).is_none(),
        "the start of the fetch counts, not the later point"
    );
}

/// The same cache, with nothing under the key.
fn cache_without(cache: &BlobCache) -> BlobCache {
    block_on(cache.invalidate_key("n", "key")).unwrap();
    cache.clone()
}

#[test]
fn an_invalidation_before_every_fetch_delays_no_caller() {
    let cache = open();
    for _ in 0..50 {
        let (mut leader, tell) = leading(&cache);
        block_on(cache.invalidate_key("n", "key")).unwrap();
        let (again, fetch) = crate::told();
        let mut first = call(&cache, fetch);
        let mut second = joined(&cache);
        assert!(first.run().is_none());
        tell.send(Ok("first".into())).unwrap();
        assert_eq!(value(&leader.run().unwrap()), b"first");
        // It looks again and leads; then another invalidation comes.
        assert!(first.run().is_none());
        assert!(second.run().is_none());
        block_on(cache.invalidate_key("n", "key")).unwrap();
        again.send(Ok("second".into())).unwrap();
        assert_eq!(value(&first.run().unwrap()), b"second");
        // It has waited since before that fetch began.
        assert_eq!(value(&second.run().unwrap()), b"second");
        assert!(block_on(cache.get("n", "key")).is_none());
    }
}

#[test]
fn a_value_with_a_foreign_read_point_is_not_shared() {
    let (earlier, cache) = (open(), open());
    let (mut leader, tell) = leading(&cache);
    let calls = Arc::default();
    let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
    assert!(joiner.poll().is_none());
    tell.send(Ok(BlobCachePut::from("ancient").read_at(earlier.read_point()))).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"ancient");
    assert_eq!(value(&joiner.run().unwrap()), b"new");
}

/// Concurrent fetches of different keys seldom prevent each other's stores; nor do puts.
#[test]
fn concurrent_cold_keys_do_not_refuse_each_other() {
    for (l1_bytes_max, keys, puts) in [(1 << 20, 1000, 0), (256 << 20, 500, 200_000)] {
        let config = BlobCacheConfig::builder().l1_bytes_max(l1_bytes_max).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let fetches: Vec<_> = (0..keys)
            .map(|key: u32| {
                let (cache, (tell, fetch)) = (cache.clone(), told());
                let fetch = async move { cache.get_or_fetch("n", key.to_le_bytes(), fetch).await };
                let mut call = Call::new(fetch);
                assert!(call.poll().is_none());
                (call, tell)
            })
            .collect();
        for number in 0..puts {
            block_on(cache.put("other", u32::to_le_bytes(number), "value")).unwrap();
        }
        for (mut call, tell) in fetches {
            tell.send(Ok("value".into())).unwrap();
            assert!(call.run().unwrap().is_ok());
        }
        assert_eq!(cache.stats().stale_sets_refused(), 0, "of {keys}, with {puts} puts");
    }
}

/// Read points compare keys by hash only.
#[test]
fn read_points_seldom_collide() {
    let cases =
        [(1 << 20, 1000, 0, 90), (256 << 20, 10_000, 0, 130), (256 << 20, 500, 50_000, 110)];
    for (l1_bytes_max, keys, puts, at_most) in cases {
        let config = BlobCacheConfig::builder().l1_bytes_max(l1_bytes_max).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let point = cache.read_point();
        for number in 0..puts {
            block_on(cache.put("other", u32::to_le_bytes(number), "value")).unwrap();
        }
        for key in 0..keys {
            let put = BlobCachePut::new("value").read_at(point);
            block_on(cache.put("n", u32::to_le_bytes(key), put)).unwrap();
        }
        let refused = cache.stats().stale_sets_refused();
        println!("{refused} of {keys} refused, with {puts} puts");
        assert!(refused < at_most, "{refused} of {keys} refused, with {puts} puts");
    }
}

#[test]
fn invalidations_of_other_prefixes_do_not_void_a_fetch() {
    let cache = open();
    let (mut leader, tell) = leading(&cache);
    for number in 0..1000 {
        block_on(cache.invalidate_prefix("n", format!("other/{number}/"))).unwrap();
    }
    tell.send(Ok("value".into())).unwrap();
    assert!(leader.run().unwrap().is_ok());
    assert!(block_on(cache.get("n", "key")).is_some());
}
