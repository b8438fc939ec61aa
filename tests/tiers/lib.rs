//! Both tiers under many schedules: the library's own source, with the locks, atomics and tasks of
//! a scheduler that chooses what runs next at each of them.
//!
//! `build.rs` copies `src/` and replaces what the scheduler must control by what is in `stands/`;
//! `inside/` has what looks into the copy. All else is the library as it is. The scheduler is
//! sequentially consistent: what depends on weaker orders of memory is not found here.

// The copy is checked where it comes from.
#![allow(warnings, missing_docs, unreachable_pub, clippy::all)]

include!(concat!(env!("OUT_DIR"), "/src/lib.rs"));

mod stands;

pub use crate::failpoint::{Failpoint, plant};

/// Opens a cache above a simulated disk.
pub async fn open_on_disk(config: BlobCacheConfig, seed: u64) -> BlobCache {
    engine::modelled::open_modelled(config, seed).await
}

/// Removes all that invalidations have left to remove.
pub async fn settle(cache: &BlobCache) {
    engine::modelled::settle(&cache.engine).await;
}

/// Counts the entries in memory again. No call may be under way.
///
/// # Errors
///
/// The cache counts what is not there, or has what it does not count.
pub fn audit(cache: &BlobCache, namespaces: &[&str]) -> Result<(), String> {
    engine::modelled::audit(&cache.engine, namespaces)
}
