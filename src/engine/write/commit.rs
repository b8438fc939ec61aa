//! `Commit`: the commit section of a put, where it is judged and takes effect.

use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Clock;
use crate::commit_lock::{CommitLock, Section};
use crate::counters::{Counters, Event};
use crate::disk_admission::{DiskAdmission, Newcomer};
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::background::deadlines::Deadlines;
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::disk_tier::DiskTier;
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::write::record_encoder::{Recording, with_change};
use crate::engine::write::versions::{Known, PutVersion, Versions};
use crate::entry::{Entry, Mark};
use crate::error::CacheError;
use crate::events::{About, EntryChange, Events};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHash, LabelHash, NamespaceRef};
use crate::l1::{self, L1, Reservation};
use crate::l2::{Assigned, Change, EncodedRecord, L2, Record, Refusal, Slot};
use crate::moment::ReadPoint;
use crate::namespace::Generation;
use crate::pending::{PendingInvalidation, PendingInvalidations};

pub(crate) struct Commit {
    clock: Clock,
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    records_expired: Arc<Wakeup>,
    filters: Arc<FilterSignal>,
    budget: Arc<IndexBudget>,
    removal: Removal,
    acknowledger: Arc<Acknowledger>,
    disk: Arc<DiskTier>,
    disk_admission: Arc<DiskAdmission>,
    deadlines: Arc<Deadlines>,
    versions: Versions,
}

impl Commit {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            records_expired: parts.records_expired.clone(),
            budget: parts.budget.clone(),
            removal: Removal::new(parts),
            acknowledger: parts.acknowledger.clone(),
            disk: parts.disk.clone(),
            disk_admission: parts.disk_admission.clone(),
            deadlines: parts.deadlines.clone(),
            versions: Versions::new(parts),
            filters: parts.filters.clone(),
        }
    }

    /// Takes effect, or says why not. The replaced entry is freed after the section.
    pub(crate) fn append(&self, proposal: &mut Proposal<'_>) -> Result<Verdict, CacheError> {
        let hash = proposal.entry.hash;
        let encoded = self.disk.l2().and_then(|l2| encode(l2, proposal));
        let place = self.l1.lock_place(hash);
        let mut section = self.commit_lock.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        if proposal.entry.generation.has_ended() {
            return Ok(Verdict::NamespaceEnded);
        }
        let present = Present {
            slot: proposal.entry.generation.index().get(hash),
            matching: place.entry().and_then(|entry| self.pending.matching(entry)),
        };
        let is_current = |entry: &&Arc<Entry>| {
            let key = &proposal.entry.key;
            present.matching.is_none() && entry.is_of(proposal.namespace.name, key)
        };
        let current = place.entry().filter(is_current);
        let version = (proposal.version, proposal.known);
        match self.versions.existing_version(version, current, present.slot) {
            Ok(existing) => self.versions.judge_version(existing, proposal.version)?,
            Err(slot) => return Ok(Verdict::VersionUnknown(slot)),
        }
        let Proposal { namespace, ref entry, read_at, .. } = *proposal;
        let key = entry.hashed_key();
        if self.is_stale(read_at, namespace, key, entry.labels(), &mut section) {
            return Ok(Verdict::Stale(self.refuse_stale()));
        }
        let recorded = match self.take_record(encoded, entry, present.slot, &mut section) {
            Ok(recorded) => recorded,
            Err(Unrecorded::NoRoom(lack)) => return Ok(Verdict::NoRoom(lack)),
            Err(Unrecorded::Off) => None,
        };
        Ok(Verdict::Done(self.take_effect(proposal, recorded, &present, place, section)))
    }

    /// Makes the entry of a put what its key has, in both tiers. From here on nothing refuses it.
    fn take_effect(
        &self,
        Proposal { entry, in_memory, newcomer, .. }: &mut Proposal<'_>,
        recorded: Option<Appended>,
        present: &Present,
        place: l1::LockedPlace<'_>,
        mut section: Section<'_>,
    ) -> Acknowledgement {
        let slot = present.slot;
        let is_counted = self.displace_record(entry, slot, place.entry(), &mut section);
        let moment = section.moment();
        section.watermarks().key_mutated(entry.hash, moment);
        let position = recorded.map(|recorded| recorded.assigned.position.value());
        entry.set_sequence(section.sequence(position));
        match (recorded, slot) {
            (Some(recorded), Some(_)) => self.acknowledger.shadowed_until(recorded.assigned.end),
            (None, Some(slot)) => {
                entry.generation.mark_slot_dead(entry.hash, slot, &mut section);
            }
            (_, None) => {}
        }
        let is_new = set_slot(entry, recorded, slot, *newcomer);
        self.budget.add_slots(usize::from(is_new));
        let is_recorded = recorded.is_some_and(|it| it.is_blob);
        if is_recorded && self.budget.misses_accesses(entry) {
            self.budget.want_accesses(&mut section);
        }
        let is_filter_worn = FilterSignal::is_worn(&entry.generation);
        let ends = matches!(in_memory, InMemory::Reserved(_)).then(|| entry.ends());
        let replaced = self.install(entry, take(in_memory), is_recorded, place, &mut section);
        if let Some(replaced) = &replaced {
            let matching = present.matching.as_deref();
            self.release_replaced(replaced, matching, is_counted, &mut section);
        }
        drop(section);
        // Bounded: one.
        ends.into_iter().for_each(|ends| self.deadlines.note_end(ends));
        self.filters.notify_if(is_filter_worn);
        let end = recorded.map(|recorded| recorded.assigned.end);
        if end.is_none() && slot.is_some_and(Slot::is_tombstone) {
            // The tombstone on file shadows older records as well.
            return Acknowledgement::Nothing;
        }
        Acknowledgement::over(slot.is_some(), end)
    }

    /// Displaces the record. True if memory has the same mutation, then counted here.
    fn displace_record(
        &self,
        entry: &Entry,
        slot: Option<Slot>,
        in_memory: Option<&Arc<Entry>>,
        section: &mut Section<'_>,
    ) -> bool {
        let Some(slot) = slot else { return false };
        let same = in_memory.filter(|entry| entry.is_at(slot.position));
        let key = entry.hashed_key();
        let is_replaced = self.removal.displace(&entry.generation, key, slot, same, section);
        if is_replaced {
            self.counters.count(Event::Replacement);
            self.events.tell(EntryChange::Replaced, || match same {
                Some(same) => About::of(same),
                None => About::on_disk(entry.generation.name(), key.bytes, Some(slot)),
            });
        }
        same.is_some() && !slot.dead
    }

    /// Appends the record of a put, or a tombstone if the namespace's disk quota has no room. None
    /// without a disk tier, or if no record on file needs to be shadowed. At the index budget it
    /// waits until the oldest segments are reclaimed.
    fn take_record(
        &self,
        encoded: Option<NewRecord>,
        entry: &Entry,
        slot: Option<Slot>,
        section: &mut Section<'_>,
    ) -> Result<Option<Appended>, Unrecorded> {
        let Some((l2, mut new)) = self.disk.l2().zip(encoded) else { return Ok(None) };
        let bytes = new.encoded.lengths().padded();
        let is_beyond = new.is_blob && self.is_beyond_quota(&entry.generation, bytes as u64, slot);
        let wanted = if new.is_blob && !is_beyond {
            IndexBudget::index_bytes_of(entry, slot.is_none())
        } else {
            0
        };
        let is_index_full = wanted > 0 && self.budget.is_index_full(wanted, section);
        if is_index_full && self.budget.is_unfreed() {
            return Err(Unrecorded::NoRoom(Lack::Unfreed));
        }
        if is_index_full && self.budget.can_make_index_room(l2, wanted) {
            l2.log.want_index_room(wanted);
            return Err(Unrecorded::NoRoom(Lack::Log));
        }
        if is_beyond || is_index_full {
            let tombstone = tombstone(&entry.generation, entry.hash).ok_or(Unrecorded::Off)?;
            new = NewRecord { encoded: tombstone, is_blob: false };
        }
        let is_shadowed = slot.is_none_or(Slot::is_tombstone);
        let is_spared = !new.is_blob && (is_shadowed || failpoint(Failpoint::OverwriteRefused));
        let recorded = if is_spared && section.is_gap_before(l2.log.tail().value()) {
            None
        } else {
            let is_blob = new.is_blob;
            let recorded = record(l2, new, entry)?;
            if is_blob {
                self.disk_admission.took(entry.key.len() + entry.value.len(), bytes);
            }
            Some(recorded)
        };
        if wanted > 0 && self.budget.is_index_crowded(0, section) {
            l2.log.want_index_room(0);
        }
        self.counters.add(Event::L2Full, u64::from(is_beyond || is_index_full));
        Ok(recorded)
    }

    /// Whether a record of so many bytes exceeds the disk quota; then looks for expired ones.
    pub(crate) fn is_beyond_quota(
        &self,
        generation: &Generation,
        bytes: u64,
        slot: Option<Slot>,
    ) -> bool {
        let is_beyond = generation.is_beyond(bytes, slot);
        if is_beyond {
            self.look_for_expired(generation);
        }
        is_beyond
    }

    /// A record was refused for the quota of its namespace.
    pub(crate) fn look_for_expired(&self, generation: &Generation) {
        if generation.next_end_on_disk() <= self.clock.timestamp() {
            self.records_expired.notify();
        }
    }

    /// Releases the replaced entry's accounting, and counts it if its record is not counted.
    fn release_replaced(
        &self,
        replaced: &Entry,
        matching: Option<&PendingInvalidation>,
        is_below: bool,
        section: &mut Section<'_>,
    ) {
        self.removal.release_accounting(replaced, matching.filter(|_| !is_below), section);
        let is_counted = is_below && !failpoint(Failpoint::ReplacementToldTwice);
        if !is_counted && matching.is_none() {
            self.removal.count_replaced(replaced);
        }
    }

    /// Inserts the entry into memory. Gives the replaced one.
    fn install(
        &self,
        entry: &Arc<Entry>,
        in_memory: InMemory<'_>,
        is_recorded: bool,
        place: l1::LockedPlace<'_>,
        section: &mut Section<'_>,
    ) -> Option<Arc<Entry>> {
        if is_recorded {
            entry.mark(Mark::Recorded);
        }
        if is_recorded || matches!(in_memory, InMemory::Reserved(_)) {
            entry.generation.outlives(entry.ends());
            self.post(entry, section);
        }
        if is_recorded || !matches!(in_memory, InMemory::Unwanted) {
            self.counters.count(Event::Insertion);
        }
        match in_memory {
            InMemory::Reserved(reservation) => {
                entry.generation.grow(entry.charge, section);
                if !is_recorded {
                    self.budget.add_labels_of(entry, section);
                }
                let replaced = place.put(Arc::clone(entry));
                // Counted as held from here on.
                drop(reservation);
                replaced
            }
            InMemory::NoRoom => {
                self.counters.count(Event::Eviction);
                let change = EntryChange::Evicted { on_disk: is_recorded };
                self.events.tell(change, || About::of(entry));
                self.counters.add(Event::Forgotten, u64::from(!is_recorded));
                place.remove()
            }
            InMemory::Unwanted => place.remove(),
        }
    }

    fn post(&self, entry: &Entry, section: &mut Section<'_>) {
        if entry.labels().is_empty() {
            return;
        }
        let mut labels = entry.generation.labels(section);
        // Bounded: by the labels of one entry.
        for &label in entry.labels() {
            labels.insert(label, entry.hash, entry.sequence());
        }
        self.budget.add_postings(entry.labels().len());
    }

    /// Whether the key was mutated, or matched by an invalidation, after the point.
    pub(crate) fn is_stale(
        &self,
        point: Option<ReadPoint>,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
        labels: &[LabelHash],
        section: &mut Section<'_>,
    ) -> bool {
        point.is_some_and(|point| {
            let full_key = (namespace.seed, key.bytes);
            let is_good = section.has_given(point)
                && !section.watermarks().mutated_since(point.moment, full_key, key.hash, labels);
            !is_good && !failpoint(Failpoint::StaleFillStored)
        })
    }

    pub(crate) fn refuse_stale(&self) -> Acknowledgement {
        self.counters.count(Event::StaleSetRefused);
        Acknowledgement::Nothing
    }
}

/// What the key of a proposal has, besides its place in memory.
struct Present {
    slot: Option<Slot>,
    /// The pending invalidation that matches its entry in memory.
    matching: Option<Arc<PendingInvalidation>>,
}

/// A put within the limits. Only the commit section can still refuse it.
pub(crate) struct Proposal<'a> {
    pub(crate) namespace: NamespaceRef<'a>,
    /// Not shared with anyone before it takes effect.
    pub(crate) entry: Arc<Entry>,
    pub(crate) version: PutVersion,
    pub(crate) read_at: Option<ReadPoint>,
    pub(crate) in_memory: InMemory<'a>,
    /// None: no record is made.
    pub(crate) recording: Option<Recording>,
    pub(crate) known: Option<Known>,
    pub(crate) newcomer: Newcomer,
}

#[derive(Default)]
pub(crate) enum InMemory<'a> {
    /// Memory is not to hold it.
    #[default]
    Unwanted,
    /// All entries have higher priorities. It counts as evicted.
    NoRoom,
    Reserved(Reservation<'a>),
}

pub(crate) enum Verdict {
    /// In force.
    Done(Acknowledgement),
    /// Refused without an error: the key was changed after the put's read point.
    Stale(Acknowledgement),
    NamespaceEnded,
    NoRoom(Lack),
    /// The version to compare with is on disk.
    VersionUnknown(Slot),
}

impl Verdict {
    /// Whether the put is done with, one way or the other.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, Self::Done(_) | Self::Stale(_))
    }
}

pub(crate) struct NewRecord {
    encoded: EncodedRecord,
    /// False for a tombstone, because the blob does not fit a segment.
    pub(crate) is_blob: bool,
}

/// What a put has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Room in the log, or in an index for which the log makes room.
    Log,
    /// The index is full of what flushes have left.
    Unfreed,
}

/// Why there is no record.
enum Unrecorded {
    NoRoom(Lack),
    Off,
}

impl From<Refusal> for Unrecorded {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoRoom => Self::NoRoom(Lack::Log),
            Refusal::Off => Self::Off,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Appended {
    assigned: Assigned,
    pub(crate) is_blob: bool,
}

pub(crate) fn encode(l2: &L2, proposal: &Proposal<'_>) -> Option<NewRecord> {
    let entry = &proposal.entry;
    let blob = proposal.recording.as_ref().and_then(|recording| recording.encode(entry));
    let fits = |encoded: &EncodedRecord| {
        with_change(entry, |change| l2.log.fits(encoded.lengths(), change))
    };
    match blob.filter(fits) {
        Some(encoded) => Some(NewRecord { encoded, is_blob: true }),
        None => {
            Some(NewRecord { encoded: tombstone(&entry.generation, entry.hash)?, is_blob: false })
        }
    }
}

pub(crate) fn tombstone(generation: &Generation, hash: KeyHash) -> Option<EncodedRecord> {
    let record = Record::Tombstone { namespace: generation.named(), hash: hash.0 };
    EncodedRecord::new(&record, Bytes::new()).ok()
}

fn record(l2: &L2, new: NewRecord, entry: &Entry) -> Result<Appended, Refusal> {
    let NewRecord { encoded, is_blob } = new;
    let assigned = if is_blob {
        with_change(entry, |change| l2.log.append(encoded, change))?
    } else {
        let namespace = entry.generation.named();
        l2.log.append(encoded, &Change::Tombstone { namespace, hash: entry.hash.0 })?
    };
    Ok(Appended { assigned, is_blob })
}

/// Points the index at the record. True if that takes a new slot.
fn set_slot(
    entry: &Entry,
    recorded: Option<Appended>,
    slot: Option<Slot>,
    newcomer: Newcomer,
) -> bool {
    let Some(Appended { assigned, is_blob }) = recorded else { return false };
    let is_new = is_blob && slot.is_none();
    if is_blob || slot.is_some() {
        let mut new = if is_blob {
            Slot::new(assigned.position, assigned.blocks)
        } else {
            Slot::tombstone(assigned.position)
        };
        new.versioned = is_blob && entry.version().is_some();
        // A known key has been asked for again.
        new.reads = u8::from(is_blob && newcomer.is_known);
        entry.generation.set_slot(entry.hash, new, slot);
        entry.generation.note_end_on_disk(entry.ends());
    }
    is_new
}
