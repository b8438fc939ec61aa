//! `TypedError`: why a typed value was not put.

use thiserror::Error;

use super::codec::Failure;
use crate::error::CacheError;

/// Why a typed value was not put. `E` is the error of the codec.
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
