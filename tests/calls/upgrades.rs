//! Stores as earlier builds have left them, in `tests/fixtures`: each format that was ever released
//! opens with its entries, or is refused untouched.
//!
//! A change of the format that breaks one of these is a new version of the format. Then the old
//! files stay, with a test of what becomes of them, and new ones come beside them:
//! `cargo test --test calls -- upgrades --ignored` writes those of the present version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePolicy, BlobCachePut, CacheError,
    CrashSafety, ExtendedTtlPolicy,
};

/// In Power mode, because the store of a killed process has to open on another machine.
fn config(folder: &Path) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(256 << 10)
        .l2_path(folder)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(512 << 10)
        .l2_segment_bytes(64 << 10)
        .crash_safety(CrashSafety::Power)
        .build()
        .unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// In the year 2200.
fn far() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(7_258_118_400)
}

fn text(number: u32) -> String {
    format!("<li>sieve number {number}</li>").repeat(100)
}

fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut word = u64::from(seed);
    let mut next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        word.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

async fn fill(cache: &BlobCache) {
    let put = |namespace: &'static str, key: &'static str, put| cache.put(namespace, key, put);
    put("pages", "plain", BlobCachePut::new(noise(1, 5000))).await.unwrap();
    put("pages", "compressed", BlobCachePut::new(text(1))).await.unwrap();
    put("pages", "empty", BlobCachePut::new("")).await.unwrap();
    let lasting = BlobCachePolicy::default().expires_at(far());
    put("pages", "absent", BlobCachePut::absent().with_policy(lasting.clone())).await.unwrap();
    let all = BlobCachePut::new(noise(2, 3000))
        .with_content_metadata([("content-type", "text/html"), ("etag", "abc")])
        .with_tags(["home", "news"])
        .with_dependencies(["table:users"])
        .with_policy(lasting.version(7).priority(200).extended(ExtendedTtlPolicy {
            idle_ttl: Some(Duration::from_secs(6_000_000_000)),
            stale_serve: Some(Duration::from_secs(60)),
            jitter_pct: 0,
        }));
    put("pages", "all", all).await.unwrap();
    put("pages", "replaced", BlobCachePut::new("old")).await.unwrap();
    put("pages", "replaced", BlobCachePut::new("new")).await.unwrap();
    put("pages", "removed", BlobCachePut::new("x")).await.unwrap();
    assert_eq!(cache.invalidate_key("pages", "removed").await, Ok(1));
    put("pages", "tagged", BlobCachePut::new("x").with_tags(["gone"])).await.unwrap();
    assert_eq!(cache.invalidate_tags("pages", &["gone"]).await, Ok(1));
    put("pages", "prefixed/1", BlobCachePut::new("x")).await.unwrap();
    assert_eq!(cache.invalidate_prefix("pages", "prefixed/").await, Ok(1));
    put("flushed", "before", BlobCachePut::new("x")).await.unwrap();
    assert_eq!(cache.invalidate_namespace("flushed").await, Ok(true));
    put("flushed", "after", BlobCachePut::new("y")).await.unwrap();
    // More than two segments, so that directories are sealed.
    for number in 0..40_u32 {
        let put =
            BlobCachePut::new(noise(1000 + number, 4000)).with_tags([format!("tag{}", number % 4)]);
        cache.put("many", number.to_le_bytes(), put).await.unwrap();
    }
    cache.sync().await.unwrap();
}

async fn found(cache: &BlobCache, namespace: &str, key: &str) -> BlobCacheHit {
    cache.get(namespace, key).await.unwrap_or_else(|| panic!("{namespace}/{key} is lost"))
}

async fn check(cache: &BlobCache) {
    assert_eq!(found(cache, "pages", "plain").await.value(), noise(1, 5000));
    assert_eq!(found(cache, "pages", "compressed").await.value(), text(1).as_bytes());
    assert_eq!(found(cache, "pages", "empty").await.value(), b"");
    assert!(found(cache, "pages", "absent").await.is_absent());
    let all = found(cache, "pages", "all").await;
    assert_eq!((all.value(), all.version()), (&noise(2, 3000)[..], Some(7)));
    assert_eq!(all.content_metadata().get("etag").map(String::as_str), Some("abc"));
    assert_eq!(all.expires_at(), Some(far()));
    assert_eq!(found(cache, "pages", "replaced").await.value(), b"new");
    assert_eq!(found(cache, "flushed", "after").await.value(), b"y");
    let gone = ["removed", "tagged", "prefixed/1"].map(|key| ("pages", key));
    for (namespace, key) in gone.into_iter().chain([("flushed", "before")]) {
        assert!(cache.get(namespace, key).await.is_none(), "{namespace}/{key} is back");
    }
    for number in 0..40_u32 {
        let hit = cache.get("many", number.to_le_bytes()).await;
        assert_eq!(hit.expect("kept").value(), noise(1000 + number, 4000), "{number}");
    }
    let older = BlobCachePut::new("z").with_policy(BlobCachePolicy::default().version(7));
    let refused = cache.put("pages", "all", older).await;
    assert_eq!(refused, Err(CacheError::VersionMismatch { existing: 7, attempted: 7 }));
    assert_eq!(cache.invalidate_tags("many", &["tag1"]).await, Ok(10));
    assert_eq!(cache.invalidate_dependencies("pages", &["table:users"]).await, Ok(1));
    assert_eq!(cache.invalidate_prefix("pages", "comp").await, Ok(1));
    assert_eq!(cache.stats().l2_corruptions(), 0);
}

/// Opens a fixture, finds everything, and again after a close by this build.
fn opens(name: &str, by_image: bool) {
    let packed = fs::read(fixture(name)).unwrap();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = zstd::decode_all(&packed[..]).unwrap();
    fs::write(folder.path().join("data"), data).unwrap();
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        assert_eq!(cache.stats().recovery_from_image(), by_image);
        check(&cache).await;
        cache.close().await.unwrap();
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        assert_eq!(found(&cache, "pages", "plain").await.value(), noise(1, 5000));
        assert!(cache.get("pages", "compressed").await.is_none());
        assert!(cache.get("many", 1_u32.to_le_bytes()).await.is_none());
        assert!(cache.get("many", 2_u32.to_le_bytes()).await.is_some());
        cache.close().await.unwrap();
    });
}

#[test]
fn format_1_opens_after_a_close() {
    opens("format-1-closed.zst", true);
}

#[test]
fn format_1_opens_after_a_kill() {
    opens("format-1-killed.zst", false);
}

#[test]
#[ignore = "writes the fixtures of the present version"]
fn write_fixtures() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let write = |name: &str| {
        let data = fs::read(folder.path().join("data")).unwrap();
        fs::write(fixture(name), zstd::encode_all(&data[..], 19).unwrap()).unwrap();
    };
    block_on(async {
        let cache = BlobCache::open(config(folder.path())).await.unwrap();
        fill(&cache).await;
        write("format-1-killed.zst");
        cache.close().await.unwrap();
        write("format-1-closed.zst");
    });
}
