//! `Replay`: builds the index from a log, read from its newest record back to its oldest.
//!
//! Log order is the order of effect: the last record of a hash wins, and an invalidation removes
//! the matching records before it. Read backwards, the first record seen of a hash decides, unless
//! an invalidation seen before matches it; then its slot is dead, because it still shadows older
//! records. No decision is ever revised, so a reader may stop anywhere and has only forgotten.
//!
//! It stops when it has used up the index budget. A namespace whose records exceed its quota keeps
//! the newest; the slots of the others are dead.
//!
//! Blobs and tombstones are taken in *runs*: between two invalidations, those that certainly fit.
//! Within a run the order matters for each hash only, and for the quotas, which are applied last.
//! So a run is inserted group by group of hashes (`Index::group`): that misses the processor's
//! caches half as often.

use std::collections::{BTreeMap, BTreeSet};
use std::{io, mem};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::directory_entry::Change;
use super::format::{BLOCK_BYTES, GenerationNumber, Position};
use super::index::Slot;
use super::replay_run::{Fate, ReplayRun};
use super::replayed_namespace::{PREFIX_BYTES, Prefixes, RecoveredNamespace, ReplayedNamespace};
use super::segment_records::{ListedKind, ListedRecord, SegmentRecords};
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::helpers::Helpers;
use crate::key::LabelHash;
use crate::quota::Quotas;
use crate::sequence::Sequence;

/// Bytes of a namespace beside its name, if it is beyond the configured number: its index.
const NAMESPACE_BYTES: usize = 1024;

/// Bytes of an invalidated label.
const LABEL_BYTES: usize = 16;

/// The index is prepared for so many times its slots more at once: a guess, which older records may
/// disprove.
const GROWTH: usize = 3;

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For slots, postings, and the working state of the replay.
    pub(crate) index_bytes_max: usize,
    /// This many names count nothing.
    pub(crate) namespaces_max: usize,
    pub(crate) quotas: Quotas,
}

pub(crate) struct Replay {
    names: BTreeMap<Box<str>, usize>,
    namespaces: Vec<ReplayedNamespace>,
    pub(crate) records: u64,
    labels: BTreeSet<u64>,
    /// The whole store was invalidated after all records yet to be read.
    is_over: bool,
    limits: Limits,
    slots: usize,
    postings: usize,
    /// Bytes of the working state beside slots and postings.
    beside_bytes: usize,
    /// The oldest record taken.
    oldest: Option<Position>,
    run: ReplayRun,
}

impl Replay {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            names: BTreeMap::new(),
            namespaces: Vec::new(),
            records: 0,
            labels: BTreeSet::new(),
            is_over: false,
            limits,
            slots: 0,
            postings: 0,
            beside_bytes: 0,
            oldest: None,
            run: ReplayRun::default(),
        }
    }

    /// Takes the records of the next older segment, from `head` on. False at the budget: then
    /// anything older does not count.
    ///
    /// `older`: how many older segments there are.
    pub(crate) async fn take(
        &mut self,
        segment: &SegmentRecords,
        (head, older): (Position, u64),
        steps: &mut Pacer,
    ) -> bool {
        let slots = self.slots;
        if !self.take_all(segment, head, steps).await {
            return false;
        }
        // Most logs go on as they began.
        let share = self.slots - slots;
        let expected = share.saturating_mul(usize::try_from(older).unwrap_or(usize::MAX));
        let room = self.bytes_max().saturating_sub(self.bytes()) / SLOT_BYTES;
        let more = expected.min(room).min(self.slots.saturating_mul(GROWTH));
        for namespace in &mut self.namespaces {
            steps.entry().await;
            let len = namespace.index.len();
            // A namespace gets its part.
            let part = more as u128 * len as u128 / self.slots.max(1) as u128;
            let expected = len + usize::try_from(part).unwrap_or(0);
            while namespace.index.split_for(expected) {
                steps.entries(BATCH_ENTRIES).await;
            }
        }
        true
    }

    async fn take_all(
        &mut self,
        segment: &SegmentRecords,
        head: Position,
        steps: &mut Pacer,
    ) -> bool {
        let mut left = segment.from(head);
        self.run.begin_segment(segment, steps).await;
        // Bounded: a run in each turn, taken in steps, or an invalidation.
        while let Some((record, behind)) = left.split_first() {
            if self.is_over {
                return true;
            }
            let is_other = record.kind == ListedKind::Other;
            let count = if is_other { 0 } else { self.run_length(segment, left, steps).await };
            if count > 0 {
                let (run, behind) = left.split_at(count);
                self.take_run(segment, run, steps).await;
                left = behind;
                continue;
            }
            let Some(entry) = segment.entry(record) else { return true };
            if self.bytes() + self.cost_max(&entry.change) > self.bytes_max() {
                return false;
            }
            let position = segment.position(record);
            if let Some(named) = entry.change.namespace() {
                self.begin(named.name, named.generation, position);
            }
            if is_other {
                self.oldest = Some(position);
                self.take_other(&entry.change, steps).await;
                left = behind;
            }
        }
        true
    }

    /// Takes bytes of the index budget for something else, if there are so many.
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.bytes() + bytes <= self.limits.index_bytes_max;
        self.beside_bytes += if has_room { bytes } else { 0 };
        has_room
    }

    /// The oldest record taken. If the budget is used up, the log begins here.
    pub(crate) fn oldest(&self) -> Option<Position> {
        self.oldest
    }

    /// Frees the working state, and gives what was found.
    pub(crate) async fn finish(
        mut self,
        helpers: &Helpers,
    ) -> io::Result<BTreeMap<Box<str>, RecoveredNamespace>> {
        let mut steps = Pacer::default();
        while self.labels.pop_first().is_some() {
            steps.entry().await;
        }
        let mut numbers = BTreeMap::new();
        while let Some((name, number)) = self.names.pop_first() {
            steps.entry().await;
            numbers.insert(number, name);
        }
        let mut linked = FuturesUnordered::new();
        let mut recovered = BTreeMap::new();
        for (number, mut namespace) in self.namespaces.into_iter().enumerate() {
            steps.entry().await;
            while namespace.prefixes.pop() {
                steps.entry().await;
            }
            let Some(name) = numbers.remove(&number) else { continue };
            linked.push(async move { (name, helpers.run(namespace.recovered()).await) });
            if linked.len() > helpers.count() {
                add(linked.next().await, &mut recovered)?;
            }
        }
        while !linked.is_empty() {
            add(linked.next().await, &mut recovered)?;
        }
        Ok(recovered)
    }

    fn bytes(&self) -> usize {
        self.slots * SLOT_BYTES + self.postings * POSTING_BYTES + self.beside_bytes
    }

    fn bytes_max(&self) -> usize {
        if failpoint(Failpoint::ReplayUnbounded) {
            return usize::MAX;
        }
        self.limits.index_bytes_max
    }

    fn cost_max(&self, change: &Change<'_>) -> usize {
        let of_change = match change {
            Change::LabelInvalidation { labels, .. } => labels.len() * LABEL_BYTES,
            Change::PrefixInvalidation { prefix, .. } => PREFIX_BYTES + prefix.len(),
            _ => change.index_bytes(),
        };
        of_change + change.namespace().map_or(0, |named| self.name_cost(named.name))
    }

    fn name_cost(&self, name: &str) -> usize {
        let is_counted = self.namespaces.len() >= self.limits.namespaces_max;
        if is_counted { NAMESPACE_BYTES + name.len() } else { 0 }
    }

    /// How many of these records are blobs and tombstones of known names that certainly fit.
    async fn run_length(
        &mut self,
        segment: &SegmentRecords,
        left: &[ListedRecord],
        steps: &mut Pacer,
    ) -> usize {
        let (mut bytes, bytes_max) = (self.bytes(), self.bytes_max());
        let mut count = 0;
        for record in left {
            steps.entry().await;
            if record.kind == ListedKind::Other {
                return count;
            }
            let known = self.run.rows.get_mut(record.row as usize);
            let Some((known, named)) = known.zip(segment.name(record.row)) else {
                return count;
            };
            if known.is_none() {
                *known = self.names.get(named.name).copied();
                if known.is_none() {
                    return count;
                }
            }
            bytes += SLOT_BYTES + record.label_count() * POSTING_BYTES;
            if bytes + self.name_cost(named.name) > bytes_max {
                return count;
            }
            count += 1;
        }
        count
    }

    async fn take_run(
        &mut self,
        segment: &SegmentRecords,
        run: &[ListedRecord],
        steps: &mut Pacer,
    ) {
        let mut state = mem::take(&mut self.run);
        state.begin(run, steps).await;
        for batch in state.grouped.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for &number in batch {
                let record = &run[number as usize];
                if let Some(of) = state.namespace_of(record) {
                    self.namespaces[of].index.prefetch(record.hash);
                }
            }
            for &number in batch {
                let record = &run[number as usize];
                let Some(of) = state.namespace_of(record) else { continue };
                state.fates[number as usize] = self.insert(segment, record, of, steps).await;
            }
        }
        for (records, fates) in run.chunks(BATCH_ENTRIES).zip(state.fates.chunks(BATCH_ENTRIES)) {
            steps.entries(records.len()).await;
            for (record, &fate) in records.iter().zip(fates) {
                let Some(of) = state.namespace_of(record) else { continue };
                if fate != Fate::Shadowed {
                    self.count(segment, record, (of, fate), steps).await;
                }
            }
        }
        self.run = state;
        self.oldest = run.last().map(|record| segment.position(record));
    }

    /// Gives a record the slot of its hash, unless a newer one has it.
    async fn insert(
        &mut self,
        segment: &SegmentRecords,
        record: &ListedRecord,
        of: usize,
        steps: &mut Pacer,
    ) -> Fate {
        let (namespace, named) = (&mut self.namespaces[of], segment.name(record.row));
        if !named.is_some_and(|named| namespace.is_current(named.generation)) {
            return Fate::Shadowed;
        }
        let is_covered = !(self.labels.is_empty() && namespace.prefixes.is_empty())
            && is_covered(segment, record, &self.labels, &namespace.prefixes, steps).await;
        let position = segment.position(record);
        let slot = match record.kind {
            ListedKind::Tombstone => Slot::tombstone(position),
            kind => Slot {
                dead: is_covered || kind != ListedKind::Blob,
                versioned: record.versioned,
                ..Slot::new(position, record.blocks)
            },
        };
        match namespace.index.insert_new(record.hash, slot) {
            false => Fate::Shadowed,
            true if is_covered => Fate::Covered,
            true => Fate::Found,
        }
    }

    /// Counts a record that got its slot, and adds its postings.
    async fn count(
        &mut self,
        segment: &SegmentRecords,
        record: &ListedRecord,
        (of, fate): (usize, Fate),
        steps: &mut Pacer,
    ) {
        self.slots += 1;
        if record.kind == ListedKind::Tombstone {
            return;
        }
        let (namespace, position) = (&mut self.namespaces[of], segment.position(record));
        let is_dead = fate == Fate::Covered || record.kind == ListedKind::ExpiredBlob;
        let is_live = namespace.count(record, position, is_dead);
        self.records += u64::from(is_live);
        // An expired record may be fresh by the clock of a later open: its postings stay.
        if fate == Fate::Covered {
            return;
        }
        for batch in segment.labels(record).chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            self.postings += batch.len();
            for &label in batch {
                let sequence = Sequence(position.value());
                namespace.postings.push(LabelHash(label), record.hash, sequence);
            }
        }
    }

    async fn take_other(&mut self, change: &Change<'_>, steps: &mut Pacer) {
        steps.entry().await;
        if let Change::StoreInvalidation { .. } = change {
            self.is_over = true;
            return;
        }
        let Some(named) = change.namespace() else { return };
        let Some(&of) = self.names.get(named.name) else { return };
        let namespace = &mut self.namespaces[of];
        if !namespace.is_current(named.generation) {
            return;
        }
        match change {
            // Label hashes are keyed by namespace and kind.
            Change::LabelInvalidation { labels, .. } => {
                for label in labels.iter() {
                    steps.entry().await;
                    self.beside_bytes += if self.labels.insert(label) { LABEL_BYTES } else { 0 };
                }
            }
            Change::PrefixInvalidation { prefix, .. } => {
                let (added, removed) = namespace.prefixes.insert(prefix, steps).await;
                self.beside_bytes = (self.beside_bytes + added).saturating_sub(removed);
            }
            Change::NamespaceFlush { .. } => namespace.is_over = true,
            Change::Blob(_) | Change::Tombstone { .. } => {}
            Change::StoreInvalidation { .. } | Change::DeadlineRenewal { .. } => {}
        }
    }

    /// Begins a name without records so far. Names within the configured number are budgeted
    /// elsewhere.
    fn begin(&mut self, name: &str, generation: GenerationNumber, newest: Position) {
        if self.names.contains_key(name) {
            return;
        }
        self.beside_bytes += self.name_cost(name);
        let bytes_max = self.limits.quotas.of(name).and_then(|quota| quota.limits.l2_bytes_max);
        let further_blocks_max = bytes_max.map_or(u64::MAX, |max| max / BLOCK_BYTES as u64);
        self.names.insert(name.into(), self.namespaces.len());
        self.namespaces.push(ReplayedNamespace::new(generation, newest, further_blocks_max));
    }
}

async fn is_covered(
    segment: &SegmentRecords,
    record: &ListedRecord,
    labels: &BTreeSet<u64>,
    prefixes: &Prefixes,
    steps: &mut Pacer,
) -> bool {
    let entry = segment.entry(record).map(|entry| entry.change);
    if matches!(entry, Some(Change::Blob(blob)) if prefixes.cover(blob.key)) {
        return true;
    }
    for batch in segment.labels(record).chunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        if batch.iter().any(|label| labels.contains(label)) {
            return true;
        }
    }
    false
}

fn add(
    linked: Option<(Box<str>, Option<RecoveredNamespace>)>,
    recovered: &mut BTreeMap<Box<str>, RecoveredNamespace>,
) -> io::Result<()> {
    let Some((name, namespace)) = linked else { return Ok(()) };
    let namespace = namespace.ok_or_else(|| io::Error::other("the postings cannot be linked"))?;
    recovered.insert(name, namespace);
    Ok(())
}
