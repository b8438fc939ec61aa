//! `BlobCacheNamespace`: a handle bound to one namespace.

use std::future::Future;
use std::sync::Arc;

use crate::cache::{BlobCache, texts};
use crate::engine::fetch::{BlobCacheRefresh, HandleDefaults};
use crate::engine::{Engine, fetch};
use crate::error::{CacheError, FetchError};
use crate::fetch_policy::FetchPolicy;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::{LabelKind, NamespaceRef, NamespaceSeed};
use crate::moment::ReadPoint;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;
use crate::stats::NamespaceStats;

/// A handle for one namespace: the methods of the cache without the first argument, a default
/// policy for puts without one, and the name hashed once. Cheap to clone.
///
/// It takes no namespace slot until an entry is put.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy};
/// use std::time::Duration;
///
/// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let pages = cache
///     .namespace("pages")
///     .with_policy(BlobCachePolicy::default().ttl(Duration::from_secs(300)));
/// pages.put("/index", "<h1>Tamis</h1>").await?;
/// assert!(pages.get("/index").await.unwrap().expires_at().is_some());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct BlobCacheNamespace {
    pub(crate) engine: Arc<Engine>,
    name: Arc<str>,
    seed: NamespaceSeed,
    /// None: the default.
    pub(crate) policy: Option<Arc<BlobCachePolicy>>,
    /// None: what holds for the namespace or the cache.
    fetch_policy: Option<FetchPolicy>,
}

impl BlobCache {
    /// A handle for one namespace, with a default policy. It takes no namespace slot until an entry
    /// is put.
    #[must_use]
    pub fn namespace(&self, name: &str) -> BlobCacheNamespace {
        BlobCacheNamespace::new(Arc::clone(&self.engine), name)
    }
}

impl BlobCacheNamespace {
    fn new(engine: Arc<Engine>, name: &str) -> Self {
        let seed = engine.namespace(name).seed;
        let policy = engine.config().namespaces.of(name).policy.clone();
        Self { engine, name: name.into(), seed, policy, fetch_policy: None }
    }

    /// The same namespace with another default policy, for puts through this handle that have none.
    /// Other handles keep theirs. Default: the
    /// [namespace's](crate::BlobCacheConfigBuilder::namespace) policy.
    #[must_use]
    pub fn with_policy(mut self, policy: BlobCachePolicy) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// The same namespace with another [`FetchPolicy`] for the fetches through this handle. Other
    /// handles keep theirs; for a single call, give it to a clone. Default: the
    /// [namespace's](crate::NamespaceConfigBuilder::fetch_policy), or else the
    /// [cache's](crate::BlobCacheConfigBuilder::fetch_policy).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError, FetchPolicy};
    /// use std::time::Duration;
    ///
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let pages = cache.namespace("pages");
    /// let quick = FetchPolicy::default().hard_timeout(Duration::from_millis(20));
    /// let hangs = || std::future::pending::<Result<BlobCachePut, std::io::Error>>();
    /// let page = pages.clone().with_fetch_policy(quick)?.get_or_fetch("/index", hangs).await;
    /// assert!(matches!(page, Err(FetchError::TimedOut)));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidConfig`] if the policy contradicts itself, or needs a
    /// [`spawner`](crate::BlobCacheConfigBuilder::spawner) that the cache does not have.
    pub fn with_fetch_policy(mut self, policy: FetchPolicy) -> Result<Self, CacheError> {
        policy.check("with_fetch_policy", self.engine.config().spawner.is_some())?;
        self.fetch_policy = Some(policy);
        Ok(self)
    }

    /// The name of the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cache that contains the namespace.
    #[must_use]
    pub fn cache(&self) -> BlobCache {
        BlobCache { engine: Arc::clone(&self.engine) }
    }

    /// See [`BlobCache::get`].
    #[inline]
    pub fn get<K: AsRef<[u8]>>(&self, key: K) -> impl Future<Output = Option<BlobCacheHit>> {
        self.engine.gets().get(self.named(), key)
    }

    /// See [`BlobCache::put`]. A put without a policy gets this handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::put`].
    pub fn put<K: AsRef<[u8]>>(
        &self,
        key: K,
        put: impl Into<BlobCachePut>,
    ) -> impl Future<Output = Result<(), CacheError>> {
        let mut put = put.into();
        async move {
            let policy = self.policy.as_deref();
            self.engine.puts().put(self.named(), key.as_ref(), &mut put, policy).await
        }
    }

    /// See [`BlobCache::get_or_fetch`]. A fetched put without a policy gets this handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch`].
    pub async fn get_or_fetch<K, F, Fut, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.named(), key.as_ref());
        fetch::get_or_fetch(&self.engine, namespace, key, self.defaults(), fetch).await
    }

    /// See [`BlobCache::get_or_refresh`]. A fetched put without a policy gets this handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::get_or_fetch`].
    pub async fn get_or_refresh<K, F, Fut, E>(
        &self,
        key: K,
        fetch: F,
    ) -> Result<(BlobCacheHit, Option<BlobCacheRefresh<F, Fut, E>>), FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.named(), key.as_ref());
        fetch::get_or_refresh(&self.engine, namespace, key, self.defaults(), fetch).await
    }

    /// See [`BlobCache::exists`].
    pub fn exists<K: AsRef<[u8]>>(&self, key: K) -> CachePresence {
        self.engine.gets().exists(self.named(), key.as_ref())
    }

    /// See [`BlobCache::invalidate_key`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_key`].
    pub async fn invalidate_key<K: AsRef<[u8]>>(&self, key: K) -> Result<usize, CacheError> {
        self.engine.invalidations().invalidate_key(self.named(), key.as_ref()).await
    }

    /// See [`BlobCache::invalidate_prefix`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_prefix`].
    pub async fn invalidate_prefix<P: AsRef<[u8]>>(&self, prefix: P) -> Result<usize, CacheError> {
        self.engine.invalidations().invalidate_prefix(self.named(), prefix.as_ref()).await
    }

    /// See [`BlobCache::invalidate_tags`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_tags`].
    pub async fn invalidate_tags(&self, tags: &[impl AsRef<str>]) -> Result<usize, CacheError> {
        let (scope, labels) = (NamespaceScope::One(self.name()), texts(tags));
        self.engine.invalidations().invalidate_labels(scope, LabelKind::Tag, &labels).await
    }

    /// See [`BlobCache::invalidate_dependencies`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_dependencies`].
    pub async fn invalidate_dependencies(
        &self,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (NamespaceScope::One(self.name()), texts(dependencies));
        self.engine.invalidations().invalidate_labels(scope, LabelKind::Dependency, &labels).await
    }

    /// See [`BlobCache::invalidate_namespace`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_namespace`].
    pub async fn invalidate(&self) -> Result<bool, CacheError> {
        self.engine.invalidations().invalidate_namespace(self.named()).await
    }

    /// See [`BlobCache::expire_key`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_key`].
    pub async fn expire_key<K: AsRef<[u8]>>(&self, key: K) -> Result<usize, CacheError> {
        self.engine.invalidations().expire_key(self.named(), key.as_ref()).await
    }

    /// See [`BlobCache::expire_prefix`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_prefix`].
    pub async fn expire_prefix<P: AsRef<[u8]>>(&self, prefix: P) -> Result<usize, CacheError> {
        self.engine.invalidations().expire_prefix(self.named(), prefix.as_ref()).await
    }

    /// See [`BlobCache::expire_tags`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_tags`].
    pub async fn expire_tags(&self, tags: &[impl AsRef<str>]) -> Result<usize, CacheError> {
        let (scope, labels) = (NamespaceScope::One(self.name()), texts(tags));
        self.engine.invalidations().expire_labels(scope, LabelKind::Tag, &labels).await
    }

    /// See [`BlobCache::expire_dependencies`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_dependencies`].
    pub async fn expire_dependencies(
        &self,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (NamespaceScope::One(self.name()), texts(dependencies));
        self.engine.invalidations().expire_labels(scope, LabelKind::Dependency, &labels).await
    }

    /// See [`BlobCache::expire_namespace`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::expire_namespace`].
    pub async fn expire(&self) -> Result<bool, CacheError> {
        self.engine.invalidations().expire_namespace(self.named()).await
    }

    /// See [`BlobCache::read_point`].
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        self.engine.read_point()
    }

    /// See [`BlobCache::namespace_stats`].
    #[must_use]
    pub fn stats(&self) -> Option<NamespaceStats> {
        self.engine.stats().of_namespace(&self.name)
    }

    fn defaults(&self) -> HandleDefaults<'_> {
        HandleDefaults { policy: self.policy.as_ref(), fetch_policy: self.fetch_policy }
    }

    /// What calls of the engine take.
    pub(crate) fn parts(&self) -> (&Arc<Engine>, NamespaceRef<'_>, HandleDefaults<'_>) {
        (&self.engine, self.named(), self.defaults())
    }

    pub(crate) fn named(&self) -> NamespaceRef<'_> {
        NamespaceRef { name: &self.name, seed: self.seed }
    }
}
