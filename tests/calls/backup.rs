//! Backups of stores on real files.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures::FutureExt;
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError, CrashSafety, L2Compression};

const VALUES: u32 = 400;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn try_open(path: &Path, bytes: u64) -> Result<BlobCache, CacheError> {
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(path)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(bytes)
        .crash_safety(CrashSafety::Process)
        .l2_compression(L2Compression::Off);
    block_on(BlobCache::open(builder.build().unwrap()))
}

fn open(path: &Path) -> BlobCache {
    try_open(path, 64 << 20).unwrap()
}

fn value(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(10_000)
}

fn put(cache: &BlobCache, number: u32) {
    let put = BlobCachePut::new(value(number)).with_tags([format!("{}", number % 10)]);
    block_on(cache.put("space", number.to_le_bytes(), put)).unwrap();
}

fn filled(path: &Path) -> BlobCache {
    let cache = open(path);
    (0..VALUES).for_each(|number| put(&cache, number));
    cache
}

fn count(cache: &BlobCache) -> usize {
    let is_there = |number: &u32| {
        let hit = block_on(cache.get("space", number.to_le_bytes()));
        hit.is_some_and(|hit| {
            assert!(hit.value() == value(*number), "{number}");
            true
        })
    };
    (0..VALUES).filter(is_there).count()
}

#[test]
fn a_copy_has_what_the_store_had_and_goes_on_by_itself() {
    let folder = folder();
    let (path, copy) = (folder.path().join("store"), folder.path().join("deep/copy"));
    let cache = filled(&path);
    block_on(cache.invalidate_tags("space", &["3"])).unwrap();
    let report = block_on(cache.backup(&copy)).unwrap();
    assert_eq!(report.bytes(), fs::metadata(copy.join("data")).unwrap().len());
    assert!(report.bytes() < 48 << 20 && report.segments() > 3, "{report:?}");

    // As small a store as it needs, which grows as it is opened.
    for bytes in [64 << 20, 128 << 20] {
        let warm = try_open(&copy, bytes).unwrap();
        assert_eq!(count(&warm), 360);
        assert_eq!(block_on(warm.invalidate_tags("space", &["4"])).unwrap() % 40, 0);
        (0..VALUES).filter(|number| number % 10 == 4).for_each(|number| put(&warm, number));
        block_on(warm.close()).unwrap();
    }
    assert_eq!(count(&cache), 360);
    block_on(cache.close()).unwrap();
    assert_eq!(count(&open(&path)), 360);
}

#[test]
fn a_copy_is_made_beside_gets_and_puts() {
    let folder = folder();
    let cache = filled(&folder.path().join("store"));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..VALUES).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                put(&cache, number);
            }
        });
        for number in 0..4 {
            let copy = folder.path().join(format!("{number}"));
            let made = block_on(cache.backup(&copy));
            if number == 3 {
                is_over.store(true, Ordering::Relaxed);
            }
            made.unwrap();
            // All that was there is put again and again.
            assert!(count(&open(&copy)) > 300, "{number}");
        }
    });
}

#[test]
fn a_directory_with_a_store_is_refused_and_not_changed() {
    let folder = folder();
    let (path, other) = (folder.path().join("store"), folder.path().join("other"));
    let cache = filled(&path);
    let refused = block_on(cache.backup(&path)).unwrap_err();
    assert!(matches!(refused, CacheError::L2Locked { .. }), "{refused}");

    let closed = open(&other);
    put(&closed, 1);
    block_on(closed.close()).unwrap();
    let before = fs::read(other.join("data")).unwrap();
    let refused = block_on(cache.backup(&other)).unwrap_err();
    assert!(refused.to_string().contains("choose another directory"), "{refused}");
    assert!(fs::read(other.join("data")).unwrap() == before, "it was changed");

    let none = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    let refused = block_on(none.backup(folder.path().join("none"))).unwrap_err();
    assert!(matches!(refused, CacheError::InvalidConfig { .. }), "{refused}");
    assert!(!folder.path().join("none").exists());
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(cache.backup(folder.path().join("none"))), Err(CacheError::Closed));
}

#[test]
fn an_interrupted_copy_is_refused_until_another_one_takes_its_place() {
    let folder = folder();
    let (cache, copy) = (filled(&folder.path().join("store")), folder.path().join("copy"));
    for polls in 1..20 {
        let mut backup = Box::pin(cache.backup(&copy));
        for _ in 0..polls {
            thread::sleep(std::time::Duration::from_micros(200 * polls));
            match (&mut backup).now_or_never() {
                None => continue,
                // It was faster.
                Some(Ok(_)) => fs::remove_dir_all(&copy).unwrap(),
                // The one before ends a moment after its caller has gone.
                Some(Err(CacheError::L2Unavailable { .. })) => {}
                Some(Err(error)) => panic!("{error}"),
            }
            break;
        }
        drop(backup);
        // Its file is closed a moment later.
        if copy.join("data").exists() {
            match try_open(&copy, 64 << 20) {
                Err(CacheError::L2Damaged { reason, .. }) => {
                    assert!(reason.contains("not finished"), "{reason}");
                }
                Err(error) => panic!("{error}"),
                // All was copied when the caller went away.
                Ok(whole) => {
                    assert_eq!(count(&whole), VALUES as usize);
                    block_on(whole.close()).unwrap();
                    fs::remove_dir_all(&copy).unwrap();
                }
            }
        }
    }
    // The last one that was left ends.
    let begun = std::time::Instant::now();
    while let Err(error) = block_on(cache.backup(&copy)) {
        assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error}");
        assert!(begun.elapsed().as_secs() < 60, "{error}");
        thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(count(&open(&copy)), count(&cache));
}

#[test]
fn a_copy_that_is_cut_off_is_refused() {
    let folder = folder();
    let (cache, copy) = (filled(&folder.path().join("store")), folder.path().join("copy"));
    let report = block_on(cache.backup(&copy)).unwrap();
    let data = fs::OpenOptions::new().write(true).open(copy.join("data")).unwrap();
    data.set_len(report.bytes() - 4096).unwrap();
    let refused = try_open(&copy, 64 << 20).map(drop).unwrap_err();
    assert!(matches!(refused, CacheError::L2Damaged { .. }), "{refused}");
}
