//! `BlobCachePut`: a value to put, with its metadata, labels and policy.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::mem::take;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::batch::{BATCH_BYTES, yield_now};
use crate::meter;
use crate::moment::ReadPoint;
use crate::policy::BlobCachePolicy;

/// A value to put, with its metadata, labels and policy.
///
/// Anything that converts into [`Bytes`] converts into a put, so a plain value can be passed as it
/// is; so can [`Cow`]s of bytes and of text. The cache stores values in exclusive allocations of
/// fitting size: a `Vec` or boxed slice with at most 5 % spare capacity is taken over, as are
/// unshared `Bytes` of up to 256 KiB; everything else is copied once, in batches of 256 KiB.
///
/// ```
/// use tamis::BlobCachePut;
///
/// let put = BlobCachePut::new("<h1>Tamis</h1>")
///     .with_content_metadata([("content-type", "text/html")])
///     .with_tags(["product:7", "page"])
///     .with_dependencies(["template:3"]);
/// # let _ = put;
/// ```
#[derive(Debug, Clone)]
pub struct BlobCachePut {
    pub(crate) value: Value,
    pub(crate) content_metadata: BTreeMap<String, String>,
    pub(crate) tags: Vec<String>,
    pub(crate) dependencies: Vec<String>,
    pub(crate) policy: Option<BlobCachePolicy>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) read_at: Option<ReadPoint>,
    /// A cached absence; the value is empty.
    pub(crate) is_absent: bool,
    /// Fetched: it may replace a stale entry of the same version.
    pub(crate) renews: bool,
    /// So may it a fresh one, whose value does not decode.
    pub(crate) replaces: bool,
    /// Fetched, and not encoded: it cannot be stored.
    pub(crate) is_unencoded: bool,
}

impl BlobCachePut {
    /// A put of `value`, with no metadata, labels or policy of its own.
    #[must_use]
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self::of(Value::Shared(value.into()))
    }

    /// A put with a copy of `value`.
    #[must_use]
    pub fn copy_from_slice(value: &[u8]) -> Self {
        Self::of(Value::Owned(value.to_vec()))
    }

    /// A put that caches an absence, so that the origin is not asked again until it expires. It is
    /// an entry like any other, with metadata, labels and a policy, and an empty value;
    /// [`is_absent`](crate::BlobCacheHit::is_absent) distinguishes it from an empty value.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
    /// # use std::time::Duration;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let briefly = Duration::from_secs(5);
    /// cache.put("users", "nobody", BlobCachePut::absent().with_ttl(briefly)).await?;
    /// assert!(cache.get("users", "nobody").await.is_some_and(|hit| hit.is_absent()));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn absent() -> Self {
        Self { is_absent: true, ..Self::of(Value::default()) }
    }

    fn of(value: Value) -> Self {
        Self {
            value,
            content_metadata: BTreeMap::new(),
            tags: Vec::new(),
            dependencies: Vec::new(),
            policy: None,
            ttl: None,
            read_at: None,
            is_absent: false,
            renews: false,
            replaces: false,
            is_unencoded: false,
        }
    }

    /// Small facts to keep with the value, such as its content type: pairs of a name and a value,
    /// as an array, a map or any other collection. The last pair of a name wins. Default: none.
    /// Replaces earlier metadata of this put.
    ///
    /// Limited by `content_metadata_keys_max` and `content_metadata_bytes_max` of the
    /// configuration.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use tamis::BlobCachePut;
    ///
    /// let page = BlobCachePut::new("<h1>Tamis</h1>")
    ///     .with_content_metadata([("content-type", "text/html"), ("etag", "\"7\"")]);
    /// let headers = BTreeMap::from([("content-type".to_owned(), "text/html".to_owned())]);
    /// let same = BlobCachePut::new("<h1>Tamis</h1>").with_content_metadata(headers);
    /// # let _ = (page, same);
    /// ```
    #[must_use]
    pub fn with_content_metadata(
        mut self,
        content_metadata: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        // Bounded: by the caller's argument; no lock is held.
        self.content_metadata =
            content_metadata.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        self
    }

    /// Tags by which [`invalidate_tags`](crate::BlobCache::invalidate_tags) finds the entry.
    /// Default: none. Replaces earlier tags of this put.
    ///
    /// [Dependencies](Self::with_dependencies) are a second set of labels that works alike: calls
    /// for one kind do not find names of the other.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let put = BlobCachePut::new("<h1>Drum sieve</h1>").with_tags(["sieves", "new"]);
    /// cache.put("pages", "/sieves/20cm", put).await?;
    /// let changed: Vec<String> = vec!["sieves".into(), "spoons".into()];
    /// assert_eq!(cache.invalidate_tags("pages", &changed).await?, 1);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item: Into<String>>) -> Self {
        // Bounded: by the caller's argument; no lock is held.
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Names of the things that the value was made from, for
    /// [`invalidate_dependencies`](crate::BlobCache::invalidate_dependencies).
    /// Default: none. Replaces earlier dependencies of this put. They work as
    /// [tags](Self::with_tags) do, in a set of their own.
    #[must_use]
    pub fn with_dependencies(
        mut self,
        dependencies: impl IntoIterator<Item: Into<String>>,
    ) -> Self {
        // Bounded: by the caller's argument; no lock is held.
        self.dependencies = dependencies.into_iter().map(Into::into).collect();
        self
    }

    /// The policy of the entry. Default: that of the namespace handle, or else the
    /// [namespace's](crate::BlobCacheConfigBuilder::namespace), or else
    /// [`BlobCachePolicy::default`].
    #[must_use]
    pub fn with_policy(mut self, policy: BlobCachePolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// How long the entry is fresh after the put. Replaces only the ttl of the put's policy, or of
    /// the handle's or the namespace's if the put has none. The order of this call and
    /// [`with_policy`](Self::with_policy) does not matter. Default: the policy's ttl.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};
    /// use std::time::Duration;
    ///
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let minute = Duration::from_secs(60);
    /// let pages = cache.namespace("pages").with_policy(BlobCachePolicy::default().ttl(minute));
    /// pages.put("/news", BlobCachePut::new("...").with_ttl(minute / 10)).await?;
    /// let hit = pages.get("/news").await.unwrap();
    /// let fresh_for = hit.expires_at().unwrap().duration_since(hit.written_at()).unwrap();
    /// assert_eq!(fresh_for, Duration::from_secs(6));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The policy of this put, given the handle's `default`.
    pub(crate) fn policy_or<'a>(
        &mut self,
        default: &'a BlobCachePolicy,
    ) -> Cow<'a, BlobCachePolicy> {
        let policy = self.policy.take().map_or(Cow::Borrowed(default), Cow::Owned);
        match self.ttl {
            Some(ttl) => Cow::Owned(policy.into_owned().ttl(ttl)),
            None => policy,
        }
    }

    /// Makes the put void if its key was written or invalidated after `point`: take the point
    /// before reading the value from its origin. A void put is `Ok`, stores nothing, and is counted
    /// in [`stale_sets_refused`](crate::BlobCacheStats::stale_sets_refused). Default: never void.
    #[must_use]
    pub fn read_at(mut self, point: ReadPoint) -> Self {
        self.read_at = Some(point);
        self
    }
}

impl From<Bytes> for BlobCachePut {
    fn from(value: Bytes) -> Self {
        Self::new(value)
    }
}

impl From<Vec<u8>> for BlobCachePut {
    fn from(value: Vec<u8>) -> Self {
        Self::of(Value::Owned(value))
    }
}

impl From<Box<[u8]>> for BlobCachePut {
    fn from(value: Box<[u8]>) -> Self {
        Self::of(Value::Owned(value.into_vec()))
    }
}

impl From<String> for BlobCachePut {
    fn from(value: String) -> Self {
        Self::from(value.into_bytes())
    }
}

impl From<&'static [u8]> for BlobCachePut {
    fn from(value: &'static [u8]) -> Self {
        Self::new(value)
    }
}

impl From<&'static str> for BlobCachePut {
    fn from(value: &'static str) -> Self {
        Self::new(value)
    }
}

impl<const N: usize> From<&'static [u8; N]> for BlobCachePut {
    fn from(value: &'static [u8; N]) -> Self {
        Self::new(value.as_slice())
    }
}

impl From<BytesMut> for BlobCachePut {
    fn from(value: BytesMut) -> Self {
        Self::new(value)
    }
}

impl From<Cow<'static, [u8]>> for BlobCachePut {
    fn from(value: Cow<'static, [u8]>) -> Self {
        match value {
            Cow::Borrowed(value) => value.into(),
            Cow::Owned(value) => value.into(),
        }
    }
}

impl From<Cow<'static, str>> for BlobCachePut {
    fn from(value: Cow<'static, str>) -> Self {
        match value {
            Cow::Borrowed(value) => value.into(),
            Cow::Owned(value) => value.into(),
        }
    }
}

/// The bytes of a put, by what is known about their allocation.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Exclusive, with a known capacity.
    Owned(Vec<u8>),
    /// May be a small part of a large allocation, or not on this process's heap.
    Shared(Bytes),
    /// Made by [`Value::exact`].
    Exact(Bytes),
}

impl Default for Value {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl Value {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(value) => value,
            Self::Shared(value) | Self::Exact(value) => value,
        }
    }

    /// The bytes in their present allocation, without a copy.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Owned(value) => value.into(),
            Self::Shared(value) | Self::Exact(value) => value,
        }
    }

    /// The bytes in an exclusive allocation that fits within 5 %, already shared so that clones do
    /// not allocate. Copies in batches, up to 256 KiB without a yield, and keeps the source, so
    /// that the copy can be dropped.
    pub(crate) async fn exact(&mut self) -> Bytes {
        let (exact, kept) = match take(self).into_fitting() {
            Ok(value) => {
                // This first clone allocates the shared header, so that none in a hit does.
                let exact = Bytes::from(value);
                (exact.clone(), Self::Exact(exact))
            }
            Err(Self::Exact(exact)) => (exact.clone(), Self::Exact(exact)),
            Err(source) => {
                // Restores the source if the copy is dropped, too.
                *self = source;
                return copied(self.as_slice()).await;
            }
        };
        *self = kept;
        exact
    }

    /// Like `exact`, for callers that do not need the source.
    pub(crate) async fn into_exact(mut self) -> Bytes {
        self.exact().await
    }

    /// The same bytes, in a form whose clones copy nothing.
    pub(crate) fn into_shareable(self) -> Self {
        match self {
            Self::Owned(value) if fits(&value) => Self::Exact(ready_to_share(value.into())),
            Self::Owned(value) => Self::Shared(value.into()),
            shared => shared,
        }
    }

    fn into_fitting(self) -> Result<Vec<u8>, Self> {
        match self {
            Self::Owned(value) if fits(&value) => Ok(value),
            Self::Owned(_) | Self::Exact(_) => Err(self),
            // Only a `Vec` shows its capacity, and converting `Bytes` that do not start at the
            // front of their allocation moves them: for large values, more than a batch.
            Self::Shared(value) if value.len() > BATCH_BYTES => Err(Self::Shared(value)),
            Self::Shared(value) => match value.try_into_mut() {
                Ok(unique) => {
                    let value = Vec::from(unique);
                    if fits(&value) { Ok(value) } else { Err(Self::Owned(value)) }
                }
                Err(value) => Err(Self::Shared(value)),
            },
        }
    }
}

/// Whether the allocation is at most 5 % larger than its bytes.
fn fits(value: &Vec<u8>) -> bool {
    value.capacity() - value.len() <= value.len() / 20
}

/// The first clone of a fresh `Bytes` allocates its shared header: done here, not in a hit.
pub(crate) fn ready_to_share(value: Bytes) -> Bytes {
    drop(value.clone());
    value
}

async fn copied(value: &[u8]) -> Bytes {
    if value.len() <= BATCH_BYTES {
        meter::bytes(value.len());
        return ready_to_share(Bytes::copy_from_slice(value));
    }
    let mut copy = Vec::with_capacity(value.len());
    for step in value.chunks(BATCH_BYTES) {
        meter::bytes(step.len());
        copy.extend_from_slice(step);
        yield_now().await;
    }
    ready_to_share(copy.into())
}

/// The same metadata with strings that have no spare capacity.
pub(crate) fn without_slack(metadata: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if metadata.is_empty() {
        return metadata;
    }
    let shrunk = |(mut key, mut value): (String, String)| {
        key.shrink_to_fit();
        value.shrink_to_fit();
        (key, value)
    };
    // Bounded: by the metadata of one entry.
    metadata.into_iter().map(shrunk).collect()
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// Whether the value's allocation was taken over, judged by its address.
    fn is_taken_over(value: impl Into<BlobCachePut>) -> bool {
        let value = value.into().value;
        let (address, expected) = (value.as_slice().as_ptr(), value.as_slice().to_vec());
        let exact = block_on(value.into_exact());
        assert_eq!(exact, expected);
        exact.as_ptr() == address
    }

    #[test]
    fn fitting_allocations_are_taken_over() {
        assert!(is_taken_over(vec![7; 1000]));
        assert!(is_taken_over(vec![7; 4 * BATCH_BYTES]));
        assert!(is_taken_over(Bytes::from(vec![7; 1000])));
        assert!(is_taken_over(vec![7; 9].into_boxed_slice()));
    }

    #[test]
    fn shared_or_oversized_allocations_are_copied() {
        let roomy = || {
            let mut value = Vec::with_capacity(2000);
            value.extend_from_slice(&[7; 1000]);
            value
        };
        assert!(!is_taken_over(roomy()));
        assert!(!is_taken_over(Bytes::from(roomy())));
        let parent = Bytes::from(vec![7; 100_000]);
        assert!(!is_taken_over(parent.slice(5..50)), "a shared slice");
        let tail = parent.slice(99_000..);
        drop(parent);
        assert!(!is_taken_over(tail), "the last slice of a large allocation");
        assert!(!is_taken_over(Bytes::from(vec![7; 3 * BATCH_BYTES + 1])), "large and unknown");
        assert!(!is_taken_over("static"));
    }

    #[test]
    fn an_exact_value_is_in_its_shared_form() {
        let exact = block_on(BlobCachePut::from(vec![1, 2, 3]).value.into_exact());
        assert!(exact.is_unique(), "one owner");
        let other = exact.clone();
        assert_eq!(other.as_ptr(), exact.as_ptr());
    }
}
