//! `PlainReplay`: a replay record by record, as plain as can be.

use std::collections::{BTreeMap, BTreeSet};

use super::super::format::Position;
use super::super::index::{ScanCursor, Slot};
use super::super::replay::Limits;
use super::super::replayed_namespace::RecoveredNamespace;
use super::logs::{NOW, Owned};
use crate::expiries::Expiries;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::key::{KeyHash, LabelHash};
use crate::sequence::Sequence;

/// Measured bytes of an entry in a tree of the standard library that was filled in ascending order:
/// a hash or a position, a hash with a time, a position with deadlines.
const HASH: usize = 21;
const EXPIRY: usize = 37;
const RENEWAL: usize = 109;
/// Likewise with a time, and the most that the allocation of its bytes takes beside them.
const PREFIX: usize = 50 + 31;

/// Position, blocks, versioned, dead, stale before its time, shortened.
type PlainSlot = (u64, u16, bool, bool, bool, bool);

/// One namespace, as plain as can be.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plain {
    generation: u64,
    newest: u64,
    slots: BTreeMap<u64, PlainSlot>,
    postings: BTreeSet<(u64, u64)>,
    further_blocks: u64,
    pub(super) live: usize,
    alive_until: u64,
}

fn plain_slot(slot: Slot, expiries: &Expiries) -> PlainSlot {
    let position = slot.position.value();
    let is_expired = slot.expired || expiries.since(Sequence(position)).is_some();
    (position, slot.blocks, slot.versioned, slot.dead, is_expired, slot.shortened)
}

pub(super) fn plain(namespace: &RecoveredNamespace) -> Plain {
    let (mut found, mut cursor) = (Vec::new(), Some(ScanCursor::default()));
    while let Some(from) = cursor {
        let all = Position::FIRST..Position::LAST;
        cursor = namespace.index.scan(from, all, 1 << 20, &mut found);
    }
    assert_eq!(found.len(), namespace.index.len());
    let mut postings = BTreeSet::new();
    for (hash, slot) in &found {
        let position = slot.position.value();
        for label in namespace.labels.of(*hash, Sequence(position)) {
            postings.insert((position, label.0));
            assert!(namespace.labels.has(label));
        }
    }
    assert_eq!(postings.len(), namespace.labels.len());
    for label in postings.iter().map(|(_, label)| *label).collect::<BTreeSet<_>>() {
        let mut listed = Vec::new();
        let last = Sequence(u64::MAX);
        namespace.labels.oldest(LabelHash(label), (&[], last), usize::MAX, &mut listed);
        let expected = postings.iter().filter(|(_, other)| *other == label).map(|(at, _)| *at);
        assert!(listed.iter().map(|posting| posting.sequence.0).eq(expected));
    }
    Plain {
        generation: namespace.generation.0,
        newest: namespace.newest.value(),
        slots: found
            .into_iter()
            .map(|(KeyHash(hash), slot)| (hash, plain_slot(slot, &namespace.expiries)))
            .collect(),
        postings,
        further_blocks: namespace.further_blocks,
        live: namespace.live,
        alive_until: namespace.alive_until.0,
    }
}

#[derive(Default)]
pub(super) struct PlainNamespace {
    pub(super) found: Plain,
    further_blocks_max: u64,
    is_over: bool,
    prefixes: Vec<Vec<u8>>,
    /// Those of expiries, of which none covers another.
    expired_prefixes: Vec<Vec<u8>>,
    /// What makes older records stale, and since when.
    expiries: Vec<(Owned, u64)>,
    /// Since when the records at these positions are stale.
    pub(super) since: BTreeMap<u64, u64>,
    /// When the records at these positions expire, if they were touched.
    pub(super) renewed: BTreeMap<u64, u64>,
}

/// Adds a prefix, of which none covers another. Gives the bytes of all before, and now.
fn add_prefix(prefixes: &mut Vec<Vec<u8>>, prefix: &[u8]) -> (usize, usize) {
    let bytes = |prefixes: &[Vec<u8>]| prefixes.iter().map(|it| PREFIX + it.len()).sum();
    let before = bytes(prefixes);
    if !prefixes.iter().any(|it| prefix.starts_with(it)) {
        prefixes.retain(|it| !it.starts_with(prefix));
        prefixes.push(prefix.to_vec());
    }
    (before, bytes(prefixes))
}

/// Replays a log record by record, from the newest back.
pub(super) struct PlainReplay {
    limits: Limits,
    head: u64,
    pub(super) namespaces: BTreeMap<&'static str, PlainNamespace>,
    labels: BTreeSet<u64>,
    expired_labels: BTreeMap<u64, u64>,
    /// By the positions of the records that they renew.
    renewals: BTreeMap<u64, Owned>,
    /// From the first renewal without room on, none counts: only which records are shortened.
    are_renewals_full: bool,
    shortened: BTreeSet<u64>,
    renewed: usize,
    beside: usize,
    is_over: bool,
    pub(super) oldest: Option<u64>,
}

impl PlainNamespace {
    /// Since when a record is stale, by each expiry of its key or a prefix.
    fn sinces(&self, record: &Owned) -> impl Iterator<Item = u64> {
        let covers = |expiry: &Owned| match expiry.kind {
            8 => expiry.hash == record.hash,
            10 => record.key.starts_with(&expiry.key),
            _ => false,
        };
        self.expiries.iter().filter(move |(expiry, _)| covers(expiry)).map(|(_, since)| *since)
    }
}

/// True if there was no time of that label. The earliest counts.
fn note(times: &mut BTreeMap<u64, u64>, label: u64, since: u64) -> bool {
    let is_new = !times.contains_key(&label);
    let of = times.entry(label).or_insert(since);
    *of = since.min(*of);
    is_new
}

impl PlainReplay {
    pub(super) fn new(limits: Limits, head: u64) -> Self {
        let (namespaces, labels) = (BTreeMap::new(), BTreeSet::new());
        Self {
            limits,
            head,
            namespaces,
            labels,
            expired_labels: BTreeMap::new(),
            renewals: BTreeMap::new(),
            are_renewals_full: false,
            shortened: BTreeSet::new(),
            renewed: 0,
            beside: 0,
            is_over: false,
            oldest: None,
        }
    }

    fn used(&self) -> usize {
        let slots: usize = self.namespaces.values().map(|it| it.found.slots.len()).sum();
        let postings: usize = self.namespaces.values().map(|it| it.found.postings.len()).sum();
        slots * SLOT_BYTES + postings * POSTING_BYTES + self.beside
    }

    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        let has_room = self.used() + bytes <= self.limits.index_bytes_max;
        self.beside += if has_room { bytes } else { 0 };
        has_room
    }

    fn fits(&self, bytes: usize, name: &str) -> bool {
        self.used() + bytes + self.name_bytes(name) <= self.limits.index_bytes_max
    }

    fn name_bytes(&self, name: &str) -> usize {
        let is_counted = self.namespaces.len() >= self.limits.namespaces_max;
        if is_counted { 1024 + name.len() } else { 0 }
    }

    /// False at the budget.
    pub(super) fn take(&mut self, record: &Owned, position: u64) -> bool {
        // A saved position is found beside the records.
        if self.is_over || record.kind == 12 {
            return true;
        }
        let (name, generation) = (record.name, record.generation.0);
        let bytes = match record.kind {
            1 => SLOT_BYTES + record.labels.len() * POSTING_BYTES,
            2 => SLOT_BYTES,
            3 => record.labels.len() * HASH,
            4 | 10 => PREFIX + record.key.len(),
            7 if !self.has_no_room_to_renew() => RENEWAL,
            7 if record.renews.1 => HASH,
            8 => EXPIRY,
            9 => record.labels.len() * EXPIRY,
            _ => 0,
        };
        if record.kind == 6 {
            if self.used() > self.limits.index_bytes_max {
                return false;
            }
            (self.is_over, self.oldest) = (true, Some(position));
            return true;
        }
        if record.kind == 3 || record.kind == 9 {
            if self.used() + bytes > self.limits.index_bytes_max {
                return false;
            }
            for &label in &record.labels {
                self.beside += match record.kind {
                    3 if self.labels.insert(label) => HASH,
                    9 if note(&mut self.expired_labels, label, record.since_ns()) => EXPIRY,
                    _ => 0,
                };
            }
            self.oldest = Some(position);
            return true;
        }
        if !self.fits(bytes, name) {
            return false;
        }
        if !self.namespaces.contains_key(name) {
            self.beside += self.name_bytes(name);
            let quota = self.limits.quotas.of(name).and_then(|it| it.limits.l2_bytes_max);
            let found = Plain { generation, newest: position, ..Plain::default() };
            let further_blocks_max = quota.map_or(u64::MAX, |bytes| bytes / 4096);
            let begun = PlainNamespace { found, further_blocks_max, ..Default::default() };
            self.namespaces.insert(name, begun);
            // With the name, it may not fit any more.
            if record.kind <= 2 && !self.fits(bytes, name) {
                return false;
            }
        }
        self.oldest = Some(position);
        let namespace = &self.namespaces[name];
        if !namespace.is_over && generation >= namespace.found.generation {
            if record.kind == 7 {
                self.note_renewal(record);
            }
            let (record, is_shortened) = match record.kind {
                1 => self.renewed(record, position),
                _ => (record.clone(), false),
            };
            self.apply(&record, is_shortened, position);
        }
        true
    }

    fn renewed_max(&self) -> usize {
        self.limits.index_bytes_max / 16 / RENEWAL
    }

    fn has_no_room_to_renew(&self) -> bool {
        self.are_renewals_full || self.renewals.len() >= self.renewed_max()
    }

    /// The first one of a record counts.
    fn note_renewal(&mut self, record: &Owned) {
        let (position, is_shortened) = record.renews;
        if position < self.head || self.renewals.contains_key(&position) {
            return;
        }
        self.are_renewals_full = self.has_no_room_to_renew();
        if !self.are_renewals_full {
            self.renewals.insert(position, record.clone());
            self.beside += RENEWAL;
        } else if is_shortened && self.shortened.insert(position) {
            self.beside += HASH;
        }
    }

    /// The record with the deadlines of its renewal, and whether it is shortened.
    fn renewed(&mut self, record: &Owned, position: u64) -> (Owned, bool) {
        let mut record = record.clone();
        let Some(renewal) = self.renewals.remove(&position) else {
            let is_shortened = self.shortened.remove(&position);
            if is_shortened {
                self.beside -= HASH;
                record.window_end_ns = Some(0);
            }
            return (record, is_shortened);
        };
        self.beside -= RENEWAL;
        if self.renewed >= self.renewed_max() {
            record.window_end_ns = if renewal.renews.1 { Some(0) } else { record.window_end_ns };
            return (record, renewal.renews.1);
        }
        record.window_end_ns = renewal.window_end_ns;
        if record.window_end_ns.is_none_or(|end| end > NOW) {
            self.renewed += 1;
            let namespace = self.namespaces.get_mut(record.name).unwrap();
            namespace.renewed.insert(position, record.window_end_ns.unwrap_or(u64::MAX));
        }
        (record, renewal.renews.1)
    }

    fn apply(&mut self, record: &Owned, is_shortened: bool, position: u64) {
        let namespace = self.namespaces.get_mut(record.name).unwrap();
        let since = self.expired_labels.iter().filter(|(label, _)| record.labels.contains(label));
        let since = since.map(|(_, since)| *since).chain(namespace.sinces(record)).min();
        let is_all = namespace.expiries.iter().any(|(expiry, _)| expiry.kind == 11);
        let PlainNamespace {
            found: namespace,
            further_blocks_max,
            is_over,
            prefixes,
            expired_prefixes,
            expiries,
            since: stale,
            ..
        } = namespace;
        let is_held = namespace.slots.contains_key(&record.hash);
        match record.kind {
            1 => {
                let is_covered = prefixes.iter().any(|it| record.key.starts_with(it))
                    || record.labels.iter().any(|it| self.labels.contains(it));
                let is_expired = record.window_end_ns.is_some_and(|end| NOW >= end);
                if !is_covered && !is_expired {
                    let end = record.window_end_ns.unwrap_or(u64::MAX);
                    namespace.alive_until = namespace.alive_until.max(end);
                }
                if is_held {
                    return;
                }
                let further = u64::from(record.blocks()) - 1;
                let is_beyond = namespace.further_blocks + further > *further_blocks_max;
                let is_dead = is_covered || is_beyond || is_expired;
                let is_stale = is_all || (since.is_some() && !is_beyond);
                let (blocks, versioned) = (record.blocks(), record.version.is_some());
                let is_shortened = is_shortened && !is_beyond;
                let slot = (position, blocks, versioned, is_dead, is_stale, is_shortened);
                namespace.slots.insert(record.hash, slot);
                if let Some(since) = since.filter(|_| !is_dead) {
                    stale.insert(position, since);
                }
                if is_beyond {
                    *further_blocks_max = namespace.further_blocks;
                }
                if !is_dead {
                    namespace.further_blocks += further;
                    namespace.live += 1;
                }
                if !is_covered {
                    namespace.postings.extend(record.labels.iter().map(|it| (position, *it)));
                }
            }
            2 if !is_held => {
                namespace.slots.insert(record.hash, (position, 0, false, true, is_all, false));
            }
            4 | 10 => {
                let prefixes = if record.kind == 4 { prefixes } else { expired_prefixes };
                let (before, now) = add_prefix(prefixes, &record.key);
                self.beside = self.beside + now - before;
            }
            5 => *is_over = true,
            8 => {
                let of_it =
                    |(expiry, _): &(Owned, u64)| expiry.kind == 8 && expiry.hash == record.hash;
                self.beside += if expiries.iter().any(of_it) { 0 } else { EXPIRY };
            }
            _ => {}
        }
        if matches!(record.kind, 8 | 10 | 11) {
            expiries.push((record.clone(), record.since_ns()));
        }
    }
}
