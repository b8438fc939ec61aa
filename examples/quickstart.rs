//! First contact: put, get, invalidate.

use std::time::Duration;

use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError};

#[tokio::main]
async fn main() -> Result<(), CacheError> {
    let config = BlobCacheConfig::builder().l1_bytes_max(64 << 20).build()?;
    let cache = BlobCache::open(config).await?;

    // A page that is fresh for a minute, and that goes when the product changes.
    let page = BlobCachePut::new("<h1>Drum sieve, 20 cm</h1>")
        .with_content_metadata([("content-type", "text/html")])
        .with_dependencies(["product:7"])
        .with_ttl(Duration::from_secs(60));
    cache.put("pages", "/sieves/20cm", page).await?;

    if let Some(hit) = cache.get("pages", "/sieves/20cm").await {
        println!("{} as {:?}", String::from_utf8_lossy(hit.value()), hit.content_metadata());
    }

    let removed = cache.invalidate_dependencies("pages", &["product:7"]).await?;
    println!("{removed} page made from product 7 is gone");
    assert!(cache.get("pages", "/sieves/20cm").await.is_none());

    println!("{} hits, {} misses", cache.stats().hits(), cache.stats().misses());
    cache.close().await
}
