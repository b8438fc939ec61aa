//! `Json`: values as JSON, by serde.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::Codec;

/// The codec of all types that serde can read and write, as JSON. With the feature `json`.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, Json, TypedError};
/// #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
/// struct User {
///     name: String,
/// }
///
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let users = cache.namespace("users").typed::<User, _>(Json);
/// users.put("7", User { name: "ada".into() }).await?;
/// assert_eq!(users.get("7").await.unwrap().value(), Some(&User { name: "ada".into() }));
/// # Ok::<(), TypedError<serde_json::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    type Error = serde_json::Error;

    fn encode(&self, value: &T) -> Result<Bytes, Self::Error> {
        serde_json::to_vec(value).map(Bytes::from)
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, Self::Error> {
        serde_json::from_slice(bytes)
    }
}
