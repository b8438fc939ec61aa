//! `CachedObjectStoreStats`: what a store has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a store has done since it was built. All are counts, but for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CachedObjectStoreStats {
    /// Gets of all kinds that were sent to the inner store.
    pub inner_gets: u64,
    /// Bytes of their answers that were read for the cache. Those of answers that were passed
    /// through are not counted.
    pub inner_bytes: u64,
    /// Blocks that the cache had.
    pub blocks_found: u64,
    /// Blocks that it had not.
    pub blocks_missed: u64,
    /// Objects of which nothing was known, or which had changed.
    pub metas_fetched: u64,
    /// Objects that the inner store said have not changed, so that their blocks stay.
    pub metas_confirmed: u64,
    /// Answers that were begun anew, since the object had changed.
    pub begun_anew: u64,
    /// Gets that went to the inner store as they were: of paths that are being written, with ranges
    /// that the object does not have, and of what cannot be cached.
    pub passed_through: u64,
    /// Blocks asked for ahead of sequential readers.
    pub blocks_ahead: u64,
}

/// A figure that goes up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) inner_gets: Count,
    pub(crate) inner_bytes: Count,
    pub(crate) blocks_found: Count,
    pub(crate) blocks_missed: Count,
    pub(crate) metas_fetched: Count,
    pub(crate) metas_confirmed: Count,
    pub(crate) begun_anew: Count,
    pub(crate) passed_through: Count,
    pub(crate) blocks_ahead: Count,
}

impl Counts {
    /// A get that goes to the inner store as it is.
    pub(crate) fn count_passed(&self) {
        self.passed_through.add(1);
        self.inner_gets.add(1);
    }

    pub(crate) fn snapshot(&self) -> CachedObjectStoreStats {
        CachedObjectStoreStats {
            inner_gets: self.inner_gets.get(),
            inner_bytes: self.inner_bytes.get(),
            blocks_found: self.blocks_found.get(),
            blocks_missed: self.blocks_missed.get(),
            metas_fetched: self.metas_fetched.get(),
            metas_confirmed: self.metas_confirmed.get(),
            begun_anew: self.begun_anew.get(),
            passed_through: self.passed_through.get(),
            blocks_ahead: self.blocks_ahead.get(),
        }
    }
}
