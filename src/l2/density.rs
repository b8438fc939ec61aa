//! `Density`: how many records a segment takes, by filling one as the log does.

use super::allowance::Allowance;
use super::blob::{Blob, NamedGeneration};
use super::checksum::BodySum;
use super::directory_builder::DirectoryBuilder;
use super::directory_entry::{Change, DirectoryEntry};
use super::format::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, GenerationNumber, Geometry, KEY_BYTES_MAX, POSITION_MAX,
    SegmentNumber, align,
};
use super::record::Record;
use super::string_list::Labels;

/// A name and a number of a generation that are longer than most.
const NAMESPACE: NamedGeneration<'_> =
    NamedGeneration { name: "a-namespace-here", generation: GenerationNumber(POSITION_MAX) };

/// A longer segment has the same density.
const FILLED_BYTES: u32 = 16 << 20;

/// A longer record is tried in a segment of any size.
const RECORD_SHARE: u32 = 64;

/// Records that are all alike.
#[derive(Debug, Clone)]
pub(crate) struct RecordShape {
    pub(crate) key_bytes: usize,
    /// As stored.
    pub(crate) body_bytes: u32,
    pub(crate) tags: Vec<String>,
    pub(crate) has_ttl: bool,
}

impl RecordShape {
    /// How many fit into segments of that size: a number of records, and how many of such segments
    /// take them. Each is put alone, so it has a frame of its own. None if not even one fits.
    pub(crate) fn fit_in(&self, segment_bytes: u32) -> Option<(u64, u64)> {
        let longest = self.body_bytes.saturating_mul(RECORD_SHARE);
        let blocks = FILLED_BYTES.max(longest) / u32::try_from(BLOCK_BYTES).ok()?;
        let filled_bytes = segment_bytes.min(blocks * u32::try_from(BLOCK_BYTES).ok()?);
        let count = self.fill(Geometry::new(filled_bytes, 64)?)?;
        // As many as in so many filled ones.
        Some((count * u64::from(segment_bytes), filled_bytes.into()))
    }

    fn fill(&self, geometry: Geometry) -> Option<u64> {
        let segment_bytes = geometry.segment_bytes() as usize;
        let body = BodySum { length: self.body_bytes, checksum: 0 };
        // Bounded: by the labels of one entry.
        let labels: Vec<u64> = (0..self.tags.len() as u64).collect();
        let mut directory = DirectoryBuilder::new(SegmentNumber(0), geometry);
        let mut key = vec![0; self.key_bytes.min(KEY_BYTES_MAX)];
        let (mut at, mut count) = (BLOCK_BYTES, 0_u64);
        // Bounded: by the records of a segment of some MiB, which waits for nothing.
        loop {
            // Neighbours share as little as the keys of a hash.
            let number = count.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            // Bounded: eight.
            key.iter_mut().zip(number).for_each(|(byte, digit)| *byte = digit);
            // Jittered by up to an hour.
            let written_ns = 1_767_225_600_000_000_000 + count * 1_000_000;
            let expires_ns = written_ns + (count % 3600) * 1_000_000_007;
            let blob = Blob {
                expires_ns: self.has_ttl.then_some(expires_ns),
                tags: Labels::new(&self.tags),
                ..Blob::new(NAMESPACE, &key, written_ns, body)
            };
            let record = Record::Blob(blob);
            let lengths = record.lengths().ok()?;
            let offset = at + FRAME_HEADER_BYTES;
            let entry = DirectoryEntry {
                offset: u32::try_from(offset).ok()?,
                length: u32::try_from(lengths.total()).ok()?,
                change: Change::new(&record, count, &labels),
            };
            let end = offset + lengths.padded();
            let reserve = if count == 0 { 0 } else { Allowance::reserve_bytes(segment_bytes) };
            let directory_bytes = directory.encoded_len_with(&entry).ok()?;
            if end + directory_bytes + reserve > segment_bytes || directory.append(&entry).is_err()
            {
                return (count > 0).then_some(count);
            }
            (at, count) = (end, count + 1);
            debug_assert!(at == align(at));
        }
    }
}
