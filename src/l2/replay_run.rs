//! `ReplayRun`: the order in which a run of records is inserted, and what becomes of each. Its
//! memory is used again for the next run.

use std::mem;

use super::index::{GROUPS, Index};
use super::listed_record::ListedRecord;
use super::segment_records::SegmentRecords;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer};

/// Shorter runs are inserted in their order.
const GROUPED_RUN: usize = GROUPS;

#[derive(Default)]
pub(super) struct ReplayRun {
    /// The namespace of each row that was looked up.
    pub(super) rows: Vec<Option<usize>>,
    /// Of each record of a run.
    pub(super) fates: Vec<Fate>,
    /// The numbers of a run's records, group by group.
    pub(super) grouped: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A newer record of its hash shadows it, or a flush.
    Shadowed,
    /// Its slot is in the index.
    Found,
    /// Likewise, and an invalidation matches it.
    Covered,
    /// Its slot is collected.
    Collected,
    /// Likewise, and an invalidation matches it.
    CoveredCollected,
}

impl Fate {
    pub(super) fn is_collected(self) -> bool {
        matches!(self, Self::Collected | Self::CoveredCollected)
    }

    pub(super) fn is_covered(self) -> bool {
        matches!(self, Self::Covered | Self::CoveredCollected)
    }
}

impl ReplayRun {
    pub(super) async fn begin_segment(&mut self, segment: &SegmentRecords, steps: &mut Pacer) {
        self.rows.clear();
        fill(&mut self.rows, None, segment.row_count(), steps).await;
    }

    /// Groups the records of a run.
    pub(super) async fn begin(&mut self, run: &[ListedRecord], steps: &mut Pacer) {
        self.fates.clear();
        fill(&mut self.fates, Fate::Shadowed, run.len(), steps).await;
        self.grouped.clear();
        if run.len() < GROUPED_RUN {
            for (batch, first) in run.chunks(BATCH_ENTRIES).zip((0..).step_by(BATCH_ENTRIES)) {
                steps.entries(batch.len()).await;
                self.grouped.extend((first..).zip(batch).map(|(number, _): (u32, _)| number));
            }
            return;
        }
        let mut places = vec![0; GROUPS];
        for batch in run.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                places[Index::group(record.hash)] += 1;
            }
        }
        let mut end = 0;
        // Bounded: by the groups.
        for place in &mut places {
            end += mem::replace(place, end);
        }
        fill(&mut self.grouped, 0, run.len(), steps).await;
        let mut number = 0;
        for batch in run.chunks(BATCH_ENTRIES) {
            steps.entries(batch.len()).await;
            for record in batch {
                let place = &mut places[Index::group(record.hash)];
                self.grouped[*place] = number;
                *place += 1;
                number += 1;
            }
        }
    }

    pub(super) fn namespace_of(&self, record: &ListedRecord) -> Option<usize> {
        self.rows.get(record.row as usize).copied().flatten()
    }
}

/// Adds items up to a length, in steps.
async fn fill<T: Clone>(items: &mut Vec<T>, item: T, length: usize, steps: &mut Pacer) {
    items.reserve(length.saturating_sub(items.len()));
    while items.len() < length {
        let longer = length.min(items.len() + BATCH_BYTES / size_of::<T>());
        steps.bytes((longer - items.len()) * size_of::<T>()).await;
        items.resize(longer, item.clone());
    }
}
