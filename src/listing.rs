//! Listing the keys of a namespace, on both handles.

use crate::cache::BlobCache;
use crate::keys::{BlobCacheKeys, KeysQuery};
use crate::namespaced::BlobCacheNamespace;

impl BlobCache {
    /// Lists the entries of a namespace whose keys begin with a prefix, or what else a
    /// [`KeysQuery`] asks for, as a [`Stream`](futures::Stream): their keys, sizes, tiers, versions
    /// and deadlines, without their values. Each is one that a [`get`](Self::get) would find at
    /// that moment. Nothing is counted as a hit or an access.
    ///
    /// In no order. **Exact while nothing is put or invalidated**: each entry once. Otherwise each
    /// key that has an entry all the while is listed, one that is put meanwhile maybe twice, and
    /// none that had no entry at any moment of the listing. It ends when the namespace is flushed.
    ///
    /// It begins with its first poll. No poll visits more than a few hundred entries, and between
    /// two polls it holds nothing that others need: polled slowly, or never again, it delays
    /// nobody. It does not keep the cache open; after a close it ends.
    ///
    /// Entries in memory cost no I/O. For those on disk the directories of the segments that have
    /// the namespace are read, within [`l2_read_bytes_max`], about a thousand keys with each read;
    /// and the head of a record only where a directory does not tell: of what was
    /// [made stale](Self::expire_key), or has moved, and of all with
    /// [`details`](KeysQuery::details). A stream takes up to some 100 KiB of memory, and the table
    /// of one directory, half a percent of it.
    ///
    /// It never fails, as `get`. What a directory lists behind damage, or behind a failed read, is
    /// left out unless memory holds it; that is counted in
    /// [`l2_corruptions`](crate::BlobCacheStats::l2_corruptions) or
    /// [`l2_io_errors`](crate::BlobCacheStats::l2_io_errors), and the listing goes on. One that
    /// takes so long that the disk tier overwrites its whole file meanwhile may miss entries.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, KeysQuery};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// cache.put("pages", "/blog/1", BlobCachePut::new("...").with_tags(["sieves"])).await?;
    /// cache.put("pages", "/shop/1", BlobCachePut::new("...").with_tags(["sieves"])).await?;
    ///
    /// let mut posts = cache.keys("pages", "/blog/");
    /// while let Some(post) = posts.next().await {
    ///     println!("{}: {} bytes, {}", post.key().escape_ascii(), post.bytes(), post.tier());
    ///     # assert_eq!(post.key(), b"/blog/1");
    /// }
    /// let tagged = KeysQuery::default().tags(["sieves"]).prefix("/shop/");
    /// let mut tagged = cache.keys("pages", tagged);
    /// assert_eq!(tagged.next().await.unwrap().key(), b"/shop/1");
    /// assert!(tagged.next().await.is_none());
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// [`l2_read_bytes_max`]: crate::BlobCacheConfigBuilder::l2_read_bytes_max
    pub fn keys(&self, namespace: &str, query: impl Into<KeysQuery>) -> BlobCacheKeys {
        self.engine.lister().list(namespace, query.into())
    }
}

impl BlobCacheNamespace {
    /// See [`BlobCache::keys`].
    pub fn keys(&self, query: impl Into<KeysQuery>) -> BlobCacheKeys {
        self.engine.lister().list(self.name(), query.into())
    }
}
