//! Bounds that hold however many calls are in progress.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{join_all, select};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CachePresence, L1Admission,
};

const MIB: usize = 1 << 20;

fn open(l1_bytes_max: usize) -> BlobCache {
    let config = BlobCacheConfig::builder().l1_bytes_max(l1_bytes_max).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

/// A cache with room for eight entries of any kind.
fn open_for_eight() -> BlobCache {
    let builder = BlobCacheConfig::builder().l1_bytes_max(64 << 10).shard_count(1);
    let config = builder.l1_charge(|_, _| 8 << 10).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

fn of_priority(priority: u8) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always).priority(priority);
    BlobCachePut::new("value").with_policy(policy)
}

#[test]
fn copies_of_concurrent_puts_stay_within_their_share() {
    let cache = open(64 * MIB);
    let value = Bytes::from(vec![7; 7 * MIB]);
    let puts = (0..100u32).map(|number| cache.put("n", number.to_le_bytes(), value.clone()));
    let mut most = 0;
    // Checks after each round of polls.
    let watch = poll_fn(|context| {
        most = most.max(cache.stats().memory_buffers_bytes());
        context.waker().wake_by_ref();
        Poll::<()>::Pending
    });
    let puts = pin!(async { join_all(puts).await.into_iter().for_each(Result::unwrap) });
    block_on(select(puts, pin!(watch)));
    assert!((7 * MIB..=8 * MIB).contains(&most), "{most} bytes at one time");
    assert_eq!(cache.stats().insertions(), 100);
    assert_eq!(cache.stats().memory_buffers_bytes(), 0);
}

#[test]
fn a_put_dropped_while_it_waits_to_copy_delays_no_other() {
    let cache = open(64 * MIB);
    let value = Bytes::from(vec![7; 7 * MIB]);
    let mut context = Context::from_waker(Waker::noop());
    let mut first = Box::pin(cache.put("n", "first", value.clone()));
    let mut second = Box::pin(cache.put("n", "second", value.clone()));
    assert!(first.as_mut().poll(&mut context).is_pending());
    assert!(second.as_mut().poll(&mut context).is_pending());
    drop(second);
    drop(first);
    block_on(cache.put("n", "third", value)).unwrap();
    assert_eq!(cache.stats().memory_buffers_bytes(), 0);
}

#[test]
fn concurrent_invalidations_remove_exactly_what_they_cover() {
    let cache = open(64 * MIB);
    block_on(async {
        for number in 0..2000 {
            let put = BlobCachePut::new("value").with_tags([format!("t{}", number % 400)]);
            cache.put("n", format!("{}/{number}", number % 400), put).await.unwrap();
        }
        let prefixes: Vec<_> = (0..350).map(|number| format!("{number}/")).collect();
        let removed = join_all(prefixes.iter().map(|prefix| cache.invalidate_prefix("n", prefix)));
        assert!(removed.await.into_iter().all(|removed| removed == Ok(5)));
        assert_eq!(cache.stats().entries(), 250, "nothing else was removed");
        assert_eq!(cache.stats().namespace_flushes(), 0);
    });
}

#[test]
fn a_put_refused_by_its_read_point_leaves_no_trace() {
    let cache = open_for_eight();
    block_on(async {
        for number in 0..8u8 {
            cache.put("n", [number], of_priority(128)).await.unwrap();
        }
        let point = cache.read_point();
        cache.invalidate_key("m", "new").await.unwrap();
        cache.put("m", "new", of_priority(128).read_at(point)).await.unwrap();
        let stats = cache.stats();
        assert_eq!(stats.stale_sets_refused(), 1);
        assert_eq!((stats.evictions(), stats.entries(), stats.namespaces()), (0, 8, 1));
    });
}

#[test]
fn a_low_priority_evicts_no_higher_one() {
    let cache = open_for_eight();
    let is_there = |key: &str| cache.exists("n", key) == CachePresence::Present;
    block_on(async {
        for number in 0..8 {
            cache.put("n", number.to_string(), of_priority(200)).await.unwrap();
        }
        cache.put("n", "low", of_priority(1)).await.unwrap();
        assert!(!is_there("low") && (0..8).all(|number| is_there(&number.to_string())));
        cache.invalidate_key("n", "3").await.unwrap();
        cache.put("n", "low", of_priority(1)).await.unwrap();
        assert!(is_there("low"), "there is room now");
        cache.put("n", "other", of_priority(1)).await.unwrap();
        assert!(is_there("other") && !is_there("low"), "entries of its own priority are evicted");
        // It may replace the entry of its own key.
        cache.put("n", "4", of_priority(0)).await.unwrap();
        assert!(is_there("4") && is_there("other"));
        cache.put("n", "high", of_priority(255)).await.unwrap();
        assert!(is_there("high") && !is_there("4") && is_there("other"), "the lowest goes first");
    });
}

#[test]
fn slots_of_empty_namespaces_are_found_among_many() {
    let builder = BlobCacheConfig::builder().max_namespaces(500);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    block_on(async {
        for number in 0..500 {
            cache.put(&number.to_string(), "key", "value").await.unwrap();
        }
        for _ in 0..3 {
            assert!(cache.put("one more", "key", "value").await.is_err());
        }
        cache.invalidate_key("77", "key").await.unwrap();
        cache.put("one more", "key", "value").await.unwrap();
        assert!(cache.put("77", "key", "value").await.is_err());
        // Begun, but never filled.
        cache.invalidate_namespace("78").await.unwrap();
        let value = Bytes::from(vec![7; MIB]);
        let mut put = Box::pin(cache.put("79a", "key", value));
        assert!(put.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(cache.put("80a", "key", "value").await.is_ok(), "it is empty still");
        put.await.unwrap_err();
    });
}

#[test]
fn a_dropped_invalidation_hides_its_entries_from_every_reader() {
    let cache = open(64 * MIB);
    let key = |number: usize| format!("k{number}");
    for _ in 0..10 {
        block_on(async {
            for number in 0..600 {
                let put = BlobCachePut::new("value").with_tags(["t"]);
                cache.put("n", key(number), put).await.unwrap();
            }
        });
        let mut dropped = Box::pin(cache.invalidate_tags("n", &["t"]));
        assert!(dropped.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(dropped);
        let (is_over, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for start in 0..2 {
                let (cache, is_over, seen) = (&cache, &is_over, &seen);
                scope.spawn(move || {
                    let numbers = (0..).map(|step| (start + 7 * step) % 600);
                    for number in numbers.take_while(|_| !is_over.load(Ordering::Relaxed)) {
                        let hit = block_on(cache.get("n", key(number)));
                        seen.fetch_add(usize::from(hit.is_some()), Ordering::Relaxed);
                    }
                });
            }
            for number in 0..60 {
                block_on(cache.put("other", key(number), "value")).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(seen.into_inner(), 0, "stale gets");
    }
}
