//! `ReplayedLog`: what a replay has found so far, and when its index is settled.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::super::format::{BLOCK_BYTES, GenerationNumber, Position};
use super::super::replayed_namespace::{ExpiredRecord, ReplayedNamespace};
use super::super::replayed_renewals::{RENEWAL_BYTES, ReplayedRenewals};
use super::used::Used;
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::clock::Timestamp;
use crate::footprint::SLOT_BYTES;
use crate::helpers::Helpers;
use crate::quota::Quotas;

/// Bytes of a namespace beside its name, if it is beyond the configured number: its index.
pub(super) const NAMESPACE_BYTES: usize = 1024;

/// Fewer slots are not settled before the end: 1.5 MiB.
const COLLECTED_MIN: usize = if cfg!(test) { 100 } else { 1 << 16 };

/// So many times as many slots may be collected as were at the last look at them.
const COLLECTED_SHARE: usize = 2;

/// If less than one part in this many of them is shadowed, they need not be settled.
const SHADOWED_SHARE: usize = 8;

/// With less room than one part in this many of what is used, nothing is collected any more.
const ROOM_SHARE: usize = 8;

/// Times since when records are stale may take this share more.
const EXPIRED_SHARE: usize = 16;

/// Deadlines of records that were touched may take this share more.
const RENEWED_SHARE: usize = 16;

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

pub(super) struct ReplayedLog {
    pub(super) names: BTreeMap<Box<str>, usize>,
    pub(super) namespaces: Vec<ReplayedNamespace>,
    /// Live records, but for those collected.
    pub(super) records: u64,
    pub(super) labels: BTreeSet<u64>,
    /// Since when records with a label are stale, in nanoseconds.
    pub(super) expired_labels: BTreeMap<u64, u64>,
    /// Those of records that are yet to be read.
    pub(super) renewals: ReplayedRenewals,
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) used: Used,
    /// Records found to be stale before their time, shadowed ones included.
    pub(super) expired: usize,
    /// Records found to be touched, likewise.
    pub(super) renewed: usize,
    /// Slots collected since they were settled.
    pub(super) collected: usize,
    /// The slots when it was last looked at how many of them are shadowed.
    looked: usize,
    /// Whether slots are collected: until few more fit.
    pub(super) collects: bool,
}

impl ReplayedLog {
    pub(super) fn new(limits: Limits, now: Timestamp) -> Self {
        Self {
            names: BTreeMap::new(),
            namespaces: Vec::new(),
            records: 0,
            labels: BTreeSet::new(),
            expired_labels: BTreeMap::new(),
            renewals: ReplayedRenewals::default(),
            now,
            used: Used::new(limits.index_bytes_max),
            limits,
            expired: 0,
            renewed: 0,
            collected: 0,
            looked: 0,
            collects: true,
        }
    }

    /// Beside the budget. What is found beyond that is gone, as it would be in the running cache.
    pub(super) fn expired_max(&self) -> usize {
        self.limits.index_bytes_max / EXPIRED_SHARE / size_of::<ExpiredRecord>()
    }

    /// Likewise, of records that were touched.
    pub(super) fn renewed_max(&self) -> usize {
        self.limits.index_bytes_max / RENEWED_SHARE / RENEWAL_BYTES
    }

    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.used.bytes() + bytes <= self.limits.index_bytes_max;
        self.used.beside_bytes += if has_room { bytes } else { 0 };
        has_room
    }

    pub(super) fn name_cost(&self, name: &str) -> usize {
        let is_counted = self.namespaces.len() >= self.limits.namespaces_max;
        if is_counted { NAMESPACE_BYTES + name.len() } else { 0 }
    }

    /// Begins a name without records so far. Names within the configured number are budgeted
    /// elsewhere.
    pub(super) fn begin(&mut self, name: &str, generation: GenerationNumber, newest: Position) {
        if self.names.contains_key(name) {
            return;
        }
        self.used.beside_bytes += self.name_cost(name);
        let bytes_max = self.limits.quotas.of(name).and_then(|quota| quota.limits.l2_bytes_max);
        let further_blocks_max = bytes_max.map_or(u64::MAX, |max| max / BLOCK_BYTES as u64);
        self.names.insert(name.into(), self.namespaces.len());
        let mut begun = ReplayedNamespace::new(generation, newest, further_blocks_max);
        begun.collects = self.collects && begun.has_no_quota();
        self.namespaces.push(begun);
    }

    /// A segment was taken, before which there were so many slots.
    pub(super) async fn end_segment(
        &mut self,
        slots_before: usize,
        (outline_bytes, older): (usize, u64),
        helpers: &Helpers,
    ) -> io::Result<()> {
        let mut steps = Pacer::default();
        self.expect_more(slots_before, older, &mut steps).await;
        // Whether the outline will be kept depends on what is free.
        let is_tight = self.used.bytes() + outline_bytes > self.limits.index_bytes_max;
        if is_tight {
            self.settle_at_budget(helpers).await?;
        } else if self.has_many_shadowed(&mut steps).await {
            self.settle(helpers).await?;
        }
        Ok(())
    }

    /// Splits tables for the slots of older segments.
    async fn expect_more(&mut self, slots_before: usize, older: u64, steps: &mut Pacer) {
        // Most logs go on as they began.
        let share = self.used.slots.saturating_sub(slots_before);
        // A look at every namespace must not take longer than the segment did.
        if share < self.namespaces.len() {
            return;
        }
        let expected = share.saturating_mul(usize::try_from(older).unwrap_or(usize::MAX));
        let room = self.used.bytes_max().saturating_sub(self.used.bytes()) / SLOT_BYTES;
        let more = expected.min(room).min(self.used.slots.saturating_mul(GROWTH));
        for namespace in &mut self.namespaces {
            steps.entry().await;
            let len = namespace.index.len();
            // A namespace gets its part.
            let part = more as u128 * len as u128 / self.used.slots.max(1) as u128;
            let expected = len + usize::try_from(part).unwrap_or(0);
            while namespace.index.split_for(expected) {
                steps.entries(BATCH_ENTRIES).await;
            }
        }
    }

    /// Whether many of the slots that were collected are shadowed: they take memory in vain.
    async fn has_many_shadowed(&mut self, steps: &mut Pacer) -> bool {
        let many = COLLECTED_MIN.max(self.looked.saturating_mul(COLLECTED_SHARE));
        if self.collected == 0 || self.used.slots - self.looked < many {
            return false;
        }
        let (slots, mut dropped) = (self.used.slots, 0);
        let (mut sampled, mut shadowed) = (0, 0);
        for namespace in &mut self.namespaces {
            steps.entry().await;
            if namespace.collects {
                dropped += namespace.forget_dropped();
                let (slots, dropped) = namespace.settle_sample(steps).await;
                (sampled, shadowed) = (sampled + slots, shadowed + dropped);
            }
        }
        self.used.slots -= shadowed + dropped;
        self.looked = self.used.slots;
        // A sample may have none of a few hashes that have many slots.
        shadowed * SHADOWED_SHARE > sampled || dropped * SHADOWED_SHARE > slots
    }

    /// Settles what was collected: then all counts are exact.
    pub(super) async fn settle(&mut self, helpers: &Helpers) -> io::Result<()> {
        let mut steps = Pacer::default();
        self.collected = 0;
        for namespace in &mut self.namespaces {
            steps.entry().await;
            if !namespace.collects {
                continue;
            }
            let (slots, postings) = (namespace.slots(), namespace.postings());
            let (live_before, live) = namespace.settle(helpers).await?;
            self.records = self.records + live as u64 - live_before as u64;
            self.used.slots -= slots - namespace.index.len();
            self.used.postings -= postings - namespace.postings();
        }
        self.looked = self.used.slots;
        Ok(())
    }

    /// The same at the budget. False if nothing was collected.
    pub(super) async fn settle_at_budget(&mut self, helpers: &Helpers) -> io::Result<bool> {
        if self.collected == 0 {
            return Ok(false);
        }
        self.settle(helpers).await?;
        let room = self.used.bytes_max().saturating_sub(self.used.bytes());
        // To settle again and again for the sake of a few would take long.
        self.collects = room > self.used.bytes() / ROOM_SHARE;
        if !self.collects {
            let mut steps = Pacer::default();
            for namespace in &mut self.namespaces {
                steps.entry().await;
                namespace.collects = false;
            }
        }
        Ok(true)
    }
}
