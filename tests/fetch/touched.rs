//! Refreshes ahead of entries that were touched: the last share is that of the renewed time.

use std::time::Duration;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, Clock, FetchPolicy, L1Admission,
};

use crate::spawned::{Tasks, builder, opened};
use crate::{Answer, briefly, clock, value};

const PUT_AT: u64 = 1_000_000;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Whether a call at that second begins a refresh, which is dropped then.
fn is_refreshed(cache: &BlobCache, (tasks, clock): (&Tasks, &Clock), second: u64) -> bool {
    clock.set(std::time::SystemTime::UNIX_EPOCH + seconds(PUT_AT + second));
    let fetch = || async { Answer::Err("down") };
    let found = block_on(cache.get_or_fetch_spawned("n", "key", fetch));
    assert_eq!(value(&found), b"old", "second {second}");
    assert!(!found.unwrap().is_stale(), "second {second}");
    let is_refreshed = tasks.len() > 0;
    tasks.shut_down();
    is_refreshed
}

fn with_ttl(ttl: u64) -> BlobCachePolicy {
    BlobCachePolicy::default().ttl(seconds(ttl))
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn the_last_share_is_that_of_the_time_since_the_last_touch() {
    // When it was touched, with which ttl, and when the last half of that begins.
    let touches: [(&[(u64, u64)], u64); 5] = [
        (&[], 5),
        (&[(6, 10)], 11),
        (&[(2, 100)], 52),
        (&[(8, 4)], 10),
        (&[(3, 100), (9, 20)], 19),
    ];
    for put in [with_ttl(10), briefly()] {
        for admission in [L1Admission::Always, L1Admission::Never] {
            for is_reopened in [false, true] {
                for (touches, half) in touches {
                    let told = format!("{touches:?}, {admission:?}, {is_reopened}, {put:?}");
                    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
                    let (tasks, clock) = (Tasks::default(), clock());
                    let policy = FetchPolicy::default().refresh_ahead(0.5);
                    let open = || {
                        let builder = builder(&tasks, &clock).fetch_policy(policy);
                        opened(builder.l2_path(folder.path()).l2_bytes_max(8 << 20))
                    };
                    let mut cache = open();
                    let old = BlobCachePut::new("old");
                    let old = old.with_policy(put.clone().l1_admission(admission));
                    block_on(cache.put("n", "key", old)).unwrap();
                    for &(second, ttl) in touches {
                        clock.set(std::time::SystemTime::UNIX_EPOCH + seconds(PUT_AT + second));
                        assert_eq!(block_on(cache.touch("n", "key", &with_ttl(ttl))), Ok(true));
                    }
                    if is_reopened {
                        block_on(cache.close()).unwrap();
                        cache = open();
                    }
                    let world = (&tasks, &clock);
                    assert!(!is_refreshed(&cache, world, half - 1), "too early: {told}");
                    assert!(is_refreshed(&cache, world, half), "too late: {told}");
                    block_on(cache.close()).unwrap();
                }
            }
        }
    }
}

#[test]
fn without_a_deadline_a_touched_entry_is_not_refreshed_ahead() {
    let (tasks, clock) = (Tasks::default(), clock());
    let policy = FetchPolicy::default().refresh_ahead(0.5);
    let cache = opened(builder(&tasks, &clock).fetch_policy(policy));
    let old = BlobCachePut::new("old").with_policy(with_ttl(10));
    block_on(cache.put("n", "key", old)).unwrap();
    assert_eq!(block_on(cache.touch("n", "key", &BlobCachePolicy::default())), Ok(true));
    assert!(!is_refreshed(&cache, (&tasks, &clock), 1_000_000));
}

#[test]
fn a_touch_takes_no_memory_where_nothing_is_refreshed_ahead() {
    for has_spawner in [false, true] {
        let (tasks, clock) = (Tasks::default(), clock());
        let with = builder(&tasks, &clock);
        let without = BlobCacheConfig::builder().clock(clock.clone());
        let cache = opened(if has_spawner { with } else { without });
        let old = BlobCachePut::new("old").with_policy(with_ttl(10));
        block_on(cache.put("n", "key", old)).unwrap();
        let before = cache.stats().bytes_in_use();
        for _ in 0..3 {
            clock.advance(seconds(1));
            assert_eq!(block_on(cache.touch("n", "key", &with_ttl(10))), Ok(true));
        }
        let more = cache.stats().bytes_in_use() - before;
        assert_eq!(more, if has_spawner { 112 } else { 0 });
    }
}
