//! The directory at the end of a sealed segment: one entry for each record in it.
//!
//! `DirectoryBuilder` grows as records are appended to the log and always knows its encoded length,
//! so that the log can reserve room for it. `Directory` borrows from the bytes read; it allocates
//! only its table of namespaces, at most 12 times the bytes of the names.
//! `docs/format.md`, section 8.

use super::blob::NamedGeneration;
use super::checksum::{ChecksumKey, Domain, Pieces};
use super::chunks::Chunks;
use super::directory_entry::{DirectoryEntry, ENTRY_BYTES_MIN, Trail};
use super::error::{DecodeError, EncodeError};
use super::format::{
    BLOCK_BYTES, DIRECTORY_MAGIC, FOOTER_BYTES, Geometry, OpenCount, OpenRange, Position,
    SegmentNumber,
};
use super::name_rows::{NameRows, Row};
use super::wire::{Measure, Reader, Sink};
use crate::batch::{BATCH_BYTES, Pacer};

const NAME_ROW_BYTES_MIN: usize = 2;

/// Entries that are read at once when a directory is read backwards.
pub(crate) const RUN_ENTRIES: usize = 64;

/// Lists the records of one segment while they are appended.
pub(crate) struct DirectoryBuilder {
    segment: SegmentNumber,
    geometry: Geometry,
    names: Chunks,
    rows: NameRows,
    row_count: u32,
    entries: Chunks,
    entry_count: u32,
    index_bytes: usize,
    trail: Trail,
}

impl DirectoryBuilder {
    pub(crate) fn new(segment: SegmentNumber, geometry: Geometry) -> Self {
        Self {
            segment,
            geometry,
            names: Chunks::default(),
            rows: NameRows::new(),
            row_count: 0,
            entries: Chunks::default(),
            entry_count: 0,
            index_bytes: 0,
            trail: Trail::START,
        }
    }

    /// Bytes that it would take in the segment now: whole blocks.
    pub(crate) fn encoded_len(&self) -> usize {
        whole(self.names.len() + self.entries.len())
    }

    /// Bytes that it would take with this entry in addition, exactly.
    ///
    /// # Errors
    /// The bound that the entry breaks.
    pub(crate) fn encoded_len_with(
        &self,
        entry: &DirectoryEntry<'_>,
    ) -> Result<usize, EncodeError> {
        self.encoded_len_in_row(entry, self.row_for(entry))
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entry_count
    }

    /// The most bytes of the index budget that its records use.
    pub(crate) fn index_bytes(&self) -> usize {
        self.index_bytes
    }

    /// A copy, to be encoded while the log continues. Copies at most a chunk.
    pub(crate) fn snapshot(&self) -> Self {
        let (names, entries) = (self.names.snapshot(), self.entries.snapshot());
        Self { names, entries, rows: NameRows::new(), ..*self }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.names.memory_bytes() + self.entries.memory_bytes() + self.rows.memory_bytes()
    }

    /// Appends the entry of the record that follows the last one.
    ///
    /// # Errors
    /// The bound that it breaks, `Position` if it lies before the last one's end, `NoRoom` if the
    /// directory would reach into the record. The builder is unchanged then.
    pub(crate) fn append(&mut self, entry: &DirectoryEntry<'_>) -> Result<(), EncodeError> {
        let row @ (names, index) = self.row_for(entry);
        let length = self.encoded_len_in_row(entry, row)?;
        let end = entry.offset as usize + entry.length as usize;
        if end + length > self.geometry.segment_bytes() as usize {
            return Err(EncodeError::NoRoom);
        }
        if let Some(namespace) = entry.change.namespace().filter(|_| names > 0) {
            namespace.write(&mut self.names);
            self.names.end_entry();
            let row = Row { index, generation: namespace.generation };
            self.rows.insert(namespace.name, row);
            self.row_count += 1;
        }
        self.trail = self.trail.write(&mut self.entries, entry, u64::from(index))?;
        self.entries.end_entry();
        self.entry_count += 1;
        self.index_bytes += entry.change.index_bytes();
        Ok(())
    }

    /// Appends the finished directory to `into`, as it goes to the end of the segment, whose last
    /// frame ends at `end`.
    ///
    /// # Errors
    /// `Position` if `end` is not in the segment or before the last record's end, `NoRoom` if the
    /// directory would reach before it.
    pub(crate) async fn write(
        &self,
        key: ChecksumKey,
        open_count: OpenCount,
        end: Position,
        into: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let end_offset = self.geometry.offset_in_segment(end) as usize;
        if self.geometry.segment_of(end) != self.segment || end_offset < self.trail.end {
            return Err(EncodeError::Position);
        }
        let length = self.encoded_len();
        let start = (self.geometry.segment_bytes() as usize)
            .checked_sub(length)
            .filter(|start| end_offset <= *start)
            .ok_or(EncodeError::NoRoom)?;
        let footer = Footer {
            segment: self.segment,
            end,
            open_count,
            start: to_u32(start)?,
            name_bytes: to_u32(self.names.len())?,
            name_rows: self.row_count,
            entry_bytes: to_u32(self.entries.len())?,
            entries: self.entry_count,
        };
        let first = into.len();
        into.reserve(length);
        let mut steps = Pacer::default();
        for piece in self.names.pieces().chain(self.entries.pieces()) {
            steps.bytes(piece.len()).await;
            into.bytes(piece);
        }
        into.resize(first + length - FOOTER_BYTES, 0);
        footer.write(into);
        let covered = into.get(first..).unwrap_or_default();
        let seed = key.seed(Domain::Directory, self.segment.0, open_count);
        let sum = checksum_in_steps(covered, seed, &mut steps).await;
        into.u64(sum);
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn encode(
        &self,
        key: ChecksumKey,
        open_count: OpenCount,
        end: Position,
        into: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        futures::executor::block_on(self.write(key, open_count, end, into))
    }

    fn encoded_len_in_row(
        &self,
        entry: &DirectoryEntry<'_>,
        (names, index): (usize, u32),
    ) -> Result<usize, EncodeError> {
        let mut measure = Measure::default();
        self.trail.write(&mut measure, entry, u64::from(index))?;
        let content = self.names.len() + names + self.entries.len() + measure.0;
        Ok(whole(content))
    }

    /// The bytes that the entry's namespace adds to the name table, and its row.
    fn row_for(&self, entry: &DirectoryEntry<'_>) -> (usize, u32) {
        let Some(namespace) = entry.change.namespace() else {
            return (0, 0);
        };
        match self.rows.get(namespace.name) {
            Some(row) if row.generation == namespace.generation => (0, row.index),
            _ => {
                let mut measure = Measure::default();
                namespace.write(&mut measure);
                (measure.0, self.row_count)
            }
        }
    }
}

/// The last bytes of a sealed segment: the place and the extent of its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) segment: SegmentNumber,
    /// Where the last frame ends.
    pub(crate) end: Position,
    pub(crate) open_count: OpenCount,
    /// Where the directory starts, as an offset in the segment: a multiple of a block.
    pub(crate) start: u32,
    pub(crate) entries: u32,
    name_bytes: u32,
    name_rows: u32,
    entry_bytes: u32,
}

impl Footer {
    /// The footer at the end of `bytes`, which end with the segment. Its fields are plausible; only
    /// `Directory::read` verifies them.
    ///
    /// # Errors
    /// Why there is no footer, as in an unsealed segment.
    pub(crate) fn decode(
        bytes: &[u8],
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let bytes = bytes.last_chunk::<FOOTER_BYTES>().ok_or(DecodeError::Truncated)?;
        let mut reader = Reader::new(bytes);
        if reader.array()? != DIRECTORY_MAGIC {
            return Err(DecodeError::Magic);
        }
        let (number, end) = (SegmentNumber(reader.u64()?), reader.u64()?);
        let footer = Self {
            segment: number,
            end: Position::new(end).ok_or(DecodeError::Misplaced)?,
            open_count: OpenCount(reader.u32()?),
            start: reader.u32()?,
            name_bytes: reader.u32()?,
            name_rows: reader.u32()?,
            entry_bytes: reader.u32()?,
            entries: reader.u32()?,
        };
        if number != segment || geometry.segment_of(footer.end) != segment {
            return Err(DecodeError::Misplaced);
        }
        opens.check(footer.open_count)?;
        let length = whole(footer.name_bytes as usize + footer.entry_bytes as usize);
        let end = geometry.offset_in_segment(footer.end);
        let bounded = footer.start as usize + length == geometry.segment_bytes() as usize
            && (BLOCK_BYTES..=footer.start as usize).contains(&(end as usize))
            && footer.name_rows as usize <= footer.name_bytes as usize / NAME_ROW_BYTES_MIN
            && footer.entries as usize <= footer.entry_bytes as usize / ENTRY_BYTES_MIN;
        if bounded { Ok(footer) } else { Err(DecodeError::Length) }
    }

    fn write(&self, into: &mut Vec<u8>) {
        into.bytes(&DIRECTORY_MAGIC);
        into.u64(self.segment.0);
        into.u64(self.end.value());
        into.u32(self.open_count.0);
        into.u32(self.start);
        into.u32(self.name_bytes);
        into.u32(self.name_rows);
        into.u32(self.entry_bytes);
        into.u32(self.entries);
    }
}

/// A directory that was read and verified.
#[derive(Debug)]
pub(crate) struct Directory<'a> {
    pub(crate) footer: Footer,
    namespaces: Vec<NamedGeneration<'a>>,
    entries: &'a [u8],
    end_offset: u32,
}

/// An entry that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListedEntry<'a> {
    /// Its namespace as an index into `Directory::namespaces`.
    pub(crate) namespace: Option<usize>,
    pub(crate) entry: DirectoryEntry<'a>,
}

impl<'a> Directory<'a> {
    #[cfg(test)]
    pub(crate) fn decode(
        bytes: &'a [u8],
        key: ChecksumKey,
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        futures::executor::block_on(Self::read(bytes, key, segment, opens, geometry))
    }

    /// The directory of `segment` from the segment's last bytes: `bytes` ends with the segment and
    /// reaches back to the directory's start or further.
    ///
    /// # Errors
    /// Why it is invalid; `Truncated` if `bytes` do not reach back far enough, see `Footer`.
    pub(crate) async fn read(
        bytes: &'a [u8],
        key: ChecksumKey,
        segment: SegmentNumber,
        opens: OpenRange,
        geometry: Geometry,
    ) -> Result<Self, DecodeError> {
        let footer = Footer::decode(bytes, segment, opens, geometry)?;
        let length = (geometry.segment_bytes() - footer.start) as usize;
        let before = bytes.len().checked_sub(length).ok_or(DecodeError::Truncated)?;
        let bytes = bytes.get(before..).ok_or(DecodeError::Truncated)?;
        let (covered, sum) = bytes.split_last_chunk().ok_or(DecodeError::Truncated)?;
        let seed = key.seed(Domain::Directory, segment.0, footer.open_count);
        let mut steps = Pacer::default();
        if u64::from_le_bytes(*sum) != checksum_in_steps(covered, seed, &mut steps).await {
            return Err(DecodeError::Checksum);
        }
        let mut reader = Reader::new(covered);
        let mut names = Reader::new(reader.take(footer.name_bytes as usize)?);
        let entries = reader.take(footer.entry_bytes as usize)?;
        let padding = reader.rest().len().checked_sub(FOOTER_BYTES - 8);
        reader.zeros(padding.ok_or(DecodeError::Length)?)?;
        let mut namespaces = Vec::with_capacity(footer.name_rows as usize);
        for _ in 0..footer.name_rows {
            namespaces.push(NamedGeneration::read(&mut names)?);
            steps.entry().await;
        }
        names.end()?;
        if footer.entries == 0 && !entries.is_empty() {
            return Err(DecodeError::Length);
        }
        let end_offset = geometry.offset_in_segment(footer.end);
        Ok(Self { footer, namespaces, entries, end_offset })
    }

    /// The name table: a row for each generation of each name that occurs.
    #[cfg(test)]
    pub(crate) fn namespaces(&self) -> &[NamedGeneration<'a>] {
        &self.namespaces
    }

    /// The entries in runs of [`RUN_ENTRIES`]. To read backwards, read run by run.
    ///
    /// # Errors
    /// Why an entry is invalid. Otherwise all can be read.
    pub(crate) async fn runs(
        &self,
        steps: &mut Pacer,
    ) -> Result<Vec<Entries<'_, 'a>>, DecodeError> {
        let mut runs = Vec::with_capacity(self.footer.entries as usize / RUN_ENTRIES + 1);
        let mut entries = self.entries();
        while entries.left > 0 {
            runs.push(entries.clone());
            steps.entries(RUN_ENTRIES).await;
            for listed in entries.by_ref().take(RUN_ENTRIES) {
                listed?;
            }
        }
        Ok(runs)
    }

    /// The entries in the order of the log. An error ends them.
    pub(crate) fn entries(&self) -> Entries<'_, 'a> {
        Entries {
            namespaces: &self.namespaces,
            reader: Reader::new(self.entries),
            trail: Trail::START,
            left: self.footer.entries,
            end_max: self.end_offset as usize,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Entries<'d, 'a> {
    namespaces: &'d [NamedGeneration<'a>],
    reader: Reader<'a>,
    trail: Trail,
    left: u32,
    end_max: usize,
}

impl<'a> Entries<'_, 'a> {
    fn read(&mut self) -> Result<ListedEntry<'a>, DecodeError> {
        let (trail, namespace, entry) =
            self.trail.read(&mut self.reader, self.namespaces, self.end_max)?;
        if self.left == 1 {
            self.reader.end()?;
        }
        self.trail = trail;
        Ok(ListedEntry { namespace, entry })
    }
}

impl<'a> Iterator for Entries<'_, 'a> {
    type Item = Result<ListedEntry<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let listed = self.read();
        self.left = if listed.is_ok() { self.left - 1 } else { 0 };
        Some(listed)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

impl std::iter::FusedIterator for Entries<'_, '_> {}

/// The checksum of bytes, with a yield after each step.
async fn checksum_in_steps(bytes: &[u8], seed: u64, steps: &mut Pacer) -> u64 {
    let mut sum = Pieces::new(seed);
    for piece in bytes.chunks(BATCH_BYTES) {
        steps.bytes(piece.len()).await;
        sum.update(piece);
    }
    sum.finish()
}

const fn whole(content: usize) -> usize {
    (content + FOOTER_BYTES).next_multiple_of(BLOCK_BYTES)
}

fn to_u32(length: usize) -> Result<u32, EncodeError> {
    u32::try_from(length).map_err(|_| EncodeError::NoRoom)
}
