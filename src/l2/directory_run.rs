//! `Run`: consecutive entries of the directory of a segment that is not sealed on file yet.
//!
//! A full run never changes, so that snapshots share it. Its blobs are sorted by namespace and key
//! when that is needed first, by a search or by the seal; `RunMerge` yields those of many runs in
//! order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::blob::NamedGeneration;
use super::directory_entry::{Change, EntryReader, blob_key};
use super::error::DecodeError;
use super::format::GenerationNumber;
use super::wire::{Reader, Sink};
use crate::batch::{Pacer, sort_in_batches};

/// A run is full from this many bytes or entries on.
const RUN_BYTES: usize = 64 << 10;
const RUN_ENTRIES: u32 = 1024;

/// Stands for namespaces whose names do not matter.
pub(super) const UNNAMED: NamedGeneration<'static> =
    NamedGeneration { name: "", generation: GenerationNumber(0) };

/// An entry's bytes in its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

/// The entries of a run by kind.
#[derive(Debug, Clone)]
struct Order {
    /// By row, key and place in the log.
    blobs: Box<[Span]>,
    /// All others, as they follow in the log.
    others: Box<[Span]>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Run {
    bytes: Vec<u8>,
    entries: u32,
    order: OnceLock<Order>,
}

/// All runs of a directory, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Runs {
    full: Vec<Arc<Run>>,
    full_bytes: usize,
    last: Run,
}

impl Run {
    /// Finds the order, if it is not known yet.
    pub(super) async fn sort(
        &self,
        reader: EntryReader,
        steps: &mut Pacer,
    ) -> Result<(), DecodeError> {
        if self.order.get().is_some() {
            return Ok(());
        }
        let (mut blobs, mut others) = (Vec::new(), Vec::new());
        let mut rest = Reader::new(&self.bytes);
        while !rest.rest().is_empty() {
            steps.entry().await;
            let start = self.bytes.len() - rest.rest().len();
            let (row, entry) = reader.read(&mut rest, |_| Some(UNNAMED))?;
            let end = self.bytes.len() - rest.rest().len();
            let span = Span { start: to_u32(start)?, length: to_u32(end - start)? };
            match (row, entry.change) {
                (Some(row), Change::Blob(blob)) => blobs.push((row, blob.key, span)),
                _ => others.push(span),
            }
        }
        let blobs = sort_in_batches(blobs, steps).await;
        // Bounded: by the entries of a run, which were read in steps.
        let blobs = blobs.into_iter().map(|(.., span)| span).collect();
        // Another search may have been faster.
        let _ = self.order.set(Order { blobs, others: others.into() });
        Ok(())
    }

    /// The sorted blobs whose row and key begin like this.
    pub(super) fn range(&self, row: u32, prefix: &[u8]) -> Range<usize> {
        let blobs = self.blobs();
        let place = |span: &Span| blob_key(self.entry(*span)).unwrap_or((u32::MAX, &[]));
        let first = blobs.partition_point(|span| place(span) < (row, prefix));
        let matching = blobs.get(first..).unwrap_or_default();
        let is_match = |span: &Span| {
            let (of, key) = place(span);
            of == row && key.starts_with(prefix)
        };
        first..first + matching.partition_point(is_match)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// All entries, in the order of the log.
    pub(super) fn entries(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn blob_count(&self) -> usize {
        self.blobs().len()
    }

    fn blobs(&self) -> &[Span] {
        self.order.get().map_or(&[], |order| &order.blobs)
    }

    /// The entries that are no blobs, in the order of the log.
    pub(super) fn others(&self) -> impl Iterator<Item = &[u8]> {
        let others = self.order.get().map_or(&[][..], |order| &order.others);
        others.iter().map(|span| self.entry(*span))
    }

    fn entry(&self, span: Span) -> &[u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.length as usize).unwrap_or_default()
    }
}

impl Runs {
    pub(super) fn bytes(&self) -> usize {
        self.full_bytes + self.last.bytes.len()
    }

    /// What they use, with their orders.
    pub(super) fn memory_bytes(&self, entries: u32) -> usize {
        let lists =
            self.full.capacity() * size_of::<Arc<Run>>() + (self.full.len() + 1) * size_of::<Run>();
        let orders = entries as usize * size_of::<Span>();
        self.full_bytes + self.last.bytes.capacity() + lists + orders
    }

    /// Ends an entry: the next one may go to another run.
    pub(super) fn end_entry(&mut self) {
        self.last.entries += 1;
        if self.last.bytes.len() >= RUN_BYTES || self.last.entries >= RUN_ENTRIES {
            self.full_bytes += self.last.bytes.len();
            self.full.push(Arc::new(std::mem::take(&mut self.last)));
        }
    }

    /// The run of that number, and whether there is none behind it. Copies the last one.
    pub(super) fn run(&self, number: usize) -> (Arc<Run>, bool) {
        match self.full.get(number) {
            Some(full) => (Arc::clone(full), false),
            None => (Arc::new(self.last.clone()), true),
        }
    }

    /// All runs so far. Copies at most one.
    pub(super) fn snapshot(&self) -> Vec<Arc<Run>> {
        let mut runs = self.full.clone();
        runs.push(Arc::new(self.last.clone()));
        runs
    }
}

impl Sink for Runs {
    fn bytes(&mut self, bytes: &[u8]) {
        self.last.bytes.extend_from_slice(bytes);
    }
}

/// Yields sorted blobs of many runs in the order of all. The runs must be sorted.
pub(super) struct RunMerge<'a> {
    runs: &'a [Arc<Run>],
    heads: BinaryHeap<Reverse<Head<'a>>>,
}

/// The next blob of a run. Runs follow in the order of the log, so equal keys do, too.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    row: u32,
    key: &'a [u8],
    run: usize,
    next: usize,
    end: usize,
}

/// A blob's entry, and what it is sorted by.
#[derive(Clone, Copy)]
pub(super) struct Sorted<'a> {
    pub(super) row: u32,
    pub(super) key: &'a [u8],
    pub(super) bytes: &'a [u8],
}

impl<'a> RunMerge<'a> {
    pub(super) fn new(runs: &'a [Arc<Run>]) -> Self {
        Self { runs, heads: BinaryHeap::with_capacity(runs.len()) }
    }

    /// Adds blobs of a run.
    pub(super) fn add(&mut self, run: usize, range: Range<usize>) {
        if let Some(head) = self.head(run, range) {
            self.heads.push(Reverse(head));
        }
    }

    /// What is left of the runs.
    pub(super) fn rest(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.heads.iter().map(|Reverse(head)| (head.run, head.next..head.end))
    }

    fn head(&self, run: usize, range: Range<usize>) -> Option<Head<'a>> {
        let of = self.runs.get(run)?;
        let span = of.blobs().get(range.clone())?.first()?;
        let (row, key) = blob_key(of.entry(*span)).ok()?;
        Some(Head { row, key, run, next: range.start, end: range.end })
    }
}

impl<'a> Iterator for RunMerge<'a> {
    type Item = Sorted<'a>;

    fn next(&mut self) -> Option<Sorted<'a>> {
        let runs = self.runs;
        let Reverse(head) = self.heads.peek()?;
        let (row, key, run) = (head.row, head.key, head.run);
        let of = runs.get(run)?;
        let bytes = of.blobs().get(head.next).map_or(&[][..], |span| of.entry(*span));
        let following = self.head(run, head.next + 1..head.end);
        let mut top = self.heads.peek_mut()?;
        match following {
            Some(following) => *top = Reverse(following),
            None => drop(PeekMut::pop(top)),
        }
        Some(Sorted { row, key, bytes })
    }
}

fn to_u32(length: usize) -> Result<u32, DecodeError> {
    u32::try_from(length).map_err(|_| DecodeError::Length)
}
