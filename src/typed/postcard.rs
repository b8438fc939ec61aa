//! `Postcard`: values in the compact format of the crate postcard, by serde.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;

/// The codec of all types that serde can read and write, in [postcard]'s format. With the feature
/// `postcard`.
///
/// The format does not name its fields, so bytes of another type may decode to a wrong value. Bytes
/// that are left over are an error; a change of a type that keeps its length is not noticed. Put a
/// version into the namespace's name when a type changes.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, Postcard, TypedError};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let points = cache.namespace("points v1").typed::<(u32, u32), _>(Postcard);
/// points.put("origin", (0, 300)).await?;
/// let found = points.get("origin").await.unwrap();
/// assert_eq!(found.value(), Some(&(0, 300)));
/// assert_eq!(found.hit().value().len(), 3, "bytes");
/// # Ok::<(), TypedError<postcard::Error>>(())
/// # }).unwrap();
/// ```
///
/// [postcard]: https://docs.rs/postcard
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Postcard;

impl<T: Serialize + DeserializeOwned> Codec<T> for Postcard {
    type Error = postcard::Error;

    fn encode(&self, value: &T) -> Result<Bytes, Self::Error> {
        postcard::to_stdvec(value).map(Bytes::from)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, Self::Error> {
        match postcard::take_from_bytes(bytes)? {
            (value, []) => Ok(value),
            _ => Err(postcard::Error::DeserializeBadEncoding),
        }
    }
}
