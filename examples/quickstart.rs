//! First contact: put, get, invalidate.

use std::time::Duration;

use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError};

#[tokio::main]
async fn main() -> Result<(), CacheError> {
    let config = BlobCacheConfig::builder().l1_bytes_max(64 << 20).build()?;
    let cache = BlobCache::open(config).await?;

    // A page that is fresh for a minute, and removed when product 7 changes.
    let page = BlobCachePut::new("<h1>Drum sieve, 20 cm</h1>")
        .with_ttl(Duration::from_secs(60))
        .with_dependencies(["product:7"]);
    cache.put("pages", "/sieves/20cm", page).await?;

    let hit = cache.get("pages", "/sieves/20cm").await;
    println!("{:?}", hit.map(|hit| hit.into_bytes()));

    let removed = cache.invalidate_dependencies("pages", &["product:7"]).await?;
    println!("{removed} page removed");
    cache.close().await
}
