//! Stores for the tests.

use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut, CrashSafety,
    L2Compression,
};

pub(crate) const SEGMENT_BYTES: u64 = 64 << 10;

pub(crate) fn builder(folder: &Path) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(256 << 10)
        .l2_path(folder)
        .l2_bytes_max(16 * SEGMENT_BYTES)
        .l2_segment_bytes(u32::try_from(SEGMENT_BYTES).unwrap())
        .l2_compression(L2Compression::Off)
        .key_bytes_max(1024)
}

pub(crate) fn open(folder: &Path) -> BlobCache {
    block_on(BlobCache::open(builder(folder).build().unwrap())).unwrap()
}

pub(crate) fn close(cache: &BlobCache) {
    block_on(cache.close()).unwrap();
}

/// The number of entries that `pages` has in a filled store.
pub(crate) const PAGES: usize = 40;

pub(crate) fn page(number: usize) -> String {
    format!("/page/{number:03}")
}

/// Fills a store with `pages`, `other` and what is gone again, in more than three segments.
pub(crate) fn fill(cache: &BlobCache) {
    block_on(async {
        for number in 0..PAGES {
            let policy = BlobCachePolicy::default().ttl(Duration::from_secs(3600)).version(7);
            let put = BlobCachePut::new(vec![7; 4000 + number])
                .with_tags([format!("parity:{}", number % 2)])
                .with_dependencies(["all"])
                .with_policy(policy);
            cache.put("pages", page(number), put).await.unwrap();
        }
        cache.put("other", "plain\tkey", "value").await.unwrap();
        cache.put("other", b"\xff\x00", "no text").await.unwrap();
        cache.put("other", "gone", "value").await.unwrap();
        assert_eq!(cache.invalidate_key("other", "gone").await, Ok(1));
        cache.put("flushed", "gone", "value").await.unwrap();
        assert_eq!(cache.invalidate_namespace("flushed").await, Ok(true));
        cache.sync().await.unwrap();
    });
}

/// A store that was filled and closed.
pub(crate) fn closed(folder: &Path) {
    let cache = open(folder);
    fill(&cache);
    close(&cache);
}

/// A store whose owner has ended without a close, in a mode.
pub(crate) fn dropped(folder: &Path, mode: CrashSafety) {
    let config = builder(folder).crash_safety(mode).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    fill(&cache);
    // The bytes of a store without a close, as a killed process leaves them.
    let bytes = std::fs::read(folder.join("data")).unwrap();
    close(&cache);
    std::fs::write(folder.join("data"), bytes).unwrap();
}
