//! `TypedPut`: a typed value to put, with its metadata, labels and policy.

use std::time::Duration;

use super::codec::{self, Codec, Failure};
use crate::moment::ReadPoint;
use crate::policy::BlobCachePolicy;
use crate::put::{BlobCachePut, Value};

/// A typed value to put, or an absence, with its metadata, labels and policy. A plain value
/// converts into it; so does an `Option`, whose `None` is cached as an absence.
///
/// ```
/// use std::time::Duration;
/// use tamis::TypedPut;
///
/// let put = TypedPut::new(String::from("ada"))
///     .with_tags(["user:7"])
///     .with_ttl(Duration::from_secs(60));
/// let absent: TypedPut<String> = None.into();
/// # let _ = (put, absent);
/// ```
#[derive(Debug, Clone)]
pub struct TypedPut<T> {
    pub(super) value: Option<T>,
    /// Everything but the value.
    pub(super) put: BlobCachePut,
}

impl<T> TypedPut<T> {
    /// A put of `value`, with no metadata, labels or policy of its own.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value: Some(value), put: BlobCachePut::from(Vec::new()) }
    }

    /// A put that caches an absence: see [`BlobCachePut::absent`].
    #[must_use]
    pub fn absent() -> Self {
        Self { value: None, put: BlobCachePut::absent() }
    }

    /// See [`BlobCachePut::with_content_metadata`].
    #[must_use]
    pub fn with_content_metadata(
        mut self,
        content_metadata: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.put = self.put.with_content_metadata(content_metadata);
        self
    }

    /// See [`BlobCachePut::with_tags`].
    #[must_use]
    pub fn with_tags(mut self, tags: impl IntoIterator<Item: Into<String>>) -> Self {
        self.put = self.put.with_tags(tags);
        self
    }

    /// See [`BlobCachePut::with_dependencies`].
    #[must_use]
    pub fn with_dependencies(
        mut self,
        dependencies: impl IntoIterator<Item: Into<String>>,
    ) -> Self {
        self.put = self.put.with_dependencies(dependencies);
        self
    }

    /// See [`BlobCachePut::with_policy`].
    #[must_use]
    pub fn with_policy(mut self, policy: BlobCachePolicy) -> Self {
        self.put = self.put.with_policy(policy);
        self
    }

    /// See [`BlobCachePut::with_ttl`].
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.put = self.put.with_ttl(ttl);
        self
    }

    /// See [`BlobCachePut::read_at`].
    #[must_use]
    pub fn read_at(mut self, point: ReadPoint) -> Self {
        self.put = self.put.read_at(point);
        self
    }

    /// Encodes the value into the put.
    pub(super) fn encode<C: Codec<T>>(&mut self, codec: &C) -> Result<(), Failure<C::Error>> {
        if let Some(value) = &self.value {
            self.put.value = Value::Shared(codec::encode(codec, value)?);
        }
        Ok(())
    }
}

impl<T> From<T> for TypedPut<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T> From<Option<T>> for TypedPut<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(Self::absent, Self::new)
    }
}

#[cfg(any(test, feature = "simulation"))]
impl TypedPut<Vec<u8>> {
    /// With everything of a put of bytes.
    pub(crate) fn of_bytes(put: BlobCachePut) -> Self {
        Self { value: Some(put.value.as_slice().to_vec()), put }
    }
}
