//! A blob cache for async services on Linux that never serves what has been overwritten or
//! invalidated.
//!
//! Values of 100 bytes to 64 MB live in namespaces, under keys, with tags, dependencies, content
//! metadata, versions and policies. L1 is memory: bounded in bytes, everything counted, in SIEVE
//! order. L2, where a path is given, is a segmented log on NVMe through io_uring.
//!
//! Start with [`BlobCache`]; what may be configured is in [`BlobCacheConfigBuilder`].

mod cache;
mod clock;
mod config;
mod counters;
mod entry;
mod error;
mod footprint;
mod hit;
mod invalidation;
mod io;
mod key;
mod l1;
mod l2;
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
pub use config::{BlobCacheConfig, BlobCacheConfigBuilder, CrashSafety};
pub use error::{CacheError, IoError};
pub use hit::{BlobCacheHit, CachePresence, CacheTier};
pub use policy::{BlobCachePolicy, ExtendedTtlPolicy, L1Admission};
pub use put::BlobCachePut;
pub use sequence::ReadPoint;
pub use stats::{BlobCacheStats, L2State, NamespaceStats};
