//! No waker is called while the log is locked: one that reads the statistics would deadlock.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::bench::{Bench, made};
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Fault, OperationKind, TaskRunner};

/// Notes whether the log was locked when it was called; all of a bench runs on one thread.
struct Asking {
    cache: BlobCache,
    calls: AtomicUsize,
    locked: AtomicUsize,
}

impl Wake for Asking {
    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let is_locked = self.cache.engine.parts.disk.l2().is_some_and(|l2| l2.log.is_locked());
        self.locked.fetch_add(usize::from(is_locked), Ordering::Relaxed);
    }
}

type Calls<'a> = Vec<Pin<Box<dyn Future<Output = Result<(), CacheError>> + 'a>>>;

/// Polls the calls until they are done. Returns the calls of the waker, and those under the lock.
fn asked(bench: &mut Bench, mut calls: Calls<'_>) -> (usize, usize) {
    let cache = bench.cache();
    let asking = Arc::new(Asking { cache, calls: 0.into(), locked: 0.into() });
    let waker = Waker::from(Arc::clone(&asking));
    for _ in 0..10_000 {
        calls.retain_mut(|call| {
            let poll = call.as_mut().poll(&mut Context::from_waker(&waker));
            matches!(poll, Poll::Pending)
        });
        if calls.is_empty() {
            let locked = asking.locked.load(Ordering::Relaxed);
            return (asking.calls.load(Ordering::Relaxed), locked);
        }
        let runner = bench.simulation.task_runner();
        bench.simulation.block_on(runner.sleep(Duration::from_millis(10))).unwrap();
    }
    panic!("{} of the calls hang", calls.len());
}

fn some_of_each(cache: &BlobCache) -> Calls<'_> {
    let mut calls: Calls<'_> = Vec::new();
    for _ in 0..3 {
        calls.push(Box::pin(cache.put("a", "held", made("new", &["tag"]))));
        calls.push(Box::pin(async { cache.invalidate_key("a", "held").await.map(drop) }));
        calls.push(Box::pin(async { cache.invalidate_prefix("a", "h").await.map(drop) }));
        calls.push(Box::pin(async { cache.invalidate_tags("a", &["tag"]).await.map(drop) }));
        calls.push(Box::pin(cache.sync()));
        // More than may be pending in a segment.
        let value = "x".repeat(30_000);
        for number in 0..16 {
            let put = made(&value, &[]);
            calls.push(Box::pin(async move { cache.put("a", format!("{number}"), put).await }));
        }
    }
    calls
}

fn bench() -> Bench {
    let mut bench = Bench::new(5);
    bench.put("held", "old", &["tag"]);
    bench
}

#[test]
fn no_waker_is_called_while_the_log_is_locked() {
    let mut bench = bench();
    let cache = bench.cache();
    let (calls, locked) = asked(&mut bench, some_of_each(&cache));
    assert!(calls > 10 && locked == 0, "{locked} of {calls}");
    let mut last = some_of_each(&cache);
    let close = || Box::pin(async { cache.close().await });
    last.extend([close() as Pin<Box<dyn Future<Output = _>>>, close()]);
    // Calls that come too late are refused.
    let last = last
        .into_iter()
        .map(|call| Box::pin(async { call.await.or(Ok(())) }) as Pin<Box<dyn Future<Output = _>>>);
    let (calls, locked) = asked(&mut bench, last.collect());
    assert!(calls > 0 && locked == 0, "{locked} of {calls}");
}

#[test]
fn no_waker_is_called_under_the_lock_when_the_device_fails() {
    let mut bench = bench();
    let cache = bench.cache();
    bench.disk.fail(OperationKind::Write, 2, Fault::Io, true);
    let (calls, locked) = asked(&mut bench, some_of_each(&cache));
    assert!(cache.stats().l2_state() != crate::stats::L2State::Healthy);
    assert!(calls > 0 && locked == 0, "{locked} of {calls}");
}

#[test]
fn a_waker_called_under_the_lock_is_detected() {
    let mut bench = bench();
    let cache = bench.cache();
    let _planted = plant(Failpoint::WokenUnderLock);
    let (_, locked) = asked(&mut bench, some_of_each(&cache));
    assert!(locked > 0);
}
