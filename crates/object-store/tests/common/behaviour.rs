//! What a store is: its names, its claims, its settings, and what is left after a restart.

use std::sync::Arc;
use std::time::Duration;

use tamis::{BlobCache, BlobCacheConfig};

use super::object_store::memory::InMemory;
use super::object_store::path::Path;
use super::object_store::{GetRange, ObjectStore, ObjectStoreExt};
use super::origin::Origin;
use super::{KIB, content, memory, small};
use crate::cached::{BuildError, CachedObjectStore};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_store_says_what_is_inside() {
    let (cache, _) = memory().await;
    let store = small(Arc::new(InMemory::new()), &cache).build().unwrap();
    assert_eq!(store.to_string(), "CachedObjectStore(InMemory)");
    let debug = format!("{store:?}");
    for part in ["InMemory", "namespace: \"objects\"", "block_bytes: 65536", "inner_gets: 0"] {
        assert!(debug.contains(part), "no {part} in {debug}");
    }
    assert_eq!(store.inner().to_string(), "InMemory");
}

#[tokio::test]
async fn a_namespace_of_a_cache_is_one_stores() {
    let ((cache, _), (other, _)) = (memory().await, memory().await);
    let build = |cache: &BlobCache, namespace| {
        CachedObjectStore::builder(Arc::new(InMemory::new()), cache, namespace).build()
    };
    let first = build(&cache, "a").unwrap();
    let error = build(&cache.clone(), "a").unwrap_err();
    assert_eq!(error, BuildError::NamespaceInUse { namespace: "a".into() });
    let _beside = (build(&cache, "b").unwrap(), build(&other, "a").unwrap());
    let clone = first.clone();
    drop(first);
    assert!(build(&cache, "a").is_err(), "a clone has it");
    drop(clone);
    build(&cache, "a").unwrap();
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let plain = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    let builder = || small(Arc::new(InMemory::new()), &plain);
    assert_eq!(builder().read_ahead(1).build().unwrap_err(), BuildError::NoSpawner);
    let error = builder().block_bytes(1).build().unwrap_err();
    assert_eq!(error.to_string(), "block_bytes is 1, and may be 65536 to 4194304");
    // What is refused has claimed nothing.
    builder().build().unwrap();
}

fn on_disk(folder: &std::path::Path) -> BlobCacheConfig {
    let config = BlobCacheConfig::builder().l1_bytes_max(16 << 20);
    config.l2_path(folder).l2_bytes_max(64 << 20).build().unwrap()
}

#[tokio::test]
async fn blocks_outlive_a_restart_and_are_confirmed_first() {
    let (origin, folder, path) = (Origin::new(), tempfile::tempdir().unwrap(), Path::from("a"));
    origin.put_past(&path, content(1, 1000 * KIB)).await;
    for round in 0..3 {
        let cache = BlobCache::open(on_disk(folder.path())).await.unwrap();
        let store = small(origin.clone(), &cache).build().unwrap();
        let read = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(read, content(1, 1000 * KIB));
        let stats = store.stats();
        let bytes = if round == 0 { 1000 * KIB } else { 0 };
        assert_eq!((stats.inner_gets, stats.inner_bytes), (1, bytes), "{round} {stats:?}");
        drop(store);
        cache.close().await.unwrap();
    }
    // Other blocks than those that are held: they are fetched as what they were.
    let cache = BlobCache::open(on_disk(folder.path())).await.unwrap();
    let builder = small(origin.clone(), &cache).block_bytes(128 * KIB).staleness(MINUTE);
    let store = builder.build().unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), content(1, 1000 * KIB));
    assert_eq!(store.stats().inner_bytes, 1000 * KIB);
}

/// Objects whose meta outlives a restart keep the block size that they were cached with.
#[tokio::test]
async fn immutable_objects_keep_their_blocks_whatever_the_settings() {
    let (origin, folder, path) = (Origin::new(), tempfile::tempdir().unwrap(), Path::from("a"));
    origin.put_past(&path, content(1, 1000 * KIB)).await;
    for block in [64, 256, 128] {
        let cache = BlobCache::open(on_disk(folder.path())).await.unwrap();
        let store = small(origin.clone(), &cache).block_bytes(block * KIB).immutable(|_| true);
        let store = store.build().unwrap();
        let part = store.get_range(&path, 100..900 * KIB).await.unwrap();
        assert_eq!(part, content(1, 1000 * KIB)[100..900 << 10]);
        let rest = store.get_ranges(&path, &[950 * KIB..960 * KIB, 5..6]).await.unwrap();
        assert_eq!(rest[0], content(1, 1000 * KIB)[950 << 10..960 << 10]);
        let has_asked = !origin.asked().is_empty();
        assert_eq!(has_asked, block == 64, "with blocks of {block} KiB");
        if block == 128 {
            // What is missing has the size of a block that it had at first.
            let end = store.get_range(&path, 999 * KIB..1000 * KIB).await.unwrap();
            assert_eq!(end, content(1, 1000 * KIB)[999 << 10..]);
            let missing = GetRange::Bounded(960 * KIB..1000 * KIB);
            assert_eq!(origin.asked_ranges(), [Some(missing)]);
        }
        drop(store);
        cache.close().await.unwrap();
    }
}

/// A namespace that was another bucket's before the restart.
#[tokio::test]
async fn an_inner_store_of_another_name_finds_nothing() {
    let (cache, _) = memory().await;
    let path = Path::from("a");
    let first = Origin::new();
    first.put_past(&path, content(1, 100)).await;
    let store = small(first, &cache).immutable(|_| true).build().unwrap();
    store.get(&path).await.unwrap().bytes().await.unwrap();
    drop(store);
    let second = InMemory::new();
    second.put(&path, "other".into()).await.unwrap();
    let store = small(Arc::new(second), &cache).immutable(|_| true).build().unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "other");
}

/// What was cached when it might be old is not served when it may not.
#[tokio::test]
async fn other_settings_hold_for_what_is_cached_already() {
    let ((cache, _), origin) = (memory().await, Origin::new());
    let paths = ["a", "not there yet"].map(Path::from);
    origin.put_past(&paths[0], content(1, 100)).await;
    let store = small(origin.clone(), &cache).immutable(|_| true).absences(MINUTE);
    let store = store.build().unwrap();
    store.get(&paths[0]).await.unwrap().bytes().await.unwrap();
    store.get(&paths[1]).await.unwrap_err();
    drop(store);
    let store = small(origin.clone(), &cache).build().unwrap();
    for path in &paths {
        origin.put_past(path, content(2, 100)).await;
        for _ in 0..2 {
            let read = store.get(path).await.unwrap().bytes().await.unwrap();
            assert_eq!(read, content(2, 100), "{path}");
        }
    }
    let stats = store.stats();
    assert_eq!((stats.metas_fetched, stats.metas_confirmed), (2, 2), "{stats:?}");
    assert_eq!(stats.passed_through, 0, "{stats:?}");
}

/// The cache is for speed: a closed one, or one that holds nothing, answers as the inner store.
#[tokio::test]
async fn without_a_cache_that_works_everything_does() {
    let (origin, path) = (Origin::new(), Path::from("a"));
    origin.put_past(&path, content(1, 1000 * KIB)).await;
    let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).key_bytes_max(20).build();
    let tiny = BlobCache::open(config.unwrap()).await.unwrap();
    let (closed, _) = memory().await;
    closed.close().await.unwrap();
    for cache in [tiny, closed] {
        let store = small(origin.clone(), &cache).block_bytes(256 * KIB).staleness(MINUTE);
        let store = store.build().unwrap();
        let long = Path::from("a path that is longer than a key may be");
        for seed in 1..3 {
            store.put(&path, content(seed, 1000 * KIB).into()).await.unwrap();
            store.copy(&path, &long).await.unwrap();
            for path in [&path, &long] {
                let read = store.get(path).await.unwrap().bytes().await.unwrap();
                assert_eq!(read, content(seed, 1000 * KIB));
                let parts = store.get_ranges(path, &[5..6, 600 * KIB..601 * KIB]).await.unwrap();
                assert_eq!(parts[1], content(seed, 1000 * KIB)[600 << 10..601 << 10]);
            }
        }
    }
}
