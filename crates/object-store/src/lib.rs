//! An object store that reads through a [`tamis`] cache: [`CachedObjectStore`] wraps any
//! `Arc<dyn ObjectStore>`, and is one itself.
//!
//! ```
//! # #[cfg(feature = "object-store-014")]
//! # mod example {
//! # use object_store_014 as object_store;
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use object_store::memory::InMemory;
//! use object_store::{ObjectStoreExt, path::Path};
//! use tamis::{BlobCache, BlobCacheConfig};
//! use tamis_object_store::CachedObjectStore;
//!
//! # pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = BlobCache::open(BlobCacheConfig::default()).await?;
//! let store = CachedObjectStore::builder(Arc::new(InMemory::new()), &cache, "objects")
//!     .staleness(Duration::from_secs(60))
//!     .immutable(|path| path.as_ref().ends_with(".parquet"))
//!     .build()?;
//! let path = Path::from("a/b.parquet");
//! store.put(&path, "Drum sieve".into()).await?;
//! assert_eq!(store.get_range(&path, 5..10).await?, "sieve");
//! assert_eq!(store.get_range(&path, 0..4).await?, "Drum");
//! assert_eq!(store.stats().inner_gets, 1);
//! # Ok(())
//! # }
//! # }
//! # #[cfg(feature = "object-store-014")]
//! # futures::executor::block_on(example::main()).unwrap();
//! ```
//!
//! The README says what it promises, how to size it, and how to use it with DataFusion, slatedb and
//! lance.
//!
//! # Versions of `object_store`
//!
//! The same source is compiled for each version that a feature asks for: `object-store-014`, the
//! default, is the module [`v014`], and `object-store-013` is `v013`. They may be on together, and
//! one cache may serve stores of both. The names at the root are those of the newest.

#![allow(clippy::duplicate_mod, reason = "one source is compiled for each version of the trait")]

mod ahead;
mod claims;
mod failpoint;
mod keys;
mod settings;
mod stats;
mod unsettled;
#[cfg(feature = "object-store-013")]
pub mod v013;
#[cfg(feature = "object-store-014")]
pub mod v014;

pub use stats::CachedObjectStoreStats;
#[cfg(all(feature = "object-store-013", not(feature = "object-store-014")))]
pub use v013::{BuildError, CachedObjectStore, CachedObjectStoreBuilder};
#[cfg(feature = "object-store-014")]
pub use v014::{BuildError, CachedObjectStore, CachedObjectStoreBuilder};
