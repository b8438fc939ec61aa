//! Events and spans: what a subscriber of `tracing` is told, that a hit in memory tells nothing,
//! and that a subscriber that panics, blocks or calls the cache does no harm.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod recorder;

use std::cell::Cell;
use std::future::{pending, ready};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::executor::block_on;
use recorder::Recorder;
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, Clock,
    FetchError, FetchPolicy, FetchTask, SweepLimit,
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

/// Stale, and in its last share of time; at most once a minute for all of them.
#[test]
fn a_refresh_that_fails_is_told_once() {
    for is_ahead in [false, true] {
        let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        let policy = if is_ahead {
            FetchPolicy::default().refresh_ahead(0.5)
        } else {
            FetchPolicy::default()
        };
        let config = BlobCacheConfig::builder()
            .clock(clock.clone())
            .spawner(|task: FetchTask| task.now_or_never().expect("no wait"))
            .fetch_policy(policy)
            .build()
            .unwrap();
        let recorder = Recorder::new(|_| ());
        recorder.during(|| {
            let cache = block_on(BlobCache::open(config)).unwrap();
            let minute = Duration::from_secs(60);
            let page = BlobCachePolicy::default().ttl(minute).stale_serve(minute);
            block_on(cache.put("pages", "/", BlobCachePut::new("old").with_policy(page))).unwrap();
            clock.advance(Duration::from_secs(if is_ahead { 40 } else { 61 }));
            for _ in 0..10 {
                let failing = || ready(Err::<BlobCachePut, _>(std::io::Error::other("down")));
                let hit = block_on(cache.get_or_refresh_spawned("pages", "/", failing)).unwrap();
                assert_eq!((hit.value(), hit.is_stale()), (&b"old"[..], !is_ahead));
                // Else it rests.
                clock.advance(Duration::from_secs(1));
            }
            assert!(cache.stats().fetch_errors() > 5);
        });
        let told = ["WARN tamis::fetch", "a refresh has failed", "namespace=\"pages\""];
        assert!(recorder.has(&told), "{is_ahead}: {:#?}", recorder.lines());
        let count = recorder.lines().iter().filter(|line| line.contains(told[1])).count();
        assert_eq!(count, 1, "{is_ahead}");
    }
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

/// The tasks that a cache has spawned.
type Tasks = Arc<Mutex<Vec<FetchTask>>>;

/// A cache whose tasks the test runs.
fn with_tasks() -> (BlobCache, Tasks, Clock) {
    let (tasks, clock) = (Tasks::default(), Clock::manual(SystemTime::UNIX_EPOCH));
    let given = Arc::clone(&tasks);
    let spawner = move |task| given.lock().unwrap().push(task);
    let config = BlobCacheConfig::builder().clock(clock.clone()).spawner(spawner).build().unwrap();
    (block_on(BlobCache::open(config)).unwrap(), tasks, clock)
}

fn run(tasks: &Tasks) {
    let tasks = std::mem::take(&mut *tasks.lock().unwrap());
    assert_eq!(tasks.len(), 1);
    tasks.into_iter().for_each(block_on);
}

#[test]
fn a_fetch_in_a_task_follows_from_the_span_of_its_caller_which_may_end_before() {
    let recorder = Recorder::new(|_| ());
    recorder.during(|| {
        let (cache, tasks, clock) = with_tasks();
        let request = tracing::info_span!(target: "tamis_user", "request");
        let mut call = Box::pin(cache.get_or_fetch_spawned("space", "key", fetched));
        assert!(request.in_scope(|| call.as_mut().now_or_never()).is_none());
        run(&tasks);
        request.in_scope(|| block_on(call)).unwrap();
        drop(request);
        // Nobody waits for a refresh.
        clock.advance(Duration::from_secs(1));
        let policy = BlobCachePolicy::default().ttl(Duration::from_secs(1));
        let policy = policy.stale_serve(Duration::from_secs(10));
        block_on(cache.put("space", "old", BlobCachePut::new("old").with_policy(policy))).unwrap();
        clock.advance(Duration::from_secs(2));
        let visit = tracing::info_span!(target: "tamis_user", "visit");
        let stale = cache.get_or_refresh_spawned("space", "old", fetched);
        assert!(visit.in_scope(|| block_on(stale)).unwrap().is_stale());
        drop(visit);
        run(&tasks);
    });
    let lines = recorder.lines();
    let place = |of: &str| lines.iter().rposition(|line| line == of);
    assert!(place("fetch follows request").is_some(), "{lines:#?}");
    assert!(place("fetch follows visit").is_some(), "{lines:#?}");
    let asked = "INFO tamis_user [fetch] the origin is asked";
    assert_eq!(lines.iter().filter(|line| **line == asked).count(), 2, "{lines:#?}");
    assert!(place("end request") < place("new visit"), "it is kept: {lines:#?}");
    assert!(place("end visit").is_some() && place("end visit") < place("end fetch"), "{lines:#?}");
}

#[test]
fn a_fetch_that_no_task_runs_is_inside_of_the_span_of_its_caller() {
    let recorder = Recorder::new(|_| ());
    recorder.during(|| {
        let (cache, tasks, _) = with_tasks();
        let request = tracing::info_span!(target: "tamis_user", "request");
        let mut call = Box::pin(cache.get_or_fetch_spawned("space", "key", fetched));
        assert!(request.in_scope(|| call.as_mut().now_or_never()).is_none());
        drop(std::mem::take(&mut *tasks.lock().unwrap()));
        request.in_scope(|| block_on(call)).unwrap();
    });
    assert!(recorder.has(&["[request:fetch] the origin is asked"]), "{:#?}", recorder.lines());
    assert!(!recorder.has(&["follows"]) && recorder.has(&["end request"]));
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
    let spans = ["new_span", "enter", "exit", "try_close"];
    let of_tasks = ["current_span", "clone_span", "record_follows_from"];
    for method in ["enabled", "event"].into_iter().chain(spans).chain(of_tasks) {
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
                let (cache, tasks, _) = with_tasks();
                let mut call = Box::pin(cache.get_or_fetch_spawned("space", "key", fetched));
                // The user's own span is not contained either.
                let is_of_task = of_tasks.contains(&method);
                let request = is_of_task.then(|| tracing::info_span!(target: "tamis_user", "own"));
                let request = request.unwrap_or_else(tracing::Span::none);
                assert!(request.in_scope(|| call.as_mut().now_or_never()).is_none());
                run(&tasks);
                assert_eq!(block_on(call).unwrap().value(), b"value");
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
