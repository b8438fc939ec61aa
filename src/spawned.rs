//! The verbs whose fetch runs in a task, on both handles.

use std::future::Future;

use crate::cache::BlobCache;
use crate::engine::fetch::{self, HandleDefaults};
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::namespaced::BlobCacheNamespace;
use crate::put::BlobCachePut;

impl BlobCache {
    /// What [`get_or_fetch`](Self::get_or_fetch) does, with the fetch in a task of the
    /// [`spawner`](crate::BlobCacheConfigBuilder::spawner): it goes on if this future is dropped or
    /// no longer polled, and its value is stored. So a client that goes away takes nothing from the
    /// others that wait. Callers of both methods share fetches; of this one none runs a fetch in
    /// its own polls, unless no task does.
    ///
    /// With a [`soft_timeout`](crate::FetchPolicy::soft_timeout) an entry within its stale window
    /// is answered when the fetch takes longer. With
    /// [`refresh_ahead`](crate::FetchPolicy::refresh_ahead) an entry is fetched anew before its
    /// time is over, and nobody waits for that.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchPolicy, FetchTask};
    /// # use std::time::Duration;
    /// # async fn render(_: &str) -> Result<String, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let patience = FetchPolicy::default()
    ///     .soft_timeout(Duration::from_millis(100))
    ///     .hard_timeout(Duration::from_secs(10))
    ///     .refresh_ahead(0.1);
    /// // With the feature `tokio`: `.spawner(tokio::runtime::Handle::current())`.
    /// let config = BlobCacheConfig::builder()
    ///     .spawner(|task: FetchTask| drop(tokio::spawn(task)))
    ///     .fetch_policy(patience)
    ///     .build()?;
    /// let cache = BlobCache::open(config).await?;
    /// let path = String::from("/index");
    /// let page = cache.get_or_fetch_spawned("pages", path.clone(), || async move {
    ///     Ok::<_, std::io::Error>(BlobCachePut::from(render(&path).await?))
    /// });
    /// assert_eq!(page.await?.value(), b"<h1>Tamis</h1>");
    /// # anyhow::Ok(())
    /// # }).unwrap();
    /// ```
    ///
    /// This caller joins the fetch of another, or moves its own to a task before that begins. A
    /// task that is dropped gives the fetch back, and this future runs it; so does a close. If a
    /// task is not polled for 100 to 200 ms after it was spawned or woken, this future is woken and
    /// runs the fetch, if it is polled before the task is. If there are
    /// [too many](crate::BlobCacheConfigBuilder::spawned_fetches_max) tasks it runs it from the
    /// beginning. A fetch that this future runs ends with it, and has no soft timeout. Tasks do not
    /// keep the cache open: when the last handle is dropped, fetches that nobody waits for are
    /// dropped too, except those that own a handle themselves.
    ///
    /// Dropped at any await, it leaves nothing behind but its fetch, if that has moved.
    ///
    /// # Errors
    ///
    /// - [`FetchError::NoSpawner`]: the configuration has none.
    /// - Those of [`get_or_fetch`](Self::get_or_fetch).
    pub async fn get_or_fetch_spawned<K, F, Fut, E>(
        &self,
        namespace: &str,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.engine.namespace(namespace), key.as_ref());
        let defaults = HandleDefaults::default();
        fetch::get_or_fetch_spawned(&self.engine, namespace, key, defaults, fetch).await
    }

    /// The entry of a key at once, fresh or stale. A stale one is refreshed in a task of the
    /// [`spawner`](crate::BlobCacheConfigBuilder::spawner), unless its key is being fetched
    /// already: [`get_or_refresh`](Self::get_or_refresh) with nothing left to do for the caller. A
    /// missing entry is fetched as by [`get_or_fetch_spawned`](Self::get_or_fetch_spawned).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError, FetchTask};
    /// # let spawner = |task: FetchTask| drop(tokio::spawn(task));
    /// # let config = BlobCacheConfig::builder().spawner(spawner).build().unwrap();
    /// # let cache = BlobCache::open(config).await.unwrap();
    /// # async fn render() -> Result<BlobCachePut, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let page = cache.get_or_refresh_spawned("pages", "/index", render).await?;
    /// assert_eq!(page.value(), b"<h1>Tamis</h1>");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// A refresh that fails is counted in
    /// [`fetch_errors`](crate::BlobCacheStats::fetch_errors) and now and then logged; the stale
    /// entry stays within its window, and for a second nobody refreshes it. One whose task is
    /// dropped, or that finds [too many](crate::BlobCacheConfigBuilder::spawned_fetches_max), is
    /// left to the next caller; one whose task is not polled, to the next after a second.
    ///
    /// Dropped at any await, it leaves nothing behind but a fetch that has moved to a task.
    ///
    /// # Errors
    ///
    /// Those of [`get_or_fetch_spawned`](Self::get_or_fetch_spawned), if there is no entry.
    pub async fn get_or_refresh_spawned<K, F, Fut, E>(
        &self,
        namespace: &str,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.engine.namespace(namespace), key.as_ref());
        let defaults = HandleDefaults::default();
        fetch::get_or_refresh_spawned(&self.engine, namespace, key, defaults, fetch).await
    }
}

impl BlobCacheNamespace {
    /// See [`BlobCache::get_or_fetch_spawned`]. A fetched put without a policy gets this handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch_spawned`].
    pub async fn get_or_fetch_spawned<K, F, Fut, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (engine, namespace, defaults) = self.parts();
        fetch::get_or_fetch_spawned(engine, namespace, key.as_ref(), defaults, fetch).await
    }

    /// See [`BlobCache::get_or_refresh_spawned`]. A fetched put without a policy gets this
    /// handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch_spawned`].
    pub async fn get_or_refresh_spawned<K, F, Fut, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let (engine, namespace, defaults) = self.parts();
        fetch::get_or_refresh_spawned(engine, namespace, key.as_ref(), defaults, fetch).await
    }
}
