//! `BlobCache`: the public handle.

use std::future::Future;
use std::io;
use std::sync::Arc;

use crate::config::BlobCacheConfig;
use crate::engine::fetch::{BlobCacheRefresh, HandleDefaults};
use crate::engine::{self, Engine, fetch};
use crate::error::{CacheError, FetchError};
use crate::events::BlobCacheEvents;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::LabelKind;
use crate::moment::ReadPoint;
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;
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
    pub(crate) engine: Arc<Engine>,
}

impl BlobCache {
    /// Opens a cache: in memory alone, or with a disk tier if the configuration has an
    /// [`l2_path`](crate::BlobCacheConfigBuilder::l2_path). A store that was closed, or whose
    /// process was killed, comes back with its entries.
    ///
    /// An open in the same process waits for a store that is still being closed. Dropped before it
    /// has returned, it gives the store back.
    ///
    /// # Errors
    ///
    /// A cache in memory always opens, and so does one whose disk tier is not
    /// [required](crate::BlobCacheConfigBuilder::l2_required). Otherwise each error names the path,
    /// what was found and what to do. A store that is refused has not been changed.
    ///
    /// - [`L2Unavailable`](CacheError::L2Unavailable): a limit of this process is too low, or the
    ///   kernel refuses the [engine](crate::L2Engine) that the configuration names.
    /// - [`L2Locked`](CacheError::L2Locked): another cache uses the store.
    /// - [`L2Full`](CacheError::L2Full): the file system has no room for the file, or the larger
    ///   one.
    /// - [`L2Format`](CacheError::L2Format): the file is a store of another format, or none.
    /// - [`L2Damaged`](CacheError::L2Damaged): the store is cut off.
    /// - [`L2Io`](CacheError::L2Io): the file could not be opened, read or written.
    pub async fn open(config: BlobCacheConfig) -> Result<Self, CacheError> {
        Ok(Self { engine: engine::open(config).await? })
    }

    /// The entry of a key, fresh or within its stale window. None if the key was never put, has
    /// expired, was invalidated or evicted, or could not be read, and after a close.
    ///
    /// A hit counts as an access: for SIEVE, and for the idle ttl. In memory it takes the read side
    /// of one lock, and neither allocates nor copies. On disk it takes one read.
    ///
    /// It never fails: a failed read is a miss, counted in
    /// [`l2_io_errors`](BlobCacheStats::l2_io_errors) or
    /// [`l2_corruptions`](BlobCacheStats::l2_corruptions), and logged.
    #[inline]
    pub fn get<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
    ) -> impl Future<Output = Option<BlobCacheHit>> {
        self.engine.gets().get(self.engine.namespace(namespace), key)
    }

    /// Stores a value under a key, replacing the entry there. Once it has returned, no get finds
    /// the older entry, whether or not the new value is still held.
    ///
    /// The value is copied unless its allocation is known to fit, 256 KiB in each of the caller's
    /// polls. Concurrent puts wait for each other, so that their copies stay within an eighth of
    /// `l1_bytes_max`, plus 16 MiB with a disk tier, or within one value. A put finds no room in
    /// memory if entries of higher priorities fill it.
    ///
    /// `put` is converted when this is called, before the first poll.
    ///
    /// Dropped before it has returned, it has either taken effect or not. A put made
    /// [`read_at`](BlobCachePut::read_at) a point that the key has been mutated after is
    /// `Ok` and stores nothing.
    ///
    /// # Errors
    ///
    /// After any of these except `L2Io` nothing has changed.
    ///
    /// - [`KeyTooLarge`](CacheError::KeyTooLarge),
    ///   [`NamespaceTooLarge`](CacheError::NamespaceTooLarge),
    ///   [`MetadataTooLarge`](CacheError::MetadataTooLarge),
    ///   [`LabelsTooLarge`](CacheError::LabelsTooLarge): over the configured limits.
    /// - [`BlobTooLarge`](CacheError::BlobTooLarge): over the limit of its policy, or too large
    ///   both for memory (by admission or quota) and for a segment on disk.
    /// - [`VersionMismatch`](CacheError::VersionMismatch): the live entry's version is not below
    ///   that of the policy.
    /// - [`VersionUnknown`](CacheError::VersionUnknown): the live entry is on disk only, and its
    ///   version could not be read.
    /// - [`TooManyNamespaces`](CacheError::TooManyNamespaces): no namespace slot is free.
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, or was not opened and cannot
    ///   be marked. The put is in force in this process; a restart may find an older entry.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub fn put<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
        put: impl Into<BlobCachePut>,
    ) -> impl Future<Output = Result<(), CacheError>> {
        // Converted here and not in an `async fn`, which would move the put twice more.
        let mut put = put.into();
        async move {
            let namespace = self.engine.namespace(namespace);
            self.engine.puts().put(namespace, key.as_ref(), &mut put, None).await
        }
    }

    /// The fresh entry of a key, or else the value that `fetch` returns, which is put under the
    /// key. Concurrent callers of one key share one fetch: one runs it, the others wait for its
    /// value, whose tier is [`CacheTier::Fetched`](crate::CacheTier::Fetched).
    ///
    /// A caller that came after the key was overwritten or invalidated is never given a value
    /// fetched before that, and such a value is not stored: the fetch behaves as if
    /// [`read_at`](BlobCachePut::read_at) its start. Callers that came before may be given it; the
    /// others fetch again. To cache an absence, return [`BlobCachePut::absent`].
    ///
    /// The fetch runs in the polls of this future. If it is dropped or panics, the next waiting
    /// caller runs its own. If it fails, callers that have joined before it began, or before the
    /// next mutation, are given the error: put a timeout that is one caller's own around the call,
    /// not into the fetch. An entry within its stale window is fetched again too; if that fails,
    /// all are given the stale entry. Callers with different error types `E` do not share fetches.
    ///
    /// A value that cannot be stored (it is too large, its version is not above the live one, the
    /// cache is closed, the key is over its limit and so on) is returned all the same, and counted
    /// in [`fetches_not_stored`](BlobCacheStats::fetches_not_stored). So with an origin that lags,
    /// a caller may be given an older version than the stale entry that a get would find.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError};
    /// # use std::time::Duration;
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// # use std::io::Error;
    /// # async fn query(_: u32) -> Result<Option<String>, Error> { Ok(Some("ada".into())) }
    /// let name = cache.get_or_fetch("users", "7", || async {
    ///     let put = match query(7).await? {
    ///         Some(name) => BlobCachePut::from(name),
    ///         None => BlobCachePut::absent(),
    ///     };
    ///     Ok::<_, std::io::Error>(put.with_tags(["users"]).with_ttl(Duration::from_secs(60)))
    /// });
    /// assert_eq!(name.await?.value(), b"ada");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind; a put that had begun has either taken effect
    /// or not. If it is kept but not polled for 100 ms after a wake, the next waiting caller runs
    /// its own fetch. A fetch that is never woken delays the callers that wait for it. A fetch that
    /// calls this method for its own key deadlocks.
    ///
    /// # Errors
    ///
    /// The failure of the fetch, if there is no stale entry to return instead. It is not cached,
    /// unless a [`FetchPolicy`](crate::FetchPolicy) says so.
    ///
    /// - [`FetchError::Fetch`]: the fetch that this caller ran, or waited for, returned an error.
    /// - [`FetchError::Panicked`]: this caller's own fetch panicked, or one whose failure is held.
    /// - [`FetchError::TimedOut`]: it took longer than its
    ///   [`hard_timeout`](crate::FetchPolicy::hard_timeout).
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
        let (namespace, key) = (self.engine.namespace(namespace), key.as_ref());
        let defaults = HandleDefaults::default();
        fetch::get_or_fetch(&self.engine, namespace, key, defaults, fetch).await
    }

    /// The entry of a key at once, fresh or stale; with a stale one, a refresh for the caller to
    /// spawn, unless the key is being fetched already. A missing entry is fetched as by
    /// [`get_or_fetch`](Self::get_or_fetch).
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchError};
    /// # let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
    /// # async fn render() -> Result<String, std::io::Error> { Ok("<h1>Tamis</h1>".into()) }
    /// let fetch = || async { render().await.map(BlobCachePut::from) };
    /// let (page, refresh) = cache.get_or_refresh("pages", "/index", fetch).await?;
    /// if let Some(refresh) = refresh {
    ///     // Or tokio::spawn(refresh).
    ///     if let Err(error) = refresh.await {
    ///         println!("{error}; the stale page stays within its window");
    ///     }
    /// }
    /// # assert_eq!(page.value(), b"<h1>Tamis</h1>");
    /// # Ok::<(), FetchError<std::io::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// Dropped at any await, it leaves nothing behind, as `get_or_fetch` does.
    ///
    /// # Errors
    ///
    /// Those of [`get_or_fetch`](Self::get_or_fetch), if there is no entry. A failed refresh is
    /// reported by the [refresh](BlobCacheRefresh) itself.
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
        let (namespace, key) = (self.engine.namespace(namespace), key.as_ref());
        let defaults = HandleDefaults::default();
        fetch::get_or_refresh(&self.engine, namespace, key, defaults, fetch).await
    }

    /// Whether a key has a live entry, without I/O and without counting as an access. Absent once
    /// the cache is closed.
    pub fn exists<K: AsRef<[u8]>>(&self, namespace: &str, key: K) -> CachePresence {
        self.engine.gets().exists(self.engine.namespace(namespace), key.as_ref())
    }

    /// Removes the entry of a key. Returns 1 if it had one not known to be expired, else 0.
    ///
    /// In force from its first poll, even if dropped then. If the log has no room: in force from
    /// the moment when there is room, if it is still polled.
    ///
    /// # Errors
    ///
    /// After any of these except `L2Io` nothing has changed.
    ///
    /// - [`KeyTooLarge`](CacheError::KeyTooLarge),
    ///   [`NamespaceTooLarge`](CacheError::NamespaceTooLarge): over the configured limits.
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, or was not opened and cannot
    ///   be marked. It is in force in this process; a restart may find older entries.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub async fn invalidate_key<K: AsRef<[u8]>>(
        &self,
        namespace: &str,
        key: K,
    ) -> Result<usize, CacheError> {
        self.engine
            .invalidations()
            .invalidate_key(self.engine.namespace(namespace), key.as_ref())
            .await
    }

    /// Removes all entries of the namespace whose keys begin with `prefix`, atomically. Returns how
    /// many there were that were not known to be expired.
    ///
    /// The work is a walk over all entries of L1, in batches, shared by all concurrent calls, and
    /// over the directories on disk. In force from its first poll, even if dropped then; later
    /// mutations finish the work. (If the disk tier's writer is so far behind that even the room
    /// reserved for invalidations is used up: from the moment when there is room, if still polled.)
    ///
    /// At most 256 invalidations of prefixes and labels can be unfinished, in progress or left by
    /// dropped calls; a further one waits for one of them before it takes effect. Dropped then, it
    /// flushes the whole namespace, which removes too much but bounds memory and serves nothing
    /// stale.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_key`](Self::invalidate_key).
    pub async fn invalidate_prefix<P: AsRef<[u8]>>(
        &self,
        namespace: &str,
        prefix: P,
    ) -> Result<usize, CacheError> {
        let namespace = self.engine.namespace(namespace);
        self.engine.invalidations().invalidate_prefix(namespace, prefix.as_ref()).await
    }

    /// Removes all entries of the namespace that carry any of the tags, atomically. Returns how
    /// many there were that were not known to be expired, each counted once.
    ///
    /// `namespaces` is a name, a slice of names, or [`NamespaceScope::All`]: then the entries of
    /// all of them go at one moment, and one record says so on disk. A call over all namespaces
    /// looks once at each that is in use.
    ///
    /// The tags are a slice of any strings: `&["a", "b"]`, or a reference to a `Vec<String>`. An
    /// empty slice removes nothing.
    ///
    /// The work is proportional to the matches. In force from its first poll, like
    /// [`invalidate_prefix`](Self::invalidate_prefix), and with the same bound.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_namespace`](Self::invalidate_namespace), and
    /// [`LabelsTooLarge`](CacheError::LabelsTooLarge): more than an entry could carry.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, NamespaceScope};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// cache.put("pages", "/7", BlobCachePut::new("<p>").with_tags(["product:7"])).await?;
    /// cache.put("json", "/7", BlobCachePut::new("{}").with_tags(["product:7"])).await?;
    /// assert_eq!(cache.invalidate_tags(NamespaceScope::All, &["product:7"]).await?, 2);
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    pub async fn invalidate_tags(
        &self,
        namespaces: impl Into<NamespaceScope<'_>>,
        tags: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (namespaces.into(), texts(tags));
        self.engine.invalidations().invalidate_labels(scope, LabelKind::Tag, &labels).await
    }

    /// Removes all entries of the namespace that depend on any of `dependencies`; otherwise like
    /// [`invalidate_tags`](Self::invalidate_tags). A tag and a dependency of the same name are
    /// different labels.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate_tags`](Self::invalidate_tags).
    pub async fn invalidate_dependencies(
        &self,
        namespaces: impl Into<NamespaceScope<'_>>,
        dependencies: &[impl AsRef<str>],
    ) -> Result<usize, CacheError> {
        let (scope, labels) = (namespaces.into(), texts(dependencies));
        self.engine.invalidations().invalidate_labels(scope, LabelKind::Dependency, &labels).await
    }

    /// Flushes a namespace in one operation, however many entries it has. Its slot is free at once;
    /// later mutations return its memory. False if nothing was put into it since it was last
    /// flushed or gave up its slot.
    ///
    /// In force from its first poll, like [`invalidate_key`](Self::invalidate_key).
    ///
    /// # Errors
    ///
    /// After any of these except `L2Io` nothing has changed.
    ///
    /// - [`NamespaceTooLarge`](CacheError::NamespaceTooLarge): over the limit.
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, or was not opened and cannot
    ///   be marked. It is in force in this process; a restart may find older entries.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub async fn invalidate_namespace(&self, namespace: &str) -> Result<bool, CacheError> {
        self.engine.invalidations().invalidate_namespace(self.engine.namespace(namespace)).await
    }

    /// Flushes every namespace, atomically. In force from its first poll, like
    /// [`invalidate_key`](Self::invalidate_key).
    ///
    /// # Errors
    ///
    /// After any of these except `L2Io` nothing has changed.
    ///
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, or was not opened and cannot
    ///   be marked. It is in force in this process; a restart may find older entries.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub async fn invalidate_all(&self) -> Result<(), CacheError> {
        self.engine.invalidations().invalidate_all().await
    }

    /// The current point in the order of all mutations: take it before reading the data that a put
    /// is made from. See [`ReadPoint`].
    #[must_use]
    pub fn read_point(&self) -> ReadPoint {
        self.engine.read_point()
    }

    /// Returns the memory of expired, flushed and invalidated entries, in batches that hold no lock
    /// for longer than a few hundred entries take. One pass over all entries, unless the limit ends
    /// it earlier; the next sweep continues from there.
    ///
    /// Only needed if [`background_sweep`] is off; expired entries are never served in any case.
    /// Dropped halfway, it keeps what it has done. After a close the report is empty.
    ///
    /// [`background_sweep`]: crate::BlobCacheConfigBuilder::background_sweep
    pub async fn sweep_expired(&self, limit: SweepLimit) -> SweepReport {
        self.engine.sweeping().sweep_expired(limit).await
    }

    /// Returns once everything acknowledged is on the device; at once without a disk tier. Dropping
    /// it stops nothing that others wait for. What was lost because the device failed stays lost
    /// after the disk tier has begun anew ([`l2_restarts`](crate::BlobCacheStats::l2_restarts)).
    ///
    /// # Errors
    ///
    /// - [`L2Io`](CacheError::L2Io): the disk tier has failed, now or before, or was not opened.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child,
    ///   [`Closed`](CacheError::Closed) after a close.
    pub async fn sync(&self) -> Result<(), CacheError> {
        self.engine.sync().await
    }

    /// Closes the cache, for all handles. From then on gets find nothing, fetched values are
    /// returned and not stored, and all other methods return [`Closed`](CacheError::Closed). It
    /// returns once the memory of all entries is freed and the store is synced, marked clean and
    /// unlocked; a thread frees the index. In force from its first poll.
    ///
    /// # Errors
    ///
    /// The cache is closed after any of these.
    ///
    /// - [`L2Io`](CacheError::L2Io): the disk tier had failed before, or failed at the last write.
    /// - [`L2Unavailable`](CacheError::L2Unavailable) in a forked child.
    /// - [`Closed`](CacheError::Closed): it was closed before. The next call finishes one that was
    ///   dropped halfway all the same.
    pub async fn close(&self) -> Result<(), CacheError> {
        self.engine.close().await
    }

    /// Tells from now on what becomes of entries: evicted, expired, invalidated, replaced, dropped
    /// by the disk tier, promoted, reinserted. A [`Stream`](futures::Stream) for one listener: a
    /// later call ends the earlier stream. The first event above a disk tier is what the open has
    /// found there.
    ///
    /// Up to 4096 events of 1 MiB, names and keys included, wait for the listener. Those beyond
    /// are lost, which [`Lost`](crate::BlobCacheEvent::Lost) says and
    /// [`events_lost`](BlobCacheStats::events_lost) counts; one that is not polled holds up nobody.
    /// A thread, `tamis-events`, wakes it. A hit in memory tells nothing. An entry that both tiers
    /// held may be told of twice: evicted from memory, and later dropped by the disk.
    ///
    /// # Errors
    ///
    /// The process may not start another thread.
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// use tamis::{BlobCache, BlobCacheConfig, BlobCacheEvent, EntryChange};
    ///
    /// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
    /// let mut events = cache.events()?;
    /// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
    /// cache.invalidate_key("pages", "/index").await?;
    /// let Some(BlobCacheEvent::Entry(event)) = events.next().await else { panic!() };
    /// assert_eq!(event.change(), EntryChange::Invalidated);
    /// assert_eq!((event.namespace(), event.key()), ("pages", Some(b"/index".as_slice())));
    /// cache.close().await?;
    /// assert_eq!(events.next().await, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn events(&self) -> io::Result<BlobCacheEvents> {
        self.engine.stats().listen()
    }

    /// Counters since the open, and current sizes. Visits no entry.
    #[must_use]
    pub fn stats(&self) -> BlobCacheStats {
        self.engine.stats().all()
    }

    /// Current figures of one namespace. None if it holds nothing and has no slot.
    #[must_use]
    pub fn namespace_stats(&self, namespace: &str) -> Option<NamespaceStats> {
        self.engine.stats().of_namespace(namespace)
    }

    /// The configuration that the cache was opened with.
    #[must_use]
    pub fn config(&self) -> &BlobCacheConfig {
        self.engine.config()
    }
}

pub(crate) fn texts(labels: &[impl AsRef<str>]) -> Vec<&str> {
    // Bounded: by the caller's labels; no lock is held.
    labels.iter().map(AsRef::as_ref).collect()
}
