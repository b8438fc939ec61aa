//! `Invalidations`: by key, prefix, label, namespace, or everything.
//! Each takes effect in one commit section, in the first poll, and on disk with one record. Until
//! its entries are removed, the pending invalidation hides them, whether its caller stays or not.

use std::sync::Arc;

use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer, yield_now};
use crate::clock::{Clock, Timestamp};
use crate::commit_lock::{CommitLock, Section};
use crate::counters::{Counters, Event};
use crate::engine::acknowledge::{Acknowledgement, Acknowledgements, Acknowledger};
use crate::engine::admission::Admission;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::background::prefix_scan::PrefixScans;
use crate::engine::disk_tier::DiskTier;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::invalidate::attempt::Attempts;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::invalidate::labels::LabelInvalidations;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::events::{About, EntryChange, Events};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHasher, LabelKind, NamespaceRef};
use crate::l1::L1;
use crate::l2::{Assigned, Change, Expiry, ExpiryScope, Position, Record, Slot};
use crate::meter;
use crate::namespace::{Generation, Namespaces};
use crate::pending::{PendingInvalidation, PendingInvalidations, Scope};
use crate::scope::NamespaceScope;

pub(crate) struct Invalidations {
    pub(super) clock: Clock,
    pub(super) hasher: KeyHasher,
    pub(super) counters: Counters,
    pub(super) events: Events,
    pub(super) commit_lock: Arc<CommitLock>,
    pub(super) namespaces: Arc<Namespaces>,
    pub(super) pending: Arc<PendingInvalidations>,
    pub(super) l1: Arc<L1>,
    pub(super) visibility: Visibility,
    pub(super) removal: Removal,
    pub(super) acknowledger: Arc<Acknowledger>,
    pub(super) disk: Arc<DiskTier>,
    pub(super) admission: Admission,
    pub(super) cleanup: Cleanup,
    pub(super) flushes: Arc<Flushes>,
    pub(super) attempts: Attempts,
    pub(super) labels: LabelInvalidations,
    pub(super) scans: Arc<PrefixScans>,
    pub(super) expired: ExpiredSlots,
    pub(super) deadlines: Arc<Deadlines>,
}

impl Invalidations {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            hasher: parts.hasher.clone(),
            counters: parts.counters.clone(),
            events: parts.events.clone(),
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
            labels: LabelInvalidations::new(parts),
            scans: Arc::new(PrefixScans::new(parts)),
            expired: ExpiredSlots::new(parts),
            deadlines: parts.deadlines.clone(),
        }
    }

    pub(crate) async fn invalidate_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(key)?;
        let (counted, acknowledgement) = self
            .attempts
            .attempt(of(namespace), || self.try_invalidate_key(namespace, key))
            .await?;
        self.counters.add(Event::Invalidation, counted as u64);
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(counted)
    }

    /// Invalidates a batch of keys in each poll, each key in a section of its own: a section locks
    /// the table of its key in memory, and none locks two.
    pub(crate) async fn invalidate_keys<K: AsRef<[u8]>>(
        &self,
        namespace: NamespaceRef<'_>,
        keys: &[K],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.check_keys(keys).await?;
        let (mut all, mut counted) = (Acknowledgements::default(), 0);
        let mut rest = keys;
        // Bounded: a batch in each turn, then a yield.
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(batch_of(rest));
            // Bounded: by a batch.
            for key in batch {
                let attempt = || self.try_invalidate_key(namespace, key.as_ref());
                let (is_counted, one) = self.attempts.attempt(of(namespace), attempt).await?;
                self.counters.add(Event::Invalidation, is_counted as u64);
                counted += is_counted;
                all.add(one);
            }
            self.cleanup.help();
            rest = behind;
            if !rest.is_empty() {
                yield_now().await;
            }
        }
        let earlier = self.acknowledger.earlier();
        self.acknowledger.acknowledge_all(earlier, all).await?;
        Ok(counted)
    }

    /// A batch of keys is looked at in the poll that invalidates them. More are looked at before.
    async fn check_keys<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<(), CacheError> {
        let mut steps = Pacer::at_once();
        for (index, key) in keys.iter().enumerate() {
            steps.entry().await;
            let at_index = |error| CacheError::AtIndex { index, source: Box::new(error) };
            self.admission.check_key(key.as_ref()).map_err(at_index)?;
        }
        if keys.len() > BATCH_ENTRIES {
            yield_now().await;
        }
        self.admission.check_open()
    }

    fn try_invalidate_key(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> Attempt<usize> {
        let key = self.hasher.hashed(namespace.seed, key);
        let place = self.l1.lock_place(key.hash);
        // The table is locked before the section. A generation that ends in between holds nothing.
        let generation = self.namespaces.find(namespace.name);
        let mut section = self.commit_lock.section();
        if section.is_closed() {
            return Err(Blocked::Closed);
        }
        let generation = generation.filter(|generation| !generation.has_ended());
        let slot = generation.as_ref().and_then(|generation| generation.index().get(key.hash));
        let in_memory = place.entry().cloned();
        let matching = in_memory.as_ref().and_then(|entry| self.pending.matching(entry));
        let on_disk = match generation.as_ref().zip(slot) {
            Some((generation, slot)) => {
                self.displace_record(generation, key, slot, in_memory.as_ref(), &mut section)?
            }
            None => Displaced::default(),
        };
        let moment = section.moment();
        section.watermarks().key_mutated(key.hash, moment);
        // Another key of the same hash is forgotten.
        let removed = place.remove();
        let is_counted = match &removed {
            Some(entry) if on_disk.is_in_memory => {
                self.removal.release_accounting(entry, None, &mut section);
                on_disk.is_counted
            }
            Some(entry) => {
                self.removal.release_accounting(entry, matching.as_deref(), &mut section);
                let is_live = matching.is_none() && self.is_live(entry);
                on_disk.is_counted || (is_live && entry.is_of(namespace.name, key.bytes))
            }
            None => on_disk.is_counted,
        };
        drop(section);
        if is_counted {
            let its = removed.as_ref().filter(|entry| entry.is_of(namespace.name, key.bytes));
            self.events.tell(EntryChange::Invalidated, || match its {
                Some(entry) => About::of(entry),
                None => About::on_disk(namespace.name, key.bytes, slot),
            });
        }
        let acknowledgement = match slot {
            Some(_) if failpoint(Failpoint::TombstoneOmitted) => Acknowledgement::Now,
            Some(_) => Acknowledgement::over(true, on_disk.end),
            None => Acknowledgement::Nothing,
        };
        Ok((usize::from(is_counted), acknowledgement))
    }

    /// Shadows the record of a key by a tombstone. Even that of a dead slot, which may be so in
    /// this process only: unreadable, expired, or matched by a record that is not on file yet.
    fn displace_record(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        slot: Slot,
        in_memory: Option<&Arc<Entry>>,
        section: &mut Section<'_>,
    ) -> Result<Displaced, Blocked> {
        let (namespace, hash) = (generation.named(), key.hash);
        let record = Record::Tombstone { namespace, hash: hash.0 };
        let change = Change::Tombstone { namespace, hash: hash.0 };
        let recorded = if failpoint(Failpoint::TombstoneOmitted) {
            None
        } else {
            self.disk.record(&record, &change)?
        };
        let same = in_memory.filter(|entry| entry.is_at(slot.position));
        let is_counted = self.removal.displace(generation, key, slot, same, section);
        if let Some(assigned) = recorded {
            self.acknowledger.shadowed_until(assigned.end);
            section.sequence(Some(assigned.position.value()));
            generation.set_slot(hash, Slot::tombstone(assigned.position), Some(slot));
        } else {
            generation.mark_slot_dead(hash, slot, section);
        }
        let is_in_memory = same.is_some() && !slot.dead;
        Ok(Displaced { is_counted, is_in_memory, end: recorded.map(|assigned| assigned.end) })
    }

    /// Whether the removed entry was live. Counts it if it had expired; a flush has counted the
    /// entries of its generation.
    fn is_live(&self, removed: &Entry) -> bool {
        if removed.generation.has_ended() {
            return false;
        }
        let freshness = self.visibility.freshness(removed);
        if freshness.is_expired() {
            self.removal.count_expired(freshness, || About::of(removed));
        }
        !freshness.is_expired()
    }

    pub(crate) async fn invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.cover_prefix(namespace, prefix, None).await
    }

    /// Removes what begins with the prefix, or makes it stale since then.
    pub(super) async fn cover_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
        since: Option<Timestamp>,
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(prefix)?;
        let (made, acknowledgement) = self
            .attempts
            .attempt(of(namespace), || self.try_cover_prefix(namespace, (prefix, since)))
            .await?;
        self.scans.start_scan();
        self.finish(made, acknowledgement).await
    }

    pub(super) async fn finish(
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
    fn try_cover_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        (prefix, since): (&[u8], Option<Timestamp>),
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
            let record = match since {
                None => Record::PrefixInvalidation { namespace: named, prefix },
                Some(since) => {
                    let scope = ExpiryScope::Prefix { namespace: named, prefix };
                    Record::Expiry(Expiry { since_ns: since.0, scope })
                }
            };
            let change = Change::new(&record, 0, &[]);
            let has_slots = !generation.index().is_empty();
            let recorded = self.record_pending(&record, &change)?;
            let moment = section.moment();
            section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
            let sequence = section.sequence(recorded.map(|assigned| assigned.position.value()));
            let scope = (Scope::Prefix(prefix.into()), since);
            let made = self.pending.make(sequence, scope, Some(generation), has_slots);
            let end = recorded.map(|assigned| assigned.end);
            // Bounded: one.
            end.into_iter().for_each(|end| self.acknowledger.shadowed_until(end));
            Ok((Some(made), Acknowledgement::over(has_slots, end)))
        })
    }

    pub(crate) async fn invalidate_labels(
        &self,
        scope: NamespaceScope<'_>,
        kind: LabelKind,
        labels: &[&str],
    ) -> Result<usize, CacheError> {
        self.labels.invalidate(scope, kind, labels, None).await
    }

    pub(crate) async fn invalidate_namespace(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        let (is_flushed, acknowledgement) =
            self.attempts.attempt(of(namespace), || self.flushes.try_flush(namespace)).await?;
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(is_flushed)
    }

    pub(crate) async fn invalidate_all(&self) -> Result<(), CacheError> {
        let everything = NamespaceScope::All;
        let ((), acknowledgement) =
            self.attempts.attempt(everything, || self.flushes.try_flush_all()).await?;
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await
    }

    /// Appends the record of an invalidation, unless too many are pending.
    pub(super) fn record_pending(
        &self,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Result<Option<Assigned>, Blocked> {
        if self.pending.is_full(1) {
            return Err(Blocked::TooMany);
        }
        Ok(self.disk.record(record, change)?)
    }
}

/// How many of these keys are hashed in one poll: at least one.
fn batch_of<K: AsRef<[u8]>>(keys: &[K]) -> usize {
    let (mut count, mut bytes) = (0, 0);
    // Bounded: by a batch.
    for key in keys.iter().take(BATCH_ENTRIES) {
        let more = key.as_ref().len();
        if count > 0 && bytes + more > BATCH_BYTES {
            break;
        }
        (count, bytes) = (count + 1, bytes + more);
    }
    meter::entries(count);
    meter::bytes(bytes);
    count
}

pub(super) fn of(namespace: NamespaceRef<'_>) -> NamespaceScope<'_> {
    NamespaceScope::One(namespace.name)
}

/// The record that an invalidated key had on disk.
#[derive(Default)]
struct Displaced {
    /// It was visible, and not known to be expired: the caller counts it.
    is_counted: bool,
    /// Memory has the same mutation, which is counted with the record.
    is_in_memory: bool,
    /// The end of its tombstone.
    end: Option<Position>,
}
