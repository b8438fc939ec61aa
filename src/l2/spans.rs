//! `Spans`: reads chosen records of a segment, in the order of the log, few bytes in vain and
//! several reads at once.
//!
//! Chosen neighbours are read together, as a *span*. Spans are read ahead while the records of
//! earlier ones are worked on, so that reclaim does not wait for the device once for each span.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;

use futures::future::{BoxFuture, MaybeDone, maybe_done};
use futures::poll;

use super::directory_entry::DirectoryEntry;
use super::format::{BLOCK_BYTES, SegmentNumber};
use super::health::CountedBuffer;
use super::segment_file::SegmentFile;
use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::io::AlignedBuffer;
use crate::meter;

/// The bytes of a span, unless one record is larger.
const SPAN_BYTES: usize = 256 << 10;

/// The bytes of all spans that are being read, unless one is larger.
const AHEAD_BYTES: usize = 1 << 20;

/// The most reads at once: writes of the log wait behind them.
const READS_AHEAD: usize = 16;

/// Up to so many bytes between two records are read in vain rather than by two reads.
const GAP_BYTES: usize = 32 << 10;

pub(super) struct Spans<'a, E, C> {
    file: &'a SegmentFile,
    segment: SegmentNumber,
    /// None at the end.
    entries: Option<E>,
    choose: C,
    /// Chosen, and too far from the last span.
    next_entry: Option<DirectoryEntry<'a>>,
    /// Waits until fewer bytes are being read.
    next_span: Option<Span<'a>>,
    /// Submitted, in the order of the log.
    reads: VecDeque<MaybeDone<BoxFuture<'a, Read<'a>>>>,
    bytes_ahead: usize,
}

/// Neighbouring records, and the blocks of the segment in which they lie.
#[derive(Debug, Default)]
pub(super) struct Span<'a> {
    start: usize,
    end: usize,
    entries: Vec<DirectoryEntry<'a>>,
}

/// The bytes of a span.
pub(super) struct Blocks<'a> {
    start: usize,
    bytes: AlignedBuffer,
    _counted: CountedBuffer<'a>,
}

/// A span and its bytes.
type Read<'a> = (Span<'a>, io::Result<Blocks<'a>>);

impl<'a, E, C> Spans<'a, E, C>
where
    E: Iterator<Item = DirectoryEntry<'a>>,
    C: FnMut(&DirectoryEntry<'a>) -> bool,
{
    /// `entries` of `segment`, in the order of the log, of which `choose` accepts some.
    pub(super) fn new(
        file: &'a SegmentFile,
        segment: SegmentNumber,
        entries: E,
        choose: C,
    ) -> Self {
        Self {
            file,
            segment,
            entries: Some(entries),
            choose,
            next_entry: None,
            next_span: None,
            reads: VecDeque::new(),
            bytes_ahead: 0,
        }
    }

    /// The next span and its bytes. None at the end.
    pub(super) async fn next(&mut self) -> Option<Read<'a>> {
        // Bounded: a yield in each turn.
        while let Some(span) = self.next_span.take().or_else(|| self.choose_span()) {
            // Choosing it has visited up to a batch of entries.
            yield_now().await;
            if span.entries.is_empty() {
                continue;
            }
            let is_much = self.bytes_ahead + span.bytes() > AHEAD_BYTES;
            if !self.reads.is_empty() && (is_much || self.reads.len() == READS_AHEAD) {
                self.next_span = Some(span);
                break;
            }
            self.bytes_ahead += span.bytes();
            let read: BoxFuture<'a, _> = Box::pin(read(self.file, self.segment, span));
            let mut read = maybe_done(read);
            // Its first poll submits it.
            let _is_done = poll!(&mut read);
            self.reads.push_back(read);
        }
        let mut read = self.reads.pop_front()?;
        (&mut read).await;
        let (span, blocks) = Pin::new(&mut read).take_output()?;
        self.bytes_ahead -= span.bytes();
        Some((span, blocks))
    }

    /// Visits up to a batch of entries, of which none may be chosen. None at the end.
    fn choose_span(&mut self) -> Option<Span<'a>> {
        let mut span = Span::default();
        let mut visited = 0;
        while visited < BATCH_ENTRIES {
            let entry = match self.next_entry.take() {
                Some(chosen) => chosen,
                None => {
                    let Some(entry) = self.entries.as_mut().and_then(Iterator::next) else {
                        self.entries = None;
                        break;
                    };
                    meter::entries(1);
                    visited += 1;
                    if !(self.choose)(&entry) {
                        continue;
                    }
                    entry
                }
            };
            if !span.takes(&entry) {
                self.next_entry = Some(entry);
                break;
            }
            span.add(entry);
        }
        let is_end = self.entries.is_none() && self.next_entry.is_none();
        (!is_end || !span.entries.is_empty()).then_some(span)
    }
}

impl<'a> Span<'a> {
    pub(super) fn entries(&self) -> &[DirectoryEntry<'a>] {
        &self.entries
    }

    fn bytes(&self) -> usize {
        self.end - self.start
    }

    fn takes(&self, entry: &DirectoryEntry<'_>) -> bool {
        let (start, end) = blocks_of(entry);
        self.entries.is_empty() || (start <= self.end + GAP_BYTES && end - self.start <= SPAN_BYTES)
    }

    fn add(&mut self, entry: DirectoryEntry<'a>) {
        let (start, end) = blocks_of(&entry);
        if self.entries.is_empty() {
            self.start = start;
        }
        self.end = end;
        self.entries.push(entry);
    }
}

impl Blocks<'_> {
    /// The record of one of the span's entries.
    pub(super) fn record(&self, entry: &DirectoryEntry<'_>) -> Option<&[u8]> {
        let start = (entry.offset as usize).checked_sub(self.start)?;
        self.bytes.get(start..start + entry.length as usize)
    }
}

/// Where the blocks of a record begin and end.
fn blocks_of(entry: &DirectoryEntry<'_>) -> (usize, usize) {
    let (offset, length) = (entry.offset as usize, entry.length as usize);
    (offset / BLOCK_BYTES * BLOCK_BYTES, (offset + length).next_multiple_of(BLOCK_BYTES))
}

async fn read<'a>(file: &'a SegmentFile, segment: SegmentNumber, span: Span<'a>) -> Read<'a> {
    let entries = span.entries.capacity() * size_of::<DirectoryEntry<'_>>();
    let counted = file.health.count_buffer(span.bytes() + entries);
    let bytes = file.read(segment, span.start, span.bytes()).await;
    let blocks = bytes.map(|bytes| Blocks { start: span.start, bytes, _counted: counted });
    (span, blocks)
}
