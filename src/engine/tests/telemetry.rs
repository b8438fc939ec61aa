//! What the tasks of the disk tier tell a subscriber of `tracing`, which may panic or call the
//! cache: all of a bench runs on one thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;

use super::bench::Bench;
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::io::{Fault, OperationKind};
use crate::stats::L2State;

#[path = "../../../tests/recorder/mod.rs"]
mod recorder;

use recorder::Recorder;

fn fill(bench: &mut Bench, puts: usize) {
    for number in 0..puts {
        let cache = bench.cache();
        let put = cache.put("a", format!("{}", number % 20), vec![7; 8000]);
        let _ = bench.run(put);
    }
}

/// Reclaims segments, turns the tier off, and on again.
fn fail_and_heal(bench: &mut Bench) {
    fill(bench, 200);
    assert!(bench.cache.stats().l2_reclaimed_segments() > 0);
    bench.disk.fail(OperationKind::Write, 0, Fault::Io, true);
    fill(bench, 40);
    assert!(matches!(bench.cache.stats().l2_state(), L2State::Degraded { .. }));
    bench.disk.heal();
    for _ in 0..100 {
        bench.pass(Duration::from_secs(60));
        if bench.cache.stats().l2_restarts() > 0 {
            return;
        }
    }
    panic!("the tier stays off");
}

#[test]
fn reclaim_a_failure_and_a_restart_are_told() {
    let recorder = Recorder::new(|_| ());
    recorder.during(|| {
        let mut bench = Bench::new(3);
        fail_and_heal(&mut bench);
        bench.kill();
    });
    assert!(recorder.has(&["DEBUG tamis::reclaim", "segment=", "reinserted_bytes="]));
    assert!(recorder.has(&["ERROR tamis::degradation", "turned off", "error="]));
    assert!(recorder.has(&["WARN tamis::degradation", "begun anew", "restarts=1"]));
    assert!(recorder.lines().iter().all(|line| !line.contains("panicked")));
    let first = |part| recorder.lines().iter().position(|line| line.contains(part));
    assert!(first("turned off") < first("begun anew"));
}

#[test]
fn a_disk_tier_that_cannot_be_opened_is_told() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let builder = BlobCacheConfig::builder().l2_path(&file).l2_required(false);
    let config = builder.build().unwrap();
    let recorder = Recorder::new(|_| ());
    recorder.during(|| drop(block_on(BlobCache::open(config)).unwrap()));
    let path = file.to_str().unwrap();
    assert!(recorder.has(&["ERROR tamis::degradation", "runs in memory", "error=", path]));
}

#[test]
fn a_subscriber_that_panics_stops_no_task() {
    let recorder = Recorder::new(|method| assert_ne!(method, "event"));
    recorder.during(|| {
        let mut bench = Bench::new(4);
        fail_and_heal(&mut bench);
        bench.put("key", "after", &[]);
        assert_eq!(bench.get("key").as_deref(), Some("after"));
        assert!(bench.simulation.panics().is_empty());
    });
    assert!(recorder.calls() > 10);
}

#[test]
fn a_subscriber_may_call_the_cache_from_a_task_of_it() {
    let cache: Arc<OnceLock<BlobCache>> = Arc::default();
    let (inner, calls) = (Arc::clone(&cache), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let recorder = Recorder::new(move |method| {
        let Some(cache) = inner.get().filter(|_| method == "event") else { return };
        let _ = (cache.stats(), cache.exists("a", "1"));
        // They may have to wait, which this thread must not do; they begin all the same.
        drop(cache.get("a", "1").now_or_never());
        drop(cache.put("told", "key", "value").now_or_never());
        drop(cache.invalidate_prefix("told", "k").now_or_never());
        counted.fetch_add(1, Ordering::Relaxed);
    });
    recorder.during(|| {
        let mut bench = Bench::new(5);
        let _ = cache.set(bench.cache());
        fail_and_heal(&mut bench);
        assert!(bench.simulation.panics().is_empty());
    });
    assert!(calls.load(Ordering::Relaxed) > 2);
}
