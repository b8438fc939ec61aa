//! `Assembly`: namespaces, as the pieces of an image make them.

use std::collections::BTreeMap;
use std::iter;

use super::piece::{Piece, StoredNamespace};
use crate::batch::{BATCH_ENTRIES, Pacer, yield_now};
use crate::clock::Timestamp;
use crate::disposal::Remains;
use crate::expiries::Expiries;
use crate::footprint::SLOT_BYTES;
use crate::l2::format::{BLOCK_BYTES, GenerationNumber, Position};
use crate::l2::index::{Index, IndexOfTables, SHARE, ScanCursor};
use crate::l2::replay::Limits;
use crate::l2::replayed_namespace::RecoveredNamespace;
use crate::labels::{LabelIndex, LabelIndexOfChunks};

/// Chunks of postings are freed at once, however many postings they have.
const CHUNK_ENTRIES: usize = 64;

/// Bytes of the index budget for each table, beside the first one of each namespace: a quarter of
/// what a table's slots take. An index that has lost most of its slots keeps its tables; they must
/// not be those of a larger budget.
const TABLE_BYTES: usize = SHARE * SLOT_BYTES / 4;

pub(super) struct Assembly<'a> {
    limits: &'a Limits,
    done: BTreeMap<Box<str>, RecoveredNamespace>,
    tables: usize,
    begun: Option<PartialNamespace>,
    pub(super) slots: u64,
    pub(super) postings: u64,
    pub(super) live: u64,
}

/// A namespace of which pieces may be missing.
struct PartialNamespace {
    name: Box<str>,
    generation: GenerationNumber,
    alive_until: Timestamp,
    l2_bytes_max: Option<u64>,
    index: IndexOfTables,
    labels: LabelIndexOfChunks,
    live: usize,
    further_blocks: u64,
    newest: Option<Position>,
}

/// Why pieces make no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// They do not follow one another.
    Order,
    /// A namespace has more than its limit on disk, or there are more tables than the index budget
    /// allows, which was larger before.
    Limits,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(limits: &'a Limits) -> Self {
        let (done, begun) = (BTreeMap::new(), None);
        Self { limits, done, tables: 0, begun, slots: 0, postings: 0, live: 0 }
    }

    fn add(&mut self, piece: Piece) -> Result<(), Misfit> {
        match piece {
            Piece::Namespace(stored) => {
                self.end_namespace()?;
                self.add_tables(stored.tables)?;
                self.begun = Some(PartialNamespace::new(stored).ok_or(Misfit::Order)?);
                Ok(())
            }
            Piece::Table(stored) => {
                let begun = self.begun.as_mut().ok_or(Misfit::Order)?;
                self.slots += stored.len() as u64;
                begun.live += stored.live;
                begun.further_blocks += stored.further_blocks;
                begun.newest = begun.newest.max(stored.newest);
                if begun.index.add(stored) { Ok(()) } else { Err(Misfit::Order) }
            }
            Piece::Postings(first, chunk) => {
                let begun = self.begun.as_mut().ok_or(Misfit::Order)?;
                if begun.labels.add(first, chunk) { Ok(()) } else { Err(Misfit::Order) }
            }
        }
    }

    /// Counts the tables of a namespace, before they are in memory.
    fn add_tables(&mut self, tables: usize) -> Result<(), Misfit> {
        self.tables += tables.saturating_sub(1);
        let is_within = self.tables <= self.limits.index_bytes_max / TABLE_BYTES;
        if is_within { Ok(()) } else { Err(Misfit::Limits) }
    }

    /// The namespace that was begun is whole.
    pub(super) fn end_namespace(&mut self) -> Result<(), Misfit> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let max = self.limits.quotas.of(&begun.name).and_then(|quota| quota.limits.l2_bytes_max);
        let is_within = begun.is_within(max);
        let PartialNamespace {
            name, generation, alive_until, live, further_blocks, newest, ..
        } = begun;
        let is_whole = begun.index.is_whole() && begun.labels.is_whole() && newest.is_some();
        let (index, labels) = (begun.index.into_index(), begun.labels.into_postings());
        self.postings += labels.len() as u64;
        self.live += live as u64;
        let newest = newest.unwrap_or(Position::FIRST);
        let found = RecoveredNamespace {
            expiries: Expiries::default(),
            expired: Vec::new(),
            renewed: Vec::new(),
            generation,
            index,
            labels,
            further_blocks,
            live,
            alive_until,
            newest,
        };
        // What fails is freed with the rest.
        let is_double = match self.done.insert(name, found) {
            None => false,
            Some(other) => {
                drop(remains(iter::once(other)));
                true
            }
        };
        match is_within {
            _ if !is_whole || is_double => Err(Misfit::Order),
            false => Err(Misfit::Limits),
            true => Ok(()),
        }
    }

    pub(super) fn namespaces(&self) -> usize {
        self.done.len()
    }

    pub(super) fn into_namespaces(self) -> BTreeMap<Box<str>, RecoveredNamespace> {
        self.done
    }

    /// Frees what there is, in steps: what is read instead takes as much memory.
    pub(super) async fn discard(mut self) {
        // It is not whole; then it is among the others.
        let _ = self.end_namespace();
        free(self.done.into_values()).await;
    }

    /// Adds the next pieces, in steps.
    pub(super) async fn add_all(&mut self, pieces: Vec<Piece>) -> Result<(), Misfit> {
        let mut steps = Pacer::default();
        for piece in pieces {
            steps.entry().await;
            self.add(piece)?;
        }
        Ok(())
    }
}

impl PartialNamespace {
    fn new(stored: StoredNamespace) -> Option<Self> {
        let StoredNamespace { name, generation, alive_until, l2_bytes_max, tables, shape } = stored;
        Some(Self {
            name,
            generation,
            alive_until,
            l2_bytes_max,
            index: IndexOfTables::new(tables)?,
            labels: LabelIndexOfChunks::new(shape)?,
            live: 0,
            further_blocks: 0,
            newest: None,
        })
    }

    /// Whether its records are within a limit, or that was no larger before.
    fn is_within(&self, max: Option<u64>) -> bool {
        let Some(max) = max else { return true };
        let is_as_before = self.l2_bytes_max.is_some_and(|before| before <= max);
        is_as_before || self.further_blocks <= max / BLOCK_BYTES as u64
    }
}

/// Frees namespaces, in steps.
pub(super) async fn free(namespaces: impl Iterator<Item = RecoveredNamespace> + Send + 'static) {
    let mut remains = remains(namespaces);
    // Bounded: a batch in each turn, then a yield.
    while remains.free_some() {
        yield_now().await;
    }
}

fn remains(namespaces: impl Iterator<Item = RecoveredNamespace> + Send + 'static) -> Remains {
    Remains::new(namespaces.flat_map(|namespace| {
        let RecoveredNamespace { index, labels, .. } = namespace;
        pieces_of_index(index).chain(pieces_of_postings(labels))
    }))
}

fn pieces_of_index(index: Index) -> impl Iterator<Item = usize> + Send {
    let mut next = Some(ScanCursor::default());
    iter::from_fn(move || {
        next = index.clear(next?);
        Some(BATCH_ENTRIES)
    })
}

fn pieces_of_postings(mut labels: LabelIndex) -> impl Iterator<Item = usize> + Send {
    iter::from_fn(move || labels.free_some().map(|_| CHUNK_ENTRIES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quotas;

    #[test]
    fn tables_of_a_larger_budget_do_not_count() {
        let index_bytes_max = 64 << 10;
        let limits = Limits { index_bytes_max, namespaces_max: 9, quotas: Quotas::default() };
        let added = |tables: &[usize]| {
            let mut assembly = Assembly::new(&limits);
            tables.iter().try_for_each(|&tables| assembly.add_tables(tables))
        };
        // As many slots as there is room for have a quarter of these tables.
        assert_eq!(added(&[17]), Ok(()));
        assert_eq!(added(&[1, 9, 9]), Ok(()));
        assert_eq!(added(&[18]), Err(Misfit::Limits));
        assert_eq!(added(&[1, 9, 10]), Err(Misfit::Limits));
    }
}
