//! A blob cache for async services on Linux that never serves what has been overwritten or
//! invalidated.
//!
//! Values of 100 bytes to 64 MB live in namespaces, under keys, with tags, dependencies, content
//! metadata, versions and policies. Memory is bounded in bytes, everything counted, and entries
//! leave it in SIEVE order.

mod cache;
mod clock;
mod config;
mod counters;
mod entry;
mod error;
mod footprint;
mod hit;
mod invalidation;
mod key;
mod l1;
mod labels;
mod namespace;
mod order;
mod policy;
mod put;
mod sequence;
mod stats;
mod step;
mod watermarks;

pub use cache::{BlobCache, BlobCacheNamespace};
pub use clock::Clock;
pub use config::{BlobCacheConfig, BlobCacheConfigBuilder};
pub use error::CacheError;
pub use hit::{BlobCacheHit, CachePresence, CacheTier};
pub use policy::{BlobCachePolicy, ExtendedTtlPolicy, L1Admission};
pub use put::BlobCachePut;
pub use sequence::ReadPoint;
pub use stats::{BlobCacheStats, NamespaceStats};
