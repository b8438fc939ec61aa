//! The README's store over S3.

use crate::object_store;

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, aws::AmazonS3Builder};
use tamis::{BlobCache, BlobCacheConfig, L2Compression};
use tamis_object_store::CachedObjectStore;

async fn cached() -> Result<Arc<dyn ObjectStore>, Box<dyn std::error::Error>> {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 30)
        .l2("/var/cache/objects", |l2| l2.bytes_max(200 << 30).compression(L2Compression::Off));
    let cache = BlobCache::open(config.build()?).await?;
    let s3 = Arc::new(AmazonS3Builder::from_env().with_bucket_name("lake").build()?);
    let store = CachedObjectStore::builder(s3, &cache, "lake")
        .staleness(Duration::from_secs(60))
        .immutable(|path| path.as_ref().ends_with(".parquet"));
    Ok(Arc::new(store.build()?))
}
