//! `DirectoryBuilder`: grows with the records of the open segment, and becomes its directory.
//!
//! It always knows a bound of its encoded length, so that the log can reserve room for it. Entries
//! collect in the order of the log; when the segment is sealed they are written in pages, sorted by
//! namespace and key.

use std::sync::Arc;

use super::blob::NamedGeneration;
use super::checksum::{ChecksumKey, Domain, Pieces, checksum};
use super::chunks::Chunks;
use super::directory_entry::{Change, DirectoryEntry, EntryReader, TimeBases};
use super::directory_run::{Run, RunMerge, Runs};
use super::error::EncodeError;
use super::footer::{Footer, to_u32, whole};
use super::format::{
    BLOCK_BYTES, FOOTER_BYTES, Geometry, OpenCount, PAGE_BYTES, PAGE_KEY_BYTES_MAX, Position,
    SegmentNumber,
};
use super::name_rows::{NameRows, Row};
use super::saved_position::SavedPositions;
use super::wire::{Measure, Sink};
use crate::batch::{BATCH_BYTES, Pacer};

/// The most bytes of a page's row in the table, beside its key: checksum, lengths, row.
const PAGE_ROW_BYTES_MAX: usize = 8 + 5 + 5 + 2;

/// Lists the records of one segment while they are appended.
pub(crate) struct DirectoryBuilder {
    segment: SegmentNumber,
    geometry: Geometry,
    names: Chunks,
    rows: NameRows,
    row_count: u32,
    runs: Runs,
    entry_count: u32,
    /// Bytes of the entries that are blobs.
    blob_bytes: usize,
    /// The longest key of a blob.
    key_bytes_max: usize,
    index_bytes: usize,
    bases: TimeBases,
    positions: SavedPositions,
    /// Where the last record ends, padded.
    end: usize,
}

/// The entries of a segment that is not sealed on file yet, as they were at one time.
pub(crate) struct Listing {
    pub(super) runs: Vec<Arc<Run>>,
    pub(super) reader: EntryReader,
}

/// A run of such a segment.
pub(crate) struct ListedRun {
    pub(super) run: Arc<Run>,
    pub(super) reader: EntryReader,
    pub(super) is_last: bool,
}

impl Listing {
    /// The bytes that were copied for it.
    pub(super) fn copied_bytes(&self) -> usize {
        self.runs.last().map_or(0, |run| run.bytes())
    }
}

impl DirectoryBuilder {
    pub(crate) fn new(segment: SegmentNumber, geometry: Geometry) -> Self {
        Self {
            segment,
            geometry,
            names: Chunks::default(),
            rows: NameRows::new(),
            row_count: 0,
            runs: Runs::default(),
            entry_count: 0,
            blob_bytes: 0,
            key_bytes_max: 0,
            index_bytes: 0,
            bases: TimeBases::default(),
            positions: SavedPositions::default(),
            end: BLOCK_BYTES,
        }
    }

    /// The most bytes that it would take in the segment now: whole blocks.
    pub(crate) fn encoded_len(&self) -> usize {
        self.encoded_len_and(0, 0, 0, 0)
    }

    /// The same with this entry in addition.
    ///
    /// # Errors
    /// The bound that the entry breaks.
    pub(crate) fn encoded_len_with(
        &self,
        entry: &DirectoryEntry<'_>,
    ) -> Result<usize, EncodeError> {
        self.encoded_len_in_row(entry, self.row_for(entry))
    }

    /// The last one of each name.
    pub(super) fn positions(&self) -> &SavedPositions {
        &self.positions
    }

    pub(crate) fn entries(&self) -> u32 {
        self.entry_count
    }

    /// The most bytes of the index budget that its records use.
    pub(crate) fn index_bytes(&self) -> usize {
        self.index_bytes
    }

    /// The entries so far. Copies at most one run.
    pub(crate) fn listing(&self) -> Listing {
        let end_max = self.geometry.segment_bytes() as usize;
        Listing { runs: self.runs.snapshot(), reader: EntryReader { bases: self.bases, end_max } }
    }

    /// The run of that number. Copies it if it is the last.
    pub(crate) fn run(&self, number: usize) -> ListedRun {
        let end_max = self.geometry.segment_bytes() as usize;
        let (run, is_last) = self.runs.run(number);
        ListedRun { run, reader: EntryReader { bases: self.bases, end_max }, is_last }
    }

    /// The row of a namespace, if it has one and has not been begun anew since.
    pub(crate) fn row_of(&self, namespace: NamedGeneration<'_>) -> Option<u32> {
        let row = self.rows.get(namespace.name)?;
        (row.generation == namespace.generation).then_some(row.index)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.names.memory_bytes()
            + self.runs.memory_bytes(self.entry_count)
            + self.rows.memory_bytes()
    }

    /// Appends the entry of the record that follows the last one.
    ///
    /// # Errors
    /// The bound that it breaks, `Position` if it lies before the last one's end, `NoRoom` if the
    /// directory would reach into the record. The builder is unchanged then.
    pub(crate) fn append(&mut self, entry: &DirectoryEntry<'_>) -> Result<(), EncodeError> {
        let row @ (names, index) = self.row_for(entry);
        if (entry.offset as usize) < self.end {
            return Err(EncodeError::Position);
        }
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
        self.bases = self.bases.with(&entry.change);
        let before = self.runs.bytes();
        entry.write(&mut self.runs, self.bases, index)?;
        if let Change::Blob(blob) = &entry.change {
            self.blob_bytes += self.runs.bytes() - before;
            self.key_bytes_max = self.key_bytes_max.max(blob.key.len());
        }
        if let Change::SavedPosition(position) = entry.change {
            self.positions.set(position);
        }
        self.runs.end_entry();
        self.end = entry.end();
        self.entry_count += 1;
        self.index_bytes += entry.change.index_bytes();
        Ok(())
    }

    /// Appends the finished directory to `into`, as it goes to the end of the segment, whose last
    /// frame ends at `end`. Returns its table and its footer.
    ///
    /// # Errors
    /// `Position` if `end` is not in the segment or before the last record's end, `NoRoom` if the
    /// directory would reach before it.
    pub(crate) async fn write(
        &self,
        key: ChecksumKey,
        open_count: OpenCount,
        end: Position,
        into: &mut impl Sink,
    ) -> Result<Vec<u8>, EncodeError> {
        let end_offset = self.geometry.offset_in_segment(end) as usize;
        if self.geometry.segment_of(end) != self.segment || end_offset < self.end {
            return Err(EncodeError::Position);
        }
        let room = self.geometry.segment_bytes() as usize - end_offset;
        if self.encoded_len() > room {
            return Err(EncodeError::NoRoom);
        }
        let mut steps = Pacer::default();
        let seed = key.seed(Domain::DirectoryPage, self.segment.0, open_count);
        let pages = self.write_pages(Pages::new(into, seed), &mut steps).await?;
        let Pages { into, written, table: page_rows, blob_pages, other_pages, .. } = pages;
        let mut table = Vec::with_capacity(self.names.len() + page_rows.len() + FOOTER_BYTES);
        for piece in self.names.pieces().chain(page_rows.chunks(BATCH_BYTES)) {
            steps.bytes(piece.len()).await;
            table.bytes(piece);
        }
        let length = whole(written + table.len());
        let padding = length - FOOTER_BYTES - written - table.len();
        let footer = Footer {
            segment: self.segment,
            end,
            open_count,
            start: self.geometry.segment_bytes() - to_u32(length)?,
            name_bytes: to_u32(self.names.len())?,
            name_rows: self.row_count,
            table_bytes: to_u32(page_rows.len())?,
            blob_pages,
            other_pages,
            entries: self.entry_count,
            bases: self.bases,
        };
        footer.write(&mut table);
        let seed = key.seed(Domain::Directory, self.segment.0, open_count);
        let sum = checksum_in_steps(&table, seed, &mut steps).await;
        table.u64(sum);
        // Less than a block.
        into.bytes(&[0; BLOCK_BYTES][..padding]);
        for piece in table.chunks(BATCH_BYTES) {
            steps.bytes(piece.len()).await;
            into.bytes(piece);
        }
        Ok(table)
    }

    async fn write_pages<'s, S: Sink>(
        &self,
        mut pages: Pages<'s, S>,
        steps: &mut Pacer,
    ) -> Result<Pages<'s, S>, EncodeError> {
        let Listing { runs, reader } = self.listing();
        let mut merge = RunMerge::new(&runs);
        for (number, run) in runs.iter().enumerate() {
            // What was written can be read.
            run.sort(reader, steps).await.map_err(|_| EncodeError::Field)?;
            merge.add(number, 0..run.blob_count());
        }
        let mut last = None;
        for blob in merge {
            steps.entry().await;
            steps.bytes(blob.bytes.len()).await;
            pages.blob(last, (blob.row, blob.key), blob.bytes)?;
            last = Some((blob.row, blob.key));
        }
        pages.end()?;
        for run in &runs {
            for other in run.others() {
                steps.entry().await;
                steps.bytes(other.len()).await;
                pages.other(other)?;
            }
        }
        pages.end()?;
        Ok(pages)
    }

    #[cfg(test)]
    pub(crate) fn encode(
        &self,
        key: ChecksumKey,
        open_count: OpenCount,
        end: Position,
        into: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        futures::executor::block_on(self.write(key, open_count, end, into)).map(drop)
    }

    fn encoded_len_in_row(
        &self,
        entry: &DirectoryEntry<'_>,
        (names, index): (usize, u32),
    ) -> Result<usize, EncodeError> {
        let mut measure = Measure::default();
        entry.write(&mut measure, self.bases.with(&entry.change), index)?;
        Ok(match &entry.change {
            Change::Blob(blob) => self.encoded_len_and(names, measure.0, 0, blob.key.len()),
            _ => self.encoded_len_and(names, 0, measure.0, 0),
        })
    }

    fn encoded_len_and(&self, names: usize, blob: usize, other: usize, key: usize) -> usize {
        let blobs = self.blob_bytes + blob;
        let others = self.runs.bytes() - self.blob_bytes + other;
        let key = self.key_bytes_max.max(key).min(PAGE_KEY_BYTES_MAX);
        let table =
            pages_max(blobs) * (PAGE_ROW_BYTES_MAX + key) + pages_max(others) * PAGE_ROW_BYTES_MAX;
        whole(self.names.len() + names + blobs + others + table)
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

/// Collects entries in pages, and the rows of the table that lead to them.
struct Pages<'s, S> {
    into: &'s mut S,
    seed: u64,
    page: Vec<u8>,
    /// Bytes of all pages before.
    written: usize,
    table: Vec<u8>,
    /// The first row and key of the page, if it is one of blobs.
    first: Option<(u32, Vec<u8>)>,
    blob_pages: u32,
    other_pages: u32,
}

impl<'s, S: Sink> Pages<'s, S> {
    fn new(into: &'s mut S, seed: u64) -> Self {
        Self {
            into,
            seed,
            page: Vec::with_capacity(2 * PAGE_BYTES),
            written: 0,
            table: Vec::new(),
            first: None,
            blob_pages: 0,
            other_pages: 0,
        }
    }

    fn blob(
        &mut self,
        last: Option<(u32, &[u8])>,
        (row, key): (u32, &[u8]),
        entry: &[u8],
    ) -> Result<(), EncodeError> {
        if self.page.is_empty() {
            self.first = Some((row, separator(last, (row, key)).to_vec()));
        }
        self.other(entry)
    }

    fn other(&mut self, entry: &[u8]) -> Result<(), EncodeError> {
        self.page.bytes(entry);
        if self.page.len() >= PAGE_BYTES { self.end() } else { Ok(()) }
    }

    /// Ends the page, if it has entries.
    fn end(&mut self) -> Result<(), EncodeError> {
        if self.page.is_empty() {
            return Ok(());
        }
        self.table.varint(u64::from(to_u32(self.page.len())?));
        match self.first.take() {
            Some((row, key)) => {
                self.table.varint(u64::from(row));
                self.table.prefixed(&key);
                self.blob_pages += 1;
            }
            None => self.other_pages += 1,
        }
        self.table.u64(checksum(&self.page, self.seed));
        self.into.bytes(&self.page);
        self.written += self.page.len();
        self.page.clear();
        Ok(())
    }
}

/// The shortest beginning of the first key of a page that tells it from the last key before it.
fn separator<'k>(last: Option<(u32, &[u8])>, first: (u32, &'k [u8])) -> &'k [u8] {
    let length = match last {
        Some((row, last)) if row == first.0 => {
            let shared = last.iter().zip(first.1).take_while(|(last, first)| last == first).count();
            shared + 1
        }
        _ => 0,
    };
    // Of equal keys the whole, as far as it may be.
    let length = length.min(first.1.len()).min(PAGE_KEY_BYTES_MAX);
    first.1.get(..length).unwrap_or_default()
}

/// The most pages that so many bytes of entries take.
const fn pages_max(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { bytes / PAGE_BYTES + 1 }
}

/// The checksum of bytes, with a yield after each step.
pub(super) async fn checksum_in_steps(bytes: &[u8], seed: u64, steps: &mut Pacer) -> u64 {
    let mut sum = Pieces::new(seed);
    for piece in bytes.chunks(BATCH_BYTES) {
        steps.bytes(piece.len()).await;
        sum.update(piece);
    }
    sum.finish()
}
