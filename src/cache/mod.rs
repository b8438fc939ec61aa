//! `BlobCache`: the handle, and every public verb in one place. What they do is one file each.

mod agenda;
mod append;
mod bell;
mod budget;
mod drain;
mod durability;
mod errand;
mod evict;
mod expiry;
mod fetch;
mod fetching;
mod get;
mod intake;
mod invalidate;
mod namespaced;
mod open;
mod overdue;
mod pace;
mod places;
mod promote;
mod promotions;
mod put;
mod reads;
mod record;
mod refusal;
mod scan;
mod shared;
mod stats;
mod sweep;
mod synopses;
mod tenancy;
#[cfg(test)]
mod tests;
mod version;

use std::future::Future;
use std::sync::Arc;

pub use self::fetching::BlobCacheRefresh;
pub use self::namespaced::BlobCacheNamespace;
use self::shared::Shared;
use crate::config::BlobCacheConfig;
use crate::error::{CacheError, FetchError};
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::LabelKind;
use crate::moment::ReadPoint;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::stats::{BlobCacheStats, NamespaceStats};
use crate::sweep::{SweepLimit, SweepReport};

/// A cache of blobs. Cheap to clone; all clones are one cache.
///
/// Every future is `Send` when its key and its fetch are, runs on any executor, and does nothing
/// until polled. Dropping one at any await leaves the cache consistent. No poll copies more than
/// 256 KiB or visits more than a few hundred entries; longer work yields in between.
///
/// ```
/// # futures::executor::block_on(async {
/// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut};
///
/// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// cache.put("pages", "/index", BlobCachePut::new("<h1>Tamis</h1>").with_tags(["home"])).await?;
/// assert_eq!(cache.get("pages", "/index").await.unwrap().value(), b"<h1>Tamis</h1>");
/// assert_eq!(cache.invalidate_tags("pages", &["home"]).await?, 1);
/// assert!(cache.get("pages", "/index").await.is_none());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct BlobCache {
    shared: Arc<Shared>,
}

impl BlobCache {
    /// Opens a cache.
    ///
    /// # Errors
    ///
    /// None for a cache in memory; what is wrong with a configuration shows in its
    /// [`build`](crate::BlobCacheConfigBuilder::build). With a disk tier, each names the path, what
    /// was found and what to do: [`L2Unavailable`](CacheError::L2Unavailable),
    /// [`L2Locked`](CacheError::L2Locked), [`L2Full`](CacheError::L2Full),
    /// [`L2Format`](CacheError::L2Format), [`L2Damaged`](CacheError::L2Damaged),
    /// [`L2Io`](CacheError::L2Io), and [`InvalidConfig`](CacheError::InvalidConfig) where the store
    /// was made with other sizes. What has failed leaves nothing behind.
    pub async fn open(config: BlobCacheConfig) -> Result<Self, CacheError> {
        Ok(Self { shared: Shared::open(config).await? })
    }

    /// The entry of a key, fresh or within its stale window. None when there is none: never put,
    /// gone, invalidated, evicted, or the cache is closed.
    ///
    /// A hit counts as an access: for SIEVE, and for the idle ttl. It takes the read side of one
    /// lock, and neither allocates nor copies.
    pub async fn get<K: AsRef<[u8]>>(&self, namespace: &str, key: K) -> Option<BlobCacheHit> {
        self.shared.get(self.shared.hasher.namespace(namespace), key.as_ref()).await
    }

    /// Stores a value under a key, in place of what was there. Once it has returned, no get finds
    /// what was there before, whether or not the new value is still held.
    ///
    /// The value is copied unless it is known to fit, in the caller's polls, 256 KiB in each. Where
    /// many puts copy at one time they wait for their turn, so that their copies stay within an
    /// eighth of `l1_bytes_max`, and 16 MiB more with a disk tier, or one value. A put finds no
    /// room in memory where all of it holds entries of higher priorities.
    ///
    /// Dropped before it has returned, it has either taken effect or not. A put made
    /// [`read_at`](BlobCachePut::read_at) a point that the key has been mutated after is
    /// `Ok` and stores nothing.
    ///
    /// # Errors
    ///
    /// [`KeyTooLarge`](CacheError::KeyTooLarge),
    /// [`NamespaceTooLarge`](CacheError::NamespaceTooLarge),
    /// [`MetadataTooLarge`](CacheError::MetadataTooLarge),
    /// [`LabelsTooLarge`](CacheError::LabelsTooLarge): over the configured limits.
    /// [`BlobTooLarge`](CacheError::BlobTooLarge): over the policy's limit, or over what its
    /// admission lets into L1. [`VersionMismatch`](CacheError::VersionMismatch): the live entry's
    /// version is not below the policy's. [`VersionUnknown`](CacheError::VersionUnknown): it is on
    /// disk only, and could not be read. [`TooManyNamespaces`](CacheError::TooManyNamespaces): no
    /// namespace slot is free. [`Closed`](CacheError::Closed). After any of these nothing has
    /// changed. [`L2Io`](CacheError::L2Io): the disk tier has failed, and holds something older
    /// that the put replaces; it is in force in this process.
    pub async fn put<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
        put: impl Into<BlobCachePut>,
    ) -> Result<(), CacheError> {
        let default = BlobCachePolicy::default();
        let namespace = self.shared.hasher.namespace(namespace);
        self.shared.put(namespace, key.as_ref(), put.into(), &default).await
    }

    /// The fresh entry of a key, or else what `fetch` brings, which is put under the key. Of all
    /// who ask for one key at a time, one fetches and the others wait for it and share the outcome;
    /// its tier is [`CacheTier::Fetched`](crate::CacheTier::Fetched).
    ///
    /// No value goes to a caller who came after it was overwritten or invalidated, and none is
    /// stored then: the fetch is as good as made [`read_at`](BlobCachePut::read_at) the moment when
    /// it began. Callers who came before that get it all the same; the others fetch anew. To say
    /// that there is nothing, answer [`BlobCachePut::absent`].
    ///
    /// The fetch runs in the polls of this future. Where it is dropped, fails or panics, the next
    /// one who waits runs its own. An entry within its stale window is fetched anew too, and
    /// answered, to all who wait, if the fetch fails. Nobody waits for those with another type of
    /// error `E`.
    ///
    /// A value that cannot be stored (it is too large, its version is not above the live one, the
    /// cache is closed, the key over its limit and so on) is answered all the same, and counted as
    /// `fetches_not_stored`. So with an origin that lags, a caller may be given an older version
    /// than the stale entry that a get would find.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, FetchError};
    /// # use std::time::Duration;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// # use std::io::Error;
    /// # async fn query(_: u32) -> Result<Option<String>, Error> { Ok(Some("ada".into())) }
    /// let name = cache.get_or_fetch("users", "7", || async {
    ///     let minute = BlobCachePolicy::default().ttl(Duration::from_secs(60));
    ///     let put = match query(7).await? {
    ///         Some(name) => BlobCachePut::from(name),
    ///         None => BlobCachePut::absent(),
    ///     };
    ///     Ok::<_, std::io::Error>(put.with_tags(["users"]).with_policy(minute))
    /// });
    /// assert_eq!(name.await?.value(), b"ada");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind; a put that had begun has either taken effect
    /// or not. Kept and not polled for 100 ms after it was woken, it holds up nobody: the next one
    /// who waits runs its own fetch. Whoever waits does wait for a fetch that is never woken. One
    /// that asks, by this verb, for the key that it is to bring waits for itself.
    ///
    /// # Errors
    ///
    /// What this caller's own fetch came to, and nobody else's: [`FetchError::Fetch`],
    /// [`FetchError::Panicked`]. Errors are not cached.
    pub async fn get_or_fetch<K, F, Fut, E>(
        &self,
        namespace: &str,
        key: K,
        fetch: F,
    ) -> Result<BlobCacheHit, FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.shared.hasher.namespace(namespace), key.as_ref());
        match self.shared.look_fresh(namespace, key) {
            Some(hit) => Ok(hit),
            None => {
                let policy = Arc::default();
                Box::pin(self.shared.get_or_fetch(namespace, key, &policy, fetch)).await
            }
        }
    }

    /// The entry of a key at once, though it be stale; with a stale one, the refresh for its caller
    /// to spawn, unless somebody is fetching the key already. Where there is none, it is fetched as
    /// by [`get_or_fetch`](Self::get_or_fetch).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// # async fn render() -> Result<String, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let fetch = || async { render().await.map(BlobCachePut::from) };
    /// let (page, refresh) = cache.get_or_refresh("pages", "/index", fetch).await?;
    /// if let Some(refresh) = refresh {
    ///     refresh.await?; // or tokio::spawn(refresh)
    /// }
    /// # assert_eq!(page.value(), b"<h1>Tamis</h1>");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`get_or_fetch`](Self::get_or_fetch), where there is no entry. What a refresh comes
    /// to is answered by the refresh.
    pub async fn get_or_refresh<K, F, Fut, E>(
        &self,
        namespace: &str,
        key: K,
        fetch: F,
    ) -> Result<(BlobCacheHit, Option<BlobCacheRefresh<F, Fut, E>>), FetchError<E>>
    where
        K: AsRef<[u8]>,
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<BlobCachePut, E>>,
        E: Send + Sync + 'static,
    {
        let (namespace, key) = (self.shared.hasher.namespace(namespace), key.as_ref());
        match self.shared.look_fresh(namespace, key) {
            Some(hit) => Ok((hit, None)),
            None => {
                let policy = Arc::default();
                Box::pin(self.shared.get_or_refresh(namespace, key, &policy, fetch)).await
            }
        }
    }

    /// Whether a key has a live entry, without I/O and without counting as an access.
    pub fn exists<K: AsRef<[u8]>>(&self, namespace: &str, key: K) -> CachePresence {
        self.shared.exists(self.shared.hasher.namespace(namespace), key.as_ref())
    }

    /// Removes the entry of a key. Gives 1 if it had one that was not known to be expired, else 0.
    ///
    /// # Errors
    ///
    /// [`KeyTooLarge`](CacheError::KeyTooLarge),
    /// [`NamespaceTooLarge`](CacheError::NamespaceTooLarge), [`Closed`](CacheError::Closed).
    pub async fn invalidate_key<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
    ) -> Result<usize, CacheError> {
        self.shared.invalidate_key(self.shared.hasher.namespace(namespace), key.as_ref()).await
    }

    /// Removes every entry of the namespace whose key begins with `prefix`, all of them at one
    /// moment. Gives how many there were that were not known to be expired.
    ///
    /// The work is a walk over all entries of L1, in steps, shared by all such calls under way, and
    /// over the directories on disk. In force from its first poll on, even if dropped then; later
    /// mutations finish the work. (Above a disk tier whose writer is so far behind that the room
    /// kept for invalidations is used up as well: from when there is room, if it is still polled.)
    ///
    /// Where 256 invalidations of prefixes and labels are unfinished, under way or left by dropped
    /// calls, it waits for one of them before it takes effect. Dropped then, it flushes the whole
    /// namespace: forgetting too much keeps the cache bounded, and never stale.
    ///
    /// # Errors
    ///
    /// [`KeyTooLarge`](CacheError::KeyTooLarge): the prefix is longer than any key.
    /// [`NamespaceTooLarge`](CacheError::NamespaceTooLarge), [`Closed`](CacheError::Closed).
    pub async fn invalidate_prefix<P: AsRef<[u8]>>(
        &self,
        namespace: &str,
        prefix: P,
    ) -> Result<usize, CacheError> {
        let namespace = self.shared.hasher.namespace(namespace);
        self.shared.invalidate_prefix(namespace, prefix.as_ref()).await
    }

    /// Removes every entry of the namespace that carries any of the tags, all of them at one
    /// moment. Gives how many there were that were not known to be expired, each counted once.
    ///
    /// The work is proportional to the matches. In force from its first poll on, like
    /// [`invalidate_prefix`](Self::invalidate_prefix), and with the same bound.
    ///
    /// # Errors
    ///
    /// [`LabelsTooLarge`](CacheError::LabelsTooLarge): more than an entry could carry.
    /// [`NamespaceTooLarge`](CacheError::NamespaceTooLarge), [`Closed`](CacheError::Closed).
    pub async fn invalidate_tags(
        &self,
        namespace: &str,
        tags: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let namespace = self.shared.hasher.namespace(namespace);
        self.shared.invalidate_labels(namespace, LabelKind::Tag, &texts(tags)).await
    }

    /// Removes every entry of the namespace that depends on any of `dependencies`; as
    /// [`invalidate_tags`](Self::invalidate_tags) in everything else. Tags and dependencies of one
    /// name are two different labels.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_tags`](Self::invalidate_tags).
    pub async fn invalidate_dependencies(
        &self,
        namespace: &str,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let namespace = self.shared.hasher.namespace(namespace);
        let dependencies = texts(dependencies);
        self.shared.invalidate_labels(namespace, LabelKind::Dependency, &dependencies).await
    }

    /// Flushes a namespace: one step, whatever the number of entries. Its slot is free again, and
    /// its memory comes back with the mutations that follow. False when nothing has been put into
    /// it since it was last flushed or gave up its slot.
    ///
    /// # Errors
    ///
    /// [`NamespaceTooLarge`](CacheError::NamespaceTooLarge), [`Closed`](CacheError::Closed).
    pub async fn invalidate_namespace(&self, namespace: &str) -> Result<bool, CacheError> {
        self.shared.invalidate_namespace(self.shared.hasher.namespace(namespace)).await
    }

    /// Flushes every namespace, all of them at one moment.
    ///
    /// # Errors
    ///
    /// [`Closed`](CacheError::Closed).
    pub async fn invalidate_all(&self) -> Result<(), CacheError> {
        self.shared.invalidate_all().await
    }

    /// This moment in the order of all mutations: take it before reading what a put is made from.
    /// See [`ReadPoint`].
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        self.shared.order.read_point()
    }

    /// A handle with the same verbs for one namespace, and a default policy.
    #[must_use]
    pub fn namespace(&self, name: &str) -> BlobCacheNamespace {
        BlobCacheNamespace::new(Arc::clone(&self.shared), name)
    }

    /// Gives back the memory of entries that are past their life, and of those that a flush or an
    /// invalidation has left, in steps that hold no lock for longer than it takes to look at a few
    /// hundred entries. One pass over all entries, unless the limit is reached before its end; the
    /// next sweep goes on there.
    ///
    /// There is no need to call it, unless [`background_sweep`] is off: what has expired is not
    /// served in any case. Dropped halfway, it has done what it has. After a close the report is
    /// empty.
    ///
    /// [`background_sweep`]: crate::BlobCacheConfigBuilder::background_sweep
    pub async fn sweep_expired(&self, limit: SweepLimit) -> SweepReport {
        self.shared.sweep_expired(limit).await
    }

    /// Returns once all that was acknowledged is on the device. Nothing to do without a disk tier.
    ///
    /// # Errors
    ///
    /// [`Closed`](CacheError::Closed).
    pub async fn sync(&self) -> Result<(), CacheError> {
        self.shared.sync().await
    }

    /// Ends the cache, for all handles: gets find nothing from here on, what is fetched is answered
    /// and not stored, everything else is [`Closed`](CacheError::Closed), and the memory is given
    /// back before it returns. In force from its first poll on.
    ///
    /// # Errors
    ///
    /// [`Closed`](CacheError::Closed) when it had been closed before; a call that was dropped
    /// halfway is finished by the next one all the same. [`L2Io`](CacheError::L2Io): the disk tier
    /// had failed, or did at the last write.
    pub async fn close(&self) -> Result<(), CacheError> {
        let is_first = self.shared.end();
        let finished = self.shared.finish().await;
        if is_first { finished } else { Err(CacheError::Closed) }
    }

    /// What the cache has done so far and holds now. Visits no entry.
    #[must_use]
    pub fn stats(&self) -> BlobCacheStats {
        self.shared.stats()
    }

    /// What one namespace holds now. None when it holds nothing and has no slot.
    #[must_use]
    pub fn namespace_stats(&self, namespace: &str) -> Option<NamespaceStats> {
        self.shared.namespace_stats(namespace)
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &BlobCacheConfig {
        &self.shared.config
    }
}

/// Labels as a caller gives them.
fn texts(labels: &[impl AsRef<str>]) -> Vec<&str> {
    // Bounded: by what the caller gives, before anything of the cache is held.
    labels.iter().map(AsRef::as_ref).collect()
}
