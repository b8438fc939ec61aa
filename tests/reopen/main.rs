//! A disk tier that cannot be opened, and is not required: the cache runs in memory, says why, and
//! gets its disk tier later. No process finds in the store what was replaced meanwhile.

#![cfg(all(feature = "disk", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../engine/mod.rs"]
mod engine;

mod beside_owners;
mod reopening;

use std::fs;
use std::path::{Path, PathBuf};

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, CacheError};
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

const BYTES: u64 = 8 << 20;

fn builder(path: &Path) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(4 << 20)
        .l2_path(path)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(BYTES)
}

fn open(path: &Path) -> Result<BlobCache, CacheError> {
    block_on(BlobCache::open(builder(path).build().unwrap()))
}

fn open_anyway(path: &Path) -> BlobCache {
    let config = builder(path).l2_required(false).build().unwrap();
    assert!(!config.l2_required());
    block_on(BlobCache::open(config)).unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn get(cache: &BlobCache, key: &str) -> Option<Vec<u8>> {
    block_on(cache.get("space", key)).map(|hit| hit.value().to_vec())
}

fn put(cache: &BlobCache, key: &str, value: &'static str) -> Result<(), CacheError> {
    block_on(cache.put("space", key, value))
}

/// Closed, with the key `old`.
fn closed_store(path: &Path) {
    let cache = open(path).unwrap();
    put(&cache, "old", "of the store").unwrap();
    block_on(cache.close()).unwrap();
}

fn without_data(path: &Path) -> Box<dyn FnOnce()> {
    let (data, aside) = (path.join("data"), path.join("aside"));
    fs::rename(&data, &aside).unwrap();
    fs::create_dir(&data).unwrap();
    Box::new(move || {
        fs::remove_dir(&data).unwrap();
        fs::rename(aside, data).unwrap();
    })
}

/// A store as if a later version had written it.
fn of_newer_format(mut image: Vec<u8>) -> Vec<u8> {
    for copy in [0, 4096] {
        image[copy + 8..copy + 12].copy_from_slice(&2u32.to_le_bytes());
        let check = xxh3_64(&image[copy..copy + 12]).to_le_bytes();
        image[copy + 12..copy + 16].copy_from_slice(&check[..4]);
    }
    image
}

/// A cache without the store in its folder, and what brings that back.
fn without_store() -> (TempDir, PathBuf, BlobCache, Box<dyn FnOnce()>) {
    let folder = folder();
    let path = folder.path().join("store");
    closed_store(&path);
    let mend = without_data(&path);
    let cache = open_anyway(&path);
    (folder, path, cache, mend)
}
