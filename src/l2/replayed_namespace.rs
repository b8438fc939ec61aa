//! `ReplayedNamespace`: a namespace while the log is replayed, and `RecoveredNamespace`: what was
//! found of it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::{io, mem};

use super::format::{GenerationNumber, Position};
use super::index::{Index, Slot};
use super::listed_record::ListedRecord;
use super::replayed_expiries::{PREFIX_BYTES, ReplayedExpiries};
pub(crate) use super::replayed_renewals::RenewedRecord;
use super::settling::{settle, settle_sample};
use crate::batch::{BATCH_ENTRIES, Pacer, sort_in_batches};
use crate::clock::Timestamp;
use crate::expiries::Expiries;
use crate::helpers::Helpers;
use crate::key::KeyHash;
use crate::labels::{LabelIndex, UnlinkedPostings};
use crate::sequence::Sequence;

/// One namespace, as its newest records define it.
pub(crate) struct RecoveredNamespace {
    pub(crate) generation: GenerationNumber,
    pub(crate) index: Index,
    /// The postings of the records that no invalidation matches.
    pub(crate) labels: LabelIndex,
    /// Blocks of live records beyond their first ones.
    pub(crate) further_blocks: u64,
    pub(crate) live: usize,
    /// When all of its records have expired, unless a read renews one, and also those that were
    /// overwritten.
    pub(crate) alive_until: Timestamp,
    pub(crate) newest: Position,
    /// Since when its older records are stale.
    pub(crate) expiries: Expiries,
    /// Records that are stale before their time. They may be shadowed.
    pub(crate) expired: Vec<ExpiredRecord>,
    /// Records that were touched, likewise.
    pub(crate) renewed: Vec<RenewedRecord>,
}

/// A record that is stale since then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExpiredRecord {
    pub(crate) hash: KeyHash,
    pub(crate) position: Position,
    pub(crate) since: Timestamp,
}

pub(super) struct ReplayedNamespace {
    generation: GenerationNumber,
    pub(super) index: Index,
    pub(super) postings: UnlinkedPostings,
    further_blocks: u64,
    live: usize,
    alive_until: Timestamp,
    newest: Position,
    further_blocks_max: u64,
    /// Whether its slots are only collected.
    pub(super) collects: bool,
    /// Records found to be shadowed whose postings are left.
    shadowed: Vec<Position>,
    /// Those of them whose slots still count.
    dropped: usize,
    pub(super) prefixes: Prefixes,
    /// Those of keys and prefixes.
    pub(super) expiries: ReplayedExpiries,
    /// Those of the whole namespace.
    pub(super) expiries_of_all: Expiries,
    pub(super) expired: Vec<ExpiredRecord>,
    pub(super) renewed: Vec<RenewedRecord>,
    /// Flushed after all records yet to be read.
    pub(super) is_over: bool,
}

impl ReplayedNamespace {
    pub(super) fn new(
        generation: GenerationNumber,
        newest: Position,
        further_blocks_max: u64,
    ) -> Self {
        Self {
            generation,
            index: Index::new(),
            postings: UnlinkedPostings::default(),
            further_blocks: 0,
            live: 0,
            alive_until: Timestamp(0),
            newest,
            further_blocks_max,
            collects: false,
            shadowed: Vec::new(),
            dropped: 0,
            prefixes: Prefixes::default(),
            expiries: ReplayedExpiries::default(),
            expiries_of_all: Expiries::default(),
            expired: Vec::new(),
            renewed: Vec::new(),
            is_over: false,
        }
    }

    /// Whether older records of that generation count.
    pub(super) fn is_current(&self, generation: GenerationNumber) -> bool {
        !self.is_over && generation >= self.generation
    }

    /// Whether all of its records count, however many blocks they have.
    pub(super) fn has_no_quota(&self) -> bool {
        self.further_blocks_max == u64::MAX
    }

    /// A record that is not known to be dead expires then. It may be shadowed.
    pub(super) fn extend_life(&mut self, ends: Timestamp) {
        self.alive_until = self.alive_until.max(ends);
    }

    /// Adds a slot, whatever its hash has.
    pub(super) fn collect(&mut self, hash: KeyHash, slot: Slot) {
        let before = self.shadowed.len();
        self.index.collect(hash, slot, &mut self.shadowed);
        self.dropped += self.shadowed.len() - before;
    }

    /// The slots that count: also those dropped since they were counted.
    pub(super) fn slots(&self) -> usize {
        self.index.len() + self.dropped
    }

    /// Those that were dropped count no more. Returns their number.
    pub(super) fn forget_dropped(&mut self) -> usize {
        mem::take(&mut self.dropped)
    }

    /// Leaves the newest slot of each hash that was collected, and its postings. Returns how many
    /// records are live more than before.
    pub(super) async fn settle(&mut self, helpers: &Helpers) -> io::Result<(usize, usize)> {
        let (index, settled) = settle(mem::take(&mut self.index), helpers).await?;
        let live = mem::replace(&mut self.live, settled.live);
        (self.index, self.further_blocks, self.dropped) = (index, settled.further_blocks, 0);
        let mut steps = Pacer::default();
        self.keep_shadowed(settled.shadowed, &mut steps).await;
        if !self.shadowed.is_empty() {
            let shadowed = sort_in_batches(mem::take(&mut self.shadowed), &mut steps).await;
            let sequences = shadowed.into_iter().rev().map(|at| Sequence(at.value()));
            self.postings.remove(sequences, &mut steps).await;
        }
        Ok((live, self.live))
    }

    /// Settles a sample. Returns how many slots it has, and how many were dropped.
    pub(super) async fn settle_sample(&mut self, steps: &mut Pacer) -> (usize, usize) {
        let before = self.index.len();
        let settled = settle_sample(&self.index, steps).await;
        let dropped = before - self.index.len();
        self.keep_shadowed(settled.shadowed, steps).await;
        (settled.slots, dropped)
    }

    async fn keep_shadowed(&mut self, shadowed: Vec<Position>, steps: &mut Pacer) {
        if self.postings.is_empty() {
            self.shadowed = Vec::new();
            return;
        }
        for batch in shadowed.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            self.shadowed.extend_from_slice(batch);
        }
    }

    pub(super) fn postings(&self) -> usize {
        self.postings.len()
    }

    /// Counts a blob that has the slot of its hash. Whether it is live: not if it is known to be
    /// dead, or beyond the quota.
    pub(super) fn count(
        &mut self,
        record: &ListedRecord,
        position: Position,
        is_dead: bool,
    ) -> bool {
        let further_blocks = u64::from(record.blocks).saturating_sub(1);
        if self.further_blocks + further_blocks > self.further_blocks_max {
            // Nothing older of it counts either.
            self.further_blocks_max = self.further_blocks;
            let dead = Slot { dead: true, ..Slot::new(position, record.blocks) };
            let slot = Slot { versioned: record.versioned, ..dead };
            self.index.replace_if(record.hash, position, slot);
            return false;
        }
        if is_dead {
            return false;
        }
        self.further_blocks += further_blocks;
        self.live += 1;
        true
    }

    /// Links its postings.
    pub(super) async fn recovered(self) -> RecoveredNamespace {
        let labels = self.postings.link().await;
        RecoveredNamespace {
            generation: self.generation,
            index: self.index,
            labels,
            further_blocks: self.further_blocks,
            live: self.live,
            alive_until: self.alive_until,
            newest: self.newest,
            expiries: self.expiries_of_all,
            expired: self.expired,
            renewed: self.renewed,
        }
    }
}

/// None covers another: only the last one at or before a key can match it.
#[derive(Debug, Default)]
pub(super) struct Prefixes(BTreeSet<Box<[u8]>>);

impl Prefixes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn cover(&self, key: &[u8]) -> bool {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        self.0.range::<[u8], _>(up_to).next_back().is_some_and(|prefix| key.starts_with(prefix))
    }

    /// Frees one. False if there was none.
    pub(super) fn pop(&mut self) -> bool {
        self.0.pop_first().is_some()
    }

    /// Returns the bytes that this adds, and those that it frees with prefixes that it covers.
    pub(super) async fn insert(&mut self, prefix: &[u8], steps: &mut Pacer) -> (usize, usize) {
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
