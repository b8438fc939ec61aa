//! Wakers are foreign code: one that panics, calls the cache again or blocks affects only its own
//! caller, whatever call it waits for.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod engine;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::executor::block_on;
use parking_lot::Mutex;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, L1Admission,
    L2Compression, L2State,
};

/// Only a hanging call takes that long.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Panicking,
    Reentrant,
    Slow,
}

const KINDS: [Kind; 3] = [Kind::Panicking, Kind::Reentrant, Kind::Slow];

/// A waker of a given kind.
struct Hostile {
    kind: Kind,
    cache: Mutex<Weak<BlobCache>>,
    calls: AtomicUsize,
}

impl Wake for Hostile {
    /// A call that yields wakes itself like this within its own poll.
    fn wake_by_ref(self: &Arc<Self>) {}

    fn wake(self: Arc<Self>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            Kind::Panicking => panic!("as planned"),
            Kind::Slow => thread::sleep(Duration::from_micros(200)),
            Kind::Reentrant => {
                let Some(cache) = self.cache.lock().upgrade() else { return };
                let _ = (cache.stats(), cache.exists("space", "held"));
                let _ = cache.get("space", "held").now_or_never();
                let _ = cache.put("space", "other", "value").now_or_never();
                let _ = cache.sync().now_or_never();
            }
        }
    }
}

impl Hostile {
    fn new(kind: Kind, cache: &Arc<BlobCache>) -> Arc<Self> {
        static QUIET: Once = Once::new();
        QUIET.call_once(|| {
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if panic.payload().downcast_ref::<&str>() != Some(&"as planned") {
                    told(panic);
                }
            }));
        });
        let cache = Mutex::new(Arc::downgrade(cache));
        Arc::new(Self { kind, cache, calls: AtomicUsize::new(0) })
    }
}

/// Polls all futures with the waker, however often it is called, until they complete.
fn drive<T>(
    waker: &Arc<Hostile>,
    mut futures: Vec<Pin<Box<dyn Future<Output = T> + '_>>>,
) -> Vec<T> {
    let begun = Instant::now();
    let waker = Waker::from(Arc::clone(waker));
    let mut done = Vec::new();
    while !futures.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} of them hang", futures.len());
        futures.retain_mut(|future| match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => {
                done.push(output);
                false
            }
            Poll::Pending => true,
        });
        thread::sleep(Duration::from_millis(1));
    }
    done
}

fn config(path: &Path) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(4 << 20).l2_path(path);
    builder
        .l2_engine(engine::engine(0))
        .l2_bytes_max(64 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

/// An entry on disk and not in memory.
fn below(bytes: usize) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(vec![7; bytes]).with_tags(["tag"]).with_policy(policy)
}

fn open(path: &Path) -> Arc<BlobCache> {
    let cache = block_on(BlobCache::open(config(path))).unwrap();
    block_on(fill(&cache));
    Arc::new(cache)
}

async fn fill(cache: &BlobCache) {
    for key in ["held", "p1", "p2", "p3"] {
        cache.put("space", key, below(1000)).await.unwrap();
    }
    cache.sync().await.unwrap();
}

fn is_well(cache: &BlobCache) {
    block_on(async {
        cache.put("space", "well", below(1000)).await.unwrap();
        cache.put("space", "well", below(2000)).await.unwrap();
        cache.sync().await.unwrap();
        assert_eq!(cache.get("space", "well").await.unwrap().value(), [7; 2000]);
        assert_eq!(cache.invalidate_key("space", "well").await, Ok(1));
    });
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Tries many concurrent calls with wakers of each kind, and drops some halfway.
fn tried<'a, T: 'a, F: Future<Output = T> + 'a>(
    cache: &'a Arc<BlobCache>,
    call: impl Fn(&'a BlobCache, usize) -> F,
    check: impl Fn(T),
) {
    for kind in KINDS {
        let waker = Hostile::new(kind, cache);
        let mut dropped: Vec<_> = (0..4).map(|number| Box::pin(call(cache, number))).collect();
        for future in &mut dropped {
            let _ = future.as_mut().poll(&mut Context::from_waker(&Waker::from(waker.clone())));
        }
        let calls =
            (0..8).map(|number| Box::pin(call(cache, number)) as Pin<Box<dyn Future<Output = T>>>);
        drive(&waker, calls.collect()).into_iter().for_each(&check);
        drop(dropped);
        is_well(cache);
        block_on(fill(cache));
    }
}

#[test]
fn on_a_get_from_disk() {
    let folder = folder();
    let cache = open(folder.path());
    tried(
        &cache,
        |cache, _| cache.get("space", "held"),
        |hit| {
            assert_eq!(hit.unwrap().value(), [7; 1000]);
        },
    );
    block_on(cache.close()).unwrap();
}

#[test]
fn on_puts_over_disk_entries_and_puts_that_wait_for_room() {
    let folder = folder();
    let cache = open(folder.path());
    tried(&cache, |cache, _| cache.put("space", "held", below(1000)), Result::unwrap);
    for kind in KINDS {
        let waker = Hostile::new(kind, &cache);
        let put = |number: usize| {
            let put = cache.put("space", format!("large{number}"), below(200 << 10));
            Box::pin(put) as Pin<Box<dyn Future<Output = Result<(), CacheError>>>>
        };
        drive(&waker, (0..120).map(put).collect()).into_iter().for_each(Result::unwrap);
        assert!(waker.calls.load(Ordering::Relaxed) > 0, "no call has waited");
        is_well(&cache);
    }
    block_on(cache.close()).unwrap();
}

#[test]
fn on_invalidations_and_syncs() {
    let folder = folder();
    let cache = open(folder.path());
    tried(&cache, |cache, _| cache.invalidate_key("space", "held"), |count| assert!(count.is_ok()));
    tried(&cache, |cache, _| cache.invalidate_prefix("space", "p"), |count| assert!(count.is_ok()));
    tried(
        &cache,
        |cache, _| cache.invalidate_tags("space", &["tag"]),
        |count| assert!(count.is_ok()),
    );
    tried(&cache, |cache, _| cache.invalidate_namespace("space"), |count| assert!(count.is_ok()));
    tried(&cache, |cache, _| cache.sync(), Result::unwrap);
    block_on(cache.close()).unwrap();
}

#[test]
fn on_closes_and_on_opens_of_a_closing_store() {
    for kind in KINDS {
        let folder = folder();
        let cache = open(folder.path());
        let waker = Hostile::new(kind, &cache);
        let open = || {
            let opening = BlobCache::open(config(folder.path()));
            Box::pin(opening.map(|opened| opened.map(Some)))
                as Pin<Box<dyn Future<Output = Result<Option<BlobCache>, CacheError>>>>
        };
        let close = || {
            Box::pin(cache.close().map(|closed| closed.map(|()| None)))
                as Pin<Box<dyn Future<Output = Result<Option<BlobCache>, CacheError>>>>
        };
        let mut closings = vec![close(), close()];
        for closing in &mut closings {
            let waker = Waker::from(waker.clone());
            let _ = closing.as_mut().poll(&mut Context::from_waker(&waker));
        }
        // One of them succeeds.
        closings.extend([open(), open()]);
        let mut ended = drive(&waker, closings);
        let opened = ended.iter_mut().find_map(|ended| ended.as_mut().ok().and_then(Option::take));
        let opened = opened.expect("the store was reopened");
        is_well(&opened);
        drop(ended);
        block_on(opened.close()).unwrap();
    }
}
