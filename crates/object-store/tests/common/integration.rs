//! The suite that `object_store` has for its own stores: every function that fits a wrapper. Cold,
//! warm, with every answer confirmed, and with answers that may be an hour old, which the suite
//! must not notice, as all writes go through the wrapper.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tamis::{BlobCache, BlobCacheConfig};

use super::object_store::ObjectStore;
use super::object_store::integration::*;
use super::object_store::local::LocalFileSystem;
use super::object_store::memory::InMemory;
use crate::cached::CachedObjectStore;

const HOUR: Duration = Duration::from_secs(3600);

/// In memory, or with a disk tier that most blocks go to.
pub(crate) async fn cache(folder: Option<&tempfile::TempDir>) -> BlobCache {
    let spawner = tokio::runtime::Handle::current();
    let config = BlobCacheConfig::builder().spawner(spawner);
    let config = match folder {
        None => config,
        Some(folder) => {
            config.l1_bytes_max(16 << 20).l2_path(folder.path()).l2_bytes_max(256 << 20)
        }
    };
    BlobCache::open(config.build().unwrap()).await.unwrap()
}

/// What an inner store is like.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Suite<'a> {
    /// The folder of a store of files.
    pub(crate) files: Option<&'a Path>,
    /// A copy replaces what is at its destination, though it is asked not to.
    pub(crate) copies_over: bool,
}

/// Twice, so that the second time finds what the first has left in the cache.
pub(crate) async fn everything(store: &CachedObjectStore, suite: Suite<'_>) {
    let is_of_files = suite.files.is_some();
    for _ in 0..2 {
        put_get_delete_list(store).await;
        list_with_offset_exclusivity(store).await;
        get_opts(store).await;
        list_uses_directories_correctly(store).await;
        list_with_delimiter(store).await;
        rename_and_copy(store).await;
        if !suite.copies_over {
            copy_if_not_exists(store).await;
            copy_rename_nonexistent_object(store).await;
        }
        stream_get(store).await;
        put_opts(store, !is_of_files).await;
        get_nonexistent_object(store, None).await.unwrap_err();
        if !is_of_files {
            put_get_attributes(store).await;
        }
        for path in ["test", "test2", "put_opts", "RACE", "attributes"] {
            let _ = super::object_store::ObjectStoreExt::delete(store, &path.into()).await;
        }
        // A store of files lists the folders of objects that were deleted.
        suite.files.into_iter().for_each(prune);
    }
}

/// Removes the empty folders of a folder.
fn prune(folder: &Path) {
    for item in fs::read_dir(folder).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            prune(&path);
            let _ = fs::remove_dir(&path);
        }
    }
}

pub(crate) fn settings(inner: Arc<dyn ObjectStore>, cache: &BlobCache) -> Vec<CachedObjectStore> {
    let build = |number: u32| {
        CachedObjectStore::builder(inner.clone(), cache, &format!("objects {number}"))
    };
    let builders = [
        build(0),
        build(1).staleness(HOUR).absences(HOUR),
        build(2).immutable(|_| true).block_bytes(64 << 10).request_bytes_max(64 << 10),
        build(3).staleness(HOUR).block_bytes(4 << 20).read_ahead(8 << 20),
    ];
    builders.map(|builder| builder.build().unwrap()).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_memory() {
    let folder = tempfile::tempdir().unwrap();
    for folder in [None, Some(&folder)] {
        let (cache, inner) = (cache(folder).await, Arc::new(InMemory::new()));
        for store in settings(inner, &cache) {
            everything(&store, Suite::default()).await;
            let stats = store.stats();
            assert!(stats.metas_fetched > 0 && stats.inner_gets > 0, "{stats:?}");
        }
        cache.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_files() {
    let (folder, of_cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let inner = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let cache = cache(Some(&of_cache)).await;
    for store in settings(inner, &cache) {
        let suite = Suite { files: Some(folder.path()), ..Suite::default() };
        everything(&store, suite).await;
    }
}

/// These write to the inner store: only a wrapper that asks each time sees it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_past_the_wrapper() {
    let (cache, inner) = (cache(None).await, InMemory::new());
    let store = CachedObjectStore::builder(Arc::new(inner.clone()), &cache, "objects").build();
    let store = store.unwrap();
    for _ in 0..2 {
        multipart(&store, &inner).await;
    }
    multipart_race_condition(&store, true).await;
    multipart_out_of_order(&store).await;
}
