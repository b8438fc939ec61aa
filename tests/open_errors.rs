//! Errors of `open`: damaged stores and unusable paths. Each error is typed, has the facts, and
//! changes nothing.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobLimit, CacheError};
use xxhash_rust::xxh3::xxh3_64;

fn config(path: &Path, bytes: u64) -> BlobCacheConfig {
    BlobCacheConfig::builder().l2_path(path).l2_bytes_max(bytes).build().unwrap()
}

fn open(path: &Path, bytes: u64) -> Result<BlobCache, CacheError> {
    block_on(BlobCache::open(config(path, bytes)))
}

/// The message names the path, and does not repeat its source.
fn names_the_path(error: &CacheError, path: &Path) {
    let told = error.to_string();
    assert!(told.contains(path.to_str().unwrap()), "{told}");
    if let Some(source) = std::error::Error::source(error) {
        assert!(!told.contains(&source.to_string()), "{told}: {source}");
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A closed store with one entry.
fn closed_store(bytes: u64) -> tempfile::TempDir {
    let folder = folder();
    let cache = open(folder.path(), bytes).unwrap();
    block_on(cache.put("space", "key", "value")).unwrap();
    block_on(cache.close()).unwrap();
    folder
}

fn is_warm(path: &Path, bytes: u64) -> bool {
    let cache = open(path, bytes).unwrap();
    let hit = block_on(cache.get("space", "key"));
    block_on(cache.close()).unwrap();
    hit.is_some_and(|hit| hit.value() == b"value")
}

#[test]
fn a_path_that_cannot_be_a_directory_is_refused() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    let error = open(&file.join("store"), 8 << 20).unwrap_err();
    assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
    names_the_path(&error, &file.join("store"));
}

#[test]
fn a_path_without_permissions_is_refused() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let refused = std::thread::spawn({
        let path = path.clone();
        move || {
            // Root may do everything, so this thread and those it starts change to another user.
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
            }
            open(&path, 8 << 20).unwrap_err()
        }
    });
    let error = refused.join().unwrap();
    let CacheError::L2Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.get_ref().kind(), std::io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("store"), "{error}");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_file_of_another_kind_is_refused_untouched() {
    let folder = folder();
    let data = folder.path().join("data");
    let diary: Vec<u8> = b"dear diary, ".iter().copied().cycle().take(9 << 20).collect();
    fs::write(&data, &diary).unwrap();
    let error = open(folder.path(), 8 << 20).unwrap_err();
    assert!(matches!(error, CacheError::L2Format { found: 0, supported: 1, .. }), "{error:?}");
    names_the_path(&error, folder.path());
    assert_eq!(fs::read(&data).unwrap(), diary);
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let folder = closed_store(8 << 20);
    let data = folder.path().join("data");
    let mut image = fs::read(&data).unwrap();
    for copy in [0, 4096] {
        image[copy + 8..copy + 12].copy_from_slice(&2u32.to_le_bytes());
        let check = xxh3_64(&image[copy..copy + 12]).to_le_bytes();
        image[copy + 12..copy + 16].copy_from_slice(&check[..4]);
    }
    fs::write(&data, &image).unwrap();
    let error = open(folder.path(), 8 << 20).unwrap_err();
    assert!(matches!(error, CacheError::L2Format { found: 2, supported: 1, .. }), "{error:?}");
    names_the_path(&error, folder.path());
    assert_eq!(fs::read(&data).unwrap(), image);
}

#[test]
fn a_second_opener_is_refused_and_a_closing_store_is_waited_for() {
    let folder = closed_store(8 << 20);
    let first = open(folder.path(), 8 << 20).unwrap();
    let error = open(folder.path(), 8 << 20).unwrap_err();
    assert!(matches!(error, CacheError::L2Locked { .. }), "{error:?}");
    names_the_path(&error, folder.path());
    drop(first);
    assert!(is_warm(folder.path(), 8 << 20), "the last handle's drop closes the store");
}

#[test]
fn a_full_file_system_reports_the_missing_bytes() {
    let folder = folder();
    match open(folder.path(), 12 << 40).unwrap_err() {
        error @ CacheError::L2Full { size, max, .. } => {
            assert!(size > max, "{size} {max}");
            names_the_path(&error, folder.path());
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_file_too_short_for_a_store_is_reported() {
    for bytes in [0, 1, 4095, 4096, 8191] {
        let folder = folder();
        fs::write(folder.path().join("data"), vec![0; bytes]).unwrap();
        let error = open(folder.path(), 8 << 20).unwrap_err();
        assert!(matches!(error, CacheError::L2Format { found: 0, .. }), "{error:?}");
        names_the_path(&error, folder.path());
        assert_eq!(fs::metadata(folder.path().join("data")).unwrap().len(), bytes as u64);
    }
}

#[test]
fn a_truncated_store_is_reported_as_damaged_and_unchanged() {
    let folder = closed_store(8 << 20);
    let data = folder.path().join("data");
    let mut image = fs::read(&data).unwrap();
    // Without the image of its index, which is no loss.
    image.truncate(8192 + (8 << 20));
    for bytes in [8192, 4 << 20, image.len() - 4096] {
        fs::write(&data, &image[..bytes]).unwrap();
        let error = open(folder.path(), 8 << 20).unwrap_err();
        assert!(matches!(error, CacheError::L2Damaged { .. }), "{error:?}");
        names_the_path(&error, folder.path());
        let told = error.to_string();
        assert!(told.contains(&bytes.to_string()), "{told}");
        assert!(told.contains(&image.len().to_string()), "{told}");
        assert!(fs::read(&data).unwrap() == image[..bytes]);
    }
    fs::write(&data, &image).unwrap();
    assert!(is_warm(folder.path(), 8 << 20));
}

#[test]
fn a_store_is_private_to_its_owner_by_default() {
    let folder = closed_store(8 << 20);
    let data = folder.path().join("data");
    let mode = || fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(is_warm(folder.path(), 8 << 20));
    assert_eq!(mode(), 0o640);
}

/// The descriptors that this process has for the data file of a store.
fn descriptors(folder: &Path) -> Vec<i32> {
    let data = folder.join("data");
    let open = fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let of_store = open.filter(|one| fs::read_link(one.path()).is_ok_and(|path| path == data));
    of_store.map(|one| one.file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_forked_child_does_not_keep_a_closed_store_locked() {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let folder = closed_store(8 << 20);
    let cache = open(folder.path(), 8 << 20).unwrap();
    // Like those of a child: other descriptors of the same open file.
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let copied = descriptors(folder.path()).into_iter();
    let copies = copied.map(|one| pidfd_getfd(&own, one, PidfdGetfdFlags::empty()).unwrap());
    let copies: Vec<_> = copies.collect();
    assert!(!copies.is_empty());
    block_on(cache.close()).unwrap();
    assert!(is_warm(folder.path(), 8 << 20));
    let last = open(folder.path(), 8 << 20).unwrap();
    drop(last);
    assert!(is_warm(folder.path(), 8 << 20));
    drop(copies);
}

#[test]
fn a_close_that_is_polled_once_releases_the_store() {
    use futures::FutureExt;
    let folder = closed_store(8 << 20);
    let cache = open(folder.path(), 8 << 20).unwrap();
    let mut closing = Box::pin(cache.close());
    assert!(closing.as_mut().now_or_never().is_none());
    assert!(is_warm(folder.path(), 8 << 20));
    assert!(closing.now_or_never().is_some());
    // An open that is dropped before or during its recovery.
    let builder = BlobCacheConfig::builder().l2_path(folder.path()).l2_bytes_max(8 << 20);
    let config = builder.build().unwrap();
    for pauses in 0..20 {
        let mut opening = Box::pin(BlobCache::open(config.clone()));
        for _ in 0..pauses {
            if opening.as_mut().now_or_never().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        drop(opening);
        assert!(is_warm(folder.path(), 8 << 20));
    }
}

#[test]
fn a_half_created_store_is_created_again() {
    let folder = folder();
    fs::write(folder.path().join("data.new"), "half").unwrap();
    let cache = open(folder.path(), 8 << 20).unwrap();
    block_on(cache.close()).unwrap();
    let folder = self::folder();
    fs::write(folder.path().join("data"), vec![0; (8 << 20) + 8192]).unwrap();
    let cache = open(folder.path(), 8 << 20).unwrap();
    block_on(cache.put("space", "key", "value")).unwrap();
    block_on(cache.close()).unwrap();
    assert!(is_warm(folder.path(), 8 << 20));
}

#[test]
fn blobs_from_empty_to_a_whole_segment_are_stored() {
    let folder = folder();
    let value = |bytes: usize| -> Vec<u8> { (0..=255).cycle().take(bytes).collect() };
    let largest = (1 << 20) - 3 * 4096;
    let sizes = [0usize, 1, 4095, 4096, 4097, 100_000, largest];
    let builder = || BlobCacheConfig::builder().l1_bytes_max(64 << 10).l2_path(folder.path());
    let config = || builder().l2_bytes_max(12 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(config())).unwrap();
    for bytes in sizes {
        block_on(cache.put("space", bytes.to_le_bytes(), value(bytes))).unwrap();
    }
    for bytes in [1 << 20, 5 << 20] {
        let error = block_on(cache.put("space", "large", value(bytes))).unwrap_err();
        let limit = BlobLimit::Segment;
        assert!(matches!(error, CacheError::BlobTooLarge { limit: it, .. } if it == limit));
        assert!(error.to_string().contains("l2_segment_bytes"), "{error}");
    }
    block_on(cache.close()).unwrap();
    let cache = block_on(BlobCache::open(config())).unwrap();
    for bytes in sizes {
        let hit = block_on(cache.get("space", bytes.to_le_bytes())).unwrap();
        assert_eq!(hit.value(), value(bytes));
    }
    block_on(cache.close()).unwrap();
}

#[test]
fn an_idle_store_uses_no_cpu() {
    let folder = closed_store(8 << 20);
    let cache = open(folder.path(), 8 << 20).unwrap();
    block_on(cache.get("space", "key")).unwrap();
    // Longer than a write batch waits to fill.
    std::thread::sleep(Duration::from_millis(1500));
    let ticks = || -> u64 {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")));
        stats
            .map(Result::unwrap)
            .filter(|stat| stat.contains("(tamis-"))
            .map(|stat| {
                let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
                fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
            })
            .sum()
    };
    let (before, start) = (ticks(), Instant::now());
    while start.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(ticks() - before <= 1, "{} ticks", ticks() - before);
    block_on(cache.close()).unwrap();
}
