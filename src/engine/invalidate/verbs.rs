//! `Invalidations`: by key, prefix, label, namespace, or everything.
//!
//! Each takes effect in one commit section, in the first poll. Until its entries are removed, the
//! pending invalidation hides them, so a caller that goes away leaves nothing undone. With a disk
//! tier each is one record, whatever it matches.

use std::sync::Arc;

use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::admission::Admission;
use crate::engine::background::prefix_scan::PrefixScans;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::attempt::Attempts;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHasher, LabelHash, LabelKind, NamespaceRef};
use crate::l1::L1;
use crate::l2::{Assigned, Change, LabelHashes, Record, Slot};
use crate::namespace::Namespaces;
use crate::pending::{PendingInvalidation, PendingInvalidations, Scope};

pub(crate) struct Invalidations {
    hasher: KeyHasher,
    counters: Counters,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    visibility: Visibility,
    removal: Removal,
    acknowledger: Arc<Acknowledger>,
    disk: Arc<DiskTier>,
    admission: Admission,
    cleanup: Cleanup,
    flushes: Arc<Flushes>,
    attempts: Attempts,
    scans: Arc<PrefixScans>,
}

impl Invalidations {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            counters: parts.counters.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            acknowledger: parts.acknowledger.clone(),
            disk: parts.disk.clone(),
            admission: Admission::new(parts),
            cleanup: Cleanup::new(parts),
            flushes: Arc::new(Flushes::new(parts)),
            attempts: Attempts::new(parts),
            scans: Arc::new(PrefixScans::new(parts)),
        }
    }

    pub(crate) async fn invalidate_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(key)?;
        let (counted, acknowledgement) =
            self.attempts.attempt(namespace, || self.try_invalidate_key(namespace, key)).await?;
        self.counters.add(Event::Invalidation, counted as u64);
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(counted)
    }

    fn try_invalidate_key(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> Attempt<usize> {
        let hash = self.hasher.key(namespace.seed, key);
        let slot = self.l1.lock_place(hash);
        // The table is locked before the section. A generation that ends in between holds nothing.
        let generation = self.namespaces.find(namespace.name);
        let mut section = self.commit_lock.section();
        if section.is_closed() {
            return Err(Blocked::Closed);
        }
        let generation = generation.filter(|generation| !generation.has_ended());
        let held = generation.as_ref().and_then(|generation| generation.index().get(hash));
        let in_memory = slot.entry().cloned();
        let matching = in_memory.as_ref().and_then(|entry| self.pending.matching(entry));
        let (mut is_removed_below, mut is_below) = (false, false);
        let mut end = None;
        // A dead slot may be so in this process only: unreadable, expired, or matched by a record
        // that is not on file yet.
        if let (Some(generation), Some(held)) = (&generation, held) {
            let namespace = generation.named();
            let record = Record::Tombstone { namespace, hash: hash.0 };
            let change = Change::Tombstone { namespace, hash: hash.0 };
            let recorded = if failpoint(Failpoint::TombstoneOmitted) {
                None
            } else {
                self.disk.record(&record, &change)?
            };
            let key = HashedKey { bytes: key, hash };
            let same = in_memory.as_ref().filter(|entry| entry.is_at(held.position));
            is_below = same.is_some() && !held.dead;
            is_removed_below = self.removal.displace(generation, key, held, same, &mut section);
            if let Some(assigned) = recorded {
                end = Some(assigned.end);
                self.acknowledger.shadowed_until(assigned.end);
                section.sequence(Some(assigned.position.value()));
                generation.set_slot(hash, Slot::tombstone(assigned.position));
            } else {
                generation.mark_slot_dead(hash, held, &mut section);
            }
        }
        let moment = section.moment();
        section.watermarks().key_mutated(hash, moment);
        let is_current = |entry: &Entry| matching.is_none() && entry.is_of(namespace.name, key);
        let is_live = |entry: &Arc<Entry>| {
            is_current(entry) && !self.visibility.freshness(entry).is_expired()
        };
        let is_removed = in_memory.as_ref().is_some_and(is_live) && !is_below;
        // Another key of the same hash would be forgotten.
        let removed = slot.remove();
        if let Some(removed) = &removed {
            self.removal.release_accounting(
                removed,
                matching.as_deref().filter(|_| !is_below),
                &mut section,
            );
            // The caller counts a live entry.
            let is_gone =
                self.visibility.freshness(removed).is_expired() && !removed.generation.has_ended();
            if !is_below && matching.is_none() && is_gone {
                self.removal.count_expired(self.visibility.freshness(removed));
            }
        }
        drop(section);
        let counted = is_removed_below || (is_removed && removed.is_some());
        let acknowledgement = match held {
            Some(_) if failpoint(Failpoint::TombstoneOmitted) => Acknowledgement::Now,
            Some(_) => Acknowledgement::over(true, end),
            None => Acknowledgement::Nothing,
        };
        Ok((usize::from(counted), acknowledgement))
    }

    pub(crate) async fn invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(prefix)?;
        let (made, acknowledgement) = self
            .attempts
            .attempt(namespace, || self.try_invalidate_prefix(namespace, prefix))
            .await?;
        self.scans.start_scan();
        self.finish(made, acknowledgement).await
    }

    /// Removes the entries that the invalidation matches. Gives their number.
    async fn finish(
        &self,
        made: Option<Arc<PendingInvalidation>>,
        acknowledgement: Acknowledgement,
    ) -> Result<usize, CacheError> {
        let removed = match made {
            Some(invalidation) => self.cleanup.finish_invalidation(&invalidation).await,
            None => 0,
        };
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(removed)
    }

    /// None: the name is not in use.
    fn try_invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Attempt<Option<Arc<PendingInvalidation>>> {
        // While the table is locked, nothing can be put into a name that is not in use.
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.commit_lock.section();
            if section.is_closed() {
                return Err(Blocked::Closed);
            }
            let Some(generation) = generation else {
                let moment = section.moment();
                section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
                return Ok((None, Acknowledgement::Nothing));
            };
            let named = generation.named();
            let record = Record::PrefixInvalidation { namespace: named, prefix };
            let change = Change::PrefixInvalidation { namespace: named, prefix };
            let is_held = !generation.index().is_empty();
            let recorded = self.record_pending(&record, &change)?;
            let moment = section.moment();
            section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
            let sequence = section.sequence(recorded.map(|assigned| assigned.position.value()));
            let scope = Scope::Prefix(prefix.into());
            let made = self.pending.make(sequence, scope, Some(generation), is_held);
            let end = recorded.map(|assigned| assigned.end);
            // Bounded: one.
            end.into_iter().for_each(|end| self.acknowledger.shadowed_until(end));
            Ok((Some(made), Acknowledgement::over(is_held, end)))
        })
    }

    pub(crate) async fn invalidate_labels(
        &self,
        namespace: NamespaceRef<'_>,
        kind: LabelKind,
        labels: &[&str],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_labels(labels.iter().copied())?;
        let hash = |label: &&str| self.hasher.label(namespace.seed, kind, label);
        // Bounded: by the labels of one call.
        let mut hashes: Vec<LabelHash> = labels.iter().map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let (made, acknowledgement) = self
            .attempts
            .attempt(namespace, || self.try_invalidate_labels(namespace, &hashes))
            .await?;
        self.finish(made, acknowledgement).await
    }

    /// None: no entry has any of the labels.
    fn try_invalidate_labels(
        &self,
        namespace: NamespaceRef<'_>,
        hashes: &[LabelHash],
    ) -> Attempt<Option<Arc<PendingInvalidation>>> {
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.commit_lock.section();
            if section.is_closed() {
                return Err(Blocked::Closed);
            }
            // Bounded: by the labels of one call.
            let is_posted = hashes.iter().any(|&label| section.labels().has(label));
            let posted = generation.filter(|_| is_posted);
            let mut made = None;
            let mut acknowledgement = Acknowledgement::Nothing;
            if let Some(generation) = posted {
                // Bounded: by the labels of one call.
                let labels: Vec<u64> = hashes.iter().map(|label| label.0).collect();
                let labels = LabelHashes::new(&labels);
                let named = generation.named();
                let record = Record::LabelInvalidation { namespace: named, labels };
                let change = Change::LabelInvalidation { namespace: named, labels };
                let is_held = !generation.index().is_empty();
                let recorded = self.record_pending(&record, &change)?;
                let sequence = section.sequence(recorded.map(|assigned| assigned.position.value()));
                let scope = Scope::Labels(hashes.into());
                made = Some(self.pending.make(sequence, scope, Some(generation), false));
                let end = recorded.map(|assigned| assigned.end);
                // Bounded: one.
                end.into_iter().for_each(|end| self.acknowledger.shadowed_until(end));
                acknowledgement = Acknowledgement::over(is_held, end);
            }
            let moment = section.moment();
            // Bounded: by the labels of one call, which have a limit.
            for &label in hashes {
                section.watermarks().label_invalidated(label, moment);
            }
            Ok((made, acknowledgement))
        })
    }

    pub(crate) async fn invalidate_namespace(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        let (is_flushed, acknowledgement) =
            self.attempts.attempt(namespace, || self.flushes.try_flush(namespace)).await?;
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(is_flushed)
    }

    pub(crate) async fn invalidate_all(&self) -> Result<(), CacheError> {
        let nowhere = self.hasher.namespace("");
        let ((), acknowledgement) =
            self.attempts.attempt(nowhere, || self.flushes.try_flush_all()).await?;
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await
    }

    /// Appends the record of an invalidation, unless too many are pending.
    fn record_pending(
        &self,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Result<Option<Assigned>, Blocked> {
        if self.pending.is_full() {
            return Err(Blocked::TooMany);
        }
        Ok(self.disk.record(record, change)?)
    }
}
