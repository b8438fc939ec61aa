//! The typed verbs that fetch, in the polls of their callers or in a task.

use std::future::Future;
use std::sync::Arc;

use super::TypedNamespace;
use super::call::{Call, TypedFetch};
use super::codec::Codec;
use super::hit::TypedHit;
use super::put::TypedPut;
use super::refresh::TypedRefresh;
use crate::engine::fetch::caller::FetchOnce;
use crate::engine::fetch::{self, FetchFuture, FetchRequest, SpawnedFetch};
use crate::error::FetchError;
use crate::wake::discard;

/// A fetch that a call needs: what it decodes and fetches, beside the request for bytes.
struct TypedRequest<T, C> {
    call: Arc<Call<T, C>>,
    request: Arc<FetchRequest>,
}

/// A value, or else a request and the fetch for it.
type FoundOrNeeded<T, C, F> = Result<TypedHit<T>, (TypedRequest<T, C>, F)>;

impl<T: Send + 'static, C: Codec<T>> TypedNamespace<T, C> {
    /// The fresh value of a key, or else the one that `fetch` returns, which is encoded and put:
    /// see [`BlobCache::get_or_fetch`](crate::BlobCache::get_or_fetch). The fetch returns a value,
    /// an `Option`, whose `None` is cached as an absence, or a [`TypedPut`] with labels and policy.
    ///
    /// This caller is given the value that it has fetched, as it is; callers that wait for it are
    /// given its bytes, and decode them. A value that cannot be encoded is given to the caller that
    /// has fetched it, counted in
    /// [`fetches_not_stored`](crate::BlobCacheStats::fetches_not_stored), and callers that wait for
    /// it fetch each for itself, at the same time; so do callers that cannot decode what another
    /// has fetched.
    ///
    /// Dropped at any await, it leaves nothing behind, as `BlobCache::get_or_fetch` does.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch`](crate::BlobCache::get_or_fetch). A stale value that
    /// does not decode is no answer to a fetch that has failed.
    pub async fn get_or_fetch<K, F, Fut, V, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<TypedHit<T>, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        V: Into<TypedPut<T>>,
        E: Send + Sync + 'static,
    {
        let TypedRequest { call, request } = match self.look_fresh::<E>(key.as_ref(), false) {
            Ok(found) => {
                discard(fetch);
                return Ok(found);
            }
            Err(needed) => needed,
        };
        let fetching = FetchFuture::new(request, FetchOnce::new(TypedFetch::new(fetch, &call)));
        let hit = Box::pin(fetching).await?;
        call.answer(hit).ok_or(FetchError::Panicked)
    }

    /// The value of a key at once, fresh or stale; with a stale one, a refresh for the caller to
    /// spawn: see [`BlobCache::get_or_refresh`](crate::BlobCache::get_or_refresh), and
    /// [`get_or_fetch`](Self::get_or_fetch) for what a fetch returns and who is given what.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, FetchError, Plain};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// # async fn render() -> Result<String, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let pages = cache.namespace("pages").typed::<String, _>(Plain);
    /// let (page, refresh) = pages.get_or_refresh("/index", render).await?;
    /// if let Some(refresh) = refresh {
    ///     // Or tokio::spawn(refresh).
    ///     refresh.await?;
    /// }
    /// # assert_eq!(page.value().unwrap(), "<h1>Tamis</h1>");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind.
    ///
    /// # Errors
    ///
    /// Those of [`get_or_fetch`](Self::get_or_fetch), if there is no value.
    pub async fn get_or_refresh<K, F, Fut, V, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<(TypedHit<T>, Option<TypedRefresh<F, Fut, E, T, C>>), FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        V: Into<TypedPut<T>>,
        E: Send + Sync + 'static,
    {
        let TypedRequest { call, request } = match self.look_fresh::<E>(key.as_ref(), false) {
            Ok(found) => {
                discard(fetch);
                return Ok((found, None));
            }
            Err(needed) => needed,
        };
        let finding = fetch::find_or_fetch(request, FetchOnce::new(TypedFetch::new(fetch, &call)));
        let (hit, refresh) = Box::pin(finding).await?;
        let hit = call.answer(hit).ok_or(FetchError::Panicked)?;
        Ok((hit, refresh.map(|refresh| TypedRefresh::new(refresh, call))))
    }

    /// [`get_or_fetch`](Self::get_or_fetch) with the fetch, and the encoding of what it returns, in
    /// a task: see [`BlobCache::get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned).
    ///
    /// Dropped at any await, it leaves nothing behind but its fetch, if that has moved.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// # use tamis::*;
    /// // With the feature `tokio`, `.spawner(tokio::runtime::Handle::current())` does.
    /// let config = BlobCacheConfig::builder().spawner(|task: FetchTask| drop(tokio::spawn(task)));
    /// let cache = BlobCache::open(config.build()?).await?;
    /// let names = cache.namespace("names").typed::<String, _>(Plain);
    /// let query = || async { Ok::<_, std::io::Error>("ada".to_owned()) };
    /// let name = names.get_or_fetch_spawned("7", query).await.unwrap();
    /// assert_eq!(name.value().unwrap(), "ada");
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned).
    pub async fn get_or_fetch_spawned<K, F, Fut, V, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<TypedHit<T>, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<TypedPut<T>>,
        E: Send + Sync + 'static,
    {
        let (TypedRequest { call, request }, fetch) =
            match self.look_for_task(key.as_ref(), fetch)? {
                Ok(found) => return Ok(found),
                Err(needed) => needed,
            };
        let fetching =
            SpawnedFetch::new(request, FetchOnce::spawnable(TypedFetch::new(fetch, &call)));
        let hit = Box::pin(fetching).await?;
        call.answer(hit).ok_or(FetchError::Panicked)
    }

    /// The value of a key at once, fresh or stale; a stale one is refreshed in a task: see
    /// [`BlobCache::get_or_refresh_spawned`](crate::BlobCache::get_or_refresh_spawned).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, FetchError, FetchTask, Plain};
    /// # let spawner = |task: FetchTask| drop(tokio::spawn(task));
    /// # let config = BlobCacheConfig::builder().spawner(spawner).build().unwrap();
    /// # let cache = BlobCache::open(config).await.unwrap();
    /// # async fn render() -> Result<String, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let pages = cache.namespace("pages").typed::<String, _>(Plain);
    /// let page = pages.get_or_refresh_spawned("/index", render).await?;
    /// assert_eq!(page.value().unwrap(), "<h1>Tamis</h1>");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind but a fetch that has moved to a task.
    ///
    /// # Errors
    ///
    /// Those of [`get_or_fetch_spawned`](Self::get_or_fetch_spawned), if there is no value.
    pub async fn get_or_refresh_spawned<K, F, Fut, V, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<TypedHit<T>, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<TypedPut<T>>,
        E: Send + Sync + 'static,
    {
        let (TypedRequest { call, request }, fetch) =
            match self.look_for_task(key.as_ref(), fetch)? {
                Ok(found) => return Ok(found),
                Err(needed) => needed,
            };
        let finding = fetch::find_or_fetch_spawned(
            request,
            FetchOnce::spawnable(TypedFetch::new(fetch, &call)),
        );
        let hit = Box::pin(finding).await?;
        call.answer(hit).ok_or(FetchError::Panicked)
    }

    /// A fresh value in memory, refreshed ahead of its end; or else what a fetch of it needs.
    fn look_for_task<F, Fut, V, E>(
        &self,
        key: &[u8],
        fetch: F,
    ) -> Result<FoundOrNeeded<T, C, F>, FetchError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        V: Into<TypedPut<T>>,
        E: Send + Sync + 'static,
    {
        let (engine, namespace, defaults) = self.namespace().parts();
        if engine.config().spawner.is_none() {
            discard(fetch);
            return Err(FetchError::NoSpawner);
        }
        let found = match self.look_fresh::<E>(key, true) {
            Ok(found) => found,
            Err(needed) => return Ok(Err((needed, fetch))),
        };
        let policy = defaults.fetch_policy(engine, namespace);
        if engine.fetcher().is_due(found.hit(), &policy) {
            let TypedRequest { call, request } = self.request::<E>(key, (false, true));
            fetch::refresh_ahead(&request, FetchOnce::spawnable(TypedFetch::new(fetch, &call)));
        } else {
            discard(fetch);
        }
        Ok(Ok(found))
    }

    /// A fresh value in memory; or else what a fetch of it needs, in a task or not.
    fn look_fresh<E: 'static>(
        &self,
        key: &[u8],
        is_for_task: bool,
    ) -> Result<TypedHit<T>, TypedRequest<T, C>> {
        let (engine, namespace, _) = self.namespace.parts();
        let mut is_counted = false;
        let found = engine.gets().look_fresh_if(namespace, key, |hit| {
            let taken = self.take(hit);
            is_counted = taken.is_none();
            taken
        });
        if let Some((hit, value)) = found {
            return Ok(TypedHit::new(value, hit));
        }
        Err(self.request::<E>(key, (is_counted, is_for_task)))
    }

    /// `is_counted`: the call has counted a value that does not decode.
    fn request<E: 'static>(
        &self,
        key: &[u8],
        (is_counted, is_for_task): (bool, bool),
    ) -> TypedRequest<T, C> {
        let (engine, namespace, defaults) = self.namespace.parts();
        let call = Call::new(engine.fetcher(), namespace, &self.codec, is_counted);
        let typing = call.typing::<E>();
        if is_counted {
            typing.refuse();
        }
        let request = FetchRequest::new(engine, namespace, key, defaults).typed(typing);
        let request = if is_for_task { request.for_task() } else { request };
        TypedRequest { call, request: Arc::new(request) }
    }
}
