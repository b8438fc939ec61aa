//! Stores on real files that are lost, cut off, full or read-only. The process goes on with what it
//! has; no get finds anything older than the newest, in this process and the next.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../engine/mod.rs"]
mod engine;
mod lost;
mod model;
mod shared;
mod systems;

use std::path::Path;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, CacheError};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn config(path: &Path, bytes: u64) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(64 << 10).l2_path(path);
    let builder = builder.l2_engine(engine::engine(0));
    builder.l2_bytes_max(bytes).l2_segment_bytes(256 << 10).build().unwrap()
}

fn open(path: &Path, bytes: u64) -> Result<BlobCache, CacheError> {
    block_on(BlobCache::open(config(path, bytes)))
}
