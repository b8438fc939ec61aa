//! A disk tier that was turned off begins anew once the device works again.

use super::*;
use crate::io::{Fault, OperationKind};
use crate::stats::L2State;

fn config(crash_safety: CrashSafety) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path("simulated")
        .l2_bytes_max(1 << 20)
        .l2_segment_bytes(128 << 10)
        .crash_safety(crash_safety)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

fn on_disk(value: &str) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::copy_from_slice(value.as_bytes()).with_policy(policy).with_tags(["t"])
}

impl Bench {
    fn put_on_disk(&mut self, key: &str, value: &str) -> Result<(), crate::CacheError> {
        let cache = self.cache.clone();
        self.simulation.block_on(cache.put("a", key, on_disk(value))).unwrap()
    }

    fn sync(&mut self) -> Result<(), crate::CacheError> {
        let cache = self.cache.clone();
        self.simulation.block_on(cache.sync()).unwrap()
    }

    fn is_off(&self) -> bool {
        matches!(self.cache.stats().l2_state(), L2State::Degraded { .. })
    }

    /// Fails until the tier is off.
    fn break_down(&mut self, kind: OperationKind) {
        self.disk.fail(kind, 0, Fault::Io, true);
        assert!(self.put_on_disk("lost", "lost").and_then(|()| self.sync()).is_err());
        self.pass(Duration::from_millis(1));
        assert!(self.is_off());
    }
}

#[test]
fn it_comes_back_empty_and_works() {
    for crash_safety in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
        for kind in [OperationKind::Write, OperationKind::Sync] {
            let mut bench = Bench::with(1, config(crash_safety));
            for number in 0..50 {
                bench.put_on_disk(&format!("old {number}"), "old").unwrap();
            }
            let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
            let held = BlobCachePut::copy_from_slice(b"held").with_policy(policy);
            let cache = bench.cache.clone();
            bench.simulation.block_on(cache.put("a", "held", held)).unwrap().unwrap();
            drop(cache);
            bench.break_down(kind);
            bench.pass(Duration::from_secs(100));
            assert!(bench.is_off(), "the device still fails");
            assert_eq!(bench.get("held").as_deref(), Some("held"), "memory goes on");

            bench.disk.heal();
            bench.pass(Duration::from_secs(100));
            let stats = bench.cache.stats();
            assert_eq!(stats.l2_state(), L2State::Healthy);
            let left = (stats.l2_restarts(), stats.l2_entries());
            assert_eq!(left, (1, 0), "{crash_safety:?}");
            assert!(stats.memory_index_bytes() < 1024, "{}", stats.memory_index_bytes());
            let counted = stats.forgotten() + stats.entries() as u64;
            assert_eq!(stats.insertions(), counted, "{crash_safety:?}");
            assert_eq!(bench.get("old 7"), None, "empty");
            assert_eq!(bench.get("held").as_deref(), Some("held"), "memory keeps what it has");

            // More than the store has room for: segments are reclaimed.
            for number in 0..3000 {
                bench.put_on_disk(&format!("new {number}"), &"new ".repeat(200)).unwrap();
            }
            bench.sync().unwrap();
            assert!(bench.cache.stats().l2_reclaimed_segments() > 8);
            assert!(bench.get("new 2999").is_some());
            bench.kill();
            let survives = crash_safety != CrashSafety::Cold;
            assert_eq!(bench.get("new 2999").is_some(), survives, "{crash_safety:?}");
            assert_eq!(bench.get("old 7"), None);
        }
    }
}

#[test]
fn nothing_of_before_the_failure_comes_back_with_it() {
    for seed in 0..40 {
        let mut bench = Bench::with(seed, config(CrashSafety::Process));
        bench.put_on_disk("k", "old").unwrap();
        bench.sync().unwrap();
        bench.break_down(OperationKind::Write);
        // In force in this process.
        let _ = bench.put_on_disk("k", "newer");
        let cache = bench.cache.clone();
        let _ = bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap();
        drop(cache);
        bench.disk.heal();
        // Killed before, while or after it begins anew.
        bench.pass(Duration::from_millis(100 * seed));
        let is_back = !bench.is_off();
        if is_back {
            bench.put_on_disk("other", "new").unwrap();
            bench.sync().unwrap();
        }
        bench.kill();
        if is_back {
            assert_eq!(bench.get("k"), None, "seed {seed}");
            assert_eq!(bench.get("other").as_deref(), Some("new"), "seed {seed}");
        } else {
            assert!(bench.get("k").is_none_or(|value| value == "old"), "seed {seed}");
        }
    }
}

/// Whatever the writer was about to do, a new head for a reclaimed segment included.
#[test]
fn nothing_is_left_in_the_index() {
    for after in 0..60 {
        let mut bench = Bench::with(after, config(CrashSafety::Process));
        for number in 0..600 {
            bench.put_on_disk(&format!("{number}"), &"old ".repeat(400)).unwrap();
        }
        bench.disk.fail(OperationKind::Write, after, Fault::Io, true);
        for number in 0..600 {
            let _ = bench.put_on_disk(&format!("{number}"), &"new ".repeat(400));
        }
        bench.pass(Duration::from_secs(2));
        assert!(bench.is_off(), "{after}");
        bench.disk.heal();
        bench.pass(Duration::from_secs(5));
        let stats = bench.cache.stats();
        assert_eq!((stats.l2_restarts(), stats.l2_entries()), (1, 0), "{after}");
        assert!(stats.memory_index_bytes() < 4096, "{after}: {}", stats.memory_index_bytes());
        assert_eq!(stats.memory_labels_bytes(), 0, "{after}");
    }
}

/// The store is void after the first failure, and not after the second one.
#[test]
fn a_second_failure_is_reported_as_the_first_one() {
    let mut reported = 0;
    for seed in 0..60 {
        let mut bench = Bench::with(seed, config(CrashSafety::Process));
        bench.break_down(OperationKind::Write);
        bench.disk.heal();
        bench.pass(Duration::from_secs(5));
        bench.put_on_disk("k", "old").unwrap();
        bench.sync().unwrap();
        bench.disk.fail(OperationKind::Sync, 0, Fault::Io, true);
        let cache = bench.cache.clone();
        // Before the writer knows.
        let invalidated = bench.simulation.block_on(async {
            cache.sync().await.unwrap_err();
            cache.invalidate_key("a", "k").await
        });
        reported += u32::from(invalidated.as_ref().unwrap().is_err());
        drop(cache);
        bench.disk.heal();
        bench.kill();
        assert!(invalidated.unwrap().is_err() || bench.get("k").is_none(), "STALE, seed {seed}");
    }
    assert!(reported > 0);
}

/// They are numbered without a record; the log goes on behind all of them.
#[test]
fn mutations_while_it_is_off_do_not_delay_it() {
    for mutations in [1, 2, 3, 5, 1000, 300_000] {
        let mut bench = Bench::with(mutations, config(CrashSafety::Process));
        bench.put_on_disk("k", "old").unwrap();
        bench.break_down(OperationKind::Write);
        for _ in 0..mutations {
            let put = BlobCachePut::copy_from_slice(b"held");
            let cache = bench.cache.clone();
            bench.simulation.block_on(cache.put("a", "held", put)).unwrap().unwrap();
        }
        bench.disk.heal();
        bench.pass(Duration::from_secs(3));
        assert!(!bench.is_off(), "{mutations}");
        bench.put_on_disk("held", "new").unwrap();
        bench.sync().unwrap();
        bench.kill();
        assert_eq!(bench.get("held").as_deref(), Some("new"), "{mutations}");
    }
}

#[test]
fn failures_that_follow_each_other_wait_longer() {
    let mut bench = Bench::with(1, config(CrashSafety::Process));
    let mut waits = Vec::new();
    for _ in 0..9 {
        bench.break_down(OperationKind::Write);
        bench.disk.heal();
        let mut seconds = 0;
        while bench.is_off() {
            bench.pass(Duration::from_secs(1));
            seconds += 1;
        }
        waits.push(seconds);
    }
    assert!(waits.is_sorted() && waits[0] <= 3 && (60..70).contains(&waits[8]), "{waits:?}");
}

#[test]
fn a_close_does_not_wait_for_it() {
    for milliseconds in (0..3000).step_by(50) {
        let mut bench = Bench::with(milliseconds, config(CrashSafety::Process));
        bench.put_on_disk("k", "old").unwrap();
        bench.break_down(OperationKind::Write);
        bench.disk.heal();
        bench.pass(Duration::from_millis(milliseconds));
        let cache = bench.cache.clone();
        let closed = bench.simulation.block_on(cache.close()).expect("it ends");
        assert!(closed.is_ok() || bench.is_off(), "{closed:?}");
    }
}
