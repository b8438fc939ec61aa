//! `Shared`: what all handles of one cache have in common, and what more than one verb needs.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{BlobCacheConfig, NAMESPACE_BYTES_MAX, cores};
use crate::counters::{Counters, Event};
use crate::entry::Entry;
use crate::error::CacheError;
use crate::invalidation::{Cover, Rules};
use crate::key::{KeyHash, KeyHasher, NamespaceRef};
use crate::l1::L1;
use crate::namespace::Namespaces;
use crate::order::{Order, Section};
use crate::policy::Freshness;
use crate::sequence::Sequence;
use crate::stats::{BlobCacheStats, NamespaceStats};
use crate::step::{STEP_ENTRIES, pause};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) config: BlobCacheConfig,
    pub(super) hasher: KeyHasher,
    pub(super) clock: Clock,
    pub(super) counters: Counters,
    pub(super) order: Order,
    pub(super) namespaces: Namespaces,
    pub(super) rules: Rules,
    pub(super) l1: L1,
}

impl Shared {
    pub(super) fn new(config: BlobCacheConfig) -> Self {
        let instance = RandomState::new().build_hasher().finish();
        // One place of eight bytes for each 4 KiB of budget: a fifth of a percent of it.
        let watermarks = (config.l1_bytes_max / 4096).clamp(256, 1 << 16).next_power_of_two();
        Self {
            hasher: KeyHasher::random(config.key_hash_bits),
            clock: config.clock.clone(),
            counters: Counters::new(cores()),
            order: Order::new(instance, watermarks),
            namespaces: Namespaces::new(config.max_namespaces),
            rules: Rules::default(),
            l1: L1::new(config.l1_bytes_max, config.shard_count),
            config,
        }
    }

    pub(super) fn check_open(&self) -> Result<(), CacheError> {
        if self.order.is_closed() { Err(CacheError::Closed) } else { Ok(()) }
    }

    pub(super) fn check_namespace(&self, name: &str) -> Result<(), CacheError> {
        within(name.len(), NAMESPACE_BYTES_MAX, |size, max| CacheError::NamespaceTooLarge {
            size,
            max,
        })
    }

    pub(super) fn check_key(&self, key: &[u8]) -> Result<(), CacheError> {
        within(key.len(), self.config.key_bytes_max, |size, max| CacheError::KeyTooLarge {
            size,
            max,
        })
    }

    pub(super) fn check_labels<'a>(
        &self,
        labels: impl Iterator<Item = &'a str>,
    ) -> Result<(), CacheError> {
        let (labels, bytes) = labels.fold((0, 0), |(n, bytes), label| (n + 1, bytes + label.len()));
        let (max_labels, max_bytes) = (self.config.labels_max, self.config.label_bytes_max);
        if labels > max_labels || bytes > max_bytes {
            return Err(CacheError::LabelsTooLarge { labels, bytes, max_labels, max_bytes });
        }
        Ok(())
    }

    /// The entry of a key that no invalidation stands behind, whatever its age.
    #[inline]
    pub(super) fn visible(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        hash: KeyHash,
    ) -> Option<Arc<Entry>> {
        let entry = self.l1.find(hash, |entry| entry.is_of(namespace.name, key))?;
        if self.rules.any_in_force() && self.rules.covering(&entry).is_some() {
            return None;
        }
        // Last: a rule that is no longer in force has removed all that it covered. Asked before, an
        // entry could be seen again after others had been told that it is gone.
        entry.is_held().then_some(entry)
    }

    /// What the clock makes of an entry; it is not asked where it has no say.
    pub(super) fn freshness(&self, entry: &Entry) -> Freshness {
        if entry.is_endless() {
            return Freshness::Fresh;
        }
        entry.freshness(self.clock.timestamp())
    }

    /// Settles what hangs on an entry that this caller has taken out of L1.
    pub(super) fn settle(&self, entry: &Entry, section: &mut Section<'_>) {
        entry.namespace.shrink(entry.charge);
        for &label in entry.labels() {
            section.labels().remove(label, entry.hash, entry.sequence);
        }
        if self.rules.any_in_force() && self.rules.credit(entry, || self.freshness(entry).is_gone())
        {
            self.counters.count(Event::Invalidation);
        }
    }

    /// The same, for an entry that was taken out outside of a section.
    pub(super) fn settle_later(&self, entry: &Entry) {
        self.settle(entry, &mut self.order.section());
    }

    /// Removes an entry that was found past its life.
    #[cold]
    pub(super) fn expire(&self, entry: &Entry, freshness: Freshness) {
        if self.l1.remove_entry(entry) {
            self.settle_later(entry);
            self.counters.count(Event::Expiration);
            if freshness == Freshness::Idle {
                self.counters.count(Event::IdleExpiration);
            }
        }
    }

    /// Evicts until no more than the budget and `spare` is in use.
    pub(super) async fn make_room(&self, spare: usize) {
        while self.l1.is_over(spare) {
            let mut steps = STEP_ENTRIES;
            while let Some(victim) = self.l1.evict(spare, &mut steps) {
                self.settle_later(&victim);
                if !victim.namespace.has_ended() {
                    self.counters.count(Event::Eviction);
                }
            }
            if self.l1.is_over(spare) {
                pause().await;
            }
        }
    }

    /// Ends the order and lets go of everything. False where it had been closed before.
    pub(super) fn close(&self) -> bool {
        let mut first = false;
        self.namespaces.flush_all(&self.order, |section| {
            first = section.close();
            self.rules.make(Sequence::default(), Cover::Ended);
        });
        first
    }

    pub(super) fn stats(&self) -> BlobCacheStats {
        let sum = |event| self.counters.sum(event);
        let memory_labels_bytes = self.order.section().labels().bytes();
        BlobCacheStats {
            hits: sum(Event::Hit),
            misses: sum(Event::Miss),
            insertions: sum(Event::Insertion),
            evictions: sum(Event::Eviction),
            expirations: sum(Event::Expiration),
            invalidations: sum(Event::Invalidation),
            namespace_flushes: sum(Event::NamespaceFlush),
            version_mismatches: sum(Event::VersionMismatch),
            stale_sets_refused: sum(Event::StaleSetRefused),
            entries: self.namespaces.entries(),
            bytes_in_use: self.l1.bytes(),
            l1_bytes_max: self.l1.bytes_max(),
            namespaces: self.namespaces.len(),
            max_namespaces: self.config.max_namespaces,
            l1_stale_serves_total: sum(Event::StaleServe),
            l1_idle_evicts_total: sum(Event::IdleExpiration),
            memory_l1_bytes: self.l1.bytes().saturating_sub(memory_labels_bytes),
            memory_labels_bytes,
            memory_buffers_bytes: self.l1.reserved(),
        }
    }

    pub(super) fn namespace_stats(&self, name: &str) -> Option<NamespaceStats> {
        let namespace = self.namespaces.find(name)?;
        Some(NamespaceStats { entries: namespace.entries(), bytes_in_use: namespace.bytes() })
    }
}

fn within(
    size: usize,
    max: usize,
    error: impl FnOnce(usize, usize) -> CacheError,
) -> Result<(), CacheError> {
    if size > max { Err(error(size, max)) } else { Ok(()) }
}
