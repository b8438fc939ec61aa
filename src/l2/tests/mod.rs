//! Shared by the tests of the format: a store, and seeded random records of all kinds.

mod directories;
mod example;
mod frames;
mod logs;
mod places;
mod plain_replay;
mod records;
mod recoveries;
mod searches;
pub(crate) mod seeds;
mod superblocks;

use crate::clock::Timestamp;
use crate::modes::L1Admission;
use crate::policy::Lifetime;
use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::blob::{Blob, Codec, NamedGeneration};
use super::checksum::{BodySum, ChecksumKey};
use super::expiry::{Expiry, ExpiryScope};
use super::format::{GenerationNumber, Geometry, OpenCount, OpenRange, Position, StoreId};
use super::record::{Record, RecordLengths, seal};
use super::renewal::Renewal;
use super::saved_position::SavedPosition;
use super::string_list::{LabelHashes, Labels, Metadata};

pub(super) const STORE: StoreId = StoreId([7; 16]);
pub(super) const OPEN: OpenCount = OpenCount(3);
pub(super) const OPENS: OpenRange = OpenRange { first: OpenCount(2), last: OpenCount(4) };

pub(super) fn store_key() -> ChecksumKey {
    ChecksumKey::new(STORE)
}

pub(super) fn geometry() -> Geometry {
    Geometry::new(1 << 20, 16).unwrap()
}

pub(super) fn position(offset: u64) -> Position {
    Position::new(offset).unwrap()
}

/// Prints the seed, which the harness shows if the test fails.
pub(super) fn seeded(seed: u64) -> StdRng {
    println!("seed {seed}");
    StdRng::seed_from_u64(seed)
}

/// Owns the data that a random record borrows.
#[derive(Debug)]
pub(super) struct Sample {
    kind: u8,
    name: String,
    generation: GenerationNumber,
    bytes: Vec<u8>,
    numbers: [u64; 2],
    optional: [Option<u64>; 4],
    priority: u8,
    admission: L1Admission,
    metadata: BTreeMap<String, String>,
    tags: Vec<String>,
    dependencies: Vec<String>,
    codec: Codec,
    pub(super) label_hashes: Vec<u64>,
    pub(super) body: Vec<u8>,
}

impl Sample {
    pub(super) fn new(rng: &mut StdRng) -> Self {
        let kind = if rng.random_bool(0.6) { 1 } else { rng.random_range(2..=12) };
        Self::of_kind(rng, kind)
    }

    pub(super) fn of_kind(rng: &mut StdRng, kind: u8) -> Self {
        let codec = match rng.random_bool(0.3) {
            true => Codec::Zstd { uncompressed_bytes: rng.random() },
            false => Codec::Raw,
        };
        let labels = rng.random_range(u8::from(kind == 3 || kind == 9)..4);
        Self {
            kind,
            name: text(rng, 12),
            generation: GenerationNumber(number(rng)),
            bytes: bytes(rng, 40),
            numbers: [number(rng), number(rng)],
            optional: [(); 4].map(|()| rng.random_bool(0.4).then(|| number(rng))),
            priority: if rng.random_bool(0.7) { 128 } else { rng.random() },
            admission: [L1Admission::Auto, L1Admission::Always, L1Admission::Never]
                [rng.random_range(0..3)],
            metadata: texts(rng).into_iter().map(|key| (key, text(rng, 20))).collect(),
            tags: texts(rng),
            dependencies: texts(rng),
            codec,
            label_hashes: (0..labels).map(|_| rng.random()).collect(),
            body: if kind == 1 { bytes(rng, 300) } else { Vec::new() },
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.numbers[0]
    }

    pub(super) fn record(&self) -> Record<'_> {
        let namespace = NamedGeneration { name: &self.name, generation: self.generation };
        match self.kind {
            1 => Record::Blob(self.blob(namespace)),
            2 => Record::Tombstone { namespace, hash: self.hash() },
            3 => Record::LabelInvalidation { labels: LabelHashes::new(&self.label_hashes) },
            4 => Record::PrefixInvalidation { namespace, prefix: &self.bytes },
            5 => Record::NamespaceFlush { namespace },
            6 => Record::StoreInvalidation { generation: self.generation },
            7 => Record::Renewal(self.renewal(namespace)),
            12 => Record::SavedPosition(SavedPosition { name: &self.name, bytes: &self.bytes }),
            kind => {
                let scope = match kind {
                    8 => ExpiryScope::Key { namespace, hash: self.hash() },
                    9 => ExpiryScope::Labels(LabelHashes::new(&self.label_hashes)),
                    10 => ExpiryScope::Prefix { namespace, prefix: &self.bytes },
                    _ => ExpiryScope::Namespace(namespace),
                };
                Record::Expiry(Expiry { since_ns: self.numbers[1], scope })
            }
        }
    }

    fn renewal<'a>(&'a self, namespace: NamedGeneration<'a>) -> Renewal<'a> {
        let [expires, stale_window, idle_ttl, _] = self.optional;
        let life = Lifetime {
            written: Timestamp(self.numbers[1]),
            expires: expires.map_or(Timestamp::NEVER, Timestamp),
            stale_serve: stale_window.unwrap_or(0),
            idle_ttl: idle_ttl.unwrap_or(u64::MAX),
        };
        let position = position(self.generation.0 % (1 << 56) * 8);
        Renewal { namespace, hash: self.hash(), position, life, shortened: self.priority < 64 }
    }

    fn blob<'a>(&'a self, namespace: NamedGeneration<'a>) -> Blob<'a> {
        let body = BodySum::of(&self.body).unwrap();
        let [expires_ns, stale_window_ns, idle_ttl_ns, version] = self.optional;
        Blob {
            expires_ns,
            stale_window_ns,
            idle_ttl_ns,
            version,
            priority: self.priority,
            admission: self.admission,
            is_absent: self.body.is_empty() && self.numbers[0] % 2 == 1,
            metadata: Metadata::new(&self.metadata),
            tags: Labels::new(&self.tags),
            dependencies: Labels::new(&self.dependencies),
            codec: self.codec,
            ..Blob::new(namespace, &self.bytes, self.numbers[1], body)
        }
    }

    /// The record sealed for a position, without padding; its lengths; its head's checksum.
    pub(super) fn encode(&self, at: Position) -> (Vec<u8>, RecordLengths, u64) {
        let mut bytes = vec![0xee; 3];
        let lengths = self.record().encode(&mut bytes).unwrap();
        assert_eq!(self.record().lengths(), Ok(lengths));
        let mut bytes = bytes.split_off(3);
        assert_eq!(bytes.len(), lengths.head());
        let checksum = seal(&mut bytes, store_key(), at, OPEN).unwrap();
        bytes.extend_from_slice(&self.body);
        assert_eq!(bytes.len(), lengths.total());
        (bytes, lengths, checksum)
    }
}

/// A number of any magnitude.
fn number(rng: &mut StdRng) -> u64 {
    rng.random::<u64>() >> rng.random_range(0..64)
}

fn bytes(rng: &mut StdRng, max: usize) -> Vec<u8> {
    (0..rng.random_range(0..=max)).map(|_| rng.random()).collect()
}

fn text(rng: &mut StdRng, max: usize) -> String {
    (0..rng.random_range(0..=max)).map(|_| rng.random_range('a'..='\u{17f}')).collect()
}

fn texts(rng: &mut StdRng) -> Vec<String> {
    let count = if rng.random_bool(0.6) { 0 } else { rng.random_range(1..4) };
    (0..count).map(|_| text(rng, 10)).collect()
}
