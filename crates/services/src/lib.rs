//! Services over a tamis cache.
//!
//! - [`pages`]: an axum service that caches rendered pages, by tags, with soft invalidation.
//! - [`files`]: a thread for each core, each with a runtime of tokio-uring, over one cache.
//! - [`rows`]: a tonic service that caches the results of SQL queries, by the tables they read.
//!
//! `grafana.json` beside the source is a dashboard over what `/metrics` answers.

use std::path::Path;

use tamis::{BlobCache, BlobCacheConfig, CacheError};
use tokio::runtime::Handle;

pub mod files;
pub mod pages;
pub mod rows;

/// Opens a cache for a service on tokio: with a disk tier of 1 GiB if it is given a directory.
///
/// # Errors
///
/// Those of [`BlobCache::open`].
pub async fn open(l2: Option<&Path>) -> Result<BlobCache, CacheError> {
    let mut config = BlobCacheConfig::builder().l1_bytes_max(64 << 20).spawner(Handle::current());
    if let Some(path) = l2 {
        // A disk that fails must not stop the service.
        config = config.l2(path, |l2| l2.bytes_max(1 << 30)).l2_required(false);
    }
    BlobCache::open(config.build()?).await
}
