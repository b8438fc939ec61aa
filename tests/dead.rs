//! A device that takes no more writes, for real: the disk tier turns itself off, memory goes on,
//! and closing ends.
//!
//! The device dies by a limit on the size of files, which holds for a whole process: the test runs
//! in a child of this very binary. The signal that goes with the limit, which kills, never comes.

#![allow(clippy::unwrap_used, reason = "whatever fails, fails the test")]

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rustix::process::{Resource, getrlimit, setrlimit};
use tamis::{BlobCache, BlobCacheConfig, CacheError, CacheTier, L2State};

const CHILD: &str = "TAMIS_DEAD_CHILD";

/// What waits for a device may take a few of the writer's intervals.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_dead_device_is_told_and_closing_ends() {
    if env::var_os(CHILD).is_some() {
        return live_with_it();
    }
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_dead_device_is_told_and_closing_ends", "--nocapture"])
        .env(CHILD, "1")
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("something hangs on the dead device");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

fn live_with_it() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(folder.path());
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    block_on(async {
        let cache = BlobCache::open(config.clone()).await.unwrap();
        cache.put("space", "key", "one").await.unwrap();
        cache.sync().await.unwrap();
        let limits = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, rustix::process::Rlimit { current: Some(0), ..limits }).unwrap();

        // Over something that is on disk: it must not be called done.
        let error = cache.put("space", "key", "two").await.unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
        let hit = cache.get("space", "key").await.unwrap();
        assert_eq!((hit.value(), hit.tier()), (&b"two"[..], CacheTier::L1), "in force here");
        let error = cache.invalidate_key("space", "key").await.unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert!(cache.get("space", "key").await.is_none());
        assert!(cache.sync().await.is_err());
        assert!(matches!(cache.close().await, Err(CacheError::L2Io { .. })));

        // The device is well again; nobody could tell the store that it is void.
        setrlimit(Resource::Fsize, limits).unwrap();
        let cache = BlobCache::open(config).await.unwrap();
        let hit = cache.get("space", "key").await;
        assert!(hit.is_none_or(|hit| hit.value() == b"one"), "errors had been told");
        cache.put("space", "key", "three").await.unwrap();
        cache.close().await.unwrap();
    });
}
