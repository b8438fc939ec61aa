//! The verbs for many keys of a namespace at once, on both handles.

use std::future::Future;

use crate::cache::BlobCache;
use crate::engine::read::get_many::get_many;
use crate::engine::write::put_many::put_many;
use crate::error::CacheError;
use crate::hit::BlobCacheHit;
use crate::namespaced::BlobCacheNamespace;
use crate::put::BlobCachePut;

impl BlobCache {
    /// The entries of many keys, in the order of the keys. Each is what [`get`](Self::get) would
    /// find, counts like it, and is None where it would be; a key that is given twice is looked up
    /// twice.
    ///
    /// Memory answers at once. The reads from disk go to the device together, up to 64 at a time,
    /// within the memory that [`l2_read_bytes_max`] allows all readers: so any number of keys can
    /// be asked for, and others are not held up. Only the answer grows with the number of keys.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// cache.put("users", "7", "ada").await?;
    /// cache.put("users", "9", "grace").await?;
    /// let users = cache.get_many("users", &["7", "8", "9"]).await;
    /// assert_eq!(users[0].as_ref().unwrap().value(), b"ada");
    /// assert!(users[1].is_none());
    /// assert_eq!(users[2].as_ref().unwrap().value(), b"grace");
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind. It never fails, as `get`.
    ///
    /// [`l2_read_bytes_max`]: crate::BlobCacheConfigBuilder::l2_read_bytes_max
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        keys: &[K],
    ) -> Vec<Option<BlobCacheHit>> {
        get_many(self.engine.gets(), self.engine.namespace(namespace), keys).await
    }

    /// Puts many values, as [`put`](Self::put) does each, in their order: of a key that is given
    /// twice, the last value wins, unless `put` would refuse it after the first, as it may one with
    /// a version or with a `read_at`. There is one wait for the acknowledgement of all.
    ///
    /// The answers are in the same order, one for each item. An item that is refused, because it is
    /// too large for instance, does not keep the others from being put.
    ///
    /// `items` are collected, and converted, when this is called.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let users = [("7", "ada"), ("9", "grace")];
    /// let puts = users.map(|(key, name)| (key, BlobCachePut::new(name).with_tags(["users"])));
    /// for (put, (key, _)) in cache.put_many("users", puts).await.into_iter().zip(users) {
    ///     if let Err(error) = put {
    ///         println!("{key} is not cached: {error}");
    ///     }
    /// }
    /// assert_eq!(cache.invalidate_tags("users", &["users"]).await?, 2);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// They are not one mutation: others may see some of them before the rest. Dropped before it
    /// has returned, some of them, the first ones, have taken effect, and the others have not.
    ///
    /// # Errors
    ///
    /// Those of [`put`](Self::put), for each put by itself.
    pub fn put_many<K: AsRef<[u8]>, P: Into<BlobCachePut>>(
        &self,
        namespace: &str,
        items: impl IntoIterator<Item = (K, P)>,
    ) -> impl Future<Output = Vec<Result<(), CacheError>>> {
        let items = converted(items);
        async move {
            let namespace = self.engine.namespace(namespace);
            put_many(self.engine.puts(), namespace, items, None).await
        }
    }

    /// Removes the entries of many keys, as [`invalidate_key`](Self::invalidate_key) does each.
    /// Returns how many there were that were not known to be expired, each counted once, whether or
    /// not its key is given twice. There is one wait for the acknowledgement of all.
    ///
    /// Up to 256 keys, of 256 KiB together: in force from its first poll, even if dropped then.
    /// More are looked at first, and then removed, as many as that in each poll. (If the log has no
    /// room, each from the moment when there is room, if still polled.) It is not atomic: each key
    /// has its own moment, one after the other. Where all have to go at one moment, give their
    /// entries a tag.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// cache.put("users", "7", "ada").await?;
    /// let changed: Vec<String> = vec!["7".into(), "8".into()];
    /// assert_eq!(cache.invalidate_keys("users", &changed).await?, 1);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// - [`AtIndex`](CacheError::AtIndex): a key is over the configured limit; it says which, and
    ///   nothing has changed.
    /// - [`NamespaceTooLarge`](CacheError::NamespaceTooLarge): likewise, and nothing has changed.
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed. The invalidation is in force in this
    ///   process; a restart may find older entries.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close; if the cache is closed meanwhile, the first
    ///   ones may have been removed.
    pub async fn invalidate_keys<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        keys: &[K],
    ) -> Result<usize, CacheError> {
        let namespace = self.engine.namespace(namespace);
        self.engine.invalidations().invalidate_keys(namespace, keys).await
    }
}

impl BlobCacheNamespace {
    /// See [`BlobCache::get_many`].
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Option<BlobCacheHit>> {
        get_many(self.engine.gets(), self.named(), keys).await
    }

    /// See [`BlobCache::put_many`]. A put without a policy gets this handle's.
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::put_many`].
    pub fn put_many<K: AsRef<[u8]>, P: Into<BlobCachePut>>(
        &self,
        items: impl IntoIterator<Item = (K, P)>,
    ) -> impl Future<Output = Vec<Result<(), CacheError>>> {
        let items = converted(items);
        async move {
            let policy = self.policy.as_deref();
            put_many(self.engine.puts(), self.named(), items, policy).await
        }
    }

    /// See [`BlobCache::invalidate_keys`].
    ///
    /// # Errors
    ///
    /// Those of [`BlobCache::invalidate_keys`].
    pub async fn invalidate_keys<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<usize, CacheError> {
        self.engine.invalidations().invalidate_keys(self.named(), keys).await
    }
}

fn converted<K, P: Into<BlobCachePut>>(
    items: impl IntoIterator<Item = (K, P)>,
) -> Vec<(K, BlobCachePut)> {
    // Bounded: by the caller's items; no lock is held.
    items.into_iter().map(|(key, put)| (key, put.into())).collect()
}
