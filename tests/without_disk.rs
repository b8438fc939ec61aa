//! The crate without its feature `disk`, and on other systems than Linux: the memory tier works,
//! and a disk tier is refused with the reason.

#![cfg(not(all(feature = "disk", target_os = "linux")))]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::time::Duration;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError, CacheTier, L2Engine, L2State};

#[test]
fn a_disk_tier_is_refused_with_the_reason() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    for engine in [L2Engine::Auto, L2Engine::IoUring, L2Engine::Threads] {
        let config = BlobCacheConfig::builder().l2_path(&path).l2_engine(engine).build().unwrap();
        let error = block_on(BlobCache::open(config)).unwrap_err();
        assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(path.to_str().unwrap()) && told.contains("l2_path"), "{told}");
        assert!(told.contains("feature") || told.contains("Linux"), "{told}");
        assert!(!path.exists());
    }
}

/// So a service for Linux can be developed elsewhere with its configuration.
#[test]
fn a_disk_tier_that_is_not_required_is_done_without() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("store");
    let builder = BlobCacheConfig::builder().l2_path(&path).l2_required(false);
    let config = builder.build().unwrap();
    block_on(async {
        let cache = BlobCache::open(config.clone()).await.unwrap();
        assert!(matches!(cache.stats().l2_state(), L2State::Degraded { .. }));
        cache.put("space", "key", "value").await.unwrap();
        assert_eq!(cache.get("space", "key").await.unwrap().value(), b"value");
        assert_eq!(cache.invalidate_key("space", "key").await, Ok(1));
        let told = cache.reopen_l2().await.unwrap_err();
        assert!(matches!(told, CacheError::L2Unavailable { .. }), "{told:?}");
        cache.close().await.unwrap();
        assert!(!path.exists(), "there is nothing to mark");
        // Another build has made a store here.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("data"), "a store").unwrap();
        let cache = BlobCache::open(config).await.unwrap();
        assert_eq!(cache.invalidate_key("space", "key").await, Ok(0));
        assert!(path.join("void").exists());
        cache.close().await.unwrap();
    });
}

#[test]
fn memory_works() {
    block_on(async {
        let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
        let put = BlobCachePut::new(vec![7; 100_000]).with_tags(["tag"]);
        cache.put("space", "key", put.with_ttl(Duration::from_secs(60))).await.unwrap();
        let hit = cache.get("space", "key").await.unwrap();
        assert_eq!((hit.value(), hit.tier()), (&[7; 100_000][..], CacheTier::L1));
        cache.sync().await.unwrap();
        assert_eq!(cache.invalidate_tags("space", &["tag"]).await, Ok(1));
        assert!(cache.get("space", "key").await.is_none());
        let stats = cache.stats();
        assert_eq!((stats.l2_state(), stats.l2_engine()), (L2State::Off, None));
        cache.close().await.unwrap();
    });
}
