//! Memory of calls in progress, measured by an allocator that counts live bytes: it stays within
//! the stated budgets, however many calls there are and however they are polled.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, L1Admission, L2Compression,
};

const MIB: usize = 1 << 20;
const VALUE_BYTES: usize = 32 * MIB;
const L1_BYTES: usize = 16 * MIB;
const READ_BYTES: usize = 64 * MIB;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator with a count of live bytes.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is passed unchanged to `System`, which upholds the contract of `GlobalAlloc`;
// the counts are separate atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Held by the test that counts.
static COUNTED: Mutex<()> = Mutex::new(());

#[test]
fn sixty_four_gets_of_long_compressed_values_stay_within_their_budget() {
    let _counted = COUNTED.lock();
    let directory = tempfile::tempdir().unwrap();
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(L1_BYTES)
        .l2_path(directory.path())
        .l2_bytes_max(256 << 20)
        .l2_segment_bytes(64 << 20)
        .l2_read_bytes_max(READ_BYTES);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let value = Bytes::from(vec![7; VALUE_BYTES]);
    for number in 0..64u8 {
        let put = BlobCachePut::new(value.clone()).with_policy(policy.clone());
        block_on(cache.put("n", [number], put)).unwrap();
    }
    block_on(cache.sync()).unwrap();
    drop(value);
    let before = LIVE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let gets = (0..64u8).map(async |number| {
        let hit = cache.get("n", [number]).await.unwrap();
        assert!(hit.value().len() == VALUE_BYTES && hit.value()[VALUE_BYTES / 2] == 7);
        assert!(cache.stats().memory_reads_bytes() <= READ_BYTES);
    });
    block_on(join_all(gets));
    let most = MOST.load(Ordering::Relaxed) - before;
    // Each value belongs to its caller once it is returned, and is dropped at once.
    println!("at most {} MiB, of {} MiB", most / MIB, READ_BYTES / MIB);
    assert!(most <= (READ_BYTES + L1_BYTES) * 115 / 100, "{most} bytes at one time");
    assert_eq!(cache.stats().memory_reads_bytes(), 0);
}

#[test]
fn unpolled_puts_that_wait_for_their_records_keep_no_values() {
    let _counted = COUNTED.lock();
    let directory = tempfile::tempdir().unwrap();
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(MIB)
        .l2_path(directory.path())
        .l2_bytes_max(256 << 20)
        .l2_segment_bytes(16 << 20)
        .l2_compression(L2Compression::Off);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let value = Bytes::from(vec![7; 200 << 10]);
    let put = || BlobCachePut::new(value.clone()).with_policy(policy.clone());
    let keys = 0..400_u32;
    for number in keys.clone() {
        // The overwritten entries are on disk, so these puts wait until their records are, too.
        block_on(cache.put("n", number.to_le_bytes(), put())).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let (before, written) = (LIVE.load(Ordering::Relaxed), cache.stats().l2_write_bytes());
    let mut context = Context::from_waker(Waker::noop());
    let mut calls: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for number in keys.clone() {
        let (cache, put) = (cache.clone(), put());
        let mut call = Box::pin(async move {
            cache.put("n", number.to_le_bytes(), put).await.unwrap();
        });
        let _ = call.as_mut().poll(&mut context);
        calls.push(call);
        std::thread::sleep(Duration::from_millis(1));
    }
    block_on(cache.sync()).unwrap();
    assert!(cache.stats().l2_write_bytes() > written + (60 << 20), "few puts have begun");
    let held = LIVE.load(Ordering::Relaxed).saturating_sub(before);
    // Far less than the 80 MiB of their values: the write buffer and some slack.
    assert!(held < 20 * MIB, "{held} bytes are held by {} calls", calls.len());
}

/// A call that was polled a few times and left alone, and the bytes of the value that it owns.
type Sleeper = (Pin<Box<dyn Future<Output = ()>>>, usize);

/// Memory that the documents state for a cache of this configuration, everything counted.
fn stated(config: &BlobCacheConfig, names_bytes: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let copies = config.l1_bytes_max() / 8 + 16 * MIB;
    let segments = 2 * (config.l2_index_bytes_max() / 8);
    let contexts = 4 * cores * MIB;
    let namespaces = config.max_namespaces() << 10;
    // Watermarks, rings, flights and threads do not grow with the work.
    let fixed = 8 * MIB;
    config.l1_bytes_max()
        + config.l2_index_bytes_max()
        + config.l2_read_bytes_max()
        + (copies + 20 * MIB + segments + contexts)
        + (namespaces + 2 * names_bytes + fixed)
}

/// Polls a call up to `polls` times; one that is not over by then is kept.
fn begin(
    call: impl Future<Output = ()> + 'static,
    polls: usize,
    bytes: usize,
    sleepers: &mut Vec<Sleeper>,
) {
    let mut context = Context::from_waker(Waker::noop());
    let mut call: Pin<Box<dyn Future<Output = ()>>> = Box::pin(call);
    if (0..polls).all(|_| call.as_mut().poll(&mut context).is_pending()) {
        sleepers.push((call, bytes));
    }
}

#[test]
fn after_every_step_memory_is_within_the_sum_of_the_stated_bounds() {
    let _counted = COUNTED.lock();
    for seed in 0..4 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let before = LIVE.load(Ordering::Relaxed);
        let builder = BlobCacheConfig::builder()
            .l1_bytes_max(4 * MIB)
            .l2_path(directory.path())
            .l2_bytes_max(64 << 20)
            .l2_segment_bytes(4 << 20)
            .l2_index_bytes_max(256 << 10)
            .l2_read_bytes_max(4 * MIB)
            .max_namespaces(64);
        let config = builder.build().unwrap();
        let mut cache = block_on(BlobCache::open(config.clone())).unwrap();
        let (mut sleepers, mut most): (Vec<Sleeper>, usize) = (Vec::new(), 0);
        for step in 0..1500 {
            let space = format!("namespace {}", random.random_range(0..64));
            let key = random.random_range(0..3000_u32).to_le_bytes();
            let (polls, of) = (random.random_range(1..40), cache.clone());
            match random.random_range(0..100) {
                0..60 => {
                    let longest = [200, 20_000, 2 << 20][random.random_range(0..3)];
                    let value: Vec<u8> = vec![7; random.random_range(1..longest)];
                    let bytes = value.capacity();
                    let put = BlobCachePut::new(value).with_tags([format!("{}", step % 50)]);
                    let call = async move { _ = of.put(&space, key, put).await };
                    begin(call, polls, bytes, &mut sleepers);
                }
                60..90 => {
                    let call = async move { _ = of.get(&space, key).await };
                    begin(call, polls, 0, &mut sleepers);
                }
                90..94 => {
                    let call = async move { _ = of.invalidate_tags(&space, &["7"]).await };
                    begin(call, polls, 0, &mut sleepers);
                }
                94..97 => {
                    let call = async move { _ = of.invalidate_prefix(&space, [1]).await };
                    begin(call, polls, 0, &mut sleepers);
                }
                97..98 => _ = block_on(cache.invalidate_namespace(&space)).unwrap(),
                98..99 => sleepers.clear(),
                _ => {
                    sleepers.clear();
                    drop(of);
                    block_on(cache.close()).unwrap();
                    cache = block_on(BlobCache::open(config.clone())).unwrap();
                }
            }
            let callers: usize = sleepers.iter().map(|(_, bytes)| 4096 + bytes).sum();
            let live = LIVE.load(Ordering::Relaxed).saturating_sub(before);
            let held = live.saturating_sub(callers);
            most = most.max(held);
            let bound = stated(&config, 64 * "namespace 64".len());
            assert!(held <= bound, "seed {seed}, step {step}: {held} bytes, {bound} are stated");
        }
        println!("at most {most} of {}", stated(&config, 64 * "namespace 64".len()));
        drop(sleepers);
        block_on(cache.close()).unwrap();
    }
}
