//! `Replay`: builds the index from a log, read from its newest record back to its oldest.
//!
//! Log order is the order of effect: the last record of a hash wins, and an invalidation removes
//! the matching records before it. Read backwards, the first record seen of a hash decides, unless
//! an invalidation seen before matches it; then its slot is dead, because it still shadows older
//! records. No decision is ever revised, so a reader may stop anywhere and has only forgotten.
//!
//! It stops when it has used up the index budget. A namespace whose records exceed its quota keeps
//! the newest; the slots of the others are dead.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::directory_entry::{BlobSummary, Change};
use super::format::{BLOCK_BYTES, GenerationNumber, Position};
use super::index::{Index, Slot};
use crate::batch::Pacer;
use crate::clock::Timestamp;
use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::key::{KeyHash, LabelHash};
use crate::labels::LabelIndex;
use crate::quota::Quotas;
use crate::sequence::Sequence;

/// Bytes of a namespace beside its name, if it is beyond the configured number: its index.
const NAMESPACE_BYTES: usize = 1024;

/// Bytes of an invalidated prefix beside its own, and of an invalidated label.
const PREFIX_BYTES: usize = 48;
const LABEL_BYTES: usize = 16;

#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For slots, postings, and the working state of the replay.
    pub(crate) index_bytes_max: usize,
    /// This many names count nothing.
    pub(crate) namespaces_max: usize,
    pub(crate) quotas: Quotas,
}

pub(crate) struct Replay {
    pub(crate) namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
    pub(crate) records: u64,
    labels: BTreeSet<u64>,
    /// The whole store was invalidated after all records yet to be read.
    is_over: bool,
    limits: Limits,
    now: Timestamp,
    slots: usize,
    postings: usize,
    /// Bytes of the working state beside slots and postings.
    beside_bytes: usize,
    /// The oldest record taken.
    oldest: Option<Position>,
}

/// One namespace, as its newest records define it.
pub(crate) struct RecoveredNamespace {
    pub(crate) generation: GenerationNumber,
    pub(crate) index: Index,
    /// The postings of the records that no invalidation matches.
    pub(crate) labels: LabelIndex,
    /// Blocks of live records beyond their first ones.
    pub(crate) further_blocks: u64,
    pub(crate) live: usize,
    /// When all of its records have expired, unless a read renews one.
    pub(crate) alive_until: Timestamp,
    pub(crate) newest: Position,
    further_blocks_max: u64,
    prefixes: Prefixes,
    /// Flushed after all records yet to be read.
    is_over: bool,
}

pub(crate) struct Replayed<'a> {
    pub(crate) change: Change<'a>,
    pub(crate) position: Position,
    pub(crate) blocks: u16,
}

impl Replay {
    pub(crate) fn new(limits: Limits, now_ns: u64) -> Self {
        Self {
            namespaces: BTreeMap::new(),
            records: 0,
            labels: BTreeSet::new(),
            is_over: false,
            limits,
            now: Timestamp(now_ns),
            slots: 0,
            postings: 0,
            beside_bytes: 0,
            oldest: None,
        }
    }

    /// Takes the next older record. False at the budget: then it and anything older do not count.
    pub(crate) async fn take(&mut self, record: &Replayed<'_>, steps: &mut Pacer) -> bool {
        if self.is_over {
            return true;
        }
        let bytes = self.bytes() + self.cost_max(&record.change);
        if bytes > self.limits.index_bytes_max && !failpoint(Failpoint::ReplayUnbounded) {
            return false;
        }
        self.oldest = Some(record.position);
        steps.entry().await;
        if let Change::StoreInvalidation { .. } = record.change {
            self.is_over = true;
            return true;
        }
        let Some(named) = record.change.namespace() else { return true };
        if !self.namespaces.contains_key(named.name) {
            self.begin(named.name, named.generation, record.position);
        }
        let Some(namespace) = self.namespaces.get_mut(named.name) else { return true };
        if namespace.is_over || named.generation < namespace.generation {
            return true;
        }
        match &record.change {
            Change::Blob(blob) => self.take_blob(blob, record, steps).await,
            Change::Tombstone { hash, .. } => {
                let hash = KeyHash(*hash);
                if namespace.index.get(hash).is_none() {
                    namespace.index.insert(hash, Slot::tombstone(record.position));
                    self.slots += 1;
                }
            }
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
            Change::StoreInvalidation { .. } | Change::DeadlineRenewal { .. } => {}
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

    /// Frees the working state, in steps.
    pub(crate) async fn close(&mut self, steps: &mut Pacer) {
        while self.labels.pop_first().is_some() {
            steps.entry().await;
        }
        for namespace in self.namespaces.values_mut() {
            steps.entry().await;
            while namespace.prefixes.0.pop_first().is_some() {
                steps.entry().await;
            }
        }
    }

    fn bytes(&self) -> usize {
        self.slots * SLOT_BYTES + self.postings * POSTING_BYTES + self.beside_bytes
    }

    fn cost_max(&self, change: &Change<'_>) -> usize {
        let name = change.namespace().map_or(0, |named| NAMESPACE_BYTES + named.name.len());
        let is_counted = self.namespaces.len() >= self.limits.namespaces_max;
        let of_change = match change {
            Change::LabelInvalidation { labels, .. } => labels.len() * LABEL_BYTES,
            Change::PrefixInvalidation { prefix, .. } => PREFIX_BYTES + prefix.len(),
            _ => change.index_bytes(),
        };
        of_change + if is_counted { name } else { 0 }
    }

    /// A name without records so far. Names within the configured number are budgeted elsewhere.
    fn begin(&mut self, name: &str, generation: GenerationNumber, newest: Position) {
        if self.namespaces.len() >= self.limits.namespaces_max {
            self.beside_bytes += NAMESPACE_BYTES + name.len();
        }
        let bytes_max = self.limits.quotas.of(name).and_then(|quota| quota.limits.l2_bytes_max);
        let further_blocks_max = bytes_max.map_or(u64::MAX, |max| max / BLOCK_BYTES as u64);
        let namespace = RecoveredNamespace {
            generation,
            index: Index::new(),
            labels: LabelIndex::default(),
            further_blocks: 0,
            live: 0,
            alive_until: Timestamp(0),
            newest,
            further_blocks_max,
            prefixes: Prefixes::default(),
            is_over: false,
        };
        self.namespaces.insert(name.into(), namespace);
    }

    async fn take_blob(
        &mut self,
        blob: &BlobSummary<'_>,
        record: &Replayed<'_>,
        steps: &mut Pacer,
    ) {
        let Some(namespace) = self.namespaces.get_mut(blob.namespace.name) else { return };
        let hash = KeyHash(blob.hash);
        if namespace.index.get(hash).is_some() {
            return;
        }
        let mut is_covered = namespace.prefixes.cover(blob.key);
        for label in blob.labels.iter() {
            steps.entry().await;
            is_covered |= self.labels.contains(&label);
        }
        let life = blob.life();
        // Accesses since the write are not on file.
        let freshness = life.freshness(self.now, life.written);
        let further_blocks = u64::from(record.blocks).saturating_sub(1);
        let is_beyond = namespace.further_blocks + further_blocks > namespace.further_blocks_max;
        let is_dead = is_covered || freshness.is_expired() || is_beyond;
        let mut slot = Slot::new(record.position, record.blocks);
        slot.dead = is_dead;
        slot.versioned = blob.version.is_some();
        namespace.index.insert(hash, slot);
        self.slots += 1;
        if is_beyond {
            // Nothing older of it counts either.
            namespace.further_blocks_max = namespace.further_blocks;
        }
        if !is_dead {
            self.records += 1;
            namespace.further_blocks += further_blocks;
            namespace.live += 1;
            namespace.alive_until = namespace.alive_until.max(life.ends(life.written));
        }
        // An expired record may be fresh by the clock of a later open: its postings stay.
        if !is_covered {
            for label in blob.labels.iter() {
                steps.entry().await;
                let sequence = Sequence(record.position.value());
                namespace.labels.insert(LabelHash(label), hash, sequence);
                self.postings += 1;
            }
        }
    }
}

/// None covers another: only the last one at or before a key can match it.
#[derive(Debug, Default)]
struct Prefixes(BTreeSet<Box<[u8]>>);

impl Prefixes {
    fn cover(&self, key: &[u8]) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(up_to).next_back().is_some_and(|prefix| key.starts_with(prefix))
    }

    /// Returns the bytes that this adds, and those that it frees with prefixes that it covers.
    async fn insert(&mut self, prefix: &[u8], steps: &mut Pacer) -> (usize, usize) {
        if self.cover(prefix) {
            return (0, 0);
        }
        let mut removed = 0;
        loop {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let next = self.0.range::<[u8], _>(from).next();
            let Some(covered) = next.filter(|next| next.starts_with(prefix)).cloned() else {
                break;
            };
            removed += PREFIX_BYTES + covered.len();
            self.0.remove(&covered);
            steps.entry().await;
        }
        self.0.insert(prefix.into());
        (PREFIX_BYTES + prefix.len(), removed)
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn prefixes_cover_what_any_of_them_begins() {
        let texts = ["", "a", "ab", "abc", "abd", "b", "ba", "bab", "c", "\u{ff}"];
        // Every subset, in two orders, compared with the plain rule.
        for subset in 0..1 << texts.len() {
            let mut chosen: Vec<_> =
                (0..texts.len()).filter(|at| subset >> at & 1 == 1).map(|at| texts[at]).collect();
            for _ in 0..2 {
                let (mut prefixes, mut steps) = (Prefixes::default(), Pacer::default());
                let mut bytes = 0;
                for prefix in &chosen {
                    let change = prefixes.insert(prefix.as_bytes(), &mut steps);
                    let (added, removed) = block_on(change);
                    bytes = bytes + added - removed;
                }
                for key in texts.iter().chain(&["abcd", "bb", "ac", "aa", "d"]) {
                    let is_covered = chosen.iter().any(|prefix| key.starts_with(prefix));
                    assert_eq!(prefixes.cover(key.as_bytes()), is_covered, "{key} by {chosen:?}");
                }
                let held: usize = prefixes.0.iter().map(|it| PREFIX_BYTES + it.len()).sum();
                assert_eq!(bytes, held);
                chosen.reverse();
            }
        }
    }
}
