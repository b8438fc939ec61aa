//! What reads under way take in memory, by an allocator that counts what is live: however many and
//! however large they are, it stays within the budget that is stated for them.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "whatever fails, fails the test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::join_all;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, L1Admission};

const MIB: usize = 1 << 20;
const VALUE_BYTES: usize = 32 * MIB;
const L1_BYTES: usize = 16 * MIB;
const READ_BYTES: usize = 64 * MIB;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, with a count of what is live.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn grown(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call is handed on as it came to `System`, which keeps the contract of
// `GlobalAlloc`; the counts are atomics of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises for this very call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promises for this very call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises for this very call.
        unsafe { System.dealloc(block, layout) }
    }
}

#[test]
fn sixty_four_gets_of_long_compressed_values_stay_within_their_budget() {
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
    // Each value belongs to its caller when it is there, who lets go of it at once.
    println!("at most {} MiB, of {} MiB", most / MIB, READ_BYTES / MIB);
    assert!(most <= (READ_BYTES + L1_BYTES) * 115 / 100, "{most} bytes at one time");
    assert_eq!(cache.stats().memory_reads_bytes(), 0);
}
