//! `TypedNamespace`: a handle of a namespace whose values have a type, and a codec between the two.
//!
//! The cache below knows bytes alone. A call decodes what it finds, and takes what does not decode
//! for a miss, so a fetching call looks past it (`call`). Fetches are shared by callers of one type
//! and codec, who are given bytes and decode for themselves; one that cannot fetches by itself.

mod call;
mod codec;
mod error;
mod fetches;
mod hit;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "postcard")]
mod postcard;
mod put;
mod refresh;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use self::call::note_undecoded;
pub use self::codec::{Codec, Plain};
pub use self::error::TypedError;
pub use self::hit::TypedHit;
#[cfg(feature = "json")]
pub use self::json::Json;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use self::put::TypedPut;
pub use self::refresh::TypedRefresh;
use crate::batch::{Pacer, PollShare, yield_now};
use crate::engine::read::get_many::find_many;
use crate::error::CacheError;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::keys::{BlobCacheKeys, KeysQuery};
use crate::meter;
use crate::moment::ReadPoint;
use crate::namespaced::BlobCacheNamespace;
use crate::policy::BlobCachePolicy;
use crate::wake::discard;

/// A handle for one namespace whose values have a type: [`typed`](BlobCacheNamespace::typed) makes
/// it. Cheap to clone. The methods are those of the [namespace](BlobCacheNamespace), with values of
/// `T` in place of bytes; the [codec](Codec) encodes and decodes them in the caller's polls.
///
/// **A stored value that does not decode is a miss**, counted in
/// [`values_undecoded`](crate::BlobCacheStats::values_undecoded) and now and then told to the
/// subscriber of `tracing`. The fetching methods fetch it anew and overwrite it, once for all
/// callers that wait, even if it has the version of the value that replaces it. A type that changes
/// needs no flush, if the codec notices.
///
/// Callers of one key share fetches with callers that have the same `T`, codec and error; not with
/// callers for bytes. Use one type for each key: two that take turns overwrite each other.
///
/// ```
/// # futures::executor::block_on(async {
/// # use std::time::Duration;
/// # use tamis::{BlobCache, BlobCacheConfig, Plain, TypedPut};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
/// # async fn query(id: &str) -> Result<Option<String>, std::io::Error> { Ok(Some("ada".into())) }
/// let names = cache.namespace("names").typed::<String, _>(Plain);
/// names.put("6", TypedPut::new("grace".into()).with_tags(["users"])).await.unwrap();
/// assert_eq!(names.get("6").await.unwrap().value().unwrap(), "grace");
///
/// // One query for all callers; no row is an absence, which is cached as well.
/// let name = names.get_or_fetch("7", || query("7")).await.unwrap();
/// assert_eq!(name.into_value().as_deref(), Some("ada"));
/// assert_eq!(names.invalidate_tags(&["users"]).await.unwrap(), 1);
/// # });
/// ```
pub struct TypedNamespace<T, C> {
    namespace: BlobCacheNamespace,
    codec: Arc<C>,
    /// It has no value of its own.
    of: PhantomData<fn() -> T>,
}

impl BlobCacheNamespace {
    /// A handle of this namespace for values of `T`, with this handle's default policy.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::*;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// let names = cache.namespace("names").typed::<String, _>(Plain);
    /// names.put("7", String::from("ada")).await?;
    /// # Ok::<(), TypedError<std::string::FromUtf8Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn typed<T, C: Codec<T>>(&self, codec: C) -> TypedNamespace<T, C> {
        TypedNamespace { namespace: self.clone(), codec: Arc::new(codec), of: PhantomData }
    }
}

impl<T, C> Clone for TypedNamespace<T, C> {
    fn clone(&self) -> Self {
        let (namespace, codec) = (self.namespace.clone(), Arc::clone(&self.codec));
        Self { namespace, codec, of: PhantomData }
    }
}

impl<T, C> fmt::Debug for TypedNamespace<T, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.namespace.name();
        formatter.debug_struct("TypedNamespace").field("name", &name).finish_non_exhaustive()
    }
}

impl<T, C: Codec<T>> TypedNamespace<T, C> {
    /// The handle for bytes.
    #[must_use]
    pub fn namespace(&self) -> &BlobCacheNamespace {
        &self.namespace
    }

    /// The value of a key: see [`BlobCache::get`](crate::BlobCache::get). A value that does not
    /// decode is a miss, and stays where it is.
    pub async fn get<K: AsRef<[u8]>>(&self, key: K) -> Option<TypedHit<T>> {
        let (engine, namespace, _) = self.namespace.parts();
        let take = |hit: &BlobCacheHit| self.take(hit);
        let (hit, value) = engine.gets().get_if(namespace, key.as_ref(), take).await?;
        Some(TypedHit::new(value, hit))
    }

    /// Encodes and stores a value: see [`BlobCache::put`](crate::BlobCache::put). A put without a
    /// policy gets the handle's.
    ///
    /// Encoded in the first poll.
    ///
    /// # Errors
    ///
    /// - [`TypedError::Encode`], [`TypedError::CodecPanicked`]: there are no bytes to store, and
    ///   nothing has changed.
    /// - [`TypedError::Cache`]: those of [`BlobCache::put`](crate::BlobCache::put).
    pub async fn put<K: AsRef<[u8]>>(
        &self,
        key: K,
        put: impl Into<TypedPut<T>>,
    ) -> Result<(), TypedError<C::Error>> {
        // The value is not kept while the bytes are stored.
        let put = {
            let mut put = put.into();
            let encoded = put.encode(&*self.codec);
            let TypedPut { value, put } = put;
            discard(value);
            encoded.map(|()| put)?
        };
        self.namespace.put(key, put).await.map_err(TypedError::Cache)
    }

    /// The values of many keys, in the order of the keys: see
    /// [`BlobCache::get_many`](crate::BlobCache::get_many). A value that does not decode is a miss,
    /// and stays where it is.
    ///
    /// All are decoded once the last one is read, up to 256 KiB in each poll, or one that is
    /// longer.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::*;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// let names = cache.namespace("names").typed::<String, _>(Plain);
    /// names.put_many([("7", "ada".to_owned()), ("9", "grace".to_owned())]).await;
    /// let found = names.get_many(&["7", "8", "9"]).await;
    /// assert_eq!(found[0].as_ref().unwrap().value().unwrap(), "ada");
    /// assert!(found[1].is_none());
    /// assert_eq!(names.invalidate_keys(&["7", "9"]).await?, 2);
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Option<TypedHit<T>>> {
        let (engine, namespace, _) = self.namespace.parts();
        let found = find_many(engine.gets(), namespace, keys).await;
        let mut decoded = Vec::with_capacity(found.len());
        // The last poll has looked up as much as it may.
        let mut steps = Pacer::default();
        for hit in found {
            steps.entry().await;
            let hit = match hit {
                Some(hit) => {
                    steps.bytes(hit.value().len()).await;
                    self.take(&hit).map(|value| TypedHit::new(value, hit))
                }
                None => None,
            };
            engine.gets().count_found(namespace, hit.as_ref().map(TypedHit::hit));
            decoded.push(hit);
        }
        decoded
    }

    /// Encodes and puts many values: see [`BlobCache::put_many`](crate::BlobCache::put_many). A put
    /// without a policy gets the handle's.
    ///
    /// All are encoded before the first is put: in each poll until there are more than 256 KiB of
    /// bytes.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put), for each put by itself: one that cannot be encoded does not
    /// keep the others from being put.
    pub fn put_many<K: AsRef<[u8]>, P: Into<TypedPut<T>>>(
        &self,
        items: impl IntoIterator<Item = (K, P)>,
    ) -> impl Future<Output = Vec<Result<(), TypedError<C::Error>>>> {
        // Bounded: by the caller's items; no lock is held.
        let items: Vec<(K, TypedPut<T>)> =
            items.into_iter().map(|(key, put)| (key, put.into())).collect();
        async move {
            let mut answers = Vec::with_capacity(items.len());
            let (mut places, mut puts) = (Vec::new(), Vec::with_capacity(items.len()));
            let (mut steps, mut share) = (Pacer::at_once(), PollShare::begin());
            for (place, (key, mut put)) in items.into_iter().enumerate() {
                steps.entry().await;
                if share.is_used_up_by(0) {
                    yield_now().await;
                    share = PollShare::begin();
                }
                let encoded = put.encode(&*self.codec);
                let TypedPut { value, put } = put;
                discard(value);
                meter::bytes(put.value.as_slice().len());
                if encoded.is_ok() {
                    places.push(place);
                    puts.push((key, put));
                }
                answers.push(encoded.map_err(TypedError::from));
            }
            // The last poll has encoded as much as it may.
            yield_now().await;
            let stored = self.namespace.put_many(puts).await;
            for (place, stored) in places.into_iter().zip(stored) {
                steps.entry().await;
                answers[place] = stored.map_err(TypedError::Cache);
            }
            answers
        }
    }

    /// See [`BlobCache::exists`](crate::BlobCache::exists): whether there is an entry, decodable or
    /// not.
    pub fn exists<K: AsRef<[u8]>>(&self, key: K) -> CachePresence {
        self.namespace.exists(key)
    }

    /// See [`BlobCache::keys`](crate::BlobCache::keys).
    pub fn keys(&self, query: impl Into<KeysQuery>) -> BlobCacheKeys {
        self.namespace.keys(query)
    }

    /// See [`BlobCache::touch`](crate::BlobCache::touch): the value is not decoded.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::touch`](crate::BlobCache::touch).
    pub async fn touch<K: AsRef<[u8]>>(
        &self,
        key: K,
        policy: &BlobCachePolicy,
    ) -> Result<bool, CacheError> {
        self.namespace.touch(key, policy).await
    }

    /// See [`BlobCache::invalidate_key`](crate::BlobCache::invalidate_key).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_key`](crate::BlobCache::invalidate_key).
    pub async fn invalidate_key<K: AsRef<[u8]>>(&self, key: K) -> Result<usize, CacheError> {
        self.namespace.invalidate_key(key).await
    }

    /// See [`BlobCache::invalidate_keys`](crate::BlobCache::invalidate_keys).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_keys`](crate::BlobCache::invalidate_keys).
    pub async fn invalidate_keys<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<usize, CacheError> {
        self.namespace.invalidate_keys(keys).await
    }

    /// See [`BlobCache::invalidate_prefix`](crate::BlobCache::invalidate_prefix).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_prefix`](crate::BlobCache::invalidate_prefix).
    pub async fn invalidate_prefix<P: AsRef<[u8]>>(&self, prefix: P) -> Result<usize, CacheError> {
        self.namespace.invalidate_prefix(prefix).await
    }

    /// See [`BlobCache::invalidate_tags`](crate::BlobCache::invalidate_tags).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_tags`](crate::BlobCache::invalidate_tags).
    pub async fn invalidate_tags(&self, tags: &[impl AsRef<str>]) -> Result<usize, CacheError> {
        self.namespace.invalidate_tags(tags).await
    }

    /// See [`BlobCache::invalidate_dependencies`](crate::BlobCache::invalidate_dependencies).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_dependencies`](crate::BlobCache::invalidate_dependencies).
    pub async fn invalidate_dependencies(
        &self,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        self.namespace.invalidate_dependencies(dependencies).await
    }

    /// See [`BlobCache::invalidate_namespace`](crate::BlobCache::invalidate_namespace).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_namespace`](crate::BlobCache::invalidate_namespace).
    pub async fn invalidate(&self) -> Result<bool, CacheError> {
        self.namespace.invalidate().await
    }

    /// See [`BlobCache::expire_key`](crate::BlobCache::expire_key).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_key`](crate::BlobCache::expire_key).
    pub async fn expire_key<K: AsRef<[u8]>>(&self, key: K) -> Result<usize, CacheError> {
        self.namespace.expire_key(key).await
    }

    /// See [`BlobCache::expire_prefix`](crate::BlobCache::expire_prefix).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_prefix`](crate::BlobCache::expire_prefix).
    pub async fn expire_prefix<P: AsRef<[u8]>>(&self, prefix: P) -> Result<usize, CacheError> {
        self.namespace.expire_prefix(prefix).await
    }

    /// See [`BlobCache::expire_tags`](crate::BlobCache::expire_tags).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_tags`](crate::BlobCache::expire_tags).
    pub async fn expire_tags(&self, tags: &[impl AsRef<str>]) -> Result<usize, CacheError> {
        self.namespace.expire_tags(tags).await
    }

    /// See [`BlobCache::expire_dependencies`](crate::BlobCache::expire_dependencies).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_dependencies`](crate::BlobCache::expire_dependencies).
    pub async fn expire_dependencies(
        &self,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        self.namespace.expire_dependencies(dependencies).await
    }

    /// See [`BlobCache::expire_namespace`](crate::BlobCache::expire_namespace).
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_namespace`](crate::BlobCache::expire_namespace).
    pub async fn expire(&self) -> Result<bool, CacheError> {
        self.namespace.expire().await
    }

    /// See [`BlobCache::read_point`](crate::BlobCache::read_point).
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        self.namespace.read_point()
    }

    /// The value of a hit; None within for an absence. None, and counted, if it does not decode.
    fn take(&self, hit: &BlobCacheHit) -> Option<Option<T>> {
        if hit.is_absent() {
            return Some(None);
        }
        match codec::decode(&*self.codec, hit) {
            Ok(value) => Some(Some(value)),
            Err(failure) => {
                let (engine, namespace, _) = self.namespace.parts();
                note_undecoded(engine.fetcher(), namespace.name, &failure);
                discard(failure);
                None
            }
        }
    }
}
