//! A blob cache for async services on Linux that never serves what has been overwritten or
//! invalidated.
//!
//! Values of 100 bytes to 64 MB live in namespaces, under keys, with tags, dependencies, content
//! metadata, versions and policies. L1 is memory: bounded in bytes, everything counted, in SIEVE
//! order. L2, where a path is given, is a segmented log on NVMe through io_uring.
//!
//! ```
//! use std::time::Duration;
//! use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};
//!
//! # futures::executor::block_on(async {
//! let cache = BlobCache::open(BlobCacheConfig::builder().l1_bytes_max(64 << 20).build()?).await?;
//! let put = BlobCachePut::new("<h1>Drum sieve</h1>")
//!     .with_dependencies(["product:7"])
//!     .with_policy(BlobCachePolicy::default().ttl(Duration::from_secs(60)));
//! cache.put("pages", "/sieves/20cm", put).await?;
//! assert_eq!(cache.invalidate_dependencies("pages", &["product:7"]).await?, 1);
//! assert!(cache.get("pages", "/sieves/20cm").await.is_none());
//! # Ok::<(), tamis::CacheError>(())
//! # }).unwrap();
//! ```
//!
//! Start with [`BlobCache`]; what may be configured is in [`BlobCacheConfigBuilder`]. What a
//! returned call means, in each mode of crash safety, is in `docs/guarantees.md`.

mod accesses;
mod cache;
mod clock;
mod codec;
mod config;
mod counters;
mod disposal;
mod entry;
mod error;
mod flaw;
mod flight;
mod footprint;
mod hit;
mod invalidation;
mod io;
mod key;
mod l1;
mod l2;
mod labels;
mod limiter;
mod meter;
mod modes;
mod moment;
mod namespace;
mod order;
mod policy;
mod put;
mod queue;
mod quota;
mod sequence;
mod stats;
mod step;
mod sweep;
mod sweeper;
mod sync;
mod synopsis;
mod timer;
mod waiters;
mod wake;
mod watermarks;

pub use cache::{BlobCache, BlobCacheNamespace, BlobCacheRefresh};
pub use clock::Clock;
pub use config::{BlobCacheConfig, BlobCacheConfigBuilder, L2ConfigBuilder};
pub use error::{BlobLimit, CacheError, FetchError, IoError};
pub use hit::{BlobCacheHit, CachePresence, CacheTier};
pub use modes::{BackgroundSweep, CrashSafety, L1Admission, L2Compression, L2PromotionPolicy};
pub use moment::ReadPoint;
pub use policy::{BlobCachePolicy, ExtendedTtlPolicy};
pub use put::BlobCachePut;
pub use quota::NamespaceQuota;
pub use stats::{
    BlobCacheStats, FetchStats, L1Stats, L2State, L2Stats, MemoryStats, NamespaceStats,
};
pub use sweep::{NamespaceSweep, SweepLimit, SweepReport};
