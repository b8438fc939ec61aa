//! The same verbs for entries that are made stale, and go only where they have no stale window.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::commit_lock::Section;
use crate::counters::Event;
use crate::engine::acknowledge::Acknowledgement;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::invalidate::verbs::{Invalidations, of};
use crate::entry::Entry;
use crate::error::CacheError;
use crate::events::{About, EntryChange};
use crate::key::{HashedKey, LabelKind, NamespaceRef};
use crate::l1::LockedPlace;
use crate::l2::{Change, Expiry, ExpiryScope, Position, Record, Slot};
use crate::namespace::Generation;
use crate::pending::{PendingInvalidation, Scope};
use crate::scope::NamespaceScope;
use crate::sequence::Sequence;

impl Invalidations {
    pub(crate) async fn expire_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(key)?;
        let since = self.clock.timestamp();
        let (counted, acknowledgement) = self
            .attempts
            .attempt(of(namespace), || self.try_expire_key(namespace, key, since))
            .await?;
        self.cleanup.help();
        self.acknowledger.acknowledge(acknowledgement).await?;
        Ok(counted)
    }

    fn try_expire_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        since: Timestamp,
    ) -> Attempt<usize> {
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
        let on_disk = match generation.as_ref().zip(slot) {
            Some((generation, slot)) => {
                self.expire_record(generation, key, slot, since, &mut section)?
            }
            None => OnDisk::default(),
        };
        let moment = section.moment();
        section.watermarks().key_mutated(key.hash, moment);
        // One that an invalidation hides counts for that.
        let entry = place.entry().filter(|entry| self.pending.matching(entry).is_none()).cloned();
        let in_memory = entry.as_ref().map(|entry| {
            let is_of = entry.is_of(namespace.name, key.bytes);
            self.expire_entry((entry, is_of), since, place, &mut section)
        });
        drop(section);
        let (counted, is_gone) = in_memory.unwrap_or((on_disk.is_counted, on_disk.end.is_none()));
        self.pending.count_stale(u64::from(counted && !is_gone));
        let acknowledgement = match slot.filter(|slot| !slot.is_tombstone()) {
            Some(_) if !on_disk.was_expired => Acknowledgement::over(true, on_disk.end),
            _ => Acknowledgement::Nothing,
        };
        Ok((usize::from(counted), acknowledgement))
    }

    /// Says on file that the record of a slot is stale, even if it is dead: it may be so in this
    /// process only.
    fn expire_record(
        &self,
        generation: &Arc<Generation>,
        key: HashedKey<'_>,
        slot: Slot,
        since: Timestamp,
        section: &mut Section<'_>,
    ) -> Result<OnDisk, Blocked> {
        let was_expired = slot.expired && !slot.dead;
        if slot.is_tombstone() || was_expired {
            return Ok(OnDisk { was_expired, ..OnDisk::default() });
        }
        let mutation = (key.hash, Sequence(slot.position.value()));
        // What an invalidation removes counts for that.
        let matching = self.visibility.matching_on_disk(generation, key, mutation.1, section);
        let scope = ExpiryScope::Key { namespace: generation.named(), hash: key.hash.0 };
        let record = Record::Expiry(Expiry { since_ns: since.0, scope });
        let recorded = self.disk.record(&record, &Change::new(&record, 0, &[]))?;
        let is_marked = match recorded {
            Some(assigned) => {
                self.acknowledger.shadowed_until(assigned.end);
                section.sequence(Some(assigned.position.value()));
                self.expired.expire(generation, mutation, since, section)
            }
            None => {
                generation.mark_slot_dead(key.hash, slot, section);
                !slot.dead
            }
        };
        let end = recorded.map(|assigned| assigned.end);
        Ok(OnDisk { is_counted: is_marked && matching.is_none(), was_expired, end })
    }

    /// Whether it was fresh, and is of the key: another one of its hash is stale, or forgotten. And
    /// whether it is gone.
    fn expire_entry(
        &self,
        (entry, is_of): (&Arc<Entry>, bool),
        since: Timestamp,
        place: LockedPlace<'_>,
        section: &mut Section<'_>,
    ) -> (bool, bool) {
        let freshness = self.visibility.freshness(entry);
        let was_live = !freshness.is_expired();
        let is_counted = entry.expire(since) && was_live && is_of;
        if entry.stale_serve().is_some() {
            self.deadlines.note_end(entry.ends());
            return (is_counted, false);
        }
        let removed = place.remove();
        entry.generation.mark_dead(entry.hash, entry.sequence(), section);
        // Bounded: one.
        removed.iter().for_each(|entry| _ = self.removal.release_accounting(entry, None, section));
        if !was_live {
            self.removal.count_expired(freshness, || About::of(entry));
        } else if is_of {
            self.counters.count(Event::Invalidation);
            self.events.tell(EntryChange::Invalidated, || About::of(entry));
        }
        (is_counted, true)
    }

    pub(crate) async fn expire_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.cover_prefix(namespace, prefix, Some(self.clock.timestamp())).await
    }

    pub(crate) async fn expire_labels(
        &self,
        scope: NamespaceScope<'_>,
        kind: LabelKind,
        labels: &[&str],
    ) -> Result<usize, CacheError> {
        self.labels.invalidate(scope, kind, labels, Some(self.clock.timestamp())).await
    }

    pub(crate) async fn expire_namespace(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.admission.check_namespace(namespace.name)?;
        let since = self.clock.timestamp();
        let (made, acknowledgement) = self
            .attempts
            .attempt(of(namespace), || self.try_expire_namespace(namespace, since))
            .await?;
        let is_in_use = made.is_some();
        self.finish(made, acknowledgement).await?;
        Ok(is_in_use)
    }

    /// None: the name is not in use.
    fn try_expire_namespace(
        &self,
        namespace: NamespaceRef<'_>,
        since: Timestamp,
    ) -> Attempt<Option<Arc<PendingInvalidation>>> {
        let first = self.disk.l2().and_then(|l2| l2.positions_of(l2.log.head_segment()));
        let first = first.map_or(Sequence(0), |segment| Sequence(segment.start.value()));
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.commit_lock.section();
            if section.is_closed() {
                return Err(Blocked::Closed);
            }
            let mut done = (None, Acknowledgement::Nothing);
            if let Some(generation) = generation {
                let scope = ExpiryScope::Namespace(generation.named());
                let record = Record::Expiry(Expiry { since_ns: since.0, scope });
                let has_slots = !generation.index().is_empty();
                let recorded = self.record_pending(&record, &Change::new(&record, 0, &[]))?;
                let sequence = section.sequence(recorded.map(|assigned| assigned.position.value()));
                if has_slots {
                    generation.expire_before(sequence, since, first, &mut section);
                }
                let scope = (Scope::All, Some(since));
                let made = self.pending.make(sequence, scope, Some(generation), false);
                let end = recorded.map(|assigned| assigned.end);
                // Bounded: one.
                end.into_iter().for_each(|end| self.acknowledger.shadowed_until(end));
                done = (Some(made), Acknowledgement::over(has_slots, end));
            }
            let moment = section.moment();
            section.watermarks().namespace_flushed(namespace.seed, moment);
            Ok(done)
        })
    }
}

/// What became of the record that a key had on disk.
#[derive(Default)]
struct OnDisk {
    /// It was not known to be stale.
    is_counted: bool,
    /// It was stale before its time already, and a record says so.
    was_expired: bool,
    /// The end of the record that says so.
    end: Option<Position>,
}
