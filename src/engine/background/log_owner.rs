//! `CacheLogOwner`: keeps the index and the labels right when the log moves or drops records.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::{CommitLock, Section};
use crate::config::BlobCacheConfig;
use crate::counters::{Counters, Event};
use crate::disk_admission::DiskAdmission;
use crate::engine::acknowledge::Acknowledger;
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::disk_tier::DiskTier;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::index_budget::IndexBudget;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::events::{About, EntryChange, Events};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, LabelHash};
use crate::l1::L1;
use crate::l2::{
    AppendedAgain, BlobSummary, Change, EncodedRecord, LogOwner, Position, READS_MAX, Record,
    Restart, SavedPositions, Slot, Usage,
};
use crate::meter;
use crate::namespace::{Generation, Namespaces};
use crate::pending::PendingInvalidations;
use crate::policy::Lifetime;
use crate::sequence::Sequence;

pub(crate) struct CacheLogOwner {
    config: Arc<BlobCacheConfig>,
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    visibility: Visibility,
    budget: Arc<IndexBudget>,
    removal: Removal,
    expired: ExpiredSlots,
    renewed: RenewedSlots,
    last_access: LastAccess,
    disk: Arc<DiskTier>,
    disk_admission: Arc<DiskAdmission>,
    filters: Arc<FilterSignal>,
    acknowledger: Arc<Acknowledger>,
    positions: Arc<Mutex<SavedPositions>>,
}

impl CacheLogOwner {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            budget: parts.budget.clone(),
            removal: Removal::new(parts),
            expired: ExpiredSlots::new(parts),
            renewed: RenewedSlots::new(parts),
            last_access: LastAccess::new(parts),
            disk: parts.disk.clone(),
            disk_admission: parts.disk_admission.clone(),
            filters: parts.filters.clone(),
            acknowledger: parts.acknowledger.clone(),
            positions: parts.positions.clone(),
        }
    }

    /// False if there was none, or a flush has taken it.
    fn give_up_slot(&self, generation: &Generation, hash: KeyHash, position: Position) -> bool {
        // A flush has subtracted all slots of an ended generation.
        let is_given_up = generation.remove_slot(hash, position) && !generation.has_ended();
        if is_given_up {
            self.budget.remove_slots(1);
            self.filters.check(generation);
        }
        is_given_up
    }

    fn is_expired(&self, generation: &Generation, hash: KeyHash, sequence: Sequence) -> bool {
        let since = self.expired.since(generation, hash, sequence);
        since.is_some() && !failpoint(Failpoint::ExpiryNotReinserted)
    }

    /// Whether the record has other deadlines by now than those it is to be appended with.
    fn is_renewed_since(&self, hash: KeyHash, slot: Slot, renewed: Option<Lifetime>) -> bool {
        self.renewed.of(hash, slot) != renewed && !failpoint(Failpoint::RenewalNotReinserted)
    }

    /// The same for a record whose directory entry is not known.
    fn forget_slot(&self, generation: &Generation, hash: KeyHash, position: Position) {
        let sequence = Sequence(position.value());
        let place = self.l1.lock_place(hash);
        let mut section = self.commit_lock.section();
        let held = place.entry().filter(|entry| entry.sequence() == sequence);
        let is_lost = generation.live_slot(hash, sequence).is_some() && held.is_none();
        if self.give_up_slot(generation, hash, position) && is_lost {
            self.counters.count(Event::Forgotten);
            let about = || About::on_disk(generation.name(), &[], None);
            self.events.tell(EntryChange::Dropped, about);
        }
        self.keep_labels_of(held, &mut section);
    }

    /// The record of an entry leaves the log. While memory holds the entry, memory keeps its
    /// postings, and they count there.
    fn keep_labels_of(&self, held: Option<&Arc<Entry>>, section: &mut Section<'_>) {
        let held = held.filter(|_| !failpoint(Failpoint::LabelsLeftBelow));
        // Bounded: one.
        held.into_iter().for_each(|entry| self.budget.add_labels_of(entry, section));
    }

    /// Releases the postings of mutations before `before` that were on disk only.
    async fn forget_postings_before(&self, generation: &Generation, before: Sequence) {
        let mut cursor = Some(Default::default());
        while let Some(from) = cursor {
            let mut found = Vec::new();
            cursor = {
                let mut section = self.commit_lock.section();
                let labels = generation.labels(&mut section);
                labels.visit(from, BATCH_ENTRIES, |it| it.sequence < before, &mut found)
            };
            for posting in found {
                meter::entries(1);
                let place = self.l1.lock_place(posting.key);
                let mut section = self.commit_lock.section();
                if place.entry().is_none_or(|entry| entry.sequence() != posting.sequence) {
                    let (key, sequence) = (posting.key, posting.sequence);
                    self.removal.release_labels(generation, key, sequence, &mut section);
                }
            }
            yield_now().await;
        }
    }

    /// The record of an entry has moved in the log.
    fn move_labels(
        &self,
        (generation, hash): (&Generation, KeyHash),
        (from, to): (Sequence, Sequence),
        labels: &[LabelHash],
        section: &mut Section<'_>,
    ) {
        self.removal.release_labels(generation, hash, from, section);
        // Bounded: by the labels of one entry.
        for &label in labels {
            generation.labels(section).insert(label, hash, to);
        }
        self.budget.add_postings(labels.len());
    }

    async fn forget_slots_before(&self, generation: &Generation, position: Position) {
        let mut cursor = Some(Default::default());
        while let Some(from) = cursor {
            let mut found = Vec::new();
            let before = Position::FIRST..position;
            cursor = generation.index().scan(from, before, BATCH_ENTRIES, &mut found);
            for (hash, slot) in found {
                meter::entries(1);
                self.forget_slot(generation, hash, slot.position);
            }
            yield_now().await;
        }
    }
}

impl LogOwner for CacheLogOwner {
    fn forget(
        &self,
        namespace: &str,
        (key, hash): (&[u8], KeyHash),
        position: Position,
        blob: Option<&BlobSummary<'_>>,
    ) {
        let sequence = Sequence(position.value());
        let listed = Slot::new(position, 1);
        let is_alive =
            blob.is_some_and(|blob| !self.visibility.freshness_listed(listed, blob).is_expired());
        // Before the locks, so that it is dropped after them.
        let mut forgotten = None;
        let place = self.l1.lock_place(hash);
        let generation = self.namespaces.find(namespace);
        let mut section = self.commit_lock.section();
        if let Some(generation) = generation {
            let slot = generation.index().get(hash).filter(|slot| slot.position == position);
            let held = place.entry().filter(|entry| entry.sequence() == sequence);
            let is_in_memory = held.is_some();
            if slot.is_some_and(|slot| !slot.dead) && is_alive {
                forgotten = self.disk_admission.lost(hash, || self.budget.usage());
            }
            if let Some(slot) = slot.filter(|_| !is_in_memory) {
                // A matching invalidation removed it, not the log.
                let is_left = self.removal.displace(
                    &generation,
                    HashedKey { bytes: key, hash },
                    slot,
                    None,
                    &mut section,
                );
                if is_left && !failpoint(Failpoint::DropUntold) {
                    self.counters.count(Event::Forgotten);
                    let about = || About::on_disk(namespace, key, Some(slot));
                    self.events.tell(EntryChange::Dropped, about);
                }
            }
            self.give_up_slot(&generation, hash, position);
            self.keep_labels_of(held, &mut section);
            if !is_in_memory {
                self.removal.release_labels(&generation, hash, sequence, &mut section);
            }
        }
        drop((section, place));
        drop(forgotten);
    }

    fn last_sequence(&self) -> u64 {
        self.commit_lock.section().last_sequence().0
    }

    fn restart(&self, start: Position, restart: &mut dyn FnMut() -> bool) -> Restart {
        let section = self.commit_lock.section();
        if !section.is_gap_before(start.value()) {
            return Restart::Overtaken;
        }
        if section.is_closed() || !restart() {
            return Restart::Ended;
        }
        // The store has nothing that such a flush should have removed.
        self.acknowledger.forget_unrecorded_flush();
        // Nor anything that a mutation before them should have removed.
        // Bounded: by the most there are.
        for position in self.positions.lock().iter() {
            let record = Record::SavedPosition(position);
            // A log that has just begun has room.
            _ = self.disk.record(&record, &Change::SavedPosition(position));
        }
        Restart::Done
    }

    fn is_index_crowded(&self, wanted: usize) -> bool {
        self.budget.is_index_crowded(wanted, &mut self.commit_lock.section())
    }

    fn reclaimed(&self, records: usize) {
        self.disk_admission.reclaimed(records, self.namespaces.totals().live);
    }

    fn resized(&self, file_bytes: u64) {
        self.disk_admission.resized(file_bytes);
    }

    fn take_refused_bytes(&self) -> u64 {
        self.disk_admission.take_refused_bytes()
    }

    fn has_index_room(&self, bytes: usize) -> bool {
        !self.budget.is_index_full(bytes, &mut self.commit_lock.section())
    }

    fn holds(&self, namespace: &str, hash: KeyHash, position: Position) -> bool {
        let sequence = Sequence(position.value());
        self.namespaces.find(namespace).is_some_and(|it| it.has_slot(hash, sequence))
    }

    fn usage(&self, position: Position, blob: &BlobSummary<'_>) -> Option<Usage> {
        if !self.config.l2_second_chances {
            return None;
        }
        let (hash, sequence) = (KeyHash(blob.hash), Sequence(position.value()));
        let generation = self.namespaces.find(blob.namespace.name);
        // Records beyond a quota that was made smaller leave.
        let generation = generation.filter(|generation| !generation.is_beyond(0, None))?;
        let slot = generation.live_slot(hash, sequence)?;
        // It says of itself that it is fresh, and so would the new one.
        if self.is_expired(&generation, hash, sequence) {
            return None;
        }
        // What memory holds is not read from disk, however often it is asked for.
        let (mut hits, mut is_held) = (slot.reads, false);
        self.l1.find(hash, |entry| {
            is_held = entry.sequence() == sequence && entry.is_held();
            hits += u8::from(is_held && entry.hits.is_in_use());
            false
        });
        let is_in_use = hits > 0 || is_held;
        (is_in_use && !self.visibility.freshness_listed(slot, blob).is_expired())
            .then(|| Usage::new(hits))
    }

    fn renewed(&self, position: Position, blob: &BlobSummary<'_>) -> Option<Lifetime> {
        let (hash, sequence) = (KeyHash(blob.hash), Sequence(position.value()));
        let generation = self.namespaces.find(blob.namespace.name)?;
        self.renewed.of(hash, generation.live_slot(hash, sequence)?)
    }

    fn append_again(
        &self,
        position: Position,
        blob: &BlobSummary<'_>,
        renewed: Option<Lifetime>,
        encoded: EncodedRecord,
    ) -> AppendedAgain {
        let Some(l2) = self.disk.l2() else { return AppendedAgain::Refused };
        let (hash, before) = (KeyHash(blob.hash), Sequence(position.value()));
        // Bounded: by the labels of one entry.
        let labels: Vec<LabelHash> = blob.labels.iter().map(LabelHash).collect();
        let place = self.l1.lock_place(hash);
        let Some(generation) = self.namespaces.find(blob.namespace.name) else {
            return AppendedAgain::Refused;
        };
        let mut section = self.commit_lock.section();
        let present = generation.live_slot(hash, before);
        let slot = match present {
            None if failpoint(Failpoint::ReinsertionUnchecked) => Slot::new(position, 1),
            None => return AppendedAgain::Refused,
            Some(slot) => slot,
        };
        let is_covered = self.pending.covers_record(&generation, before, blob.key, &labels)
            || self.is_expired(&generation, hash, before);
        let is_unchecked = failpoint(Failpoint::ReinsertionUnchecked);
        if section.is_closed() || (is_covered && !is_unchecked) {
            return AppendedAgain::Refused;
        }
        if self.is_renewed_since(hash, slot, renewed) && !is_unchecked {
            return AppendedAgain::Renewed;
        }
        let entry = place.entry().filter(|entry| entry.sequence() == before);
        let Ok(assigned) = l2.log.append_again(encoded, &Change::Blob(*blob)) else {
            return AppendedAgain::Refused;
        };
        let sequence = section.sequence(Some(assigned.position.value()));
        if let Some(life) = renewed.filter(|life| life.idle_ttl < u64::MAX) {
            self.last_access.note_touch(hash, blob.life().written, life.written);
        }
        // Each turn of the log takes one.
        let is_in_use = entry.as_ref().is_some_and(|entry| entry.hits.is_in_use());
        let hits = slot.reads + u8::from(is_in_use);
        let moved = Slot {
            versioned: slot.versioned,
            reads: hits.saturating_sub(1).min(READS_MAX),
            ..Slot::new(assigned.position, assigned.blocks)
        };
        generation.set_slot(hash, moved, present);
        // The earliest deadline that it can have.
        generation.note_end_on_disk(blob.life().ends(blob.life().written));
        self.move_labels((&generation, hash), (before, sequence), &labels, &mut section);
        // The entry in memory stays; its record has moved.
        if let Some(entry) = entry {
            entry.set_sequence(sequence);
            entry.hits.note_rewritten();
        }
        let about = || About::on_disk(generation.name(), blob.key, Some(moved));
        self.events.tell(EntryChange::Reinserted, about);
        AppendedAgain::Done
    }

    fn forget_before(&self, position: Position) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whoever has appended such a record has set its slot by now.
            drop(self.commit_lock.section());
            let mut cursor = Some(0);
            while let Some(from) = cursor {
                let mut generations = Vec::new();
                cursor = self.namespaces.some(from, &mut generations);
                for generation in generations {
                    meter::entries(1);
                    self.forget_slots_before(&generation, position).await;
                    let before = Sequence(position.value());
                    self.forget_postings_before(&generation, before).await;
                }
            }
        })
    }
}
