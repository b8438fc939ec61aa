//! `BlobCacheHit`: an entry that was found, and its freshness at that time.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::entry::{Entry, Mark};

/// An entry found by a get, as it was at that time. Cheap to clone; it keeps its bytes alive,
/// outside of the cache's budget, as long as it or a clone exists.
#[derive(Clone)]
pub struct BlobCacheHit {
    pub(crate) entry: Arc<Entry>,
    /// Nanoseconds left of the stale window; None while fresh. In this form a hit or a miss is
    /// returned in two registers.
    pub(crate) stale: Option<NonZeroU64>,
}

const _: () = assert!(size_of::<Option<BlobCacheHit>>() == 16, "two registers");

/// Where a hit came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheTier {
    /// Memory.
    L1,
    /// Disk.
    L2,
    /// Neither: it was just fetched.
    Fetched,
}

impl fmt::Display for CacheTier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::Fetched => "fetched",
        })
    }
}

/// The answer of [`exists`](crate::BlobCache::exists), which does no I/O.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, CachePresence};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
/// assert_eq!(cache.exists("pages", "/index"), CachePresence::Present);
/// assert!(!cache.exists("pages", "/about").may_exist());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CachePresence {
    /// There is a live entry.
    Present,
    /// There is no live entry.
    Absent,
    /// There may be one on disk. A cache without a disk tier never says this.
    MaybePresent,
}

impl CachePresence {
    /// Whether a get may find an entry: false only for [`Absent`](Self::Absent).
    #[must_use]
    pub fn may_exist(self) -> bool {
        self != Self::Absent
    }
}

impl fmt::Display for CachePresence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Present => "present",
            Self::Absent => "absent",
            Self::MaybePresent => "maybe present",
        })
    }
}

impl BlobCacheHit {
    /// The blob.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.entry.value
    }

    /// The blob, shared, without a copy or an allocation.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.entry.value.clone()
    }

    /// The blob, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes()
    }

    /// The content metadata of the put.
    #[must_use]
    pub fn content_metadata(&self) -> &BTreeMap<String, String> {
        self.entry.content_metadata()
    }

    /// The version of the put; None if it had none.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.entry.version()
    }

    /// Whether it was past its expiry, within its stale window, when it was found or fetched; or
    /// the gate of its namespace was closed ([`WhileClosed::Stale`](crate::WhileClosed::Stale)).
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// The time left of the stale window when it was found; None while fresh. Behind a closed gate
    /// it is the time left of its life.
    #[must_use]
    pub fn stale_window_remaining(&self) -> Option<Duration> {
        self.stale.map(|left| Duration::from_nanos(left.get()))
    }

    /// When it was put.
    #[must_use]
    pub fn written_at(&self) -> SystemTime {
        self.entry.written.into()
    }

    /// When it ceases to be fresh; None if only idleness or eviction ends it.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        (self.entry.expires() != Timestamp::NEVER).then(|| self.entry.expires().into())
    }

    /// Where it was found.
    #[must_use]
    pub fn tier(&self) -> CacheTier {
        if self.entry.is(Mark::Fetched) {
            CacheTier::Fetched
        } else if self.entry.is(Mark::FromDisk) {
            CacheTier::L2
        } else {
            CacheTier::L1
        }
    }

    /// Whether the entry is a cached absence, put as
    /// [`BlobCachePut::absent`](crate::BlobCachePut::absent). Its value is empty.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.entry.is(Mark::Absent)
    }
}

impl From<BlobCacheHit> for Bytes {
    fn from(hit: BlobCacheHit) -> Self {
        hit.into_bytes()
    }
}

impl AsRef<[u8]> for BlobCacheHit {
    fn as_ref(&self) -> &[u8] {
        self.value()
    }
}

impl fmt::Debug for BlobCacheHit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlobCacheHit")
            .field("entry", &self.entry)
            .field("stale", &self.stale)
            .finish()
    }
}
