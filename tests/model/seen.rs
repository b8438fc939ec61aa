//! The observable state of a cache in a form that compares and prints.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use tamis::{BlobCacheHit, BlobCacheStats};

/// All fields of a hit. Times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) value: Vec<u8>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) version: Option<u64>,
    /// The rest of the stale window.
    pub(crate) stale: Option<u64>,
    pub(crate) written: u64,
    pub(crate) expires: Option<u64>,
}

/// The counters of past events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) insertions: u64,
    pub(crate) evictions: u64,
    pub(crate) expirations: u64,
    pub(crate) idle_expirations: u64,
    pub(crate) invalidations: u64,
    pub(crate) namespace_flushes: u64,
    pub(crate) version_mismatches: u64,
    pub(crate) stale_sets_refused: u64,
    pub(crate) stale_serves: u64,
    pub(crate) touches: u64,
}

impl From<&BlobCacheHit> for Seen {
    fn from(hit: &BlobCacheHit) -> Self {
        let nanos = |time: std::time::SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).expect("times begin in 1970");
            u64::try_from(since.as_nanos()).expect("times end in 2554")
        };
        let left = |left: std::time::Duration| u64::try_from(left.as_nanos()).expect("as above");
        assert_eq!(hit.is_stale(), hit.stale_window_remaining().is_some());
        assert_eq!((hit.bytes().as_ref(), hit.as_ref()), (hit.value(), hit.value()));
        Self {
            value: hit.value().to_vec(),
            metadata: hit.content_metadata().clone(),
            version: hit.version(),
            stale: hit.stale_window_remaining().map(left),
            written: nanos(hit.written_at()),
            expires: hit.expires_at().map(nanos),
        }
    }
}

impl From<&BlobCacheStats> for Counts {
    fn from(stats: &BlobCacheStats) -> Self {
        Self {
            hits: stats.hits(),
            misses: stats.misses(),
            insertions: stats.insertions(),
            evictions: stats.evictions(),
            expirations: stats.expirations(),
            idle_expirations: stats.l1_idle_evicts_total(),
            invalidations: stats.invalidations(),
            namespace_flushes: stats.namespace_flushes(),
            version_mismatches: stats.version_mismatches(),
            stale_sets_refused: stats.stale_sets_refused(),
            stale_serves: stats.l1_stale_serves_total(),
            touches: stats.touches(),
        }
    }
}
