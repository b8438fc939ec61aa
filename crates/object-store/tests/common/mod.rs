//! The tests, for the version of `object_store` that the root names.

mod behaviour;
mod concurrency;
mod deleting;
pub(crate) mod integration;
mod origin;
mod reading;
mod writing;

use std::sync::Arc;

use tamis::{BlobCache, BlobCacheConfig, Clock};

use super::cached::{CachedObjectStore, CachedObjectStoreBuilder};
use super::object_store;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

pub(crate) const KIB: u64 = 1024;

/// A cache in memory, whose clock a test moves.
pub(crate) async fn memory() -> (BlobCache, Clock) {
    #[expect(clippy::disallowed_methods, reason = "a clock has to start somewhere")]
    let clock = Clock::manual(std::time::SystemTime::now());
    let spawner = tokio::runtime::Handle::current();
    let config = BlobCacheConfig::builder().clock(clock.clone()).spawner(spawner).build().unwrap();
    (BlobCache::open(config).await.unwrap(), clock)
}

/// Small blocks and small requests, so that small objects have many.
pub(crate) fn small(inner: Arc<dyn ObjectStore>, cache: &BlobCache) -> CachedObjectStoreBuilder {
    CachedObjectStore::builder(inner, cache, "objects")
        .block_bytes(64 * KIB)
        .request_bytes_max(256 * KIB)
}

/// Bytes that tell their place.
pub(crate) fn content(seed: u64, length: u64) -> Vec<u8> {
    let words = (0..length.div_ceil(8)).flat_map(|word| (seed << 32 | word).to_le_bytes());
    words.take(usize::try_from(length).unwrap()).collect()
}

/// Whether a get of an object that is known answers without its inner store, which has another one.
pub(crate) async fn is_held(store: &dyn ObjectStore, inner: &InMemory, path: &str) -> bool {
    let path = Path::from(path);
    inner.put(&path, "one".into()).await.unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");
    inner.put(&path, "other".into()).await.unwrap();
    store.get(&path).await.unwrap().bytes().await.unwrap() == "one"
}
