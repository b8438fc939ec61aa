//! `SegmentRecords`: the records of one segment as replay needs them, from its directory.
//!
//! It is made on whichever thread has time, and owns what it was made from.

use bytes::Bytes;

use super::blob::NamedGeneration;
use super::checksum::ChecksumKey;
use super::directory::Directory;
use super::directory_entry::{Change, DirectoryEntry, EntryReader};
use super::error::DecodeError;
use super::footer::Footer;
use super::format::{
    GenerationNumber, Geometry, OpenRange, Position, RECORD_PADDED_BYTES_MIN, SegmentNumber,
};
use super::listed_record::ListedRecord;
use super::outline::Outline;
use super::plain_records::PlainRecords;
use super::saved_position::SavedPositions;
use super::wire::Reader;
use crate::batch::{BATCH_ENTRIES, Pacer, sort_by_key};
use crate::clock::Timestamp;

pub(crate) struct SegmentRecords {
    /// Newest first, unless there are plain ones instead.
    records: Vec<ListedRecord>,
    plain: Option<PlainRecords>,
    positions: SavedPositions,
    labels: Vec<u64>,
    names: Vec<(Box<str>, GenerationNumber)>,
    outline: Outline,
    /// The pages of the directory, to read an entry again.
    pages: Bytes,
    reader: EntryReader,
    start: Position,
}

/// A record's offset in the segment, and its number in the directory.
type Place = (u32, u32);

/// What memory a directory takes while it is replayed, at most.
pub(crate) fn memory_bytes(directory_bytes: usize, entries: u32) -> usize {
    // Once more while they are sorted, by their places.
    let of_record = 2 * size_of::<ListedRecord>() + 2 * size_of::<Place>();
    directory_bytes + entries as usize * of_record
}

impl SegmentRecords {
    /// Reads the directory that `image` ends with. If it `may_be_plain`, and is, there are plain
    /// records only.
    ///
    /// # Errors
    /// Why it is invalid.
    pub(crate) async fn read(
        image: Bytes,
        key: ChecksumKey,
        (segment, opens, geometry): (SegmentNumber, OpenRange, Geometry),
        (now, may_be_plain): (Timestamp, bool),
    ) -> Result<Self, DecodeError> {
        let start = geometry.start_of(segment).ok_or(DecodeError::Misplaced)?;
        let place = (segment, opens, geometry);
        let entries = Footer::decode(&image, segment, opens, geometry)?.entries as usize;
        let most = geometry.segment_bytes() as usize / RECORD_PADDED_BYTES_MIN;
        let (mut records, mut labels) = (Vec::with_capacity(entries.min(most)), Vec::new());
        let (mut is_too_long, mut positions) = (false, SavedPositions::default());
        let directory = Directory::read_each(&image, key, place, |at, row, entry| {
            if let Change::SavedPosition(position) = entry.change {
                // In the order of the log: the last one counts.
                return positions.set(position);
            }
            let record = ListedRecord::new(at, row, entry, now, labels.len());
            is_too_long |= record.is_none();
            records.extend(record);
            if let Change::Blob(blob) = &entry.change {
                labels.extend(blob.labels.iter());
            }
        });
        let directory = directory.await?;
        if is_too_long {
            return Err(DecodeError::Length);
        }
        let mut steps = Pacer::default();
        let mut names = Vec::with_capacity(directory.namespaces().len());
        for named in directory.namespaces() {
            steps.entry().await;
            names.push((named.name.into(), named.generation));
        }
        let pages = image.slice_ref(directory.pages());
        let (reader, outline) = (directory.reader(), directory.into_outline());
        let plain = if may_be_plain {
            PlainRecords::new(&records, &labels, &names, start, &mut steps).await
        } else {
            None
        };
        let records = match plain {
            Some(_) => Vec::new(),
            None => newest_first(records, &mut steps).await,
        };
        Ok(Self { records, plain, positions, labels, names, outline, pages, reader, start })
    }

    pub(crate) fn plain(&self) -> Option<&PlainRecords> {
        self.plain.as_ref()
    }

    /// The last one of each name, wherever they are in the segment.
    pub(crate) fn positions(&self) -> &SavedPositions {
        &self.positions
    }

    /// The bytes that it was read from, from the directory on.
    pub(super) fn image(&self) -> Bytes {
        self.pages.clone()
    }

    pub(crate) fn outline_bytes(&self) -> usize {
        self.outline.memory_bytes()
    }

    pub(crate) fn into_outline(self) -> Outline {
        self.outline
    }

    /// The records from `head` on, newest first.
    pub(crate) fn from(&self, head: Position) -> &[ListedRecord] {
        let end = self.records.partition_point(|record| self.position(record) >= head);
        self.records.get(..end).unwrap_or_default()
    }

    pub(crate) fn oldest(&self) -> Option<Position> {
        self.records.last().map(|record| self.position(record))
    }

    pub(crate) fn position(&self, record: &ListedRecord) -> Position {
        // It was bounded by the end of the segment's frames, which is a position.
        Position::from_multiple(self.start.value() + u64::from(record.offset))
    }

    pub(crate) fn labels(&self, record: &ListedRecord) -> &[u64] {
        record.labels_of(&self.labels)
    }

    /// The number of rows of the name table.
    pub(crate) fn row_count(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn name(&self, row: u32) -> Option<NamedGeneration<'_>> {
        let (name, generation) = self.names.get(row as usize)?;
        Some(NamedGeneration { name, generation: *generation })
    }

    /// The whole entry of a record.
    pub(crate) fn entry(&self, record: &ListedRecord) -> Option<DirectoryEntry<'_>> {
        let mut rest = Reader::new(self.pages.get(record.entry as usize..)?);
        self.reader.read(&mut rest, |row| self.name(row)).ok().map(|(_, entry)| entry)
    }
}

async fn newest_first(records: Vec<ListedRecord>, steps: &mut Pacer) -> Vec<ListedRecord> {
    let mut places: Vec<Place> = Vec::with_capacity(records.len());
    for (batch, first) in records.chunks(BATCH_ENTRIES).zip((0..).step_by(BATCH_ENTRIES)) {
        steps.entries(batch.len()).await;
        places.extend((first..).zip(batch).map(|(number, record)| (record.offset, number)));
    }
    let places = sort_by_key(places, steps).await;
    let mut sorted = Vec::with_capacity(records.len());
    for batch in places.rchunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        sorted.extend(batch.iter().rev().map(|(_, number)| records[*number as usize]));
    }
    sorted
}
