//! The verbs for many keys: `get_many`, `put_many`, `invalidate_keys`, over both tiers, restarts.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "numbers of a test are small, and a panic fails the test"
)]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CacheTier, CrashSafety,
    L1Admission,
};

fn config(path: &Path) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(path)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(64 << 20)
        .l2_read_bytes_max(1 << 20)
        .crash_safety(CrashSafety::Process)
        .build()
        .unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(100 + number as usize % 300)
}

/// Every third one is on disk only.
fn put(number: u64) -> BlobCachePut {
    let admission = [L1Admission::Never, L1Admission::Auto, L1Admission::Auto];
    let policy = BlobCachePolicy::default().l1_admission(admission[number as usize % 3]);
    BlobCachePut::new(value(number)).with_policy(policy)
}

fn keys(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

fn poll_once<T>(future: impl Future<Output = T>) -> Poll<T> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn many_are_answered_in_order_from_both_tiers_and_after_a_restart() {
    let folder = folder();
    let cache = BlobCache::open(config(folder.path())).await.unwrap();
    let all = keys(0..5000);
    let stored = cache.put_many("n", all.iter().zip((0..).map(put))).await;
    assert_eq!(stored, vec![Ok(()); 5000]);
    for is_reopened in [false, true] {
        let cache = if is_reopened {
            cache.close().await.unwrap();
            BlobCache::open(config(folder.path())).await.unwrap()
        } else {
            cache.clone()
        };
        let handle = cache.namespace("n");
        // Absent ones and repeated ones among them, none in order.
        let asked: Vec<u64> = (0..20_000).map(|place| place * 7919 % 6000).collect();
        let hits = handle.get_many(&keys(asked.iter().copied())).await;
        assert_eq!(hits.len(), asked.len());
        let mut on_disk = 0;
        for (number, hit) in asked.iter().zip(hits) {
            let found = hit.as_ref().map(|hit| hit.value().to_vec());
            assert_eq!(found, (*number < 5000).then(|| value(*number)), "{number}");
            on_disk += u32::from(hit.is_some_and(|hit| hit.tier() == CacheTier::L2));
        }
        assert!(on_disk > 5000, "{on_disk}");
        let stats = cache.stats();
        assert_eq!(stats.memory_reads_bytes(), 0);
        if is_reopened {
            let removed = handle.invalidate_keys(&keys((0..6000).rev().chain(0..6000))).await;
            assert_eq!(removed, Ok(5000), "each counted once");
            assert!(cache.get_many("n", &all).await.iter().all(Option::is_none));
            cache.close().await.unwrap();
        }
    }
    let cache = BlobCache::open(config(folder.path())).await.unwrap();
    assert!(cache.get_many("n", &all).await.iter().all(Option::is_none), "not after a restart");
    cache.close().await.unwrap();
}

#[test]
fn of_a_key_that_is_given_twice_the_last_value_wins() {
    let folder = folder();
    block_on(async {
        let mut cache = BlobCache::open(config(folder.path())).await.unwrap();
        let items = (0..1000).map(|number| (format!("{}", number % 7), put(number)));
        assert!(cache.put_many("n", items).await.iter().all(Result::is_ok));
        for reopened in [false, true] {
            if reopened {
                cache.close().await.unwrap();
                cache = BlobCache::open(config(folder.path())).await.unwrap();
            }
            let hits = cache.get_many("n", &keys(0..8)).await;
            for (number, hit) in (0..7).zip(&hits) {
                let last = (0..1000).rfind(|last| last % 7 == number).unwrap();
                assert_eq!(hit.as_ref().unwrap().value(), value(last), "{reopened}");
            }
            assert!(hits[7].is_none());
        }
        assert_eq!(cache.invalidate_keys("n", &["1", "1", "2", "nowhere"]).await, Ok(2));
        assert_eq!(cache.invalidate_keys("n", &["1", "1", "2", "nowhere"]).await, Ok(0));
        cache.close().await.unwrap();
    });
}

#[test]
fn an_item_that_is_refused_says_so_in_its_place() {
    let config = BlobCacheConfig::builder().key_bytes_max(10).build().unwrap();
    block_on(async {
        let cache = BlobCache::open(config).await.unwrap();
        let long = "k".repeat(11);
        let versioned = |version| {
            let policy = BlobCachePolicy::default().version(version);
            BlobCachePut::new("v").with_policy(policy)
        };
        let items = [
            ("a", versioned(3)),
            (long.as_str(), versioned(1)),
            ("a", versioned(2)),
            ("a", versioned(4)),
        ];
        let too_large = CacheError::KeyTooLarge { size: 11, max: 10 };
        let mismatch = CacheError::VersionMismatch { existing: 3, attempted: 2 };
        let stored = cache.put_many("n", items).await;
        assert_eq!(stored, [Ok(()), Err(too_large.clone()), Err(mismatch), Ok(())]);
        assert_eq!(cache.get("n", "a").await.unwrap().version(), Some(4));
        let hits = cache.get_many("n", &[long.as_str(), "a"]).await;
        assert!(hits[0].is_none() && hits[1].is_some());

        let removed = cache.invalidate_keys("n", &["a", &long, "b"]).await;
        let refused = CacheError::AtIndex { index: 1, source: Box::new(too_large) };
        assert_eq!(removed, Err(refused.clone()));
        let shown = "the key at index 1: key of 11 bytes is over the limit of 10 bytes, \
                     key_bytes_max";
        assert_eq!(refused.to_string(), shown);
        assert!(std::error::Error::source(&refused).is_some());
        assert!(cache.get("n", "a").await.is_some(), "nothing has changed");
        // Behind the first batch, too.
        let mut many = vec!["a"; 300];
        many[299] = &long;
        let removed = cache.invalidate_keys("n", &many).await;
        assert!(matches!(removed, Err(CacheError::AtIndex { index: 299, .. })), "{removed:?}");
        assert!(cache.get("n", "a").await.is_some(), "nothing has changed");
    });
}

#[test]
fn none_are_fine_and_a_closed_cache_says_so() {
    block_on(async {
        let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
        let none: [&str; 0] = [];
        assert!(cache.get_many("n", &none).await.is_empty());
        assert!(cache.put_many("n", none.map(|key| (key, "v"))).await.is_empty());
        assert_eq!(cache.invalidate_keys("n", &none).await, Ok(0));
        cache.put("n", "a", "v").await.unwrap();
        cache.close().await.unwrap();
        assert!(cache.get_many("n", &["a"]).await[0].is_none());
        let stored = cache.put_many("n", [("a", "v"), ("b", "v")]).await;
        assert_eq!(stored, [Err(CacheError::Closed), Err(CacheError::Closed)]);
        assert_eq!(cache.invalidate_keys("n", &["a"]).await, Err(CacheError::Closed));
        assert_eq!(cache.invalidate_keys("n", &none).await, Err(CacheError::Closed));
    });
}

#[test]
fn invalidations_of_256_keys_are_in_force_after_the_first_poll() {
    let folder = folder();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        let all = keys(0..600);
        assert!(
            cache.put_many("n", all.iter().zip((0..).map(put))).await.iter().all(Result::is_ok)
        );
        cache.sync().await.unwrap();
        let few: Vec<&String> = all[..256].iter().collect();
        assert!(poll_once(cache.invalidate_keys("n", &few)).is_pending());
        let left = cache.get_many("n", &all).await;
        assert!(left[..256].iter().all(Option::is_none), "not in force");
        assert!(left[256..].iter().all(Option::is_some));
        cache.close().await.unwrap();
    });
}

#[test]
fn of_long_keys_as_many_are_invalidated_in_a_poll_as_it_may_hash() {
    let folder = folder();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        let long: Vec<String> = (0..100).map(|number| format!("{number:04000}")).collect();
        assert!(
            cache.put_many("n", long.iter().map(|key| (key, "v"))).await.iter().all(Result::is_ok)
        );
        assert!(poll_once(cache.invalidate_keys("n", &long)).is_pending());
        let left = cache.get_many("n", &long).await;
        assert!(left[..65].iter().all(Option::is_none), "260,000 bytes");
        assert!(left[65..].iter().all(Option::is_some));
        assert_eq!(cache.invalidate_keys("n", &long).await, Ok(35));
        cache.close().await.unwrap();
    });
}

#[test]
fn dropped_at_every_await_nothing_is_left_behind() {
    let folder = folder();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        let all = keys(0..200);
        for polls in 0..40 {
            let puts = cache.put_many("n", all.iter().zip((polls..).map(put)));
            let mut puts = pin!(puts);
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if puts.as_mut().poll(&mut context).is_ready() {
                    break;
                }
            }
            let mut gets = pin!(cache.get_many("n", &all));
            for _ in 0..polls {
                if gets.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                std::thread::yield_now();
            }
        }
        let stored = cache.put_many("n", all.iter().zip((0..).map(put))).await;
        assert!(stored.iter().all(Result::is_ok));
        let hits = cache.get_many("n", &all).await;
        for (number, hit) in (0..).zip(hits) {
            assert_eq!(hit.unwrap().value(), value(number));
        }
        // What the device still reads for dropped calls ends by itself.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while cache.stats().memory_reads_bytes() > 0 && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(cache.stats().memory_reads_bytes(), 0);
        cache.close().await.unwrap();
    });
}

#[test]
fn their_futures_are_send() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    block_on(async {
        let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
        let handle = cache.namespace("n");
        drop(send(cache.get_many("n", &["a"])));
        drop(send(handle.get_many(&["a"])));
        drop(send(cache.put_many("n", [("a", "v")])));
        drop(send(handle.put_many(vec![("a".to_owned(), vec![1])])));
        drop(send(cache.invalidate_keys("n", &["a"])));
        drop(send(handle.invalidate_keys(&["a"])));
        let policy = BlobCachePolicy::default().ttl(std::time::Duration::from_secs(60));
        let handle = handle.with_policy(policy);
        handle.put_many([("a", "v")]).await.remove(0).unwrap();
        assert!(handle.get("a").await.unwrap().expires_at().is_some(), "the handle's policy");
    });
}
