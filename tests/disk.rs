//! The disk tier on real files: entries survive eviction, close and reopening.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod engine;

use std::path::Path;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CachePresence,
    CacheTier, CrashSafety, L1Admission, L2Engine, L2State,
};

fn config(path: &Path) -> BlobCacheConfig {
    config_on(engine::engine(0), path)
}

fn config_on(engine: L2Engine, path: &Path) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l2_engine(engine)
        .l1_bytes_max(256 << 10)
        .l2_path(path)
        .l2_bytes_max(16 << 20)
        .build()
        .unwrap()
}

fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut word = number;
    let mut next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn entries_survive_eviction_and_reopening() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        for number in 0..2000u64 {
            let put = BlobCachePut::new(value(number, 1000))
                .with_tags([format!("tag{}", number % 10)])
                .with_content_metadata([("n", number.to_string())]);
            cache.put("space", number.to_le_bytes(), put).await.unwrap();
        }
        let mut on_disk = 0;
        for number in 0..2000u64 {
            let hit = cache.get("space", number.to_le_bytes()).await.unwrap();
            assert_eq!(hit.value(), value(number, 1000));
            on_disk += u64::from(hit.tier() == CacheTier::L2);
        }
        assert!(on_disk > 1000, "{on_disk}");
        assert_eq!(cache.invalidate_tags("space", &["tag3", "tag4"]).await, Ok(400));
        assert_eq!(cache.invalidate_key("space", 0u64.to_le_bytes()).await, Ok(1));
        assert_eq!(cache.stats().l2_state(), L2State::Healthy);
        cache.close().await.unwrap();
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        assert_eq!(cache.stats().recovery_records(), 1599);
        for number in 0..2000u64 {
            let hit = cache.get("space", number.to_le_bytes()).await;
            if number == 0 || number % 10 == 3 || number % 10 == 4 {
                assert!(hit.is_none(), "{number}");
            } else {
                let hit = hit.unwrap();
                assert_eq!(hit.value(), value(number, 1000));
                assert_eq!(hit.content_metadata()["n"], number.to_string());
            }
        }
        assert_eq!(cache.invalidate_tags("space", &["tag5"]).await, Ok(200));
        assert_eq!(cache.invalidate_prefix("space", [7u8]).await, Ok(5));
        cache.close().await.unwrap();
    });
}

#[test]
fn the_log_wraps_around() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        for number in 0..20_000u64 {
            cache.put("space", number.to_le_bytes(), value(number, 3000)).await.unwrap();
        }
        let mut hits = 0;
        for number in 0..20_000u64 {
            if let Some(hit) = cache.get("space", number.to_le_bytes()).await {
                assert_eq!(hit.value(), value(number, 3000));
                hits += 1;
            }
        }
        assert!(hits > 3000 && hits < 6000, "{hits}");
        assert!(cache.stats().l2_reclaimed_segments() > 30);
        cache.close().await.unwrap();
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        let found = cache.stats().recovery_records();
        assert!(found > 3000, "{found} of {hits}");
        let refused = BlobCache::open(config(folder.path())).await;
        assert!(matches!(refused, Err(CacheError::L2Locked { .. })), "{refused:?}");
        cache.close().await.unwrap();
    });
}

#[test]
fn versions_and_admission_reach_the_disk() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        let put = |version| {
            let policy = BlobCachePolicy::default().version(version);
            BlobCachePut::new("v").with_policy(policy.l1_admission(L1Admission::Never))
        };
        cache.put("space", "key", put(7)).await.unwrap();
        assert_eq!(cache.exists("space", "key"), CachePresence::MaybePresent);
        let refused = Err(CacheError::VersionMismatch { existing: 7, attempted: 7 });
        assert_eq!(cache.put("space", "key", put(7)).await, refused);
        cache.close().await.unwrap();
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        assert_eq!(cache.put("space", "key", put(7)).await, refused);
        cache.put("space", "key", put(8)).await.unwrap();
        assert_eq!(cache.get("space", "key").await.unwrap().version(), Some(8));
        assert_eq!(cache.invalidate_namespace("space").await, Ok(true));
        assert!(cache.get("space", "key").await.is_none());
        cache.close().await.unwrap();
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        assert!(cache.get("space", "key").await.is_none());
        cache.put("space", "key", put(0)).await.unwrap();
        cache.invalidate_all().await.unwrap();
        drop(cache);
    });
}

#[test]
fn a_cold_store_starts_empty() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    block_on(async {
        let cold = || {
            let builder =
                BlobCacheConfig::builder().l2_engine(engine::engine(0)).l2_path(folder.path());
            builder.l2_bytes_max(8 << 20).crash_safety(CrashSafety::Cold).build().unwrap()
        };
        let cache = BlobCache::open(cold()).await.unwrap();
        cache.put("space", "key", "value").await.unwrap();
        cache.close().await.unwrap();
        let cache = BlobCache::open(cold()).await.unwrap();
        assert!(cache.get("space", "key").await.is_none());
        cache.close().await.unwrap();
    });
}

#[test]
fn a_store_does_not_know_which_engine_wrote_it() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let engines = [L2Engine::IoUring, L2Engine::Threads, L2Engine::Threads, L2Engine::IoUring];
    block_on(async {
        for (life, engine) in (0..8_u64).zip(engines.into_iter().cycle()) {
            let cache = BlobCache::open(config_on(engine, folder.path())).await.unwrap();
            assert_eq!(cache.stats().l2_engine(), Some(engine));
            assert_eq!(cache.stats().l2().engine(), Some(engine));
            for number in 0..life * 300 {
                let hit = cache.get("space", number.to_le_bytes()).await;
                let is_removed = number % 300 == 7;
                assert_eq!(hit.is_none(), is_removed, "{number} in life {life}");
                assert!(hit.is_none_or(|hit| hit.value() == value(number, 3000)));
            }
            for number in life * 300..(life + 1) * 300 {
                let put = cache.put("space", number.to_le_bytes(), value(number, 3000));
                put.await.unwrap();
            }
            cache.sync().await.unwrap();
            cache.invalidate_key("space", (life * 300 + 7).to_le_bytes()).await.unwrap();
            // Some are left without a clean mark, and without an image of their index.
            if life % 3 == 0 {
                drop(cache);
            } else {
                cache.close().await.unwrap();
            }
        }
    });
}
