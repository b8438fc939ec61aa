//! `Gets`: `get` and `exists`. Memory answers at once; then the disk is read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::counters::{Counters, Event};
use crate::engine::parts::Parts;
use crate::engine::read::disk_lookup::{DiskLookup, OnDisk};
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::gate::Answerable;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::{HashedKey, KeyHash, KeyHasher, NamespaceRef};
use crate::namespace::Namespaces;

/// No configuration allows longer keys.
const KEY_BYTES_MOST: usize = 65_535;

/// Whether no entry can have this key. It is not hashed.
pub(super) fn is_too_long(key: &[u8]) -> bool {
    key.len() > KEY_BYTES_MOST
}

pub(crate) struct Gets {
    hasher: KeyHasher,
    counters: Counters,
    namespaces: Arc<Namespaces>,
    visibility: Visibility,
    removal: Removal,
    disk_lookup: DiskLookup,
}

impl Gets {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            counters: parts.counters.clone(),
            namespaces: Arc::clone(&parts.namespaces),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            disk_lookup: DiskLookup::new(parts),
        }
    }

    #[inline]
    pub(crate) fn get<'n, K>(&self, namespace: NamespaceRef<'n>, key: K) -> Get<'_, 'n, K> {
        Get { gets: self, namespace, key, from_disk: None }
    }

    /// Memory answers at once; if the disk has to be asked, the error is the future that asks it.
    /// Whether an answer of memory is counted is a constant, so that a hit does not ask for it.
    #[inline]
    pub(crate) fn answer<const COUNTS: bool>(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<Option<BlobCacheHit>, FromDisk<'_>> {
        // Longer than any key may be: not hashed.
        if is_too_long(key) {
            return Ok(if COUNTS { self.miss(namespace.name) } else { None });
        }
        let key = self.hasher.hashed(namespace.seed, key);
        let found = if COUNTS { self.look(namespace, key) } else { self.find(namespace, key) };
        if let Some(hit) = found {
            return Ok(Some(hit));
        }
        let on_disk = if COUNTS {
            self.find_on_disk_or_miss(namespace, key.hash)
        } else {
            self.find_on_disk(namespace, key.hash)
        };
        match on_disk {
            Some(on_disk) => Err(self.ask_disk(on_disk, key)),
            None => Ok(None),
        }
    }

    fn ask_disk(&self, on_disk: OnDisk, key: HashedKey<'_>) -> FromDisk<'_> {
        let (bytes, key) = (on_disk.bytes(), key.bytes.into());
        let future = async {
            let found = self.disk_lookup.read_entry(on_disk, key).await?;
            Some(self.disk_lookup.offer_found(found))
        };
        FromDisk { bytes, future: Box::pin(future) }
    }

    /// A fresh entry in memory, counted as a hit.
    #[inline]
    pub(crate) fn look_fresh(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Option<BlobCacheHit> {
        let hit = self.find_fresh(namespace, key)?;
        self.count(&hit);
        Some(hit)
    }

    /// A get of an entry that `take` has a use for; another one is a miss. Foreign code may be in
    /// `take`, which holds no lock.
    pub(crate) async fn get_if<R>(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        take: impl FnOnce(&BlobCacheHit) -> Option<R>,
    ) -> Option<(BlobCacheHit, R)> {
        if is_too_long(key) {
            return self.miss(namespace.name);
        }
        let key = self.hasher.hashed(namespace.seed, key);
        let hit = match self.find(namespace, key) {
            Some(hit) => hit,
            None => {
                let on_disk = self.find_on_disk_or_miss(namespace, key.hash)?;
                let reading = Box::pin(self.disk_lookup.read_entry(on_disk, key.bytes.into()));
                match reading.await {
                    Some(found) => self.disk_lookup.offer_found(found),
                    None => return self.miss(namespace.name),
                }
            }
        };
        self.counted_if(hit, take).or_else(|| self.miss(namespace.name))
    }

    /// The same for a fresh entry in memory. Nothing is counted if there is none.
    pub(crate) fn look_fresh_if<R>(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        take: impl FnOnce(&BlobCacheHit) -> Option<R>,
    ) -> Option<(BlobCacheHit, R)> {
        let hit = self.find_fresh(namespace, key)?;
        self.counted_if(hit, take)
    }

    #[inline]
    fn find_fresh(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> Option<BlobCacheHit> {
        if is_too_long(key) {
            return None;
        }
        let key = self.hasher.hashed(namespace.seed, key);
        self.find(namespace, key).filter(|hit| !hit.is_stale())
    }

    fn counted_if<R>(
        &self,
        hit: BlobCacheHit,
        take: impl FnOnce(&BlobCacheHit) -> Option<R>,
    ) -> Option<(BlobCacheHit, R)> {
        let taken = take(&hit)?;
        self.count(&hit);
        Some((hit, taken))
    }

    /// Where the disk may have the entry; otherwise a miss. Out of line, to keep hits short.
    #[inline(never)]
    fn find_on_disk_or_miss(&self, namespace: NamespaceRef<'_>, hash: KeyHash) -> Option<OnDisk> {
        self.find_on_disk(namespace, hash).or_else(|| self.miss(namespace.name))
    }

    fn find_on_disk(&self, namespace: NamespaceRef<'_>, hash: KeyHash) -> Option<OnDisk> {
        match self.disk_lookup.find_on_disk(namespace, hash) {
            Ok(Some(on_disk)) => Some(on_disk),
            nothing => {
                self.counters.add(Event::NegativeSkip, u64::from(nothing.is_err()));
                None
            }
        }
    }

    #[cold]
    fn miss<T>(&self, namespace: &str) -> Option<T> {
        self.count_miss(namespace);
        None
    }

    pub(crate) fn count_miss(&self, namespace: &str) {
        self.counters.count(Event::Miss);
        if self.namespaces.count_miss(namespace) {
            self.counters.count(Event::GateMiss);
        }
    }

    /// A hit in memory: one hash, one read lock, no allocation, no copy, no shared cache line
    /// written but the entry's own.
    #[inline]
    fn look(&self, namespace: NamespaceRef<'_>, key: HashedKey<'_>) -> Option<BlobCacheHit> {
        let (entry, answerable) = self.visibility.answerable(namespace, key)?;
        if entry.is_endless() && answerable == Answerable::AsItIs {
            entry.hits.note();
            entry.generation.tally().count_hit();
            return Some(BlobCacheHit { entry, stale: None });
        }
        let hit = self.judged(entry, answerable)?;
        hit.entry.generation.tally().count_hit();
        if hit.is_stale() {
            self.counters.count(Event::StaleServe);
        }
        Some(hit)
    }

    /// The same, without counting.
    pub(crate) fn find(
        &self,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
    ) -> Option<BlobCacheHit> {
        let (entry, answerable) = self.visibility.answerable(namespace, key)?;
        if entry.is_endless() && answerable == Answerable::AsItIs {
            entry.hits.note();
            return Some(BlobCacheHit { entry, stale: None });
        }
        self.judged(entry, answerable)
    }

    /// A hit, unless the entry has expired: then it is removed.
    #[inline]
    fn judged(&self, entry: Arc<Entry>, answerable: Answerable) -> Option<BlobCacheHit> {
        match self.visibility.judge(&entry) {
            Ok(stale) => Some(self.visibility.told(BlobCacheHit { entry, stale }, answerable)),
            Err(expired) => {
                self.removal.expire(&entry, expired);
                None
            }
        }
    }

    /// Counts what is answered to a caller.
    pub(crate) fn count_found(&self, namespace: NamespaceRef<'_>, found: Option<&BlobCacheHit>) {
        match found {
            Some(hit) => self.count(hit),
            None => self.count_miss(namespace.name),
        }
    }

    /// Counts a hit that is returned to a caller.
    pub(crate) fn count(&self, hit: &BlobCacheHit) {
        hit.entry.generation.tally().count_hit();
        if hit.is_stale() {
            self.counters.count(Event::StaleServe);
        }
        if hit.entry.is(Mark::FromDisk) {
            self.counters.count(Event::L2Hit);
        }
    }

    /// Does not count as an access, a hit or a miss.
    pub(crate) fn exists(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> CachePresence {
        if is_too_long(key) {
            return CachePresence::Absent;
        }
        let key = self.hasher.hashed(namespace.seed, key);
        match self.visibility.answerable(namespace, key) {
            Some((entry, _)) if !self.visibility.freshness(&entry).is_expired() => {
                CachePresence::Present
            }
            Some(_) => CachePresence::Absent,
            None if matches!(self.disk_lookup.find_on_disk(namespace, key.hash), Ok(Some(_))) => {
                CachePresence::MaybePresent
            }
            None => CachePresence::Absent,
        }
    }
}

/// A get that reads from disk, and does not count.
pub(crate) struct FromDisk<'a> {
    /// Of the blocks to read.
    pub(crate) bytes: usize,
    pub(crate) future: Pin<Box<dyn Future<Output = Option<BlobCacheHit>> + Send + 'a>>,
}

/// A get. Written by hand: an async function moves its arguments into its state and out of it
/// again, which was a third of a hit wherever the compiler did not inline it.
pub(crate) struct Get<'a, 'n, K> {
    gets: &'a Gets,
    namespace: NamespaceRef<'n>,
    key: K,
    /// Once memory has not answered.
    from_disk: Option<FromDisk<'a>>,
}

/// The key is never pinned.
impl<K> Unpin for Get<'_, '_, K> {}

impl<K: AsRef<[u8]>> Future for Get<'_, '_, K> {
    type Output = Option<BlobCacheHit>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { gets, namespace, key, from_disk } = self.get_mut();
        let from_disk = match from_disk {
            Some(from_disk) => from_disk,
            None => match gets.answer::<true>(*namespace, key.as_ref()) {
                Ok(found) => return Poll::Ready(found),
                Err(asked) => from_disk.insert(asked),
            },
        };
        let found = ready!(from_disk.future.as_mut().poll(context));
        gets.count_found(*namespace, found.as_ref());
        Poll::Ready(found)
    }
}
