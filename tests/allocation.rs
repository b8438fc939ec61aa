//! Allocations per call: none for a hit, a miss and `exists`; a few small ones for a put, and never
//! a second copy of a value whose allocation fits.
//!
//! The global allocator of this binary counts per thread, so that parallel tests do not count for
//! each other. Futures are polled by hand, once, because an executor would allocate too.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCacheHit, BlobCachePolicy,
    BlobCachePut, CacheError, CachePresence, Clock, ExtendedTtlPolicy, FetchPolicy, FetchTask,
};

/// The most bytes of the future of a get.
const GET_FUTURE_BYTES_MAX: usize = 256;

/// A put of only a value: the entry, its key, and the shared header of the value.
const PLAIN_PUT_ALLOCATIONS_MAX: usize = 3;

/// A put with two metadata keys and three tags, each allocated exactly.
const FULL_PUT_ALLOCATIONS_MAX: usize = 16;

/// Bytes that a put allocates besides the value, including the first one in a table or list.
const PUT_BYTES_MAX: usize = 32 << 10;

/// Allocations of a thread so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Allocated {
    times: usize,
    bytes: usize,
}

thread_local! {
    /// Const-initialized and without a destructor, so that the allocator may use it.
    static ALLOCATED: Cell<Allocated> = const { Cell::new(Allocated { times: 0, bytes: 0 }) };
}

/// The system's allocator with a count. A reallocation counts as an allocation.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize) {
    // Fails at the very end of a thread, when the count no longer matters.
    let _ = ALLOCATED.try_with(|allocated| {
        let Allocated { times, bytes: before } = allocated.get();
        allocated.set(Allocated { times: times + 1, bytes: before + bytes });
    });
}

// SAFETY: every call is passed unchanged to `System`, which upholds the contract of `GlobalAlloc`;
// counting touches only a thread-local cell, never allocates and never unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller guarantees the layout, as `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller guarantees the layout, as `System` requires.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller guarantees that `place` came from here, hence from `System`, with this
        // layout, and that the new size is valid.
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller guarantees that `place` came from here, hence from `System`, with this
        // layout.
        unsafe { System.dealloc(place, layout) }
    }
}

/// The allocations of `work` on this thread, and its result.
fn allocated<T>(work: impl FnOnce() -> T) -> (Allocated, T) {
    let before = ALLOCATED.get();
    let result = work();
    let after = ALLOCATED.get();
    let (times, bytes) = (after.times - before.times, after.bytes - before.bytes);
    (Allocated { times, bytes }, result)
}

const NOTHING: Allocated = Allocated { times: 0, bytes: 0 };

/// The result of a future that is ready at its first poll.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("no call here waits"),
    }
}

fn cache() -> BlobCache {
    let policy = FetchPolicy::default().refresh_ahead(0.001);
    let config = BlobCacheConfig::builder().l1_bytes_max(16 << 20).fetch_policy(policy);
    let config = config.spawner(|task: FetchTask| drop(task)).build();
    now(BlobCache::open(config.expect("a valid configuration"))).expect("a cache in memory")
}

fn put(cache: &BlobCache, key: &str, put: impl Into<BlobCachePut>) {
    now(cache.put("pages", key, put)).expect("room for a small entry");
}

fn page() -> BlobCachePut {
    let facts = [("content-type", "text/html"), ("etag", "5e1f")];
    let tags = ["home", "product:7", "product:8"];
    BlobCachePut::from(vec![7; 1000]).with_content_metadata(facts).with_tags(tags)
}

/// One entry of each kind that a hit handles differently, by key.
fn kinds() -> [(&'static str, BlobCachePut); 5] {
    let minute = Duration::from_secs(60);
    let plain = BlobCachePolicy::default();
    let extended = ExtendedTtlPolicy {
        idle_ttl: Some(minute),
        stale_serve: Some(minute),
        ..ExtendedTtlPolicy::default()
    };
    let stale = BlobCachePolicy::default().ttl(Duration::ZERO).extended(extended);
    [
        ("plain", BlobCachePut::new(vec![7; 1000])),
        ("ttl", BlobCachePut::new(vec![7; 1000]).with_policy(plain.clone().ttl(minute))),
        ("metadata and labels", page()),
        ("idle ttl", page().with_policy(plain.extended(extended))),
        ("stale", page().with_policy(stale)),
    ]
}

/// Uses everything of a hit and drops it.
fn use_up(hit: Option<BlobCacheHit>) {
    let hit = hit.expect("a hit");
    assert_eq!(hit.value().len(), 1000);
    assert_eq!(hit.content_metadata().get("etag").is_some(), hit.content_metadata().len() == 2);
    let (other, bytes) = (hit.clone(), hit.bytes());
    assert_eq!(bytes.as_ptr(), other.value().as_ptr());
    drop(hit);
    assert_eq!(other.into_bytes(), bytes);
}

#[test]
fn a_hit_allocates_nothing() {
    let cache = cache();
    for (key, value) in kinds() {
        put(&cache, key, value);
    }
    let namespace = cache.namespace("pages");
    for (key, _) in kinds() {
        for _ in 0..3 {
            let (taken, ()) = allocated(|| use_up(now(cache.get("pages", key))));
            assert_eq!(taken, NOTHING, "{key}");
            let (taken, ()) = allocated(|| use_up(now(namespace.get(key))));
            assert_eq!(taken, NOTHING, "{key}, through a handle");
        }
    }
    assert_eq!(cache.stats().hits(), 30);
    assert_eq!(cache.stats().l1_stale_serves_total(), 6);
}

#[test]
fn a_fresh_hit_that_needs_no_fetch_allocates_nothing() {
    let cache = cache();
    for (key, value) in kinds() {
        put(&cache, key, value);
    }
    let namespace = cache.namespace("pages");
    let none = || std::future::ready(Err::<BlobCachePut, String>("not wanted".into()));
    for (key, _) in kinds().into_iter().filter(|(key, _)| *key != "stale") {
        let (taken, ()) = allocated(|| {
            use_up(now(cache.get_or_fetch("pages", key, none)).ok());
            use_up(now(namespace.get_or_fetch(key, none)).ok());
            use_up(now(cache.get_or_refresh("pages", key, none)).ok().map(|(hit, _)| hit));
            use_up(now(namespace.get_or_refresh(key, none)).ok().map(|(hit, _)| hit));
            use_up(now(cache.get_or_fetch_spawned("pages", key, none)).ok());
            use_up(now(namespace.get_or_refresh_spawned(key, none)).ok());
        });
        assert_eq!(taken, NOTHING, "{key}");
    }
    assert_eq!(cache.stats().hits(), 24);
    let of_fetch = size_of_val(&cache.get_or_fetch("pages", "key", none));
    assert!(of_fetch <= GET_FUTURE_BYTES_MAX, "{of_fetch} bytes");
}

#[test]
fn a_fresh_hit_whose_refresh_is_under_way_or_rests_allocates_nothing() {
    let tasks = Arc::new(Mutex::new(Vec::<FetchTask>::new()));
    let given = Arc::clone(&tasks);
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let config = BlobCacheConfig::builder()
        .clock(clock.clone())
        .fetch_policy(FetchPolicy::default().refresh_ahead(0.5))
        .spawner(move |task| given.lock().expect("no panics").push(task));
    let config = config.build().expect("a valid configuration");
    let cache = now(BlobCache::open(config)).expect("a cache in memory");
    let policy = BlobCachePolicy::default().ttl(Duration::from_secs(60));
    put(&cache, "key", BlobCachePut::new(vec![7; 1000]).with_policy(policy));
    clock.advance(Duration::from_secs(40));
    let none = || std::future::ready(Err::<BlobCachePut, String>("down".into()));
    let hits = || {
        use_up(now(cache.get_or_fetch_spawned("pages", "key", none)).ok());
        use_up(now(cache.get_or_refresh_spawned("pages", "key", none)).ok());
    };
    // The first one starts the refresh.
    hits();
    let mut started = std::mem::take(&mut *tasks.lock().expect("no panics"));
    assert_eq!(started.len(), 1);
    for _ in 0..10 {
        assert_eq!(allocated(hits).0, NOTHING, "under way");
    }
    now(started.pop().expect("a task"));
    assert_eq!(cache.stats().fetch_errors(), 1);
    for _ in 0..10 {
        assert_eq!(allocated(hits).0, NOTHING, "it rests");
    }
    assert_eq!(cache.stats().fetches_spawned(), 1);
}

#[test]
fn the_first_hit_of_a_thread_allocates_nothing() {
    let cache = cache();
    put(&cache, "key", vec![7; 1000]);
    let taken = std::thread::scope(|scope| {
        let hit = || allocated(|| use_up(now(cache.get("pages", "key")))).0;
        scope.spawn(hit).join().expect("a thread that ends")
    });
    assert_eq!(taken, NOTHING);
}

#[test]
fn a_miss_and_exists_allocate_nothing() {
    let cache = cache();
    put(&cache, "key", vec![7; 1000]);
    let namespace = cache.namespace("pages");
    let (taken, ()) = allocated(|| {
        assert!(now(cache.get("pages", "other")).is_none());
        assert!(now(cache.get("other", "key")).is_none());
        assert!(now(namespace.get("other")).is_none());
        assert_eq!(cache.exists("pages", "key"), CachePresence::Present);
        assert_eq!(cache.exists("pages", "other"), CachePresence::Absent);
        assert_eq!(namespace.exists("key"), CachePresence::Present);
        assert_eq!(namespace.exists("other"), CachePresence::Absent);
    });
    assert_eq!(taken, NOTHING);
}

#[test]
fn a_value_that_fits_is_not_copied() {
    let cache = cache();
    for bytes in [1, 100, 4096, 1 << 20] {
        let value = vec![7_u8; bytes];
        let place = value.as_ptr();
        let (taken, ()) = allocated(|| put(&cache, "key", value));
        assert!(taken.bytes < PUT_BYTES_MAX, "{bytes} bytes: {taken:?}");
        let hit = now(cache.get("pages", "key")).expect("a hit");
        assert_eq!(hit.value().as_ptr(), place, "{bytes} bytes");
        assert_eq!(hit.bytes().as_ptr(), place, "{bytes} bytes");
    }
}

#[test]
fn a_put_allocates_a_few_times() {
    let cache = cache();
    // From the second put of a key on, tables and lists have room for one more.
    let times = |make: fn() -> BlobCachePut| {
        let each = || {
            let made = make();
            allocated(|| put(&cache, "key", made)).0.times
        };
        (0..10).map(|_| each()).skip(2).max().unwrap_or(0)
    };
    let plain = times(|| BlobCachePut::from(vec![7; 1000]));
    assert!(plain <= PLAIN_PUT_ALLOCATIONS_MAX, "a plain put allocates {plain} times");
    let full = times(page);
    assert!(full <= FULL_PUT_ALLOCATIONS_MAX, "a full put allocates {full} times");
}

#[test]
fn the_future_of_a_get_is_small() {
    let cache = cache();
    let namespace = cache.namespace("pages");
    let of_cache = size_of_val(&cache.get("pages", "key"));
    assert!(of_cache <= GET_FUTURE_BYTES_MAX, "{of_cache} bytes");
    let of_namespace = size_of_val(&namespace.get("key"));
    assert!(of_namespace <= GET_FUTURE_BYTES_MAX, "{of_namespace} bytes");
    let owned = size_of_val(&cache.get("pages", String::from("key")));
    assert!(owned <= GET_FUTURE_BYTES_MAX, "{owned} bytes with an owned key");
    let digest = size_of_val(&namespace.get([7; 64]));
    assert!(digest <= GET_FUTURE_BYTES_MAX, "{digest} bytes with a key of 64 bytes");
}

/// A setting, its documented maximum, and its setter.
type Setting = (&'static str, u64, fn(BlobCacheConfigBuilder, u64) -> BlobCacheConfigBuilder);

fn size(value: u64) -> usize {
    usize::try_from(value).expect("64 bits")
}

const SETTINGS: [Setting; 11] = [
    ("l1_bytes_max", 1 << 46, |builder, most| builder.l1_bytes_max(size(most))),
    ("max_namespaces", 65_536, |builder, most| builder.max_namespaces(size(most))),
    ("content_metadata_keys_max", 1024, |builder, most| {
        builder.content_metadata_keys_max(size(most))
    }),
    ("content_metadata_bytes_max", 65_536, |builder, most| {
        builder.content_metadata_bytes_max(size(most))
    }),
    ("key_bytes_max", 65_535, |builder, most| builder.key_bytes_max(size(most))),
    ("labels_max", 1024, |builder, most| builder.labels_max(size(most))),
    ("label_bytes_max", 65_536, |builder, most| builder.label_bytes_max(size(most))),
    ("shard_count", 1024, |builder, most| builder.shard_count(size(most))),
    ("promotion_queue_max", 1 << 20, |builder, most| builder.promotion_queue_max(size(most))),
    ("l2_index_bytes_max", 1 << 40, |builder, most| builder.l2_index_bytes_max(size(most))),
    // In segments of 256 MiB.
    ("l2_bytes_max", 1 << 48, |builder, most| builder.l2_bytes_max(most)),
];

/// Allocations of opening a cache that holds nothing yet.
fn opened(config: BlobCacheConfig) -> usize {
    let (allocated, cache) = allocated(|| now(BlobCache::open(config)));
    put(&cache.expect("a cache in memory"), "key", "value");
    allocated.bytes
}

#[test]
fn settings_at_their_maxima_allocate_little() {
    let mut all = BlobCacheConfig::builder();
    for (name, most, set) in SETTINGS {
        let config = set(BlobCacheConfig::builder(), most).build().expect(name);
        let bytes = opened(config);
        assert!(bytes < 32 << 20, "{name}: {bytes}");
        all = set(all, most);
        for beyond in [most + 1, u64::from(u32::MAX) << 31, i64::MAX as u64, u64::MAX] {
            // A file that ends within a segment is rounded down.
            let beyond =
                if name == "l2_bytes_max" { beyond.max(most + (256 << 20)) } else { beyond };
            match set(BlobCacheConfig::builder(), beyond).build() {
                Err(CacheError::InvalidConfig { field, reason }) => {
                    assert_eq!(field, name);
                    assert!(reason.contains(&beyond.to_string()), "{name}: {reason}");
                    assert!(reason.contains(&most.to_string()), "{name}: {reason}");
                }
                other => panic!("{name} of {beyond}: {other:?}"),
            }
        }
    }
    let bytes = opened(all.build().expect("all at their maxima"));
    assert!(bytes < 32 << 20, "{bytes}");
}

#[test]
fn a_disk_tier_with_settings_at_their_maxima_opens_or_fails_cleanly() {
    for (name, most, set) in SETTINGS {
        let folder = tempfile::tempdir().expect("a folder");
        let builder = BlobCacheConfig::builder()
            .l2_path(folder.path())
            .l2_segment_bytes(if name == "l2_bytes_max" { 256 << 20 } else { 1 << 20 })
            .l2_bytes_max(16 << 20);
        let config = set(builder, most).build().expect(name);
        match futures::executor::block_on(BlobCache::open(config)) {
            Ok(cache) => {
                assert_ne!(name, "l2_bytes_max", "256 TiB");
                let idle_ttl = Some(Duration::from_secs(60));
                let extended = ExtendedTtlPolicy { idle_ttl, ..Default::default() };
                let policy = BlobCachePolicy::default().extended(extended);
                let put = BlobCachePut::new("value").with_policy(policy);
                futures::executor::block_on(cache.put("pages", "key", put)).expect("room");
                futures::executor::block_on(cache.close()).expect("a device that works");
            }
            Err(error) => {
                assert_eq!(name, "l2_bytes_max");
                let is_told = matches!(error, CacheError::L2Full { .. } | CacheError::L2Io { .. });
                assert!(is_told, "{error:?}");
            }
        }
    }
}
