//! `Budget`: a simulator's cache size, converted into a byte budget exactly.
//!
//! A simulator's cache holds a number of objects or of payload bytes, without overhead. The cache's
//! budget has a minimum and counts bytes. So every object is charged its size times a unit, and the
//! budget is the capacity times the same unit: exactly the same objects fit. The charge is stored
//! in the value, eight bytes, so that a replay of large objects takes little memory. An object of
//! no bytes counts as one byte.

use clap::ValueEnum;
use tamis::{BlobCacheConfig, BlobCacheConfigBuilder, CacheError};
use thiserror::Error;

/// The smallest budget of a cache, and the charge of an object when objects are counted.
const UNIT_OF_OBJECTS: u64 = 64 << 10;

/// The unit of a cache size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Every object counts one.
    Obj,
    /// Every object counts its size.
    Byte,
}

impl Mode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Obj => "obj",
            Self::Byte => "byte",
        }
    }
}

#[derive(Debug, Error)]
#[error("a cache of {capacity} cannot be replayed: {reason}")]
pub(crate) struct BudgetError {
    capacity: u64,
    reason: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    mode: Mode,
    /// In objects or in bytes.
    capacity: u64,
    unit: u64,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(mode: Mode, capacity: u64) -> Result<Self, BudgetError> {
        let refused = |reason| BudgetError { capacity, reason };
        if capacity == 0 {
            return Err(refused("it holds nothing"));
        }
        let unit = match mode {
            Mode::Obj => UNIT_OF_OBJECTS,
            Mode::Byte => UNIT_OF_OBJECTS.div_ceil(capacity),
        };
        let bytes_max = capacity.checked_mul(unit).and_then(|bytes| usize::try_from(bytes).ok());
        let bytes_max = bytes_max.ok_or(refused("it is too large"))?;
        Ok(Self { mode, capacity, unit, bytes_max })
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The charge of an object of `size` bytes.
    pub(crate) fn weight(&self, size: u64) -> u64 {
        match self.mode {
            Mode::Obj => self.unit,
            Mode::Byte => size.max(1).saturating_mul(self.unit),
        }
    }

    /// A configuration that charges an object with the number in its value.
    pub(crate) fn config(&self, shards: Option<usize>) -> Result<BlobCacheConfig, CacheError> {
        with_shards(BlobCacheConfig::builder().l1_bytes_max(self.bytes_max), shards)
            .l1_charge(charge)
            .build()
    }

    /// A configuration that charges an object with its memory. The capacity is the budget.
    pub(crate) fn config_of_memory(
        &self,
        shards: Option<usize>,
    ) -> Result<BlobCacheConfig, CacheError> {
        let bytes_max = usize::try_from(self.capacity).unwrap_or(usize::MAX);
        with_shards(BlobCacheConfig::builder().l1_bytes_max(bytes_max), shards).build()
    }
}

fn with_shards(builder: BlobCacheConfigBuilder, shards: Option<usize>) -> BlobCacheConfigBuilder {
    match shards {
        Some(shards) => builder.shard_count(shards),
        None => builder,
    }
}

/// The charge stored in the value.
fn charge(_key: &[u8], value: &[u8]) -> usize {
    let weight = value.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    usize::try_from(weight).unwrap_or(usize::MAX)
}
