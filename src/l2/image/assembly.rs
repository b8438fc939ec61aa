//! `Assembly`: namespaces, as the pieces of an image make them.

use std::collections::BTreeMap;
use std::iter;

use super::piece::{Piece, StoredNamespace};
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::clock::Timestamp;
use crate::disposal::Remains;
use crate::l2::format::{BLOCK_BYTES, GenerationNumber, Position};
use crate::l2::index::{Index, IndexOfTables, ScanCursor};
use crate::l2::replayed_namespace::RecoveredNamespace;
use crate::labels::{LabelIndex, LabelIndexOfChunks};
use crate::quota::Quotas;

/// Chunks of postings are freed at once, however many postings they have.
const CHUNK_ENTRIES: usize = 64;

#[derive(Default)]
pub(super) struct Assembly {
    done: BTreeMap<Box<str>, RecoveredNamespace>,
    begun: Option<Begun>,
    pub(super) slots: u64,
    pub(super) postings: u64,
    pub(super) live: u64,
}

struct Begun {
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
    /// A namespace has more than its limit on disk, which was larger before.
    Quota,
}

impl Assembly {
    fn add(&mut self, piece: Piece, quotas: &Quotas) -> Result<(), Misfit> {
        match piece {
            Piece::Namespace(stored) => {
                self.end_namespace(quotas)?;
                self.begun = Some(Begun::new(stored).ok_or(Misfit::Order)?);
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

    /// The namespace that was begun is whole.
    pub(super) fn end_namespace(&mut self, quotas: &Quotas) -> Result<(), Misfit> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let max = quotas.of(&begun.name).and_then(|quota| quota.limits.l2_bytes_max);
        let is_within = begun.is_within(max);
        let Begun { name, generation, alive_until, live, further_blocks, newest, .. } = begun;
        let is_whole = begun.index.is_whole() && begun.labels.is_whole() && newest.is_some();
        let (index, labels) = (begun.index.into_index(), begun.labels.into_postings());
        self.postings += labels.len() as u64;
        self.live += live as u64;
        let newest = newest.unwrap_or(Position::FIRST);
        let found = RecoveredNamespace {
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
                free(iter::once(other));
                true
            }
        };
        match is_within {
            _ if !is_whole || is_double => Err(Misfit::Order),
            false => Err(Misfit::Quota),
            true => Ok(()),
        }
    }

    pub(super) fn namespaces(&self) -> usize {
        self.done.len()
    }

    pub(super) fn into_namespaces(self) -> BTreeMap<Box<str>, RecoveredNamespace> {
        self.done
    }

    /// Frees what there is, in the background.
    pub(super) fn discard(mut self, quotas: &Quotas) {
        // It is not whole; then it is among the others.
        let _ = self.end_namespace(quotas);
        free(self.done.into_values());
    }

    /// Adds the next pieces, in steps.
    pub(super) async fn add_all(
        &mut self,
        pieces: Vec<Piece>,
        quotas: &Quotas,
    ) -> Result<(), Misfit> {
        let mut steps = Pacer::default();
        for piece in pieces {
            steps.entry().await;
            self.add(piece, quotas)?;
        }
        Ok(())
    }
}

impl Begun {
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

/// Frees namespaces, in the background.
pub(super) fn free(namespaces: impl Iterator<Item = RecoveredNamespace> + Send + 'static) {
    drop(Remains::new(namespaces.flat_map(|namespace| {
        let RecoveredNamespace { index, labels, .. } = namespace;
        pieces_of_index(index).chain(pieces_of_postings(labels))
    })));
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
