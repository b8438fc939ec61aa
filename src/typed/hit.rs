//! `TypedHit`: a typed value that was found or fetched, and its entry.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use crate::hit::{BlobCacheHit, CacheTier};

/// A typed value that was found or fetched, with what is known of its entry, as it was at that
/// time. A cached absence has no value.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::*;
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
/// let names = cache.namespace("names").typed::<String, _>(Plain);
/// names.put("7", "ada".to_owned()).await?;
/// names.put("8", None).await?;
///
/// let ada = names.get("7").await.unwrap();
/// assert_eq!((ada.value().unwrap().as_str(), ada.tier()), ("ada", CacheTier::L1));
/// assert!(!ada.is_stale() && ada.expires_at().is_none());
/// assert_eq!(ada.hit().value(), b"ada");
/// assert_eq!(ada.into_value(), Some("ada".to_owned()));
/// assert!(names.get("8").await.unwrap().is_absent());
/// assert!(names.get("9").await.is_none(), "a miss");
/// # Ok::<(), TypedError<std::string::FromUtf8Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct TypedHit<T> {
    value: Option<T>,
    hit: BlobCacheHit,
}

impl<T> TypedHit<T> {
    pub(super) fn new(value: Option<T>, hit: BlobCacheHit) -> Self {
        Self { value, hit }
    }

    /// The value. None if it is a cached absence.
    #[must_use]
    pub fn value(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// The value, without its entry. None if it is a cached absence.
    #[must_use]
    pub fn into_value(self) -> Option<T> {
        self.value
    }

    /// The entry, with the bytes that the value was decoded from. A value that this call has
    /// fetched was not decoded; if it could not be encoded, its entry has no bytes.
    #[must_use]
    pub fn hit(&self) -> &BlobCacheHit {
        &self.hit
    }

    /// Whether it is a cached absence. See [`TypedPut::absent`](crate::TypedPut::absent).
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.value.is_none()
    }

    /// See [`BlobCacheHit::content_metadata`].
    #[must_use]
    pub fn content_metadata(&self) -> &BTreeMap<String, String> {
        self.hit.content_metadata()
    }

    /// See [`BlobCacheHit::version`].
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.hit.version()
    }

    /// See [`BlobCacheHit::is_stale`].
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.hit.is_stale()
    }

    /// See [`BlobCacheHit::stale_window_remaining`].
    #[must_use]
    pub fn stale_window_remaining(&self) -> Option<Duration> {
        self.hit.stale_window_remaining()
    }

    /// See [`BlobCacheHit::written_at`].
    #[must_use]
    pub fn written_at(&self) -> SystemTime {
        self.hit.written_at()
    }

    /// See [`BlobCacheHit::expires_at`].
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.hit.expires_at()
    }

    /// See [`BlobCacheHit::tier`].
    #[must_use]
    pub fn tier(&self) -> CacheTier {
        self.hit.tier()
    }
}
