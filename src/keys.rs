//! `KeysQuery` says which entries to list, `BlobCacheKeys` is the stream of them, and `KeyEntry`
//! one of them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::clock::Timestamp;
use crate::entry::{Entry, Mark};
use crate::hit::CacheTier;
use crate::label_texts::LabelTexts;
use crate::policy::{Freshness, end_of_window};

/// Which entries of a namespace [`keys`](crate::BlobCache::keys) lists: all, or those whose keys
/// begin with a prefix, or that carry any of some labels.
///
/// A prefix converts into a query as it is: `cache.keys("pages", "/blog/")`.
///
/// ```
/// use tamis::KeysQuery;
///
/// let all = KeysQuery::default();
/// let posts_on_sieves = KeysQuery::default().prefix("/blog/").tags(["sieves"]).details();
/// # let _ = (all, posts_on_sieves);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct KeysQuery {
    pub(crate) prefix: Box<[u8]>,
    pub(crate) tags: Vec<String>,
    pub(crate) dependencies: Vec<String>,
    pub(crate) has_labels: bool,
    pub(crate) is_detailed: bool,
}

impl KeysQuery {
    /// Only entries whose keys begin with `prefix`. Default: empty, which all keys begin with.
    pub fn prefix(mut self, prefix: impl AsRef<[u8]>) -> Self {
        self.prefix = prefix.as_ref().into();
        self
    }

    /// Only entries that carry any of these tags, or of the
    /// [`dependencies`](Self::dependencies) if those are given as well. An empty list matches
    /// nothing. Default: not asked. Replaces earlier tags.
    ///
    /// The entries are found through the labels, so those without them cost nothing, and they have
    /// [details](KeyEntry::has_details).
    pub fn tags(mut self, tags: impl IntoIterator<Item = impl Into<String>>) -> Self {
        // Bounded: by the caller's argument; no lock is held.
        self.tags = tags.into_iter().map(Into::into).collect();
        self.has_labels = true;
        self
    }

    /// Only entries that depend on any of these; otherwise like [`tags`](Self::tags).
    pub fn dependencies(mut self, on: impl IntoIterator<Item = impl Into<String>>) -> Self {
        // Bounded: likewise.
        self.dependencies = on.into_iter().map(Into::into).collect();
        self.has_labels = true;
        self
    }

    /// Entries on disk have [details](KeyEntry::has_details), too. That is a read of 4 or 8 KiB
    /// for each of them; without it one read lists about a thousand.
    pub fn details(mut self) -> Self {
        self.is_detailed = true;
        self
    }
}

impl From<&str> for KeysQuery {
    fn from(prefix: &str) -> Self {
        Self::default().prefix(prefix)
    }
}

impl From<&String> for KeysQuery {
    fn from(prefix: &String) -> Self {
        Self::default().prefix(prefix)
    }
}

impl From<String> for KeysQuery {
    fn from(prefix: String) -> Self {
        Self::default().prefix(prefix)
    }
}

impl From<&[u8]> for KeysQuery {
    fn from(prefix: &[u8]) -> Self {
        Self::default().prefix(prefix)
    }
}

impl<const N: usize> From<&[u8; N]> for KeysQuery {
    fn from(prefix: &[u8; N]) -> Self {
        Self::default().prefix(prefix)
    }
}

impl From<Vec<u8>> for KeysQuery {
    fn from(prefix: Vec<u8>) -> Self {
        Self::default().prefix(prefix)
    }
}

/// An entry as [`keys`](crate::BlobCache::keys) found it: its key, and what is known of it without
/// its value.
///
/// ```
/// # futures::executor::block_on(async {
/// # use std::time::Duration;
/// # use tamis::*;
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let policy = BlobCachePolicy::default().ttl(Duration::from_secs(60)).version(3);
/// let put = BlobCachePut::new("<h1>Tamis</h1>").with_tags(["sieves"]).with_policy(policy);
/// cache.put("pages", "/index", put).await?;
///
/// let page = cache.keys("pages", "/").next().await.unwrap();
/// assert_eq!((page.key(), page.tier()), (b"/index".as_slice(), CacheTier::L1));
/// assert_eq!((page.version(), page.is_stale()), (Some(3), Some(false)));
/// assert!(page.bytes() >= 14 && page.gone_at().is_some());
/// // Of an entry that is on disk only, tags are known if the query asks for them.
/// assert!(page.has_details() && page.tags().eq(["sieves"]));
/// # Ok::<(), CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEntry {
    key: Box<[u8]>,
    bytes: usize,
    tier: CacheTier,
    version: Option<u64>,
    /// The end of its stale window.
    ends: Timestamp,
    details: Option<Details>,
}

/// What the directories on disk do not tell.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    written: Timestamp,
    expires: Timestamp,
    stale: Option<Duration>,
    is_absent: bool,
    labels: LabelTexts,
}

impl KeyEntry {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key.
    #[must_use]
    pub fn into_key(self) -> Vec<u8> {
        self.key.into()
    }

    /// The bytes that it takes. In memory: what it counts against the budget. On disk: its record,
    /// with key, metadata and labels, as compressed.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// L1 if memory holds it, whether or not the disk does too, or L2.
    #[must_use]
    pub fn tier(&self) -> CacheTier {
        self.tier
    }

    /// The version of the put; None if it had none.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// When it ceases to be served: the end of its stale window, or of its ttl if it has none. None
    /// if only idleness or eviction ends it.
    #[must_use]
    pub fn gone_at(&self) -> Option<SystemTime> {
        time(self.ends)
    }

    /// Whether the figures below are known: of each entry in memory, of all with
    /// [`details`](KeysQuery::details) or labels in the query, and of those that were made stale
    /// before their time. Otherwise they are None, false or empty.
    #[must_use]
    pub fn has_details(&self) -> bool {
        self.details.is_some()
    }

    /// When it was put. None without details.
    #[must_use]
    pub fn written_at(&self) -> Option<SystemTime> {
        self.details.as_ref().map(|details| details.written.into())
    }

    /// When it ceases to be fresh, or has. None if only idleness or eviction ends it, and without
    /// details.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.details.as_ref().and_then(|details| time(details.expires))
    }

    /// Whether it is past its expiry, or was [expired](crate::BlobCache::expire_key), and within
    /// its stale window. None if that is not known: without details, if it has a deadline.
    #[must_use]
    pub fn is_stale(&self) -> Option<bool> {
        match &self.details {
            Some(details) => Some(details.stale.is_some()),
            None => (self.ends == Timestamp::NEVER).then_some(false),
        }
    }

    /// The time left of the stale window; None while fresh, and without details.
    #[must_use]
    pub fn stale_window_remaining(&self) -> Option<Duration> {
        self.details.as_ref().and_then(|details| details.stale)
    }

    /// Whether it is a cached absence. False without details.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.details.as_ref().is_some_and(|details| details.is_absent)
    }

    /// The tags of the put, in its order. Empty without details.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.details.iter().flat_map(|details| details.labels.tags())
    }

    /// The dependencies of the put, in its order. Empty without details.
    pub fn dependencies(&self) -> impl Iterator<Item = &str> {
        self.details.iter().flat_map(|details| details.labels.dependencies())
    }

    /// An entry in memory, or of a record whose head was read. None if it has expired.
    pub(crate) fn of(entry: &Entry, freshness: Freshness) -> Option<Self> {
        if freshness.is_expired() {
            return None;
        }
        let stale = match freshness {
            Freshness::Stale(left) => Some(left),
            Freshness::Fresh | Freshness::Expired(_) => None,
        };
        let details = Details {
            written: entry.written,
            expires: entry.expires(),
            stale,
            is_absent: entry.is(Mark::Absent),
            labels: entry.label_texts().cloned().unwrap_or_default(),
        };
        Some(Self {
            key: (*entry.key).into(),
            bytes: entry.charge,
            tier: if entry.is(Mark::FromDisk) { CacheTier::L2 } else { CacheTier::L1 },
            version: entry.version(),
            ends: match entry.expires() {
                Timestamp::NEVER => Timestamp::NEVER,
                expires => end_of_window(expires, entry.stale_serve().unwrap_or(0)),
            },
            details: Some(details),
        })
    }

    /// A record as its directory lists it.
    pub(crate) fn listed(
        key: &[u8],
        bytes: usize,
        version: Option<u64>,
        window_end_ns: Option<u64>,
    ) -> Self {
        let ends = window_end_ns.map_or(Timestamp::NEVER, Timestamp);
        let (key, tier) = (key.into(), CacheTier::L2);
        Self { key, bytes, tier, version, ends, details: None }
    }
}

fn time(at: Timestamp) -> Option<SystemTime> {
    (at != Timestamp::NEVER).then(|| at.into())
}

/// The entries that [`keys`](crate::BlobCache::keys) lists, a [`Stream`].
#[must_use = "it lists nothing until it is polled"]
pub struct BlobCacheKeys(BoxStream<'static, KeyEntry>);

impl BlobCacheKeys {
    pub(crate) fn new(keys: impl Stream<Item = KeyEntry> + Send + 'static) -> Self {
        Self(keys.fuse().boxed())
    }

    /// The next entry; None at the end, or once the cache is closed or dropped. A future that is
    /// dropped loses no entry.
    pub async fn next(&mut self) -> Option<KeyEntry> {
        StreamExt::next(self).await
    }
}

impl Stream for BlobCacheKeys {
    type Item = KeyEntry;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<KeyEntry>> {
        self.0.poll_next_unpin(context)
    }
}

impl fmt::Debug for BlobCacheKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BlobCacheKeys").finish_non_exhaustive()
    }
}
