//! `Replay`: what a log comes to, read from its newest record back to its oldest.
//!
//! Log order is the order of effect, so the last record of a hash wins and whatever stands before
//! an invalidation that covers it is gone. Read backwards, that means: the first record seen of a
//! hash decides, unless an invalidation seen before it covers it; then its slot stands as gone,
//! since it still shadows what lies before. Nothing that was decided is ever revised, so a reader
//! may stop anywhere and has only forgotten.

use std::collections::{HashMap, HashSet};

use super::entry::Change;
use super::format::{Generation, Position};
use super::index::{Index, Slot};
use crate::clock::Timestamp;
use crate::key::{KeyHash, LabelHash};

/// What has been read so far.
#[derive(Default)]
pub(crate) struct Replay {
    pub(crate) namespaces: HashMap<Box<str>, RecoveredNamespace>,
    /// (label, key, position) of the records that no invalidation covers.
    pub(crate) postings: Vec<(LabelHash, KeyHash, Position)>,
    /// Live records.
    pub(crate) records: u64,
    labels: HashSet<u64>,
    /// The whole store was invalidated behind everything that comes now.
    is_over: bool,
}

/// One namespace, as its last records have it.
pub(crate) struct RecoveredNamespace {
    pub(crate) generation: Generation,
    pub(crate) index: Index,
    /// Blocks that live records touch beyond their first ones.
    pub(crate) further_blocks: u64,
    /// Slots that hold something.
    pub(crate) live: usize,
    /// From then on none of it is alive, unless it is asked for.
    pub(crate) alive_until: Timestamp,
    prefixes: Vec<Box<[u8]>>,
    /// Flushed behind everything that comes now.
    is_over: bool,
}

/// A record as replay needs it.
pub(crate) struct Replayed<'a> {
    pub(crate) change: Change<'a>,
    pub(crate) position: Position,
    pub(crate) blocks: u16,
}

impl Replay {
    /// Takes the record before all those taken so far.
    pub(crate) fn take(&mut self, record: &Replayed<'_>, now_ns: u64) {
        if self.is_over {
            return;
        }
        if let Change::StoreInvalidation { .. } = record.change {
            self.is_over = true;
            return;
        }
        let Some(named) = record.change.namespace() else { return };
        let namespace = self
            .namespaces
            .entry(named.name.into())
            .or_insert_with(|| RecoveredNamespace::new(named.generation));
        if namespace.is_over || named.generation < namespace.generation {
            return;
        }
        match &record.change {
            Change::Blob(blob) => {
                let hash = KeyHash(blob.hash);
                if namespace.index.get(hash).is_some() {
                    return;
                }
                let is_covered = blob.labels.iter().any(|label| self.labels.contains(&label))
                    || namespace.prefixes.iter().any(|prefix| blob.key.starts_with(prefix));
                let life = blob.life();
                // Nobody knows of any access since it was written.
                let freshness = life.freshness(Timestamp(now_ns), life.written);
                let is_gone = is_covered || freshness.is_gone();
                let mut slot = Slot::new(record.position, record.blocks);
                slot.gone = is_gone;
                slot.versioned = blob.version.is_some();
                namespace.index.insert(hash, slot);
                self.records += u64::from(!is_gone);
                if !is_gone {
                    namespace.further_blocks += u64::from(record.blocks).saturating_sub(1);
                    namespace.live += 1;
                    let end = life.ends(life.written);
                    namespace.alive_until = namespace.alive_until.max(end);
                }
                // What has expired may not have for another open, with another clock: its labels
                // lead to it for as long as its record is there.
                if !is_covered {
                    let posting = |label| (LabelHash(label), hash, record.position);
                    self.postings.extend(blob.labels.iter().map(posting));
                }
            }
            Change::Tombstone { hash, .. } => {
                let hash = KeyHash(*hash);
                if namespace.index.get(hash).is_none() {
                    namespace.index.insert(hash, Slot::tombstone(record.position));
                }
            }
            // Label hashes are keyed by namespace and kind.
            Change::LabelInvalidation { labels, .. } => self.labels.extend(labels.iter()),
            Change::PrefixInvalidation { prefix, .. } => namespace.prefixes.push((*prefix).into()),
            Change::NamespaceFlush { .. } => namespace.is_over = true,
            Change::StoreInvalidation { .. } | Change::DeadlineRenewal { .. } => {}
        }
    }
}

impl RecoveredNamespace {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            index: Index::new(),
            further_blocks: 0,
            live: 0,
            alive_until: Timestamp(0),
            prefixes: Vec::new(),
            is_over: false,
        }
    }
}
