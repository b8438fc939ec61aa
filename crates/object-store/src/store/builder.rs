//! `CachedObjectStoreBuilder`: what a store is, and its settings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tamis::{BlobCache, FetchPolicy};

use super::error::BuildError;
use super::meta::MetaCodec;
use super::object_store::ObjectStore;
use super::object_store::path::Path;
use super::{CachedObjectStore, Core, IsImmutable};
use crate::claims::Claim;
use crate::keys::Keys;
use crate::settings::Settings;
use crate::stats::Counts;
use crate::unsettled::Unsettled;

/// Settings of a [`CachedObjectStore`]. Each has a default.
#[must_use]
pub struct CachedObjectStoreBuilder {
    inner: Arc<dyn ObjectStore>,
    cache: BlobCache,
    namespace: String,
    settings: Settings,
    is_immutable: Option<IsImmutable>,
}

impl CachedObjectStore {
    /// A store that caches what `inner` has, in a namespace of `cache` that is its own.
    ///
    /// After a restart, blocks are found again by a store with the same namespace over an inner
    /// store whose `Display` says the same. One that says something else finds nothing there. Where
    /// two stores say the same and differ, as two `InMemory` do, or one bucket name at two
    /// providers, give them different namespaces.
    pub fn builder(
        inner: Arc<dyn ObjectStore>,
        cache: &BlobCache,
        namespace: &str,
    ) -> CachedObjectStoreBuilder {
        CachedObjectStoreBuilder {
            inner,
            cache: cache.clone(),
            namespace: namespace.to_owned(),
            settings: Settings::default(),
            is_immutable: None,
        }
    }
}

impl CachedObjectStoreBuilder {
    /// How old what is known of an object may be: a get answers what the inner store had at most
    /// this long before the get was called. When that time is over, the next get asks the inner
    /// store whether the object has changed (`if_none_match`); if it has not, its blocks stay, and
    /// so do its attributes, even if those were changed past this store under the same e-tag. An
    /// object without an e-tag, or with a weak one, cannot be asked about: it is fetched again.
    ///
    /// Default: zero. Then each get asks, by a request without a body if nothing has changed.
    pub fn staleness(mut self, staleness: Duration) -> Self {
        self.settings.staleness = staleness;
        self
    }

    /// Declares the paths whose objects never change once they exist, such as files with a unique
    /// name: what is known of them has no end. Called a few times in each get; it should be quick
    /// and not block. Default: no path.
    pub fn immutable(
        mut self,
        is_immutable: impl Fn(&Path) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.is_immutable = Some(Box::new(is_immutable));
        self
    }

    /// Caches that there is no object, for so long. A write through this store ends it; one past it
    /// is seen after that time. Default: absences are not cached.
    pub fn absences(mut self, ttl: Duration) -> Self {
        self.settings.absence = Some(ttl);
        self
    }

    /// The size of a block, what is read at the least and cached as one. Objects that are cached
    /// already keep theirs. Small blocks suit small random reads, large ones scans. In bytes, 64
    /// KiB to 4 MiB. Default: 256 KiB.
    pub fn block_bytes(mut self, bytes: u64) -> Self {
        self.settings.block_bytes = bytes;
        self
    }

    /// The most that one request to the inner store asks for, and that one answer has in memory,
    /// in blocks. (A get of a whole object of which nothing is known is one request, and is read as
    /// its answer is.) In bytes, a block to 256 MiB. Default: 8 MiB.
    pub fn request_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.request_bytes_max = bytes;
        self
    }

    /// How many requests one answer has under way, where its missing blocks are not neighbours. 1
    /// to 64. Default: 8.
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.settings.requests_max = requests;
        self
    }

    /// Fetches so many bytes ahead of who reads an object in sequence, by gets that begin where the
    /// last one ended. It needs a [`spawner`](tamis::BlobCacheConfigBuilder::spawner) in the
    /// cache's configuration: there is one task for an object at a time, and up to 32 for the
    /// store, each with the blocks of one request in memory. Up to 256 MiB. Default: 0, nothing.
    pub fn read_ahead(mut self, bytes: u64) -> Self {
        self.settings.read_ahead = bytes;
        self
    }

    /// For how long a path is not cached after a write of it was dropped, or has failed without
    /// saying whether it has happened: its request may still be carried out. Choose it above the
    /// time in which the inner store gives up a request. Default: 5 minutes.
    pub fn unknown_writes(mut self, time: Duration) -> Self {
        self.settings.unknown_writes = time;
        self
    }

    /// Builds the store.
    ///
    /// # Errors
    ///
    /// - [`BuildError::NamespaceInUse`]: another store has this namespace of this cache. It is free
    ///   once all clones of that store, and the answers and uploads that it has begun, are dropped,
    ///   and what it was [reading ahead](Self::read_ahead) has arrived or failed.
    /// - [`BuildError::OutOfRange`]: a setting.
    /// - [`BuildError::NoSpawner`]: it is to read ahead, and the cache has no spawner.
    pub fn build(self) -> Result<CachedObjectStore, BuildError> {
        self.settings.check()?;
        let spawner = self.cache.config().spawner().cloned();
        if self.settings.read_ahead > 0 && spawner.is_none() {
            return Err(BuildError::NoSpawner);
        }
        let namespace = self.namespace;
        let Some(claim) = Claim::new(&self.cache, &namespace) else {
            return Err(BuildError::NamespaceInUse { namespace });
        };
        let blobs = self.cache.namespace(&namespace);
        // What the cache holds back or times out would be errors that the inner store has not made.
        let policy = FetchPolicy::default();
        let blobs = blobs.clone().with_fetch_policy(policy).unwrap_or(blobs);
        let core = Core {
            claim,
            metas: blobs.typed(MetaCodec),
            blobs,
            keys: Keys::new(&self.inner.to_string()),
            inner: self.inner,
            settings: self.settings,
            is_immutable: self.is_immutable,
            spawner,
            instance: rand::random(),
            moments: AtomicU64::new(0),
            unsettled: Unsettled::default(),
            ahead: Arc::default(),
            counts: Counts::default(),
        };
        Ok(CachedObjectStore { core: Arc::new(core) })
    }
}

impl fmt::Debug for CachedObjectStoreBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CachedObjectStoreBuilder")
            .field("inner", &self.inner)
            .field("namespace", &self.namespace)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
