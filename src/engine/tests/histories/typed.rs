//! Calls through a typed handle, by a codec that decodes some values only, as if the others were of
//! another release: such a value is never found, and the value of a hit is that of its bytes.

use std::io;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::call::{FullKey, Put, SPACES, Touch};
use super::checker::Asked;
use super::fetch::Answer;
use super::manner::patient;
use super::many::Outcome;
use crate::cache::BlobCache;
use crate::error::{CacheError, FetchError};
use crate::hit::BlobCacheHit;
use crate::put::BlobCachePut;
use crate::typed::{Codec, TypedError, TypedHit, TypedNamespace, TypedPut};

pub(super) struct Choosy;

type Value = Vec<u8>;

pub(super) type ValueHit = TypedHit<Value>;

/// Whether the value of the put of that number decodes.
pub(super) fn decodes(number: u32) -> bool {
    number % 3 != 0
}

impl Codec<Value> for Choosy {
    type Error = io::Error;

    fn encode(&self, value: &Value) -> io::Result<Bytes> {
        Ok(Bytes::copy_from_slice(value))
    }

    fn decode(&self, bytes: &Bytes) -> io::Result<Value> {
        match Put::number_of(bytes) {
            Some(number) if decodes(number) => Ok(bytes.to_vec()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The typed handle of a namespace.
pub(super) fn values(cache: &BlobCache, space: usize) -> TypedNamespace<Value, Choosy> {
    cache.namespace(SPACES[space]).typed(Choosy)
}

/// The hit for bytes.
///
/// # Errors
/// The value is that of other bytes; or it does not decode. A fetch alone is given what it has
/// brought itself, whatever that is: the value of the number `own`.
pub(super) fn checked(hit: &ValueHit, own: Option<u32>) -> Result<BlobCacheHit, String> {
    let bytes = hit.hit().clone();
    if hit.value().map(Vec::as_slice) != Some(bytes.value()) {
        return Err(format!("a typed hit has the value of others than its bytes: {bytes:?}"));
    }
    let number = Put::number_of(bytes.value());
    if number != own && !number.is_some_and(decodes) {
        return Err(format!("a typed call is given {number:?}, which does not decode"));
    }
    Ok(bytes)
}

pub(super) fn get(
    cache: BlobCache,
    asked: Asked,
    full_key: FullKey,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let hit = values(&cache, full_key.space).get(full_key.name()).await;
        Outcome::GotTyped(full_key, asked, hit)
    })
}

pub(super) fn get_many(
    cache: BlobCache,
    asked: Asked,
    full_keys: Vec<FullKey>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let keys: Vec<_> = full_keys.iter().map(|full_key| full_key.name()).collect();
        let hits = values(&cache, full_keys[0].space).get_many(&keys).await;
        let got = |(full_key, hit)| Outcome::GotTyped(full_key, asked, hit);
        Outcome::Each(full_keys.into_iter().zip(hits).map(got).collect())
    })
}

pub(super) async fn put(
    cache: &BlobCache,
    full_key: FullKey,
    blob: BlobCachePut,
) -> Result<(), CacheError> {
    let put = TypedPut::of_bytes(blob);
    values(cache, full_key.space).put(full_key.name(), put).await.map_err(of_cache)
}

pub(super) async fn put_many(
    cache: &BlobCache,
    space: usize,
    blobs: Vec<([u8; 2], BlobCachePut)>,
) -> Vec<Result<(), CacheError>> {
    let items = blobs.into_iter().map(|(key, blob)| (key, TypedPut::of_bytes(blob)));
    let results = values(cache, space).put_many(items).await;
    results.into_iter().map(|result| result.map_err(of_cache)).collect()
}

fn of_cache(error: TypedError<io::Error>) -> CacheError {
    match error {
        TypedError::Cache(error) => error,
        error => panic!("{error}, though every value can be encoded"),
    }
}

pub(super) fn touch(
    cache: BlobCache,
    (number, asked): (u32, Asked),
    (full_key, touch): (FullKey, Touch),
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let (values, policy) = (values(&cache, full_key.space), touch.policy());
        let touched = values.touch(full_key.name(), &policy);
        Outcome::Touched(number, asked, patient(touched, polls).await)
    })
}

async fn typed_put(
    reading: impl Future<Output = io::Result<BlobCachePut>>,
) -> io::Result<TypedPut<Value>> {
    reading.await.map(TypedPut::of_bytes)
}

/// In the polls of its caller.
pub(super) async fn fetch<Fut>(
    cache: &BlobCache,
    (full_key, number): (FullKey, u32),
    read: impl FnOnce() -> Fut + Send,
) -> Result<Answer, String>
where
    Fut: Future<Output = io::Result<BlobCachePut>> + Send,
{
    let read = || typed_put(read());
    let values = values(cache, full_key.space);
    bytes_of(values.get_or_fetch(full_key.name(), read).await, number)
}

/// In a task.
pub(super) async fn fetch_spawned<Fut>(
    cache: &BlobCache,
    (full_key, number): (FullKey, u32),
    read: impl FnOnce() -> Fut + Send + 'static,
) -> Result<Answer, String>
where
    Fut: Future<Output = io::Result<BlobCachePut>> + Send + 'static,
{
    let read = || typed_put(read());
    let values = values(cache, full_key.space);
    bytes_of(values.get_or_fetch_spawned(full_key.name(), read).await, number)
}

fn bytes_of(found: Result<ValueHit, FetchError<io::Error>>, own: u32) -> Result<Answer, String> {
    match found {
        Ok(hit) => checked(&hit, Some(own)).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}
