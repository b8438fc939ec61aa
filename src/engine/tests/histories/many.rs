//! Calls for many keys: each of them is judged as if it had a call of its own, which began and
//! ended with the others.

use futures::future::BoxFuture;

use super::call::{FullKey, Put};
use super::checker::Asked;
use super::manner::patient;
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::hit::{BlobCacheHit, CachePresence};

/// How a call has ended.
pub(super) enum Outcome {
    Mutated(u32, Asked, Option<Result<(), CacheError>>),
    Got(FullKey, Asked, Option<BlobCacheHit>),
    Existed(FullKey, Asked, CachePresence),
    /// Of a call for many keys.
    Each(Vec<Self>),
    Nothing,
}

pub(super) fn get_many(
    cache: BlobCache,
    asked: Asked,
    full_keys: Vec<FullKey>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let keys: Vec<_> = full_keys.iter().map(|full_key| full_key.name()).collect();
        let hits = cache.get_many(full_keys[0].namespace(), &keys).await;
        let got = |(full_key, hit)| Outcome::Got(full_key, asked, hit);
        Outcome::Each(full_keys.into_iter().zip(hits).map(got).collect())
    })
}

pub(super) fn put_many(
    cache: BlobCache,
    asked: Asked,
    items: Vec<(FullKey, Put)>,
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    let blobs: Vec<_> = items
        .iter()
        .map(|(full_key, put)| {
            let blob = put.blob();
            let blob = if put.is_fill { blob.read_at(cache.read_point()) } else { blob };
            (full_key.name(), blob)
        })
        .collect();
    Box::pin(async move {
        let puts = cache.put_many(items[0].0.namespace(), blobs);
        let results = patient(puts, polls).await;
        let mut results = results.map(Vec::into_iter);
        let mut next = || results.as_mut().map(|results| results.next().unwrap());
        let mutated = |(_, put): &(FullKey, Put)| Outcome::Mutated(put.number, asked, next());
        Outcome::Each(items.iter().map(mutated).collect())
    })
}

pub(super) fn invalidate_keys(
    cache: BlobCache,
    asked: Asked,
    numbers: Vec<(u32, FullKey)>,
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let keys: Vec<_> = numbers.iter().map(|(_, full_key)| full_key.name()).collect();
        let invalidation = cache.invalidate_keys(numbers[0].1.namespace(), &keys);
        let result = patient(invalidation, polls).await.map(|removed| removed.map(drop));
        let mutated = |(number, _)| Outcome::Mutated(number, asked, result.clone());
        Outcome::Each(numbers.into_iter().map(mutated).collect())
    })
}
