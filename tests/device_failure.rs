//! A real device failure: the disk tier turns itself off, memory goes on, and closing completes.
//!
//! The device fails by a limit on file sizes. The limit holds for a whole process, so the test runs
//! in a child process of this binary, with the limit's fatal signal ignored.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod engine;

use std::env;
use std::process::Command;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rustix::process::{Resource, getrlimit, setrlimit};
use tamis::{BlobCache, BlobCacheConfig, CacheError, CacheTier, L2State};

const CHILD: &str = "TAMIS_DEAD_CHILD";

/// A call that waits for a device may take a few of the writer's intervals.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_device_failure_is_reported_and_closing_completes() {
    if let Ok(number) = env::var(CHILD) {
        return run_with_a_failed_device(number.parse().unwrap());
    }
    (0..2).for_each(run_in_a_child);
}

/// On the engine with this number.
fn run_in_a_child(number: u64) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_device_failure_is_reported_and_closing_completes", "--nocapture"])
        .env(CHILD, number.to_string())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("a call hangs after the device failure");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{status}");
}

fn run_with_a_failed_device(number: u64) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(folder.path());
    let builder = builder.l2_engine(engine::engine(number));
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    block_on(async {
        let cache = BlobCache::open(config.clone()).await.unwrap();
        cache.put("space", "key", "one").await.unwrap();
        cache.sync().await.unwrap();
        let limits = getrlimit(Resource::Fsize);
        setrlimit(Resource::Fsize, rustix::process::Rlimit { current: Some(0), ..limits }).unwrap();

        // This overwrites an entry on disk, so it must report the failure.
        let error = cache.put("space", "key", "two").await.unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
        let hit = cache.get("space", "key").await.unwrap();
        assert_eq!(
            (hit.value(), hit.tier()),
            (&b"two"[..], CacheTier::L1),
            "in force in this process"
        );
        let error = cache.invalidate_key("space", "key").await.unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert!(cache.get("space", "key").await.is_none());
        assert!(cache.sync().await.is_err());
        assert!(matches!(cache.close().await, Err(CacheError::L2Io { .. })));

        // The device works again, but the store could not be marked invalid.
        setrlimit(Resource::Fsize, limits).unwrap();
        let cache = BlobCache::open(config.clone()).await.unwrap();
        let hit = cache.get("space", "key").await;
        assert!(
            hit.is_none_or(|hit| hit.value() == b"one"),
            "a stale entry, although errors had been reported"
        );
        cache.put("space", "key", "three").await.unwrap();
        cache.sync().await.unwrap();

        // It fails once more, and the cache stays open until it works again.
        setrlimit(Resource::Fsize, rustix::process::Rlimit { current: Some(0), ..limits }).unwrap();
        assert!(cache.put("space", "key", "four").await.is_err());
        setrlimit(Resource::Fsize, limits).unwrap();
        let end = Instant::now() + PATIENCE;
        while cache.stats().l2_state() != L2State::Healthy && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!((cache.stats().l2_state(), cache.stats().l2_restarts()), (L2State::Healthy, 1));
        cache.put("space", "other", "five").await.unwrap();
        cache.sync().await.unwrap();
        cache.close().await.unwrap();
        let cache = BlobCache::open(config).await.unwrap();
        assert!(cache.get("space", "key").await.is_none(), "it began anew, empty");
        assert_eq!(cache.get("space", "other").await.unwrap().value(), b"five");
        cache.close().await.unwrap();
    });
}
