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
//! So a run goes into the index group by group of hashes (`Index::group`): that misses the
//! processor's caches less often.
//!
//! As long as all records certainly fit, and in namespaces without a quota, slots and postings are
//! only *collected*. Which records are shadowed by newer ones is found at the end, or when it
//! begins to matter, by all cores: the index is *settled*. Until then they count as if none was.

mod expiry;
mod log;
mod plain;
mod renewal;
mod used;

use std::collections::{BTreeMap, BTreeSet};
use std::{io, mem};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

pub(crate) use self::log::Limits;
use self::log::ReplayedLog;
use super::directory_entry::Change;
use super::expiry::{Expiry, ExpiryScope};
use super::format::Position;
use super::index::Slot;
use super::listed_record::{ListedKind, ListedRecord};
use super::replay_run::{Fate, ReplayRun};
use super::replayed_expiries::{EXPIRY_BYTES, PREFIX_BYTES};
use super::replayed_namespace::{ExpiredRecord, Prefixes, RecoveredNamespace, ReplayedNamespace};
use super::segment_records::SegmentRecords;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::clock::Timestamp;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES, tree_entry};
use crate::helpers::Helpers;
use crate::key::LabelHash;
use crate::sequence::Sequence;

/// Bytes of an invalidated label.
const LABEL_BYTES: usize = tree_entry(size_of::<u64>());

pub(crate) struct Replay {
    log: ReplayedLog,
    /// The whole store was invalidated after all records yet to be read.
    is_over: bool,
    /// The oldest record taken.
    oldest: Option<Position>,
    run: ReplayRun,
}

/// What was found in a log.
pub(crate) struct Replayed {
    pub(crate) namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
    /// Live records.
    pub(crate) records: u64,
}

impl Replay {
    pub(crate) fn new(limits: Limits, now: Timestamp) -> Self {
        let (log, run) = (ReplayedLog::new(limits, now), ReplayRun::default());
        Self { log, is_over: false, oldest: None, run }
    }

    /// Takes the records of the next older segment, from `head` on. False at the budget: then
    /// anything older does not count.
    ///
    /// `older`: how many older segments there are.
    ///
    /// # Errors
    /// If a helper fails.
    pub(crate) async fn take(
        &mut self,
        segment: &SegmentRecords,
        (head, older): (Position, u64),
        helpers: &Helpers,
    ) -> io::Result<bool> {
        let mut steps = Pacer::default();
        let slots = self.log.used.slots;
        if !self.take_all(segment, head, (helpers, &mut steps)).await? {
            return Ok(false);
        }
        self.log.end_segment(slots, (segment.outline_bytes(), older), helpers).await?;
        Ok(true)
    }

    async fn take_all(
        &mut self,
        segment: &SegmentRecords,
        head: Position,
        (helpers, steps): (&Helpers, &mut Pacer),
    ) -> io::Result<bool> {
        let mut left = segment.from(head);
        self.run.begin_segment(segment, steps).await;
        // Bounded: a run in each turn, taken in steps, or an invalidation.
        while let Some((record, behind)) = left.split_first() {
            if self.is_over {
                return Ok(true);
            }
            let is_other = record.kind == ListedKind::Other;
            let count = if is_other { 0 } else { self.run_length(segment, left, steps).await };
            if count > 0 {
                let (run, behind) = left.split_at(count);
                self.take_run(segment, run, steps).await;
                left = behind;
                continue;
            }
            let Some(entry) = segment.entry(record) else { return Ok(true) };
            if self.log.used.bytes() + self.cost_max(&entry.change) > self.log.used.bytes_max() {
                if self.log.settle_at_budget(helpers).await? {
                    continue;
                }
                return Ok(false);
            }
            let position = segment.position(record);
            if let Some(named) = entry.change.namespace() {
                self.log.begin(named.name, named.generation, position);
            }
            if is_other {
                self.oldest = Some(position);
                self.take_other(&entry.change, (position, head), steps).await;
                left = behind;
            }
        }
        Ok(true)
    }

    /// Takes bytes of the index budget for something else, if there are so many.
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        self.log.reserve(bytes)
    }

    /// The oldest record taken. If the budget is used up, the log begins here.
    pub(crate) fn oldest(&self) -> Option<Position> {
        self.oldest
    }

    /// Frees the working state, and gives what was found.
    ///
    /// # Errors
    /// If a helper fails.
    pub(crate) async fn finish(mut self, helpers: &Helpers) -> io::Result<Replayed> {
        if self.log.collected > 0 {
            self.log.settle(helpers).await?;
        }
        let records = self.log.records;
        let mut steps = Pacer::default();
        while self.log.labels.pop_first().is_some()
            || self.log.expired_labels.pop_first().is_some()
            || self.log.renewals.pop()
        {
            steps.entry().await;
        }
        let mut numbers = BTreeMap::new();
        while let Some((name, number)) = self.log.names.pop_first() {
            steps.entry().await;
            numbers.insert(number, name);
        }
        let mut linked = FuturesUnordered::new();
        let mut namespaces = BTreeMap::new();
        for (number, mut namespace) in self.log.namespaces.into_iter().enumerate() {
            steps.entry().await;
            while namespace.prefixes.pop() || namespace.expiries.pop() {
                steps.entry().await;
            }
            let Some(name) = numbers.remove(&number) else { continue };
            linked.push(async move { (name, recovered(namespace, helpers).await) });
            if linked.len() > helpers.count() {
                add(linked.next().await, &mut namespaces)?;
            }
        }
        while !linked.is_empty() {
            add(linked.next().await, &mut namespaces)?;
        }
        Ok(Replayed { namespaces, records })
    }

    fn cost_max(&self, change: &Change<'_>) -> usize {
        let of_change = match change {
            Change::LabelInvalidation { labels } => labels.len() * LABEL_BYTES,
            Change::PrefixInvalidation { prefix, .. } => PREFIX_BYTES + prefix.len(),
            Change::Expiry(Expiry { scope, .. }) => match scope {
                ExpiryScope::Key { .. } => EXPIRY_BYTES,
                ExpiryScope::Labels(labels) => labels.len() * EXPIRY_BYTES,
                ExpiryScope::Prefix { prefix, .. } => PREFIX_BYTES + prefix.len(),
                ExpiryScope::Namespace(_) => 0,
            },
            Change::Renewal(renewal) => {
                self.log.renewals.cost_max(renewal.shortened, self.log.renewed_max())
            }
            _ => change.index_bytes(),
        };
        of_change + change.namespace().map_or(0, |named| self.log.name_cost(named.name))
    }

    /// How many of these records are blobs and tombstones of known names that certainly fit.
    async fn run_length(
        &mut self,
        segment: &SegmentRecords,
        left: &[ListedRecord],
        steps: &mut Pacer,
    ) -> usize {
        let (mut bytes, bytes_max) = (self.log.used.bytes(), self.log.used.bytes_max());
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
                *known = self.log.names.get(named.name).copied();
                if known.is_none() {
                    return count;
                }
            }
            bytes += SLOT_BYTES + record.label_count() * POSTING_BYTES;
            if bytes + self.log.name_cost(named.name) > bytes_max {
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
        let renewed = renewal::renewed(&mut self.log, segment, run, &state, steps).await;
        let run = renewed.as_deref().unwrap_or(run);
        state.begin(run, steps).await;
        for batch in state.grouped.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for &number in batch {
                let record = &run[number as usize];
                let Some(of) = state.namespace_of(record) else { continue };
                let namespace = &mut self.log.namespaces[of];
                if namespace.collects {
                    namespace.index.prefetch_end(record.hash);
                } else {
                    namespace.index.prefetch(record.hash);
                }
            }
            for &number in batch {
                let record = &run[number as usize];
                let Some(of) = state.namespace_of(record) else { continue };
                let is_current = segment
                    .name(record.row)
                    .is_some_and(|named| self.log.namespaces[of].is_current(named.generation));
                if is_current {
                    let is_covered = self.is_covered(segment, record, of, steps).await;
                    let since = self.log.expired_since(segment, record, of, steps).await;
                    let position = segment.position(record);
                    let fate = self.insert(record, position, (of, is_covered, since));
                    state.fates[number as usize] = fate;
                }
            }
        }
        for (records, fates) in run.chunks(BATCH_ENTRIES).zip(state.fates.chunks(BATCH_ENTRIES)) {
            steps.entries(records.len()).await;
            for (record, &fate) in records.iter().zip(fates) {
                let Some(of) = state.namespace_of(record) else { continue };
                if fate == Fate::Shadowed {
                    continue;
                }
                let has_postings = self.count(record, segment.position(record), (of, fate));
                if has_postings && record.label_count() > 0 {
                    self.add_postings(segment, record, of, steps).await;
                }
            }
        }
        self.run = state;
        self.oldest = run.last().map(|record| segment.position(record));
    }

    /// Gives a record the slot of its hash, unless a newer one has it.
    fn insert(
        &mut self,
        record: &ListedRecord,
        position: Position,
        (of, is_covered, since): (usize, bool, Option<u64>),
    ) -> Fate {
        let expired_max = self.log.expired_max();
        let namespace = &mut self.log.namespaces[of];
        let is_dead = is_covered || record.kind != ListedKind::Blob;
        let slot = match record.kind {
            ListedKind::Tombstone => Slot::tombstone(position),
            _ => Slot {
                dead: is_dead,
                expired: since.is_some(),
                shortened: record.shortened,
                versioned: record.versioned,
                ..Slot::new(position, record.blocks)
            },
        };
        if !is_dead {
            namespace.extend_life(record.ends);
        }
        if let Some(since) = since.filter(|_| !is_dead) {
            // Without room for the time it is gone.
            if self.log.expired < expired_max {
                self.log.expired += 1;
                let (hash, since) = (record.hash, Timestamp(since));
                namespace.expired.push(ExpiredRecord { hash, position, since });
            }
        }
        if namespace.collects {
            namespace.collect(record.hash, slot);
            return if is_covered { Fate::CoveredCollected } else { Fate::Collected };
        }
        match namespace.index.insert_new(record.hash, slot) {
            false => Fate::Shadowed,
            true if is_covered => Fate::Covered,
            true => Fate::Found,
        }
    }

    /// Counts a record that got its slot. Whether its labels have postings.
    fn count(
        &mut self,
        record: &ListedRecord,
        position: Position,
        (of, fate): (usize, Fate),
    ) -> bool {
        self.log.used.slots += 1;
        self.log.collected += usize::from(fate.is_collected());
        if record.kind == ListedKind::Tombstone {
            return false;
        }
        if !fate.is_collected() {
            let is_dead = fate.is_covered() || record.kind == ListedKind::ExpiredBlob;
            let is_live = self.log.namespaces[of].count(record, position, is_dead);
            self.log.records += u64::from(is_live);
        }
        // An expired record may be fresh by the clock of a later open: its postings stay.
        !fate.is_covered()
    }

    async fn add_postings(
        &mut self,
        segment: &SegmentRecords,
        record: &ListedRecord,
        of: usize,
        steps: &mut Pacer,
    ) {
        let sequence = Sequence(segment.position(record).value());
        for batch in segment.labels(record).chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            self.log.used.postings += batch.len();
            for &label in batch {
                self.log.namespaces[of].postings.push(LabelHash(label), record.hash, sequence);
            }
        }
    }

    async fn is_covered(
        &self,
        segment: &SegmentRecords,
        record: &ListedRecord,
        of: usize,
        steps: &mut Pacer,
    ) -> bool {
        let prefixes = &self.log.namespaces[of].prefixes;
        !(self.log.labels.is_empty() && prefixes.is_empty())
            && is_covered(segment, record, &self.log.labels, prefixes, steps).await
    }

    async fn take_other(
        &mut self,
        change: &Change<'_>,
        (position, head): (Position, Position),
        steps: &mut Pacer,
    ) {
        steps.entry().await;
        match change {
            Change::StoreInvalidation { .. } => {
                self.is_over = true;
                return;
            }
            // Label hashes are keyed by namespace and kind. If its namespace was flushed since, a
            // label matches nothing that counts.
            Change::LabelInvalidation { labels } => {
                for label in labels.iter() {
                    steps.entry().await;
                    self.log.used.beside_bytes +=
                        if self.log.labels.insert(label) { LABEL_BYTES } else { 0 };
                }
                return;
            }
            Change::Expiry(expiry) => return self.log.take_expiry(expiry, position, steps).await,
            Change::Renewal(renewal) => {
                return renewal::note(&mut self.log, renewal, (position, head));
            }
            _ => {}
        }
        let Some(named) = change.namespace() else { return };
        let Some(&of) = self.log.names.get(named.name) else { return };
        let namespace = &mut self.log.namespaces[of];
        if !namespace.is_current(named.generation) {
            return;
        }
        match change {
            Change::PrefixInvalidation { prefix, .. } => {
                let (added, removed) = namespace.prefixes.insert(prefix, steps).await;
                self.log.used.beside_bytes =
                    (self.log.used.beside_bytes + added).saturating_sub(removed);
            }
            Change::NamespaceFlush { .. } => namespace.is_over = true,
            Change::Blob(_) | Change::Tombstone { .. } | Change::LabelInvalidation { .. } => {}
            Change::StoreInvalidation { .. } | Change::Renewal(_) => {}
            Change::Expiry(_) | Change::SavedPosition(_) => {}
        }
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

/// Links the postings of a namespace. None if a helper fails.
async fn recovered(namespace: ReplayedNamespace, helpers: &Helpers) -> Option<RecoveredNamespace> {
    // To have another thread do little takes longer than to do it.
    if namespace.postings() <= BATCH_ENTRIES {
        return Some(namespace.recovered().await);
    }
    helpers.run(namespace.recovered()).await
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
