//! Random logs: records of few hashes and names, in sealed segments.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::super::blob::NamedGeneration;
use super::super::directory_builder::DirectoryBuilder;
use super::super::directory_entry::{BlobSummary, Change, DirectoryEntry};
use super::super::expiry::{Expiry, ExpiryScope};
use super::super::format::{BLOCK_BYTES, GenerationNumber, Position, SegmentNumber, align};
use super::super::renewal::Renewal;
use super::super::replay::Limits;
use super::super::saved_position::{SavedPosition, SavedPositions};
use super::super::string_list::LabelHashes;
use super::{OPEN, geometry, store_key};
use crate::clock::Timestamp;
use crate::policy::Lifetime;
use crate::quota::{NamespaceQuota, Quotas};

pub(super) const NAMES: [&str; 5] = ["", "a", "b", "quota", "rest"];
pub(super) const NOW: u64 = 1000;

/// A record that owns what a change borrows.
#[derive(Clone, Debug)]
pub(super) struct Owned {
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) name: &'static str,
    pub(super) generation: GenerationNumber,
    pub(super) kind: u8,
    pub(super) hash: u64,
    pub(super) key: Vec<u8>,
    pub(super) labels: Vec<u64>,
    pub(super) window_end_ns: Option<u64>,
    pub(super) version: Option<u64>,
    /// The position of the blob that it renews, and whether it shortens a deadline.
    pub(super) renews: (u64, bool),
}

/// What came before.
#[derive(Default)]
pub(super) struct Past {
    generations: [u64; 5],
    blobs: Vec<(u64, Owned)>,
}

impl Owned {
    pub(super) fn entry(&self) -> DirectoryEntry<'_> {
        let namespace = NamedGeneration { name: self.name, generation: self.generation };
        let labels = LabelHashes::new(&self.labels);
        let change = match self.kind {
            1 => Change::Blob(BlobSummary {
                namespace,
                hash: self.hash,
                key: &self.key,
                window_end_ns: self.window_end_ns,
                version: self.version,
                labels,
                idle: None,
            }),
            2 => Change::Tombstone { namespace, hash: self.hash },
            3 => Change::LabelInvalidation { labels },
            4 => Change::PrefixInvalidation { namespace, prefix: &self.key },
            5 => Change::NamespaceFlush { namespace },
            6 => Change::StoreInvalidation { generation: self.generation },
            7 => Change::Renewal(Renewal {
                namespace,
                hash: self.hash,
                position: Position::from_multiple(self.renews.0),
                life: self.life(),
                shortened: self.renews.1,
            }),
            12 => Change::SavedPosition(SavedPosition { name: self.name, bytes: &self.key }),
            kind => {
                let scope = match kind {
                    8 => ExpiryScope::Key { namespace, hash: self.hash },
                    9 => ExpiryScope::Labels(labels),
                    10 => ExpiryScope::Prefix { namespace, prefix: &self.key },
                    _ => ExpiryScope::Namespace(namespace),
                };
                Change::Expiry(Expiry { since_ns: self.since_ns(), scope })
            }
        };
        DirectoryEntry { offset: self.offset, length: self.length, change }
    }

    /// Notes it, if it is a saved position.
    pub(super) fn save(&self, positions: &mut SavedPositions) {
        if let Change::SavedPosition(position) = self.entry().change {
            positions.set(position);
        }
    }

    /// Of a renewal.
    pub(super) fn life(&self) -> Lifetime {
        let expires = self.window_end_ns.map_or(Timestamp::NEVER, Timestamp);
        Lifetime { written: Timestamp(0), expires, stale_serve: 0, idle_ttl: u64::MAX }
    }

    /// Of an expiry.
    pub(super) fn since_ns(&self) -> u64 {
        self.offset.into()
    }

    pub(super) fn blocks(&self) -> u16 {
        let bytes = self.offset as usize % BLOCK_BYTES + self.length as usize;
        u16::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap()
    }
}

/// The manner of one log.
pub(super) struct Manner {
    hashes: u64,
    names: usize,
    records_max: usize,
    /// One record in so many is an invalidation of some kind.
    invalidations: u32,
    labels: usize,
}

impl Manner {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        Self {
            hashes: [2, 20, 3000, u64::MAX][rng.random_range(0..4)],
            names: rng.random_range(1..=NAMES.len()),
            records_max: [10, 300, 6000][rng.random_range(0..3)],
            invalidations: [8, 500, 20_000][rng.random_range(0..3)],
            labels: rng.random_range(0..4),
        }
    }

    fn record(&self, rng: &mut StdRng, past: &mut Past, at: u32) -> Owned {
        let kind = match rng.random_range(0..self.invalidations) {
            0 => [3, 3, 4, 4, 5, 6, 8, 8, 9, 9, 10, 10, 11, 12, 7, 7, 7][rng.random_range(0..17)],
            _ if rng.random_bool(0.1) => 2,
            _ => 1,
        };
        let of = rng.random_range(0..self.names);
        // A name that was given back begins anew without a record.
        past.generations[of] += u64::from(kind == 5 || rng.random_bool(0.001));
        let labels = rng.random_range(usize::from(kind == 3 || kind == 9)..=self.labels.max(1));
        let hash = rng.random_range(0..self.hashes);
        let renewed = if kind == 7 { past.blobs.choose(rng) } else { None };
        if let Some((position, blob)) = renewed {
            let renews = (*position, rng.random_bool(0.5));
            let window_end_ns = rng.random_bool(0.7).then(|| rng.random_range(1..2 * NOW));
            let (offset, length) = (at, rng.random_range(40..90));
            let blob = blob.clone();
            return Owned { kind, offset, length, renews, window_end_ns, labels: vec![], ..blob };
        }
        Owned {
            offset: at,
            length: if rng.random_bool(0.01) { 5000 } else { rng.random_range(40..90) },
            name: NAMES[of],
            generation: GenerationNumber(past.generations[of]),
            kind: if kind == 7 { 1 } else { kind },
            hash,
            key: format!("{:04}", hash % 5000).into_bytes()[..rng.random_range(2..=4)].to_vec(),
            labels: (0..labels as u64).map(|it| it * 100 + rng.random_range(0..20)).collect(),
            window_end_ns: rng.random_bool(0.3).then(|| rng.random_range(1..2 * NOW)),
            version: rng.random_bool(0.1).then(|| rng.random_range(0..9)),
            renews: (0, false),
        }
    }

    /// The records of a segment, and where its last frame ends.
    pub(super) fn segment(
        &self,
        rng: &mut StdRng,
        past: &mut Past,
        number: u64,
    ) -> (Vec<Owned>, u32) {
        let (mut records, mut at) = (Vec::new(), BLOCK_BYTES + 32);
        for _ in 0..rng.random_range(1..=self.records_max) {
            let record = self.record(rng, past, u32::try_from(at).unwrap());
            if record.kind == 1 {
                past.blobs.push(((number << 20) + at as u64, record.clone()));
            }
            at += align(record.length as usize);
            records.push(record);
            if at > (400 << 10) {
                break;
            }
        }
        (records, u32::try_from(at).unwrap())
    }
}

pub(super) fn image(number: SegmentNumber, records: &[Owned], end: u32) -> Vec<u8> {
    let mut builder = DirectoryBuilder::new(number, geometry());
    records.iter().for_each(|record| builder.append(&record.entry()).unwrap());
    let end = geometry().start_of(number).unwrap().after(end.into()).unwrap();
    let mut image = Vec::new();
    builder.encode(store_key(), OPEN, end, &mut image).unwrap();
    image
}

fn quotas(rng: &mut StdRng) -> Quotas {
    let mut quotas = Quotas::default();
    let blocks = rng.random_range(0..40);
    quotas.set("quota", NamespaceQuota { l2_bytes_max: Some(blocks * 4096), ..Default::default() });
    quotas
}

pub(super) fn limits(rng: &mut StdRng, records: usize) -> Limits {
    let index_bytes_max = match rng.random_range(0..3) {
        0 => usize::MAX / 2,
        _ => rng.random_range(0..records * 60 + 3000),
    };
    Limits { index_bytes_max, namespaces_max: rng.random_range(0..6), quotas: quotas(rng) }
}
