//! `Local`: what the tasks of a node need of its cache; `Store` is a cache with its gate.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tamis::{BlobCache, CacheError, Gate};

use crate::invalidation::{Invalidation, Scope};
use crate::position::{Place, Saved};

pub(crate) trait Local: Send + Sync + 'static {
    /// The time since boot.
    fn now(&self) -> Duration;

    /// Gets that begin before `until` see all that was applied before this call.
    fn open_until(&self, until: Duration);

    fn close_gate(&self);

    fn is_open(&self) -> bool;

    /// In force once it returns, and as good as in force from its first poll on. Returns how many
    /// entries were invalidated, of a namespace one, of everything none.
    fn apply(
        &self,
        invalidation: &Invalidation,
    ) -> impl Future<Output = Result<usize, CacheError>> + Send;

    /// Flushes the governed namespaces.
    fn flush(&self) -> impl Future<Output = Result<(), CacheError>> + Send;

    /// Where the node was in its former life, if that is known: all that had been applied by then
    /// is in force in this life.
    fn saved(&self) -> Option<Place>;

    /// Saves the place behind what was applied before this call.
    fn save(&self, place: &Place) -> impl Future<Output = Result<(), CacheError>> + Send;
}

#[derive(Debug, Clone)]
pub(crate) struct Store {
    cache: BlobCache,
    gate: Gate,
    /// Sorted.
    governed: Vec<String>,
    /// Of the position that is saved.
    name: String,
}

impl Store {
    pub(crate) fn new(cache: BlobCache, gate: Gate, name: &str) -> Self {
        let config = cache.config();
        let is_governed = |name: &&str| {
            let namespace = config.namespace(name);
            namespace.gate().is_some_and(|(other, _)| *other == gate)
        };
        let mut governed: Vec<_> =
            config.namespaces().filter(is_governed).map(str::to_owned).collect();
        governed.sort_unstable();
        Self { cache, gate, governed, name: format!("cluster/{name}") }
    }

    /// Stands for the names. Another release may compute another number, which costs a flush.
    fn governed(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.governed.hash(&mut hasher);
        hasher.finish()
    }
}

impl Local for Store {
    fn now(&self) -> Duration {
        self.gate.now()
    }

    fn open_until(&self, until: Duration) {
        self.gate.open_until(until);
    }

    fn close_gate(&self) {
        self.gate.close();
    }

    fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    async fn apply(&self, invalidation: &Invalidation) -> Result<usize, CacheError> {
        let (cache, is_soft) = (&self.cache, invalidation.is_soft);
        match &invalidation.scope {
            Scope::Key(name, key) if is_soft => cache.expire_key(name, key).await,
            Scope::Key(name, key) => cache.invalidate_key(name, key).await,
            Scope::Prefix(name, prefix) if is_soft => cache.expire_prefix(name, prefix).await,
            Scope::Prefix(name, prefix) => cache.invalidate_prefix(name, prefix).await,
            Scope::Tags(name, tags) if is_soft => cache.expire_tags(name, tags).await,
            Scope::Tags(name, tags) => cache.invalidate_tags(name, tags).await,
            Scope::Dependencies(name, labels) if is_soft => {
                cache.expire_dependencies(name, labels).await
            }
            Scope::Dependencies(name, labels) => cache.invalidate_dependencies(name, labels).await,
            Scope::Namespace(name) if is_soft => {
                cache.expire_namespace(name).await.map(usize::from)
            }
            Scope::Namespace(name) => cache.invalidate_namespace(name).await.map(usize::from),
            Scope::All => cache.invalidate_all().await.map(|()| 0),
        }
    }

    async fn flush(&self) -> Result<(), CacheError> {
        let mut flushed = Ok(());
        // Each of them, whatever became of those before: a failing disk leaves a flush in force.
        // Bounded: by the namespaces that are configured.
        for name in &self.governed {
            let outcome = self.cache.invalidate_namespace(name).await;
            flushed = flushed.and(outcome.map(drop));
        }
        flushed
    }

    fn saved(&self) -> Option<Place> {
        let saved = Saved::decode(&self.cache.saved_position(&self.name)?)?;
        (saved.governed == self.governed()).then_some(saved.place)
    }

    async fn save(&self, place: &Place) -> Result<(), CacheError> {
        let saved = Saved { place: place.clone(), governed: self.governed() };
        self.cache.save_position(&self.name, saved.encode()).await
    }
}
