//! `SegmentSearch`: the blobs of one segment whose keys begin with prefixes, in the order of their
//! namespaces' rows and their keys.
//!
//! In a sealed segment it reads the pages that the outline leads to, each once however many
//! prefixes are searched for. Of a segment that is not sealed on file yet it has a snapshot.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::directory_builder::Listing;
use super::directory_entry::{BlobSummary, Change, EntryReader};
use super::directory_run::RunMerge;
use super::error::DecodeError;
use super::format::{BLOCK_BYTES, Position};
use super::health::{CountedBuffers, Health};
use super::outline::Outline;
use super::search_targets::SegmentTargets;
use super::segment_file::SegmentFile;
use super::wire::{Reader, Sink};
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES, Pacer};

pub(crate) struct SegmentSearch {
    /// Where the segment starts.
    start: Position,
    targets: Arc<SegmentTargets>,
    reader: EntryReader,
    source: Source,
    buffers: CountedBuffers,
    steps: Pacer,
}

enum Source {
    Sealed(SealedPages),
    Unsealed {
        listing: Listing,
        /// Runs, and what is left of them; None until the first step.
        left: Option<Vec<(usize, Range<usize>)>>,
    },
}

/// Pages of a sealed segment that are still to be read.
struct SealedPages {
    file: SegmentFile,
    outline: Arc<Outline>,
    /// Ascending; the next one is the last.
    ranges: Vec<Range<usize>>,
    /// Blocks that were read, and their offset in the segment.
    blocks: Bytes,
    offset: usize,
}

/// Blobs that were found together, in order.
pub(crate) struct FoundBlobs {
    start: Position,
    targets: Arc<SegmentTargets>,
    reader: EntryReader,
    bytes: Bytes,
    spans: Vec<Range<usize>>,
}

impl SegmentSearch {
    pub(super) fn sealed(
        start: Position,
        targets: SegmentTargets,
        file: SegmentFile,
        outline: Arc<Outline>,
    ) -> Self {
        let footer = &outline.footer;
        let end_max = file.geometry.offset_in_segment(footer.end) as usize;
        let reader = EntryReader { bases: footer.bases, end_max };
        let mut ranges: Vec<Range<usize>> = Vec::new();
        // Bounded: by the targets of one search.
        for (row, prefix) in targets.iter() {
            let pages = outline.pages_of(row, prefix);
            match ranges.last_mut() {
                Some(last) if pages.start <= last.end => last.end = last.end.max(pages.end),
                _ => ranges.push(pages),
            }
        }
        ranges.reverse();
        let buffers = CountedBuffers::none(Arc::clone(&file.health));
        let pages = SealedPages { file, outline, ranges, blocks: Bytes::new(), offset: 0 };
        let (targets, source) = (Arc::new(targets), Source::Sealed(pages));
        Self { start, targets, reader, source, buffers, steps: Pacer::default() }
    }

    pub(super) fn unsealed(
        start: Position,
        targets: SegmentTargets,
        listing: Listing,
        health: Arc<Health>,
    ) -> Self {
        let mut buffers = CountedBuffers::none(health);
        buffers.set(listing.copied_bytes());
        let reader = listing.reader;
        let (targets, source) = (Arc::new(targets), Source::Unsealed { listing, left: None });
        Self { start, targets, reader, source, buffers, steps: Pacer::default() }
    }

    /// The next blobs: those of a page, or a batch. None at the end.
    ///
    /// # Errors
    /// Of the device, or `InvalidData`: what the segment has of the targets is not known.
    pub(crate) async fn next(&mut self) -> io::Result<Option<FoundBlobs>> {
        let Self { targets, reader, source, buffers, steps, .. } = self;
        let found = match source {
            Source::Unsealed { listing, left } => {
                let batch = unsealed_batch(listing, left, targets, steps);
                let batch = batch.await.map_err(damaged)?;
                let bytes = batch.as_ref().map_or(0, |(bytes, _)| bytes.len());
                buffers.set(listing.copied_bytes() + bytes);
                batch
            }
            Source::Sealed(pages) => loop {
                let Some(page) = pages.next(buffers, steps).await? else { break None };
                let spans = matching(&page, targets, *reader, steps).await.map_err(damaged)?;
                if !spans.is_empty() {
                    break Some((page, spans));
                }
            },
        };
        let found = found.map(|(bytes, spans)| FoundBlobs {
            start: self.start,
            targets: Arc::clone(&self.targets),
            reader: self.reader,
            bytes,
            spans,
        });
        Ok(found)
    }
}

impl FoundBlobs {
    /// Entries that were read before, each at its span of the bytes.
    pub(super) fn new(
        start: Position,
        targets: Arc<SegmentTargets>,
        reader: EntryReader,
        (bytes, spans): (Bytes, Vec<Range<usize>>),
    ) -> Self {
        Self { start, targets, reader, bytes, spans }
    }

    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The position of one of them, the bytes of its record, and what the directory says of it.
    pub(crate) fn at(&self, number: usize) -> Option<(Position, usize, BlobSummary<'_>)> {
        self.read(self.spans.get(number)?)
    }

    /// Leaves those whose records are not before an offset of the segment.
    pub(super) async fn leave_from(&mut self, offset: u32, steps: &mut Pacer) {
        let from = self.start.value() + u64::from(offset);
        let mut left = Vec::new();
        for span in std::mem::take(&mut self.spans) {
            steps.entry().await;
            if self.read(&span).is_some_and(|(position, ..)| position.value() >= from) {
                left.push(span);
            }
        }
        self.spans = left;
    }

    /// Their positions, and what the directory says of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Position, BlobSummary<'_>)> {
        let read = self.spans.iter().filter_map(|span| self.read(span));
        read.map(|(position, _, blob)| (position, blob))
    }

    fn read(&self, span: &Range<usize>) -> Option<(Position, usize, BlobSummary<'_>)> {
        let mut reader = Reader::new(self.bytes.get(span.clone())?);
        // It was read before.
        let (_, entry) = self.reader.read(&mut reader, |row| Some(self.targets.named(row))).ok()?;
        let Change::Blob(blob) = entry.change else { return None };
        Some((self.start.after(u64::from(entry.offset))?, entry.length as usize, blob))
    }
}

impl SealedPages {
    /// The next page, verified.
    async fn next(
        &mut self,
        buffers: &mut CountedBuffers,
        steps: &mut Pacer,
    ) -> io::Result<Option<Bytes>> {
        let number = loop {
            let Some(range) = self.ranges.last_mut() else { return Ok(None) };
            match range.next() {
                Some(number) => break number,
                None => drop(self.ranges.pop()),
            }
        };
        let span = self.outline.span(number);
        if span.start < self.offset || span.end > self.offset + self.blocks.len() {
            self.read_from(number, &span, buffers).await?;
        }
        let page = span.start - self.offset..span.end - self.offset;
        if page.end > self.blocks.len() {
            return Err(damaged(DecodeError::Truncated));
        }
        let page = self.blocks.slice(page);
        steps.bytes(page.len()).await;
        if self.outline.is_page(number, &page) {
            Ok(Some(page))
        } else {
            Err(damaged(DecodeError::Checksum))
        }
    }

    /// Reads the blocks of a page, and of those that are wanted behind it.
    async fn read_from(
        &mut self,
        number: usize,
        span: &Range<usize>,
        buffers: &mut CountedBuffers,
    ) -> io::Result<()> {
        let behind = self.ranges.last().map_or(number, |range| range.end.saturating_sub(1));
        let offset = span.start / BLOCK_BYTES * BLOCK_BYTES;
        let wanted = self.outline.span(behind.max(number)).end.min(offset + BATCH_BYTES);
        let end = wanted.max(span.end).next_multiple_of(BLOCK_BYTES);
        self.blocks = Bytes::new();
        buffers.set(end - offset);
        let segment = self.outline.footer.segment;
        let blocks = self.file.read_for_callers(segment, offset, end - offset).await?;
        (self.blocks, self.offset) = (blocks.into_bytes(), offset);
        Ok(())
    }
}

/// The entries of a page that match.
pub(super) async fn matching(
    page: &[u8],
    targets: &SegmentTargets,
    reader: EntryReader,
    steps: &mut Pacer,
) -> Result<Vec<Range<usize>>, DecodeError> {
    let (mut spans, mut rest) = (Vec::new(), Reader::new(page));
    while !rest.rest().is_empty() {
        steps.entry().await;
        let start = page.len() - rest.rest().len();
        let (row, entry) = reader.read(&mut rest, |row| Some(targets.named(row)))?;
        let (Some(row), Change::Blob(blob)) = (row, entry.change) else {
            return Err(DecodeError::Field);
        };
        if targets.matches(row, blob.key) {
            spans.push(start..page.len() - rest.rest().len());
        }
    }
    Ok(spans)
}

/// The next batch of what matches in a listing.
async fn unsealed_batch(
    listing: &Listing,
    left: &mut Option<Vec<(usize, Range<usize>)>>,
    targets: &SegmentTargets,
    steps: &mut Pacer,
) -> Result<Option<(Bytes, Vec<Range<usize>>)>, DecodeError> {
    let ranges = match left.take() {
        Some(ranges) => ranges,
        None => matching_ranges(listing, targets, steps).await?,
    };
    let mut merge = RunMerge::new(&listing.runs);
    for (run, range) in ranges {
        steps.entry().await;
        merge.add(run, range);
    }
    let (mut bytes, mut spans) = (Vec::new(), Vec::new());
    steps.entries(BATCH_ENTRIES).await;
    while spans.len() < BATCH_ENTRIES && bytes.len() < BATCH_BYTES {
        let Some(blob) = merge.next() else { break };
        spans.push(bytes.len()..bytes.len() + blob.bytes.len());
        bytes.bytes(blob.bytes);
    }
    steps.bytes(bytes.len()).await;
    // Bounded: by the runs and the targets, which were added in steps.
    *left = Some(merge.rest().collect());
    Ok((!spans.is_empty()).then(|| (bytes.into(), spans)))
}

async fn matching_ranges(
    listing: &Listing,
    targets: &SegmentTargets,
    steps: &mut Pacer,
) -> Result<Vec<(usize, Range<usize>)>, DecodeError> {
    let mut ranges = Vec::new();
    for (number, run) in listing.runs.iter().enumerate() {
        run.sort(listing.reader, steps).await?;
        for (row, prefix) in targets.iter() {
            steps.entry().await;
            let range = run.range(row, prefix);
            if !range.is_empty() {
                ranges.push((number, range));
            }
        }
    }
    Ok(ranges)
}

pub(super) fn damaged(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
