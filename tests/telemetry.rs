//! Events and spans: what a subscriber of `tracing` is told, that a hit in memory tells nothing,
//! and that a subscriber that panics, blocks or calls the cache does no harm.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod recorder;

use std::cell::Cell;
use std::future::pending;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::executor::block_on;
use recorder::Recorder;
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePut, CacheError, Clock, FetchError,
    SweepLimit,
};

fn open(path: &Path) -> BlobCache {
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(path);
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

fn in_memory() -> BlobCache {
    block_on(BlobCache::open(BlobCacheConfig::default())).unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn fetched() -> Result<BlobCachePut, CacheError> {
    tracing::info!(target: "tamis_user", "the origin is asked");
    Ok(BlobCachePut::new("value"))
}

#[test]
fn a_file_system_in_memory_is_named() {
    let recorder = Recorder::new(|_| ());
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let cache = recorder.during(|| open(folder.path()));
    block_on(cache.close()).unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(recorder.has(&["WARN tamis::open [open]", path, "kind=\"tmpfs\"", "a reboot"]));
}

#[test]
fn an_open_and_a_close_are_spans_and_say_what_was_found() {
    let (recorder, folder) = (Recorder::new(|_| ()), folder());
    recorder.during(|| {
        let cache = open(folder.path());
        block_on(cache.put("space", "key", "value")).unwrap();
        block_on(cache.close()).unwrap();
        block_on(open(folder.path()).close()).unwrap();
    });
    let path = format!("{}", folder.path().display());
    assert!(recorder.has(&["new open", &path, "bytes=4194304"]), "{:#?}", recorder.lines());
    assert!(recorder.has(&["new recovery"]) && recorder.has(&["new close", &path]));
    let found = ["INFO tamis::recovery [open]", "records=1", "from_image=true", "seconds="];
    assert!(recorder.has(&found), "{:#?}", recorder.lines());
    let ends =
        |name| recorder.lines().iter().filter(|line| **line == format!("end {name}")).count();
    assert_eq!((ends("open"), ends("recovery"), ends("close")), (2, 2, 2));
}

#[test]
fn a_hit_in_memory_and_a_miss_there_tell_nothing_and_ask_nothing() {
    let recorder = Recorder::new(|_| ());
    recorder.during(|| {
        let cache = in_memory();
        let space = cache.namespace("space");
        block_on(cache.put("space", "key", "value")).unwrap();
        let ttl = BlobCachePut::new("value").with_ttl(Duration::from_secs(60));
        block_on(cache.put("space", "ttl", ttl)).unwrap();
        let before = recorder.calls();
        for key in ["key", "ttl"] {
            assert!(block_on(cache.get("space", key)).is_some());
            assert!(block_on(space.get(key)).is_some());
            assert!(block_on(cache.get_or_fetch("space", key, fetched)).is_ok());
            assert!(block_on(cache.get_or_refresh("space", key, fetched)).is_ok());
        }
        assert!(block_on(cache.get("space", "none")).is_none());
        assert_eq!(recorder.calls(), before);
        block_on(cache.get_or_fetch("space", "none", fetched)).unwrap();
        assert!(recorder.calls() > before, "a fetch is told");
    });
}

#[test]
fn a_fetch_is_a_span_of_the_callers_events_and_ends_wherever_it_is_dropped() {
    let recorder = Recorder::new(|_| ());
    recorder.during(|| {
        let cache = in_memory();
        block_on(cache.get_or_fetch("space", "key", fetched)).unwrap();
        let endless = || pending::<Result<BlobCachePut, CacheError>>();
        assert!(cache.get_or_fetch("space", "other", endless).now_or_never().is_none());
        let panicking = || async { panic!("of the origin") };
        let failed = cache.get_or_fetch::<_, _, _, CacheError>("space", "third", panicking);
        assert!(matches!(block_on(failed), Err(FetchError::Panicked)));
    });
    assert!(recorder.has(&["new fetch namespace=\"space\""]), "{:#?}", recorder.lines());
    assert!(recorder.has(&["INFO tamis_user [fetch] the origin is asked"]));
    let ends = recorder.lines().iter().filter(|line| *line == "end fetch").count();
    assert_eq!(ends, 3, "{:#?}", recorder.lines());
}

#[test]
fn a_sweep_is_a_span_and_says_what_it_removed() {
    let recorder = Recorder::new(|_| ());
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let config = BlobCacheConfig::builder().clock(clock.clone());
    let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let put = BlobCachePut::new("value").with_ttl(Duration::from_secs(1));
    block_on(cache.put("space", "key", put)).unwrap();
    clock.advance(Duration::from_secs(2));
    recorder.during(|| block_on(cache.sweep_expired(SweepLimit::Entries(100))));
    assert!(recorder.has(&["DEBUG tamis::sweep [] a sweep is over", "removed=1"]));
    assert!(recorder.has(&["new sweep"]) && recorder.has(&["end sweep"]));
}

/// All that callers do which tells anything.
fn use_cache(path: &Path, reads: &OnceLock<BlobCache>) {
    let cache = open(path);
    let _ = reads.set(cache.clone());
    block_on(cache.put("space", "key", "value")).unwrap();
    assert_eq!(block_on(cache.get_or_fetch("space", "a", fetched)).unwrap().value(), b"value");
    let endless = || pending::<Result<BlobCachePut, CacheError>>();
    assert!(cache.get_or_fetch("space", "b", endless).now_or_never().is_none());
    assert!(block_on(cache.get_or_fetch("space", "b", fetched)).is_ok());
    block_on(cache.sweep_expired(SweepLimit::Entries(100)));
    block_on(cache.close()).unwrap();
}

#[test]
fn a_subscriber_that_panics_anywhere_harms_no_call() {
    for method in ["enabled", "new_span", "event", "enter", "exit", "try_close"] {
        let panics = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&panics);
        let recorder = Recorder::new(move |called| {
            if called == method {
                counted.fetch_add(1, Ordering::Relaxed);
                panic!("in {method}");
            }
        });
        let (folder, reads) = (folder(), OnceLock::new());
        // The user's own event within the fetch is not contained: nor is any other of theirs.
        let is_own = ["enabled", "event"].contains(&method);
        recorder.during(|| {
            if is_own {
                let cache = open(folder.path());
                block_on(cache.put("space", "key", "value")).unwrap();
                let _ = block_on(cache.sweep_expired(SweepLimit::Entries(100)));
                block_on(cache.close()).unwrap();
            } else {
                use_cache(folder.path(), &reads);
            }
        });
        assert!(panics.load(Ordering::Relaxed) > 0, "{method} is called");
    }
}

#[test]
fn a_subscriber_that_calls_the_cache_finds_no_lock_held() {
    thread_local!(static IS_INSIDE: Cell<bool> = const { Cell::new(false) });
    let cache: Arc<OnceLock<BlobCache>> = Arc::default();
    let (inner, calls) = (Arc::clone(&cache), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&calls);
    let recorder = Recorder::new(move |_| {
        let Some(cache) = inner.get() else { return };
        if IS_INSIDE.replace(true) {
            return;
        }
        let _ = cache.stats();
        let _ = block_on(cache.get("space", "key"));
        let _ = block_on(cache.put("space", "told", "value"));
        let _ = block_on(cache.invalidate_key("space", "told"));
        counted.fetch_add(1, Ordering::Relaxed);
        IS_INSIDE.set(false);
    });
    let folder = folder();
    recorder.during(|| {
        // Not of its own executor: that would be nested.
        let cache_of_thread = open(folder.path());
        let _ = cache.set(cache_of_thread.clone());
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        let mut fetching = Box::pin(cache_of_thread.get_or_fetch("space", "a", fetched));
        // Bounded: a fetch without waits, but for the disk's.
        while fetching.as_mut().poll(&mut context).is_pending() {
            std::thread::yield_now();
        }
        let limit = SweepLimit::Entries(100);
        let mut sweeping = Box::pin(cache_of_thread.sweep_expired(limit));
        while sweeping.as_mut().poll(&mut context).is_pending() {}
    });
    assert!(calls.load(Ordering::Relaxed) >= 6, "{calls:?}");
    block_on(cache.get().unwrap().close()).unwrap();
}
