//! Reading: `get` and `exists`. Neither waits for anything in memory.

use std::num::NonZeroU64;

use crate::cache::shared::Shared;
use crate::clock::nanos;
use crate::counters::Event;
use crate::hit::{BlobCacheHit, CachePresence};
use crate::key::NamespaceRef;
use crate::policy::Freshness;

impl Shared {
    /// The whole of a hit: one hash, one read lock, no allocation, no copy, no shared line written
    /// but the entry's own count.
    #[inline]
    pub(super) fn get(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> Option<BlobCacheHit> {
        let hash = self.hasher.key(namespace.seed, key);
        let Some(entry) = self.visible(namespace, key, hash) else {
            self.counters.count(Event::Miss);
            return None;
        };
        if entry.is_endless() {
            entry.visit();
            self.counters.count(Event::Hit);
            return Some(BlobCacheHit { entry, stale: None });
        }
        let now = self.clock.timestamp();
        let stale = match entry.freshness(now) {
            Freshness::Fresh => None,
            Freshness::Stale(remaining) => {
                self.counters.count(Event::StaleServe);
                NonZeroU64::new(nanos(remaining))
            }
            gone => {
                self.expire(&entry, gone);
                self.counters.count(Event::Miss);
                return None;
            }
        };
        entry.visit();
        entry.accessed(now);
        self.counters.count(Event::Hit);
        Some(BlobCacheHit { entry, stale })
    }

    /// Looks without leaving a trace: nothing is counted, and no access.
    pub(super) fn exists(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> CachePresence {
        let hash = self.hasher.key(namespace.seed, key);
        match self.visible(namespace, key, hash) {
            Some(entry) if !self.freshness(&entry).is_gone() => CachePresence::Present,
            _ => CachePresence::Absent,
        }
    }
}
