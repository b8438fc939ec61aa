//! Checksums: xxh3, seeded so that a structure is valid only in its store, at its place and in
//! its open. `docs/format.md`, section 2. They detect accidents; they are no signatures.

use crate::batch::{BATCH_BYTES, yield_now};
use crate::meter;
use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use super::error::DecodeError;
use super::format::{OpenCount, StoreId};

/// The use of a checksum; the numbers are part of the format.
#[derive(Clone, Copy)]
pub(crate) enum Domain {
    Segment = 1,
    Frame = 2,
    Record = 3,
    Directory = 4,
    DirectoryPage = 5,
    Image = 6,
    ImageTable = 7,
    ImageChunk = 8,
}

/// The part of every seed that belongs to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChecksumKey(u64);

impl ChecksumKey {
    pub(crate) fn new(store: StoreId) -> Self {
        Self(xxh3_64_with_seed(&store.0, 0))
    }

    /// The seed for one structure: `place` is a position or a segment number, as the domain says.
    pub(crate) fn seed(self, domain: Domain, place: u64, open_count: OpenCount) -> u64 {
        let words = [domain as u64, place, u64::from(open_count.0)];
        let mut bytes = [0; 24];
        // Bounded: by the words of a checksum key.
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        xxh3_64_with_seed(&bytes, self.0)
    }
}

/// Checksum of bytes under a seed from `ChecksumKey::seed`.
pub(crate) fn checksum(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Checksum of superblocks, which are read before the store is known.
pub(crate) fn unkeyed_checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

pub(crate) struct Pieces(Xxh3);

impl Pieces {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Xxh3::with_seed(seed))
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// The length and the checksum of a record's body as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodySum {
    pub(crate) length: u32,
    /// `xxh3` of them, without a seed: reinsertion keeps it.
    pub(crate) checksum: u64,
}

impl BodySum {
    /// The sum of a body, in steps. `None` from 4 GiB up.
    pub(crate) async fn over(body: &[u8]) -> Option<Self> {
        if body.len() <= BATCH_BYTES {
            meter::bytes(body.len());
            return Self::of(body);
        }
        let mut hasher = BodyHasher::new();
        for (number, step) in (1..).zip(body.chunks(BATCH_BYTES)) {
            hasher.update(step);
            meter::bytes(step.len());
            if number * BATCH_BYTES < body.len() {
                yield_now().await;
            }
        }
        hasher.finish()
    }

    /// The sum of a body in one go. `None` from 4 GiB up.
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        let length = u32::try_from(body.len()).ok()?;
        Some(Self { length, checksum: xxh3_64(body) })
    }

    /// Compares with the sum of a body that was read.
    ///
    /// # Errors
    /// `Length` or `Checksum`.
    pub(crate) fn check(self, found: Option<Self>) -> Result<(), DecodeError> {
        match found {
            Some(found) if found.length != self.length => Err(DecodeError::Length),
            Some(found) if found.checksum == self.checksum => Ok(()),
            Some(_) => Err(DecodeError::Checksum),
            None => Err(DecodeError::Length),
        }
    }

    #[cfg(any(test, feature = "simulation"))]
    /// Checks a body in memory, in one go.
    ///
    /// # Errors
    /// `Length` or `Checksum`.
    pub(crate) fn verify(self, body: &[u8]) -> Result<(), DecodeError> {
        self.check(Self::of(body))
    }
}

/// Hashes a body piece by piece, so that no single poll hashes a long one.
pub(crate) struct BodyHasher {
    pieces: Box<Pieces>,
    length: u64,
}

impl BodyHasher {
    pub(crate) fn new() -> Self {
        Self { pieces: Box::new(Pieces::new(0)), length: 0 }
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.pieces.update(piece);
        self.length += piece.len() as u64;
    }

    /// The sum of all pieces; `None` from 4 GiB up.
    pub(crate) fn finish(&self) -> Option<BodySum> {
        let length = u32::try_from(self.length).ok()?;
        Some(BodySum { length, checksum: self.pieces.finish() })
    }

    /// Compares all pieces with the sum in a record's head.
    ///
    /// # Errors
    /// `Length` or `Checksum`.
    pub(crate) fn verify(&self, expected: BodySum) -> Result<(), DecodeError> {
        expected.check(self.finish())
    }
}

impl Default for BodyHasher {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn pieces_equal_the_whole() {
        let body: Vec<u8> = (0u32..700_001).map(|i| ((i * 31) >> 3).to_le_bytes()[0]).collect();
        let whole = BodySum::of(&body).unwrap();
        for step in [1000, 4096, 262_144] {
            let mut hasher = BodyHasher::new();
            body.chunks(step).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), Some(whole));
            assert_eq!(hasher.verify(whole), Ok(()));
        }
        for length in [0, 1, BATCH_BYTES, BATCH_BYTES + 1, body.len()] {
            let body = &body[..length];
            assert_eq!(block_on(BodySum::over(body)), BodySum::of(body));
        }
        assert_eq!(whole.verify(&body[1..]), Err(DecodeError::Length));
        assert_eq!(BodyHasher::new().finish(), BodySum::of(&[]));
    }

    #[test]
    fn seeds_tell_domain_place_open_and_store_apart() {
        let key = ChecksumKey::new(StoreId([1; 16]));
        let other = ChecksumKey::new(StoreId([2; 16]));
        let seeds = [
            key.seed(Domain::Record, 8, OpenCount(1)),
            key.seed(Domain::Frame, 8, OpenCount(1)),
            key.seed(Domain::Record, 16, OpenCount(1)),
            key.seed(Domain::Record, 8, OpenCount(2)),
            other.seed(Domain::Record, 8, OpenCount(1)),
        ];
        for (i, a) in seeds.iter().enumerate() {
            assert!(seeds.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
