//! Calls for many keys: each of them is judged as if it had a call of its own, which began and
//! ended with the others. One for none, another size of the file; and touches.

use std::io;

use futures::future::BoxFuture;

use super::budget::Changed;
use super::call::{FullKey, Put, SPACES, Touch};
use super::checker::Asked;
use super::manner::patient;
use super::typed::{self, ValueHit};
use crate::cache::BlobCache;
use crate::error::{CacheError, FetchError};
use crate::hit::{BlobCacheHit, CachePresence};
use crate::keys::KeysQuery;

/// How a call has ended.
pub(super) enum Outcome {
    /// With its count, where it has one.
    Mutated(u32, Asked, Option<Result<usize, CacheError>>),
    Touched(u32, Asked, Option<Result<bool, CacheError>>),
    Got(FullKey, Asked, Option<BlobCacheHit>),
    GotTyped(FullKey, Asked, Option<ValueHit>),
    /// None: its caller has gone.
    Fetched(u32, FullKey, Asked, Option<Result<BlobCacheHit, FetchError<io::Error>>>),
    Existed(FullKey, Asked, CachePresence),
    /// A listing of its namespace did not have it.
    Unlisted(FullKey, Asked),
    /// Memory has another budget.
    Resized(Result<Changed, CacheError>),
    /// Of a call for many keys.
    Each(Vec<Self>),
    Nothing,
    /// An answer that is wrong by itself.
    Wrong(String),
}

/// Its result on a failing device is not checked here. A reopening does nothing, unless such a
/// device has turned the tier off.
pub(super) fn sync(
    cache: BlobCache,
    is_reopened: bool,
    has_faults: bool,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let done = if is_reopened { cache.reopen_l2().await } else { cache.sync().await };
        check(&done, has_faults);
        Outcome::Nothing
    })
}

pub(super) fn touch(
    cache: BlobCache,
    (number, asked): (u32, Asked),
    (full_key, touch): (FullKey, Touch),
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let policy = touch.policy();
        let touched = cache.touch(full_key.namespace(), full_key.name(), &policy);
        Outcome::Touched(number, asked, patient(touched, polls).await)
    })
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

pub(super) fn keys(
    cache: BlobCache,
    asked: Asked,
    space: usize,
    prefix: Option<u8>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let query = KeysQuery::default().prefix(prefix.as_slice());
        let mut keys = cache.keys(SPACES[space], query);
        let mut listed = Vec::new();
        while let Some(entry) = keys.next().await {
            listed.push(entry.into_key());
        }
        let is_of =
            |it: &FullKey| it.space == space && prefix.is_none_or(|prefix| it.name()[0] == prefix);
        let judged = FullKey::all().filter(is_of).map(|full_key| {
            let is_listed = listed.iter().any(|key| **key == full_key.name());
            listed.retain(|key| **key != full_key.name());
            match is_listed {
                true => Outcome::Existed(full_key, asked, CachePresence::Present),
                false => Outcome::Unlisted(full_key, asked),
            }
        });
        let judged = judged.collect();
        assert!(listed.is_empty(), "{listed:?} were never put");
        Outcome::Each(judged)
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
        let first = items[0].0;
        let puts = async {
            if first.is_typed() {
                typed::put_many(&cache, first.space, blobs).await
            } else {
                cache.put_many(first.namespace(), blobs).await
            }
        };
        let results = patient(puts, polls).await;
        let mut results = results.map(Vec::into_iter);
        let mut next = || results.as_mut().map(|results| results.next().unwrap().map(|()| 0));
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
        let result = patient(invalidation, polls).await;
        let mutated = |(number, _)| Outcome::Mutated(number, asked, result.clone());
        Outcome::Each(numbers.into_iter().map(mutated).collect())
    })
}

/// Its result on a failing device is not checked.
pub(super) fn resize(
    cache: BlobCache,
    segments: u64,
    has_faults: bool,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        let bytes = segments * u64::from(cache.config().l2_segment_bytes());
        check(&cache.set_l2_bytes_max(bytes).await, has_faults);
        Outcome::Nothing
    })
}

/// Without faults it fails on a cache that is closed meanwhile, and nothing else.
fn check<T: std::fmt::Debug>(result: &Result<T, CacheError>, has_faults: bool) {
    assert!(has_faults || matches!(result, Ok(_) | Err(CacheError::Closed)), "{result:?}");
}
