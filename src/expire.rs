//! Soft invalidation: entries are made stale, and go only where they have no stale window.

use crate::cache::{BlobCache, texts};
use crate::error::CacheError;
use crate::key::LabelKind;
use crate::scope::NamespaceScope;

impl BlobCache {
    /// Makes the entry of a key stale, as if it had expired now. Within its
    /// [stale window](crate::BlobCachePolicy::stale_serve) it is still answered, flagged
    /// [`is_stale`](crate::BlobCacheHit::is_stale), and the fetching methods refresh it; without
    /// one it is gone.
    ///
    /// Returns 1 if it was fresh, or on disk only and not known to be stale, else 0.
    ///
    /// Only a newer value makes the key fresh again: a fetch that began before, or a put read at
    /// an earlier [`read_point`](Self::read_point), is not stored, as after an
    /// [`invalidate_key`](Self::invalidate_key). It is in force as soon, and survives a crash as
    /// that does. A clock that steps back makes nothing fresh again.
    ///
    /// What is stale before its time is not kept on disk when its segment is reclaimed, and the
    /// disk tier remembers since when for as many entries as a sixteenth of
    /// [`l2_index_bytes_max`](crate::BlobCacheConfigBuilder::l2_index_bytes_max) has room for, 24
    /// bytes each. Beyond that they are gone.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_key`](Self::invalidate_key).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let policy = BlobCachePolicy::default().stale_serve(Duration::from_secs(60));
    /// cache.put("pages", "/", BlobCachePut::new("old").with_policy(policy)).await?;
    /// assert_eq!(cache.expire_key("pages", "/").await?, 1);
    /// assert!(cache.get("pages", "/").await.unwrap().is_stale());
    ///
    /// let fetch = || async { Ok::<_, std::io::Error>(BlobCachePut::new("new")) };
    /// let page = cache.get_or_fetch("pages", "/", fetch).await.unwrap();
    /// assert_eq!(page.value(), b"new");
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn expire_key<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
    ) -> Result<usize, CacheError> {
        let namespace = self.engine.namespace(namespace);
        self.engine.invalidations().expire_key(namespace, key.as_ref()).await
    }

    /// Makes all entries of the namespace stale whose keys begin with `prefix`, atomically; see
    /// [`expire_key`](Self::expire_key) for what that means. Returns how many were made stale, or
    /// are gone for want of a stale window.
    ///
    /// The work, and what becomes of it if it is dropped, are those of
    /// [`invalidate_prefix`](Self::invalidate_prefix).
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_key`](Self::invalidate_key).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let policy = BlobCachePolicy::default().stale_serve(Duration::from_secs(60));
    /// let pages = cache.namespace("pages").with_policy(policy);
    /// pages.put("/blog/1", "...").await?;
    /// pages.put("/shop/1", "...").await?;
    /// assert_eq!(cache.expire_prefix("pages", "/blog/").await?, 1);
    /// assert!(pages.get("/blog/1").await.unwrap().is_stale());
    /// assert!(!pages.get("/shop/1").await.unwrap().is_stale());
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn expire_prefix<P: AsRef<[u8]>>(
        &self,
        namespace: &str,
        prefix: P,
    ) -> Result<usize, CacheError> {
        let namespace = self.engine.namespace(namespace);
        self.engine.invalidations().expire_prefix(namespace, prefix.as_ref()).await
    }

    /// Makes all entries stale that carry any of the tags, in one namespace, several, or all, at
    /// one moment; see [`expire_key`](Self::expire_key) for what that means. Returns how many were
    /// made stale, or are gone for want of a stale window.
    ///
    /// In force from its first poll, even if dropped then. While 256 such calls, by labels or by
    /// prefixes, are unfinished, it waits for one of them; dropped while it waits, it flushes what
    /// it is for, the whole namespaces or all of the cache, and for good: nothing of them is
    /// answered stale. Calls that are polled to their ends, or a spawned one, do not come to that.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_tags`](Self::invalidate_tags).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, NamespaceScope};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let policy = BlobCachePolicy::default().stale_serve(Duration::from_secs(60));
    /// let put = BlobCachePut::new("...").with_tags(["product:7"]);
    /// cache.put("pages", "/7", put.clone().with_policy(policy)).await?;
    /// cache.put("json", "/7", put).await?;
    /// assert_eq!(cache.expire_tags(NamespaceScope::All, &["product:7"]).await?, 2);
    /// assert!(cache.get("pages", "/7").await.unwrap().is_stale());
    /// assert!(cache.get("json", "/7").await.is_none(), "it has no stale window");
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn expire_tags(
        &self,
        namespaces: impl Into<NamespaceScope<'_>>,
        tags: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (namespaces.into(), texts(tags));
        self.engine.invalidations().expire_labels(scope, LabelKind::Tag, &labels).await
    }

    /// Makes all entries stale that depend on any of `dependencies`; otherwise like
    /// [`expire_tags`](Self::expire_tags).
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_tags`](Self::invalidate_tags).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use std::time::Duration;
    /// # use tamis::*;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let policy = BlobCachePolicy::default().stale_serve(Duration::from_secs(60));
    /// let result = BlobCachePut::new("3 rows").with_dependencies(["orders", "users"]);
    /// cache.put("queries", "open orders", result.with_policy(policy)).await?;
    /// assert_eq!(cache.expire_dependencies("queries", &["users"]).await?, 1);
    /// assert!(cache.get("queries", "open orders").await.unwrap().is_stale());
    /// # Ok::<(), CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn expire_dependencies(
        &self,
        namespaces: impl Into<NamespaceScope<'_>>,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (namespaces.into(), texts(dependencies));
        self.engine.invalidations().expire_labels(scope, LabelKind::Dependency, &labels).await
    }

    /// Makes all entries of a namespace stale in one operation; see
    /// [`expire_key`](Self::expire_key) for what that means. False if nothing was put into it since
    /// it was last flushed or gave up its slot.
    ///
    /// What is on disk costs nothing, however much it is; the entries in memory are visited in
    /// batches.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_namespace`](Self::invalidate_namespace).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use std::time::Duration;
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let policy = BlobCachePolicy::default().stale_serve(Duration::from_secs(60));
    /// let pages = cache.namespace("pages").with_policy(policy);
    /// pages.put("/", "...").await?;
    /// assert!(cache.expire_namespace("pages").await?);
    /// assert!(pages.get("/").await.unwrap().is_stale());
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn expire_namespace(&self, namespace: &str) -> Result<bool, CacheError> {
        self.engine.invalidations().expire_namespace(self.engine.namespace(namespace)).await
    }
}
