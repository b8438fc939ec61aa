//! Typed fetches, by a codec that decodes some values only, as if others were of another release.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::value::{FullKey, number_of};
use crate::cache::BlobCache;
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::put::BlobCachePut;
use crate::typed::{Codec, TypedPut};

struct Choosy;

impl Codec<Vec<u8>> for Choosy {
    type Error = io::Error;

    fn encode(&self, value: &Vec<u8>) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> io::Result<Vec<u8>> {
        match number_of(bytes) {
            Some(number) if number % 3 != 0 => Ok(bytes.to_vec()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Two callers at one time, of whom the second may be given what the first has fetched. Its answer.
pub(super) async fn get_or_fetch<Fut>(
    cache: &BlobCache,
    full_key: FullKey,
    fetch: impl Fn() -> Fut,
) -> Result<BlobCacheHit, FetchError<io::Error>>
where
    Fut: Future<Output = io::Result<BlobCachePut>>,
{
    let (first, second) =
        futures::join!(one(cache, full_key, &fetch), one(cache, full_key, &fetch));
    drop(first);
    second
}

/// Fetches a value of a key, and checks that it is that of its bytes.
async fn one<Fut>(
    cache: &BlobCache,
    full_key: FullKey,
    fetch: impl Fn() -> Fut,
) -> Result<BlobCacheHit, FetchError<io::Error>>
where
    Fut: Future<Output = io::Result<BlobCachePut>>,
{
    let values = cache.namespace(full_key.namespace()).typed::<Vec<u8>, _>(Choosy);
    let is_own = AtomicBool::new(false);
    let fetch = || async {
        is_own.store(true, Ordering::Relaxed);
        fetch().await.map(TypedPut::of_bytes)
    };
    let found = values.get_or_fetch(full_key.name(), fetch).await?;
    let hit = found.hit().clone();
    assert_eq!(found.value().map(Vec::as_slice), Some(hit.value()), "the value of other bytes");
    assert!(
        is_own.load(Ordering::Relaxed) || Choosy.decode(&hit.bytes()).is_ok(),
        "it does not decode"
    );
    Ok(hit)
}
