//! The append section of a put: where it is judged, dealt its place, and takes effect.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::cache::durability::Acknowledgement;
use crate::cache::record::{Recording, named, with_change};
use crate::cache::shared::Shared;
use crate::cache::version::{Attempted, Known};
use crate::counters::Event;
use crate::entry::{Entry, Mark};
use crate::error::CacheError;
use crate::flaw::{Flaw, planted};
use crate::invalidation::Rule;
use crate::key::{KeyHash, LabelHash, NamespaceRef};
use crate::l1::{self, Reservation};
use crate::l2::{Change, Dealt, Draft, L2, Record, Refusal, Slot};
use crate::moment::ReadPoint;
use crate::namespace::Namespace;
use crate::order::Section;
use crate::sequence::Sequence;

/// A put that has passed the limits. Only the append section can still refuse it.
pub(super) struct Proposal<'a> {
    pub(super) namespace: NamespaceRef<'a>,
    pub(super) entry: Entry,
    pub(super) attempted: Attempted,
    pub(super) read_at: Option<ReadPoint>,
    pub(super) in_memory: InMemory<'a>,
    /// None: L2 does not hold it.
    pub(super) recording: Option<Recording>,
    /// What was read for it.
    pub(super) known: Option<Known>,
}

/// What L1 does with a proposal.
pub(super) enum InMemory<'a> {
    /// It was not to be held there.
    Unwanted,
    /// Everything there is of a higher priority: as good as evicted.
    NoRoom,
    Reserved(Reservation<'a>),
}

/// What the append section has made of a proposal.
pub(super) enum Verdict<'a> {
    /// In force, or quietly refused.
    Done(Acknowledgement),
    /// Its namespace has ended since it was looked up.
    NamespaceEnded(Proposal<'a>),
    /// The log has no room yet.
    NoRoom(Proposal<'a>),
    /// What it must be compared with is on disk.
    VersionUnknown(Proposal<'a>, Slot),
}

impl Shared {
    /// The append section of a put. Nothing in it waits, and what it replaces is freed behind it.
    pub(super) fn append<'a>(&self, proposal: Proposal<'a>) -> Result<Verdict<'a>, CacheError> {
        let hash = proposal.entry.hash;
        let draft = self.l2().and_then(|l2| draft(l2, &proposal));
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        if proposal.entry.namespace.has_ended() {
            return Ok(Verdict::NamespaceEnded(proposal));
        }
        let held = proposal.entry.namespace.index().get(hash);
        let covering = slot.entry().and_then(|entry| self.rules.covering(entry));
        let is_current = |entry: &&Arc<Entry>| {
            covering.is_none() && entry.is_of(proposal.namespace.name, &proposal.entry.key)
        };
        let current = slot.entry().filter(is_current);
        let wanted = (proposal.attempted, proposal.known);
        match self.existing_version(wanted, current, held) {
            Ok(existing) => self.judge_version(existing, proposal.attempted)?,
            Err(slot) => return Ok(Verdict::VersionUnknown(proposal, slot)),
        }
        let Proposal { namespace, ref entry, read_at, .. } = proposal;
        let key = (&*entry.key, hash);
        if self.is_stale(read_at, namespace, key, entry.labels(), &mut section) {
            return Ok(Verdict::Done(self.refuse_stale()));
        }
        let recorded = match self.take_record(draft, entry, held, &mut section) {
            Ok(recorded) => recorded,
            Err(Refusal::NoRoom) => return Ok(Verdict::NoRoom(proposal)),
            Err(Refusal::Off) => None,
        };
        let Proposal { entry, in_memory, .. } = proposal;
        let mut is_below = false;
        if let Some(held) = held {
            let same = slot.entry().filter(|entry| entry.is_at(held.position));
            is_below = same.is_some() && !held.gone;
            let key = (&*entry.key, hash);
            let is_replaced = self.displace(&entry.namespace, key, held, same, &mut section);
            self.counters.add(Event::Replacement, u64::from(is_replaced));
        }
        let moment = section.moment();
        section.watermarks().key_mutated(hash, moment);
        let position = recorded.map(|recorded| recorded.dealt.position.value());
        entry.set_sequence(section.sequence(position));
        if let (Some(recorded), Some(_)) = (recorded, held) {
            self.shadowed_until(recorded.dealt.end);
        }
        let generation = Arc::clone(&entry.namespace);
        if let (None, Some(held)) = (recorded, held) {
            generation.bury_held(hash, held, &mut section);
        }
        let is_new = set_slot(&entry, recorded, held);
        self.slots.fetch_add(usize::from(is_new), Ordering::Relaxed);
        let is_recorded = recorded.is_some_and(|it| it.is_blob);
        if is_recorded && self.misses_accesses(&entry) {
            self.want_accesses(&mut section);
        }
        let ends = matches!(in_memory, InMemory::Reserved(_)).then(|| entry.ends());
        let replaced = self.install(entry, in_memory, is_recorded, slot, &mut section);
        if let Some(replaced) = &replaced {
            self.settle_replaced(replaced, covering.as_deref(), is_below, &mut section);
        }
        drop(section);
        // Bounded: one.
        ends.into_iter().for_each(|ends| self.note_end(ends));
        self.look_after_synopsis(&generation);
        let end = recorded.map(|recorded| recorded.dealt.end);
        Ok(Verdict::Done(match held.filter(|held| held.is_tombstone() && end.is_none()) {
            Some(_) => Acknowledgement::Nothing,
            None => Acknowledgement::over(held.is_some(), end),
        }))
    }

    /// Takes the record of a put into the log, or that of a tombstone where its namespace's quota
    /// has no room for the blob. None without a disk tier, and where there is nothing on file to be
    /// shadowed. At the budget of the index it waits until the oldest have gone.
    fn take_record(
        &self,
        draft: Option<Draftee>,
        entry: &Entry,
        held: Option<Slot>,
        section: &mut Section<'_>,
    ) -> Result<Option<Recorded>, Refusal> {
        let Some((l2, mut draftee)) = self.l2().zip(draft) else { return Ok(None) };
        let bytes = draftee.draft.lengths().padded() as u64;
        let is_beyond = draftee.is_blob && self.is_beyond_quota(entry, bytes, held);
        let wanted = match draftee.is_blob && !is_beyond {
            true => Self::index_bytes_of(entry, held.is_none()),
            false => 0,
        };
        let is_index_full = wanted > 0 && self.is_index_full(wanted, section);
        if is_index_full && self.can_make_index_room(l2, wanted) {
            l2.log.want_index_room(wanted);
            return Err(Refusal::NoRoom);
        }
        if is_beyond || is_index_full {
            let tombstone = tombstone(&entry.namespace, entry.hash).ok_or(Refusal::Off)?;
            draftee = Draftee { draft: tombstone, is_blob: false };
        }
        let is_spared = !draftee.is_blob && held.is_none_or(Slot::is_tombstone);
        let recorded = match is_spared && section.is_gap_before(l2.log.tail().value()) {
            true => None,
            false => Some(record(l2, draftee, entry)?),
        };
        if wanted > 0 && self.is_index_crowded(0, section) {
            l2.log.want_index_room(0);
        }
        self.counters.add(Event::L2Full, u64::from(is_beyond || is_index_full));
        Ok(recorded)
    }

    /// Whether a record of so many bytes, in place of what its hash has, is more than the quota of
    /// its namespace allows.
    pub(super) fn is_beyond_quota(&self, entry: &Entry, bytes: u64, held: Option<Slot>) -> bool {
        let is_beyond = entry.namespace.is_beyond(bytes, held);
        if is_beyond {
            self.look_for_overdue(&entry.namespace);
        }
        is_beyond
    }

    /// What the disk holds of a key is about to be replaced or removed, with the entry that memory
    /// has of the same mutation: it lets go of its labels, and is counted by a rule in force that
    /// had made it gone. True where it was there until now, and not known to be expired. What has a
    /// slot is counted here, or where its slot is buried, and nowhere else.
    pub(super) fn displace(
        &self,
        generation: &Arc<Namespace>,
        (key, hash): (&[u8], KeyHash),
        held: Slot,
        in_memory: Option<&Arc<Entry>>,
        section: &mut Section<'_>,
    ) -> bool {
        let sequence = Sequence(held.position.value());
        let rule = match held.gone {
            true => None,
            false => self.covering_on_disk(generation, (key, hash), sequence, section),
        };
        section.labels().release(hash, sequence);
        if held.gone {
            return false;
        }
        let freshness = in_memory.map(|entry| self.freshness(entry));
        if let Some(freshness) = freshness.filter(|freshness| freshness.is_gone()) {
            self.count_expired(freshness);
            return false;
        }
        rule.as_deref().inspect(|rule| self.credit(rule)).is_none()
    }

    /// Settles what hangs on an entry that a put has taken the place of, and counts it, unless it
    /// is counted as what the disk had.
    fn settle_replaced(
        &self,
        replaced: &Entry,
        covering: Option<&Rule>,
        is_below: bool,
        section: &mut Section<'_>,
    ) {
        self.settle(replaced, covering.filter(|_| !is_below), section);
        if !is_below && covering.is_none() {
            self.count_removed(replaced, Event::Replacement);
        }
    }

    /// Makes the entry what its key has, in memory. Gives what was there.
    fn install(
        &self,
        mut entry: Entry,
        in_memory: InMemory<'_>,
        is_recorded: bool,
        slot: l1::Slot<'_>,
        section: &mut Section<'_>,
    ) -> Option<Arc<Entry>> {
        if is_recorded {
            entry.mark(Mark::OnFile);
        }
        if is_recorded || matches!(in_memory, InMemory::Reserved(_)) {
            entry.namespace.outlives(entry.ends());
            // Bounded: by the labels of one entry.
            for &label in entry.labels() {
                section.labels().insert(label, entry.hash, entry.sequence());
            }
        }
        if is_recorded || !matches!(in_memory, InMemory::Unwanted) {
            self.counters.count(Event::Insertion);
        }
        match in_memory {
            InMemory::Reserved(reservation) => {
                entry.namespace.grow(entry.charge, section);
                if !is_recorded {
                    self.labels_above.fetch_add(entry.labels().len(), Ordering::Relaxed);
                }
                let replaced = slot.put(Arc::new(entry));
                // Counted as held, from here on.
                drop(reservation);
                replaced
            }
            InMemory::NoRoom => {
                self.counters.count(Event::Eviction);
                self.counters.add(Event::Forgotten, u64::from(!is_recorded));
                slot.remove()
            }
            InMemory::Unwanted => slot.remove(),
        }
    }

    /// Whether the key has been mutated, or covered by an invalidation, after the point.
    pub(super) fn is_stale(
        &self,
        point: Option<ReadPoint>,
        namespace: NamespaceRef<'_>,
        (key, hash): (&[u8], KeyHash),
        labels: &[LabelHash],
        section: &mut Section<'_>,
    ) -> bool {
        point.is_some_and(|point| {
            let place = (namespace.seed, key);
            let is_good = section.has_given(point)
                && !section.watermarks().mutated_since(point.moment, place, hash, labels);
            !is_good && !planted(Flaw::StaleFillStored)
        })
    }

    pub(super) fn refuse_stale(&self) -> Acknowledgement {
        self.counters.count(Event::StaleSetRefused);
        Acknowledgement::Nothing
    }
}

/// A record to be taken into the log.
pub(super) struct Draftee {
    draft: Draft,
    /// Else it is a tombstone: the blob is too large for a segment.
    pub(super) is_blob: bool,
}

/// A record that has been taken.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    dealt: Dealt,
    pub(super) is_blob: bool,
}

pub(super) fn draft(l2: &L2, proposal: &Proposal<'_>) -> Option<Draftee> {
    let entry = &proposal.entry;
    let blob = proposal.recording.as_ref().and_then(|recording| recording.draft(entry));
    let fits = |draft: &Draft| with_change(entry, |change| l2.log.fits(draft.lengths(), change));
    match blob.filter(fits) {
        Some(draft) => Some(Draftee { draft, is_blob: true }),
        None => Some(Draftee { draft: tombstone(&entry.namespace, entry.hash)?, is_blob: false }),
    }
}

/// The record that says a hash holds nothing any more.
pub(super) fn tombstone(namespace: &Namespace, hash: KeyHash) -> Option<Draft> {
    let record = Record::Tombstone { namespace: named(namespace), hash: hash.0 };
    Draft::new(&record, Bytes::new()).ok()
}

fn record(l2: &L2, draftee: Draftee, entry: &Entry) -> Result<Recorded, Refusal> {
    let Draftee { draft, is_blob } = draftee;
    let dealt = if is_blob {
        with_change(entry, |change| l2.log.append(draft, change))?
    } else {
        let namespace = named(&entry.namespace);
        l2.log.append(draft, &Change::Tombstone { namespace, hash: entry.hash.0 })?
    };
    Ok(Recorded { dealt, is_blob })
}

/// Points the index at what has been recorded. True where that takes a new slot.
fn set_slot(entry: &Entry, recorded: Option<Recorded>, held: Option<Slot>) -> bool {
    let Some(Recorded { dealt, is_blob }) = recorded else { return false };
    let is_new = is_blob && held.is_none();
    if is_blob || held.is_some() {
        let mut slot = match is_blob {
            true => Slot::new(dealt.position, dealt.blocks),
            false => Slot::tombstone(dealt.position),
        };
        slot.versioned = is_blob && entry.version().is_some();
        entry.namespace.set_slot(entry.hash, slot);
        entry.namespace.note_end_on_disk(entry.ends());
    }
    is_new
}
