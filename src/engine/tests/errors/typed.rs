//! The errors of a handle of typed values: those of the calls for bytes, and its codec's.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;

use super::{Call, Given, Variants, documented, errors_of, variant};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::error::{CacheError, FetchError};
use crate::policy::BlobCachePolicy;
use crate::typed::{Codec, Plain, TypedError, TypedHit, TypedNamespace, TypedPut};

/// The variants that no call for bytes has.
pub(super) const OWN: [&str; 3] = ["Cache", "CodecPanicked", "Encode"];

type Handle = TypedNamespace<Vec<u8>, Plain>;

fn handle(cache: &BlobCache, it: &Given) -> Handle {
    cache.namespace(&it.namespace).typed(Plain)
}

fn of_cache<E: std::fmt::Debug>(outcome: Result<(), TypedError<E>>) -> Option<CacheError> {
    outcome.err().map(|error| match error {
        TypedError::Cache(error) => error,
        error => panic!("bytes are encoded as they are: {error:?}"),
    })
}

/// All calls that return a [`CacheError`], by itself or within a [`TypedError`].
pub(super) const CALLS: &[(&str, Call)] = &[
    ("TypedNamespace::put", |cache, it| {
        let (handle, put) = (handle(&cache, &it), TypedPut::of_bytes(it.put));
        async move { of_cache(handle.put(&it.key, put).await) }.boxed()
    }),
    ("TypedNamespace::put_many", |cache, it| {
        let (handle, put) = (handle(&cache, &it), TypedPut::of_bytes(it.put));
        async move { of_cache(handle.put_many([(&it.key, put)]).await.remove(0)) }.boxed()
    }),
    ("TypedNamespace::touch", |cache, it| {
        let (handle, policy) = (handle(&cache, &it), BlobCachePolicy::default());
        async move { handle.touch(&it.key, &policy).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate_key", |cache, it| {
        async move { handle(&cache, &it).invalidate_key(&it.key).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate_keys", |cache, it| {
        let handle = handle(&cache, &it);
        async move { handle.invalidate_keys(&[&b"k"[..], &it.key[..]]).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate_prefix", |cache, it| {
        async move { handle(&cache, &it).invalidate_prefix(&it.key).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate_tags", |cache, it| {
        async move { handle(&cache, &it).invalidate_tags(&it.labels).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate_dependencies", |cache, it| {
        async move { handle(&cache, &it).invalidate_dependencies(&it.labels).await.err() }.boxed()
    }),
    ("TypedNamespace::invalidate", |cache, it| {
        async move { handle(&cache, &it).invalidate().await.err() }.boxed()
    }),
    ("TypedNamespace::expire_key", |cache, it| {
        async move { handle(&cache, &it).expire_key(&it.key).await.err() }.boxed()
    }),
    ("TypedNamespace::expire_prefix", |cache, it| {
        async move { handle(&cache, &it).expire_prefix(&it.key).await.err() }.boxed()
    }),
    ("TypedNamespace::expire_tags", |cache, it| {
        async move { handle(&cache, &it).expire_tags(&it.labels).await.err() }.boxed()
    }),
    ("TypedNamespace::expire_dependencies", |cache, it| {
        async move { handle(&cache, &it).expire_dependencies(&it.labels).await.err() }.boxed()
    }),
    ("TypedNamespace::expire", |cache, it| {
        async move { handle(&cache, &it).expire().await.err() }.boxed()
    }),
];

type Fetching = BoxFuture<'static, Result<Vec<u8>, &'static str>>;

type Fetched = BoxFuture<'static, Result<TypedHit<Vec<u8>>, FetchError<&'static str>>>;

type Fetch = fn(Handle, fn() -> Fetching) -> Fetched;

const FETCHES: [(&str, Fetch); 4] = [
    ("TypedNamespace::get_or_fetch", |handle, fetch| {
        async move { handle.get_or_fetch("k", fetch).await }.boxed()
    }),
    ("TypedNamespace::get_or_refresh", |handle, fetch| {
        async move { handle.get_or_refresh("k", fetch).await.map(|(hit, _)| hit) }.boxed()
    }),
    ("TypedNamespace::get_or_fetch_spawned", |handle, fetch| {
        async move { handle.get_or_fetch_spawned("k", fetch).await }.boxed()
    }),
    ("TypedNamespace::get_or_refresh_spawned", |handle, fetch| {
        async move { handle.get_or_refresh_spawned("k", fetch).await }.boxed()
    }),
];

struct Stubborn {
    panics: bool,
}

impl Codec<Vec<u8>> for Stubborn {
    type Error = io::Error;

    fn encode(&self, _: &Vec<u8>) -> Result<Bytes, io::Error> {
        assert!(!self.panics, "on purpose");
        Err(io::ErrorKind::InvalidInput.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Vec<u8>, io::Error> {
        Ok(bytes.to_vec())
    }
}

#[test]
fn the_errors_of_every_typed_call_are_exactly_those_in_its_docs() {
    let documented = documented();
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    for &(name, call) in CALLS {
        let mut errors = errors_of(call);
        if name.contains("::put") {
            errors.insert("Cache".to_owned());
            for panics in [false, true] {
                let handle = cache.namespace("a").typed::<Vec<u8>, _>(Stubborn { panics });
                let one = block_on(handle.put("k", vec![1])).unwrap_err();
                let of_many = block_on(handle.put_many([("k", vec![1])])).remove(0).unwrap_err();
                assert_eq!(variant(&one), variant(&of_many));
                errors.insert(variant(&one));
            }
        }
        assert_eq!(errors, documented[name], "{name}, returned and documented");
    }
    assert_eq!(cache.stats().insertions(), 0, "nothing has changed");
    let calls = CALLS.iter().map(|(name, _)| *name).chain(FETCHES.map(|(name, _)| name));
    let public = documented.keys().map(String::as_str);
    let public: BTreeSet<_> = public.filter(|name| name.starts_with("TypedNamespace")).collect();
    assert_eq!(calls.collect::<BTreeSet<_>>(), public, "met, and public");
}

#[test]
fn the_errors_of_a_typed_fetch_are_exactly_those_in_its_docs() {
    let [cache, without] = super::spawned::caches();
    let documented = documented();
    let handle = |cache: &BlobCache| cache.namespace("n").typed(Plain);
    for (name, call) in FETCHES {
        let outcomes = [
            block_on(call(handle(&cache), || async { Err("on purpose") }.boxed())),
            block_on(call(handle(&cache), || async { panic!("on purpose") }.boxed())),
            block_on(call(handle(&cache), || std::future::pending().boxed())),
            block_on(call(handle(&without), || async { Err("without a spawner") }.boxed())),
        ];
        let errors = outcomes.map(|outcome| variant(&outcome.unwrap_err()));
        assert_eq!(Variants::from(errors), documented[name], "{name}, returned and documented");
    }
    assert_eq!(cache.stats().fetches_not_spawned(), 0, "each of a task ran in one");
}
