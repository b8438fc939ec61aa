//! The typed verbs whose fetch runs in a task.

use std::future::Future;
use std::sync::Arc;

use super::TypedNamespace;
use super::call::{Call, TypedFetch};
use super::codec::Codec;
use super::hit::TypedHit;
use super::put::TypedPut;
use crate::engine::fetch::{self, FetchRequest, SpawnedFetch};
use crate::error::FetchError;
use crate::wake::discard;

impl<T: Send + 'static, C: Codec<T>> TypedNamespace<T, C> {
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
        let (call, request, fetch) = match self.look_for_task(key.as_ref(), fetch)? {
            Ok(found) => return Ok(found),
            Err(asked) => asked,
        };
        let fetching = SpawnedFetch::new(request, TypedFetch::new(fetch, &call));
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
        let (call, request, fetch) = match self.look_for_task(key.as_ref(), fetch)? {
            Ok(found) => return Ok(found),
            Err(asked) => asked,
        };
        let finding = fetch::find_or_fetch_spawned(request, TypedFetch::new(fetch, &call));
        let hit = Box::pin(finding).await?;
        call.answer(hit).ok_or(FetchError::Panicked)
    }

    /// A fresh value in memory, refreshed ahead of its end; or else what a fetch of it needs.
    #[expect(clippy::type_complexity, reason = "it has no name elsewhere")]
    fn look_for_task<F, Fut, V, E>(
        &self,
        key: &[u8],
        fetch: F,
    ) -> Result<Result<TypedHit<T>, (Arc<Call<T, C>>, Arc<FetchRequest>, F)>, FetchError<E>>
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
            Err((call, request)) => return Ok(Err((call, request, fetch))),
        };
        let policy = defaults.fetch_policy(engine, namespace);
        if engine.fetcher().is_due(found.hit(), &policy) {
            let (call, request) = self.asked::<E>(key, (false, true));
            fetch::refresh_ahead(&request, TypedFetch::new(fetch, &call));
        } else {
            discard(fetch);
        }
        Ok(Ok(found))
    }
}
