//! `PlainRecords`: the records of a segment without invalidations, for an index that collects.
//!
//! Their order does not matter there. So they are in the order of the index's groups, and only the
//! postings of their labels are in the order of the log.

use std::mem;

use super::format::{GenerationNumber, Position};
use super::index::{GROUPS, Index, Slot};
use super::listed_record::{ListedKind, ListedRecord};
use crate::batch::{BATCH_ENTRIES, Pacer, sort_by_key};
use crate::clock::Timestamp;
use crate::key::{KeyHash, LabelHash};
use crate::sequence::Sequence;

pub(crate) struct PlainRecords {
    records: Vec<PlainRecord>,
    /// Newest first.
    postings: Vec<PlainPosting>,
    rows: Vec<PlainRow>,
    start: Position,
    oldest: Option<u32>,
}

/// A record of a segment: 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRecord {
    pub(crate) hash: KeyHash,
    offset: u32,
    blocks: u16,
    row: u8,
    flags: u8,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainPosting {
    pub(crate) label: LabelHash,
    pub(crate) key: KeyHash,
    offset: u32,
    pub(crate) row: u32,
}

/// The records of one generation of a name.
#[derive(Clone, Debug)]
pub(crate) struct PlainRow {
    pub(crate) name: Box<str>,
    pub(crate) generation: GenerationNumber,
    /// None without records.
    newest: Option<u32>,
    /// When the last blob expires that is not expired yet.
    pub(crate) ends: Timestamp,
}

const TOMBSTONE: u8 = 0b001;
const EXPIRED: u8 = 0b010;
const VERSIONED: u8 = 0b100;

impl PlainRecords {
    /// The same records, in any order, with their labels. None if there are other kinds of records,
    /// or too many names.
    pub(super) async fn new(
        listed: &[ListedRecord],
        labels: &[u64],
        names: &[(Box<str>, GenerationNumber)],
        start: Position,
        steps: &mut Pacer,
    ) -> Option<Self> {
        if names.len() > usize::from(u8::MAX) {
            return None;
        }
        let mut rows = Vec::with_capacity(names.len());
        for (name, generation) in names {
            steps.entry().await;
            let (name, generation) = (name.clone(), *generation);
            rows.push(PlainRow { name, generation, newest: None, ends: Timestamp(0) });
        }
        let (mut places, mut oldest) = (vec![0; GROUPS], None);
        for batch in listed.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                rows.get_mut(record.row as usize)?.add(record)?;
                oldest = Some(oldest.map_or(record.offset, |it: u32| it.min(record.offset)));
                places[Index::group(record.hash)] += 1;
            }
        }
        let mut end = 0;
        // Bounded: by the groups.
        places.iter_mut().for_each(|place| end += mem::replace(place, end));
        let mut records = Vec::with_capacity(listed.len());
        for batch in listed.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            records.resize(records.len() + batch.len(), PlainRecord::NONE);
        }
        for batch in listed.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                let place = &mut places[Index::group(record.hash)];
                records[*place] = PlainRecord::new(record)?;
                *place += 1;
            }
        }
        let postings = postings(listed, labels, steps).await;
        Some(Self { records, postings, rows, start, oldest })
    }

    /// Group by group.
    pub(crate) fn records(&self) -> &[PlainRecord] {
        &self.records
    }

    /// Newest first.
    pub(crate) fn postings(&self) -> &[PlainPosting] {
        &self.postings
    }

    pub(crate) fn rows(&self) -> &[PlainRow] {
        &self.rows
    }

    pub(crate) fn oldest(&self) -> Option<Position> {
        self.oldest.map(|offset| self.position(offset))
    }

    /// The newest record of a row.
    pub(crate) fn newest_of(&self, row: &PlainRow) -> Option<Position> {
        row.newest.map(|offset| self.position(offset))
    }

    pub(crate) fn slot(&self, record: PlainRecord) -> Slot {
        let position = self.position(record.offset);
        if record.flags & TOMBSTONE != 0 {
            return Slot::tombstone(position);
        }
        let (dead, versioned) = (record.flags & EXPIRED != 0, record.flags & VERSIONED != 0);
        Slot { dead, versioned, ..Slot::new(position, record.blocks) }
    }

    pub(crate) fn sequence(&self, posting: &PlainPosting) -> Sequence {
        Sequence(self.position(posting.offset).value())
    }

    fn position(&self, offset: u32) -> Position {
        Position::from_multiple(self.start.value() + u64::from(offset))
    }
}

impl PlainRecord {
    const NONE: Self = Self { hash: KeyHash(0), offset: 0, blocks: 0, row: 0, flags: 0 };

    pub(crate) fn row(self) -> usize {
        self.row.into()
    }

    fn new(record: &ListedRecord) -> Option<Self> {
        let kind = match record.kind {
            ListedKind::Blob => 0,
            ListedKind::ExpiredBlob => EXPIRED,
            ListedKind::Tombstone => TOMBSTONE,
            ListedKind::Other => return None,
        };
        Some(Self {
            hash: record.hash,
            offset: record.offset,
            blocks: record.blocks,
            row: u8::try_from(record.row).ok()?,
            flags: kind | if record.versioned { VERSIONED } else { 0 },
        })
    }
}

impl PlainRow {
    /// None for other kinds of records.
    fn add(&mut self, record: &ListedRecord) -> Option<()> {
        self.newest = self.newest.max(Some(record.offset));
        match record.kind {
            ListedKind::Blob => self.ends = self.ends.max(record.ends),
            ListedKind::ExpiredBlob | ListedKind::Tombstone => {}
            ListedKind::Other => return None,
        }
        Some(())
    }
}

/// The postings of all records, newest first.
async fn postings(listed: &[ListedRecord], labels: &[u64], steps: &mut Pacer) -> Vec<PlainPosting> {
    if labels.is_empty() {
        return Vec::new();
    }
    let mut places = Vec::new();
    for (batch, first) in listed.chunks(BATCH_ENTRIES).zip((0..).step_by(BATCH_ENTRIES)) {
        steps.entries(batch.len()).await;
        let numbered = (first..).zip(batch).filter(|(_, record)| record.label_count() > 0);
        places.extend(numbered.map(|(number, record): (u32, _)| (record.offset, number)));
    }
    let places = sort_by_key(places, steps).await;
    let mut postings = Vec::with_capacity(labels.len());
    for &(_, number) in places.iter().rev() {
        let record = &listed[number as usize];
        for batch in record.labels_of(labels).chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            postings.extend(batch.iter().map(|&label| PlainPosting {
                label: LabelHash(label),
                key: record.hash,
                offset: record.offset,
                row: record.row,
            }));
        }
    }
    postings
}
