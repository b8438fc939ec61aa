//! Sizes that change: stores on real files that are opened with other sizes, and the budgets of a
//! cache that is open.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut, CacheError,
    L1Admission, L2Compression,
};

const SEGMENT: u64 = 1 << 20;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn builder(path: &Path, segments: u64) -> BlobCacheConfigBuilder {
    let builder = BlobCacheConfig::builder()
        .l2_path(path)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(segments * SEGMENT);
    builder.l2_compression(L2Compression::Off).l2_second_chances(false)
}

fn open(path: &Path, segments: u64) -> BlobCache {
    block_on(BlobCache::open(builder(path, segments).build().unwrap())).unwrap()
}

fn file_bytes(path: &Path) -> u64 {
    fs::metadata(path.join("data")).unwrap().len()
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(25_000)
}

fn put(cache: &BlobCache, number: u32) {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put = BlobCachePut::new(value(number)).with_policy(policy);
    block_on(cache.put("space", number.to_le_bytes(), put)).unwrap();
}

/// Which of the numbers are there, with their right values.
fn found(cache: &BlobCache, numbers: u32) -> Vec<u32> {
    let is_there = |number: &u32| {
        let hit = block_on(cache.get("space", number.to_le_bytes()));
        hit.is_some_and(|hit| {
            assert!(hit.value() == value(*number), "{number}");
            true
        })
    };
    (0..numbers).filter(is_there).collect()
}

#[test]
fn a_store_grows_with_all_that_it_has_and_shrinks_to_the_newest() {
    let folder = folder();
    let path = folder.path();
    let cache = open(path, 16);
    (0..100).for_each(|number| put(&cache, number));
    block_on(cache.close()).unwrap();

    let cache = open(path, 40);
    assert_eq!(file_bytes(path), 8192 + 40 * SEGMENT);
    assert_eq!(cache.stats().l2_bytes_max(), 8192 + 40 * SEGMENT);
    assert!(cache.stats().recovery_from_image() && cache.stats().recovery_dropped() == 0);
    assert_eq!(found(&cache, 100).len(), 100, "a larger store keeps everything");
    (100..300).for_each(|number| put(&cache, number));
    assert_eq!(found(&cache, 300).len(), 300, "and has room for more");
    block_on(cache.close()).unwrap();

    for segments in [20, 7, 4] {
        let cache = open(path, segments);
        assert_eq!(file_bytes(path), 8192 + segments * SEGMENT);
        let stats = cache.stats();
        assert!(stats.recovery_dropped() > 0 && stats.l2_corruptions() == 0, "{stats:?}");
        let kept = found(&cache, 300);
        let oldest = kept[0];
        assert_eq!(kept, (oldest..300).collect::<Vec<_>>(), "the newest");
        let count = u64::from(300 - oldest);
        // About ten values in a segment; the last one may have just begun.
        assert!((9 * (segments - 2)..=10 * (segments - 1)).contains(&count), "{count}");
        block_on(cache.close()).unwrap();
    }
    let cache = open(path, 30);
    assert_eq!(cache.stats().recovery_dropped(), 0);
    assert_eq!(file_bytes(path), 8192 + 30 * SEGMENT);
    let kept = found(&cache, 300).len();
    (300..500).for_each(|number| put(&cache, number));
    assert_eq!(found(&cache, 500).len(), kept + 200);
    block_on(cache.close()).unwrap();
}

#[test]
fn a_store_that_cannot_grow_is_refused_unchanged() {
    const LARGE: u32 = 16 << 20;
    let folder = folder();
    let path = folder.path();
    let open = |bytes: u64| {
        let builder = BlobCacheConfig::builder()
            .l2_path(path)
            .l2_engine(crate::engine::engine(0))
            .l2_bytes_max(bytes);
        let builder = builder.l2_segment_bytes(LARGE).l2_index_bytes_max(1 << 20);
        block_on(BlobCache::open(builder.build().unwrap()))
    };
    let cache = open(4 * u64::from(LARGE)).unwrap();
    put(&cache, 7);
    block_on(cache.close()).unwrap();
    let before = fs::read(path.join("data")).unwrap();
    match open(8 << 40).unwrap_err() {
        CacheError::L2Full { path: told, size, max } => {
            assert!(told.starts_with(path));
            assert!(size > max && size < 8 << 40 && size > 7 << 40, "{size} {max}");
        }
        error => panic!("{error:?}"),
    }
    assert!(fs::read(path.join("data")).unwrap() == before, "it has changed");
    let cache = open(4 * u64::from(LARGE)).unwrap();
    assert!(cache.stats().recovery_from_image());
    assert_eq!(found(&cache, 10), [7]);
    block_on(cache.close()).unwrap();
}

#[test]
fn the_size_of_segments_is_for_stores_without_entries() {
    let folder = folder();
    let path = folder.path();
    let open = |segment: u32| {
        let config = builder(path, 16).l2_segment_bytes(segment).build().unwrap();
        block_on(BlobCache::open(config)).unwrap()
    };
    let largest = |cache: &BlobCache| {
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let put = BlobCachePut::new(vec![7; 3 << 20]).with_policy(policy);
        block_on(cache.put("space", "large", put))
    };
    let cache = open(1 << 20);
    put(&cache, 7);
    block_on(cache.close()).unwrap();
    let cache = open(4 << 20);
    assert_eq!(found(&cache, 10), [7], "its segments are kept");
    assert!(matches!(largest(&cache), Err(CacheError::BlobTooLarge { .. })));
    assert_eq!(block_on(cache.invalidate_key("space", 7_u32.to_le_bytes())), Ok(1));
    block_on(cache.close()).unwrap();
    let cache = open(4 << 20);
    assert_eq!(largest(&cache), Ok(()), "it was empty");
    assert_eq!(file_bytes(path), 8192 + 16 * SEGMENT);
    block_on(cache.close()).unwrap();
}

#[test]
fn a_store_with_room_for_too_few_of_its_segments_begins_anew() {
    let folder = folder();
    let path = folder.path();
    let large = builder(path, 64).l2_segment_bytes(8 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(large)).unwrap();
    (0..100).for_each(|number| put(&cache, number));
    block_on(cache.close()).unwrap();
    let cache = open(path, 16);
    assert_eq!(file_bytes(path), 8192 + 16 * SEGMENT);
    assert!(cache.stats().recovery_dropped() > 0, "it says so");
    assert!(found(&cache, 100).is_empty());
    put(&cache, 3);
    block_on(cache.close()).unwrap();
    assert_eq!(found(&open(path, 16), 100), [3]);
}

/// Readers go on, and find right values or none.
#[test]
fn the_file_of_an_open_cache_grows_and_shrinks() {
    let folder = folder();
    let path = folder.path();
    let cache = open(path, 8);
    let is_over = Arc::new(AtomicBool::new(false));
    let reader = thread::spawn({
        let (cache, is_over) = (cache.clone(), Arc::clone(&is_over));
        move || {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) {
                reads += found(&cache, 400).len();
            }
            reads
        }
    });
    let resize = |segments: u64| {
        block_on(cache.set_l2_bytes_max(segments * SEGMENT + 5)).unwrap();
        assert_eq!(file_bytes(path), 8192 + segments * SEGMENT, "when it returns");
        assert_eq!(cache.stats().l2_bytes_max(), 8192 + segments * SEGMENT);
    };
    (0..50).for_each(|number| put(&cache, number));
    resize(40);
    (50..350).for_each(|number| put(&cache, number));
    assert_eq!(found(&cache, 400).len(), 350, "a larger file has room for more");
    for segments in [30, 5, 4] {
        resize(segments);
        let kept = found(&cache, 400);
        let oldest = *kept.first().unwrap_or_else(|| panic!("{segments}: {:?}", cache.stats()));
        assert_eq!(kept, (oldest..350).collect::<Vec<_>>(), "the newest");
        assert!(kept.len() >= usize::try_from(9 * (segments - 3)).unwrap(), "{}", kept.len());
    }
    (350..360).for_each(|number| put(&cache, number));
    resize(12);
    let kept = found(&cache, 400);
    is_over.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
    let stats = cache.stats();
    assert_eq!((stats.l2_corruptions(), stats.l2_io_errors()), (0, 0));
    assert_eq!(cache.config().l2_bytes_max(), 8 * SEGMENT, "what it was opened with");
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(cache.set_l2_bytes_max(8 * SEGMENT)), Err(CacheError::Closed));
    let cache = open(path, 12);
    assert_eq!(found(&cache, 400), kept);
    block_on(cache.close()).unwrap();
}

#[test]
fn a_size_that_cannot_be_had_changes_nothing() {
    let folder = folder();
    let path = folder.path();
    let builder = builder(path, 64).l2_segment_bytes(16 << 20).l2_index_bytes_max(1 << 20);
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    put(&cache, 7);
    match block_on(cache.set_l2_bytes_max(8 << 40)) {
        Err(CacheError::L2Full { size, max, .. }) => assert!(size > max, "{size} {max}"),
        other => panic!("{other:?}"),
    }
    for bytes in [0, 3 * (16 << 20), u64::MAX] {
        match block_on(cache.set_l2_bytes_max(bytes)) {
            Err(CacheError::InvalidConfig { field: "l2_bytes_max", reason }) => {
                assert!(reason.contains(&bytes.to_string()), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(file_bytes(path), 8192 + 64 * SEGMENT);
    assert_eq!(found(&cache, 10), [7], "the disk tier goes on");
    block_on(cache.close()).unwrap();
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    let error = block_on(cache.set_l2_bytes_max(64 << 20)).unwrap_err();
    assert!(matches!(error, CacheError::InvalidConfig { field: "l2_bytes_max", .. }), "{error}");
}

#[test]
fn a_smaller_memory_holds_no_more_than_that_from_then_on() {
    let config = BlobCacheConfig::builder().l1_bytes_max(16 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    for number in 0..100_u32 {
        block_on(cache.put("space", number.to_le_bytes(), value(number))).unwrap();
    }
    assert_eq!(found(&cache, 100).len(), 100);
    block_on(cache.set_l1_bytes_max(4 << 20)).unwrap();
    assert!(cache.stats().bytes_in_use() <= 4 << 20 && cache.stats().evictions() > 50);
    assert_eq!((cache.stats().l1_bytes_max(), cache.config().l1_bytes_max()), (4 << 20, 16 << 20));
    // An eighth of it.
    let put = |bytes: usize| block_on(cache.put("space", "large", vec![7; bytes]));
    assert!(matches!(put(1 << 20), Err(CacheError::BlobTooLarge { .. })));
    block_on(cache.set_l1_bytes_max(32 << 20)).unwrap();
    assert_eq!(put(1 << 20), Ok(()));
    for bytes in [0, (64 << 10) - 1, usize::MAX] {
        let error = block_on(cache.set_l1_bytes_max(bytes)).unwrap_err();
        assert!(matches!(error, CacheError::InvalidConfig { field: "l1_bytes_max", .. }));
        assert!(error.to_string().contains(&bytes.to_string()), "{error}");
    }
    assert_eq!(cache.stats().l1_bytes_max(), 32 << 20);
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(cache.set_l1_bytes_max(1 << 20)), Err(CacheError::Closed));
}

#[test]
fn puts_beside_it_never_exceed_the_budget_that_was_set() {
    let config = BlobCacheConfig::builder().l1_bytes_max(8 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3_u32)
        .map(|writer| {
            let (cache, is_over) = (cache.clone(), Arc::clone(&is_over));
            thread::spawn(move || {
                for number in (0_u32..).take_while(|_| !is_over.load(Ordering::Relaxed)) {
                    let key = [writer, number % 500].map(u32::to_le_bytes).concat();
                    let value = vec![7; 1000 * (number as usize % 60)];
                    block_on(cache.put("space", key, value)).unwrap();
                }
            })
        })
        .collect();
    let mut evicted = 0;
    for round in 0..60_usize {
        let bytes = [8 << 20, 1 << 20, 3 << 20, 600 << 10][round % 4];
        block_on(cache.set_l1_bytes_max(bytes)).unwrap();
        for _ in 0..50 {
            let used = cache.stats().bytes_in_use();
            assert!(used <= bytes, "{used} of {bytes}");
        }
        evicted = cache.stats().evictions();
    }
    is_over.store(true, Ordering::Relaxed);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert!(evicted > 100, "{evicted}");
}
