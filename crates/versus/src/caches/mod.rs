//! The caches with a disk tier, behind one set of calls.
//!
//! Each is set up as its documentation recommends for direct I/O on such a device, with the same
//! memory and the same file size; differences are named where they are made.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tamis::{BlobCache, BlobCacheHit, CrashSafety, L2Engine};

use crate::Error;
use crate::blobs::KEY_BYTES;

#[cfg(feature = "cache2")]
mod cache2;
mod foyer;
mod setup;
mod tamis_cache;

#[cfg(feature = "cache2")]
use self::cache2::Cache2;
use self::foyer::Foyer;
pub(crate) use self::setup::Setup;

/// A cache, and the way it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Tamis,
    /// tamis on threads, as where the kernel refuses io_uring.
    TamisThreads,
    /// tamis in Cold mode: no put waits for the disk.
    TamisCold,
    /// Written to disk when inserted, as tamis does it.
    Foyer,
    /// foyer's default: written to disk when evicted from memory.
    FoyerOnEviction,
    #[cfg(feature = "cache2")]
    Cache2,
}

/// An open cache.
#[derive(Clone)]
pub(crate) enum Cache {
    Tamis(BlobCache),
    Foyer(Foyer),
    #[cfg(feature = "cache2")]
    Cache2(Cache2),
}

/// A value as its cache hands it out.
pub(crate) enum Hit {
    Tamis(BlobCacheHit),
    Foyer(bytes::Bytes),
    #[cfg(feature = "cache2")]
    Cache2(::cache2::Value),
}

impl Kind {
    /// One of each cache, and tamis on either engine.
    pub(crate) const ALL: &[Self] = &[
        Self::Tamis,
        Self::TamisThreads,
        Self::Foyer,
        #[cfg(feature = "cache2")]
        Self::Cache2,
    ];

    /// Each cache in each way of use.
    pub(crate) const ALL_WAYS: &[Self] = &[
        Self::Tamis,
        Self::TamisCold,
        Self::Foyer,
        Self::FoyerOnEviction,
        #[cfg(feature = "cache2")]
        Self::Cache2,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tamis => "tamis",
            Self::TamisThreads => "tamis, threads",
            Self::TamisCold => "tamis, cold",
            Self::Foyer => "foyer",
            Self::FoyerOnEviction => "foyer, on eviction",
            #[cfg(feature = "cache2")]
            Self::Cache2 => "cache2",
        }
    }

    /// Opens a store in a directory, which is created if missing.
    pub(crate) async fn open(self, path: &Path, setup: &Setup) -> Result<Cache, Error> {
        std::fs::create_dir_all(path)?;
        Ok(match self {
            Self::Tamis => {
                let config = tamis_cache::config(path, setup)?.l2_engine(L2Engine::IoUring);
                Cache::Tamis(BlobCache::open(config.build()?).await?)
            }
            Self::TamisThreads => {
                let config = tamis_cache::config(path, setup)?.l2_engine(L2Engine::Threads);
                Cache::Tamis(BlobCache::open(config.build()?).await?)
            }
            Self::TamisCold => {
                let config = tamis_cache::config(path, setup)?.crash_safety(CrashSafety::Cold);
                Cache::Tamis(BlobCache::open(config.build()?).await?)
            }
            Self::Foyer => Cache::Foyer(Foyer::open(path, setup, false).await?),
            Self::FoyerOnEviction => Cache::Foyer(Foyer::open(path, setup, true).await?),
            #[cfg(feature = "cache2")]
            Self::Cache2 => Cache::Cache2(Cache2::open(path, setup).await?),
        })
    }

    /// A store with room for that many values, so that none is reclaimed.
    pub(crate) fn roomy(self, memory_bytes: usize, entries: u64, value_bytes: u64) -> Setup {
        /// An upper bound of what a record takes besides key and value.
        const OVERHEAD_BYTES: u64 = 160;
        let record = KEY_BYTES + value_bytes + OVERHEAD_BYTES;
        let record = match self {
            // Each record begins at a block of its own.
            Self::Foyer | Self::FoyerOnEviction => record.next_multiple_of(4096),
            _ => record,
        };
        // A segment ends early if the next record does not fit.
        let bytes = entries * record * 5 / 4 + (256 << 20);
        Setup {
            memory_bytes,
            file_bytes: bytes.next_multiple_of(64 << 20),
            entries,
            labels_each: 0,
            compresses: true,
        }
    }
}

impl Cache {
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Hit>, Error> {
        Ok(match self {
            Self::Tamis(cache) => cache.get(tamis_cache::NAMESPACE, key).await.map(Hit::Tamis),
            Self::Foyer(cache) => cache.get(key).await?.map(Hit::Foyer),
            #[cfg(feature = "cache2")]
            Self::Cache2(cache) => cache.get(key).await?.map(Hit::Cache2),
        })
    }

    /// Waits while the cache has no room to take the value, so that none is dropped.
    pub(crate) async fn put(&self, key: String, value: bytes::Bytes) -> Result<(), Error> {
        match self {
            Self::Tamis(cache) => Ok(cache.put(tamis_cache::NAMESPACE, key, value).await?),
            Self::Foyer(cache) => {
                cache.put(key, value).await;
                Ok(())
            }
            #[cfg(feature = "cache2")]
            Self::Cache2(cache) => cache.put(&key, &value).await,
        }
    }

    /// Waits until all that was put is written.
    pub(crate) async fn settle(&self) -> Result<(), Error> {
        match self {
            Self::Tamis(cache) => Ok(cache.sync().await?),
            Self::Foyer(cache) => {
                cache.settle().await;
                Ok(())
            }
            #[cfg(feature = "cache2")]
            Self::Cache2(cache) => cache.settle().await,
        }
    }

    /// Entries on disk, if the cache tells.
    pub(crate) fn entries(&self) -> Option<u64> {
        match self {
            Self::Tamis(cache) => u64::try_from(cache.stats().l2_entries()).ok(),
            _ => None,
        }
    }

    /// Bytes of memory in use, if the cache tells.
    pub(crate) fn memory_bytes(&self) -> Option<u64> {
        match self {
            Self::Tamis(cache) => u64::try_from(cache.stats().memory().total_bytes()).ok(),
            _ => None,
        }
    }

    /// Ends it, so that the next open finds all values.
    pub(crate) async fn close(self) -> Result<(), Error> {
        match self {
            Self::Tamis(cache) => Ok(cache.close().await?),
            Self::Foyer(cache) => cache.close().await,
            #[cfg(feature = "cache2")]
            Self::Cache2(cache) => cache.close().await,
        }
    }
}

impl AsRef<[u8]> for Hit {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Tamis(hit) => hit.value(),
            Self::Foyer(value) => value,
            #[cfg(feature = "cache2")]
            Self::Cache2(value) => value,
        }
    }
}
