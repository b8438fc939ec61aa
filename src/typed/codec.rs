//! `Codec`: how values become bytes and bytes become values. `Plain` leaves bytes and text alone.

use std::convert::Infallible;
use std::error::Error;
use std::string::FromUtf8Error;

use bytes::Bytes;

use crate::hit::BlobCacheHit;
use crate::wake::contained;

/// Makes bytes of a value, and a value of bytes. One codec may do so for many types.
///
/// It runs in the polls of the caller, which it blocks for as long as it takes: for values of many
/// megabytes that is longer than anything that the cache does in a poll. It runs without a lock;
/// its panics are contained, and count as errors. What it has encoded it should be able to decode:
/// otherwise each call fetches again.
///
/// Bytes that it does not decode are those of another type or an older release: a miss, not an
/// error. A format that decodes bytes of another type to a wrong value, as compact ones may, has to
/// mark its bytes, or the namespace's name must say the version.
///
/// ```
/// use bytes::Bytes;
/// use tamis::Codec;
///
/// /// Numbers, eight bytes each.
/// struct Numbers;
///
/// impl Codec<Vec<u64>> for Numbers {
///     type Error = std::io::Error;
///
///     fn encode(&self, value: &Vec<u64>) -> Result<Bytes, Self::Error> {
///         Ok(value.iter().flat_map(|number| number.to_le_bytes()).collect())
///     }
///
///     fn decode(&self, bytes: &Bytes) -> Result<Vec<u64>, Self::Error> {
///         if bytes.len() % 8 != 0 {
///             return Err(std::io::ErrorKind::InvalidData.into());
///         }
///         let numbers = bytes.chunks(8).flat_map(<[u8; 8]>::try_from);
///         Ok(numbers.map(u64::from_le_bytes).collect())
///     }
/// }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// Why a value was not encoded, or bytes were not decoded.
    type Error: Error + Send + Sync + 'static;

    /// The bytes of a value. Those of a `Vec` are taken over as they are, by
    /// [the rules of a put](crate::BlobCachePut).
    ///
    /// # Errors
    ///
    /// The value has no such bytes. It is not stored.
    fn encode(&self, value: &T) -> Result<Bytes, Self::Error>;

    /// The value of bytes that were found. A value that keeps `bytes`, or slices of them, shares
    /// the cache's memory without a copy, and keeps all of it alive; `bytes` is a `&[u8]` for all
    /// others.
    ///
    /// # Errors
    ///
    /// They are the bytes of no such value.
    fn decode(&self, bytes: &Bytes) -> Result<T, Self::Error>;
}

/// The codec of bytes and text as they are: of [`Bytes`], without a copy, and of [`Vec<u8>`] and
/// [`String`]. What is not UTF-8 is no `String`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plain;

impl Codec<Bytes> for Plain {
    type Error = Infallible;

    fn encode(&self, value: &Bytes) -> Result<Bytes, Infallible> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, Infallible> {
        Ok(bytes.clone())
    }
}

impl Codec<Vec<u8>> for Plain {
    type Error = Infallible;

    fn encode(&self, value: &Vec<u8>) -> Result<Bytes, Infallible> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> Result<Vec<u8>, Infallible> {
        Ok(bytes.to_vec())
    }
}

impl Codec<String> for Plain {
    type Error = FromUtf8Error;

    fn encode(&self, value: &String) -> Result<Bytes, FromUtf8Error> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, FromUtf8Error> {
        String::from_utf8(bytes.to_vec())
    }
}

/// Why a codec has not done its work.
#[derive(Debug)]
pub(crate) enum Failure<E> {
    Error(E),
    Panicked,
}

impl<E> Failure<E> {
    pub(crate) fn error(&self) -> Option<&E> {
        match self {
            Self::Error(error) => Some(error),
            Self::Panicked => None,
        }
    }
}

pub(crate) fn encode<T, C: Codec<T>>(codec: &C, value: &T) -> Result<Bytes, Failure<C::Error>> {
    let encoded = contained(|| codec.encode(value)).ok_or(Failure::Panicked)?;
    encoded.map_err(Failure::Error)
}

pub(crate) fn decode<T, C>(codec: &C, hit: &BlobCacheHit) -> Result<T, Failure<C::Error>>
where
    C: Codec<T>,
{
    let decoded = contained(|| codec.decode(&hit.entry.value)).ok_or(Failure::Panicked)?;
    decoded.map_err(Failure::Error)
}
