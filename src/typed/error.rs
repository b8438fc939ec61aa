//! `TypedError`: why a typed value was not put.

use thiserror::Error;

use super::codec::Failure;
use crate::error::CacheError;

/// Why a typed value was not put. `E` is the error of the codec.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::*;
/// # let config = BlobCacheConfig::builder().key_bytes_max(8).build().unwrap();
/// # let cache = BlobCache::open(config).await.unwrap();
/// let names = cache.namespace("names").typed::<String, _>(Plain);
/// match names.put("a key that is too long", "ada".to_owned()).await {
///     Err(TypedError::Cache(error)) => println!("refused by the cache: {error}"),
///     Err(error) => println!("refused by the codec: {error}"),
///     Ok(()) => unreachable!(),
/// }
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypedError<E> {
    /// The codec could not encode the value. Nothing has changed.
    #[error("the value could not be encoded: {0}")]
    Encode(#[source] E),
    /// The codec panicked. The panic ends there, and nothing has changed.
    #[error("the codec panicked")]
    CodecPanicked,
    /// The error of the [put](crate::BlobCache::put).
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl<E> From<Failure<E>> for TypedError<E> {
    fn from(failure: Failure<E>) -> Self {
        match failure {
            Failure::Error(error) => Self::Encode(error),
            Failure::Panicked => Self::CodecPanicked,
        }
    }
}
