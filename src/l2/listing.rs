//! `ListingCursor`: lists the blobs of one segment that match a search, a piece at a time.
//!
//! Between two pieces it holds no buffer, no pin and no permit, however long that is. It names the
//! segment by its number, which no other one ever has, and pages by theirs: each is checked when it
//! is read. Of a segment that is not sealed on file yet it takes the runs in the order of the log;
//! if it is sealed meanwhile, the cursor knows from which offset on it has not listed yet.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::L2;
use super::directory_builder::ListedRun;
use super::directory_entry::{Change, EntryReader};
use super::error::DecodeError;
use super::format::{BLOCK_BYTES, Position, SegmentNumber};
use super::health::count;
use super::outline::Outline;
use super::search_targets::{SearchTargets, SegmentTargets};
use super::segment_file::SegmentFile;
use super::segment_search::{FoundBlobs, damaged, matching};
use super::wire::Reader;
use crate::batch::Pacer;
use crate::limiter::Permit;
use crate::telemetry::tell;

/// The most memory of a piece, unless keys are very long. Half of it is for the blocks that are
/// read, the other one for what they list.
pub(crate) const LISTED_BYTES: usize = 128 << 10;

/// The place in one segment at which a listing goes on.
#[derive(Clone)]
pub(crate) struct ListingCursor {
    segment: SegmentNumber,
    /// The pages that are left, once it is known to be sealed.
    pages: Option<(Arc<Outline>, Range<usize>)>,
    /// Until then, the next run.
    run: usize,
    /// What is before this offset was listed from runs.
    listed: u32,
}

/// Some of the blobs of a segment, and where to go on; None at its end.
pub(crate) struct ListedPiece {
    pub(crate) found: Vec<FoundBlobs>,
    pub(crate) next: Option<ListingCursor>,
}

impl L2 {
    /// Some more of the blobs that a segment has of the targets. None: it has left the log.
    /// `memory`: the permit for what it reads, and its bytes.
    ///
    /// # Errors
    /// What it has from there on is not known, although it is in use.
    pub(crate) async fn list(
        &self,
        cursor: ListingCursor,
        targets: &Arc<SearchTargets>,
        memory: (&Arc<Permit>, usize),
    ) -> io::Result<Option<ListedPiece>> {
        let segment = cursor.segment();
        match self.list_in_use(cursor, targets, memory).await {
            // Its place may have been written to: what was read there is not damage.
            Err(_) if self.is_reclaimed(segment) => Ok(None),
            listed => listed,
        }
    }

    /// Counts and logs damage of a directory that a listing has met.
    pub(crate) fn note_damage(&self, segment: SegmentNumber, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData && !self.health().is_off() {
            count(&self.health().metrics.corruptions, 1);
            let segment = segment.0;
            tell!(warn, "disk", segment, %error, "a directory is damaged, its keys are not listed");
        }
    }

    async fn list_in_use(
        &self,
        mut cursor: ListingCursor,
        targets: &Arc<SearchTargets>,
        memory: (&Arc<Permit>, usize),
    ) -> io::Result<Option<ListedPiece>> {
        let segment = cursor.segment();
        let Some(start) = self.geometry().start_of(segment) else { return Ok(None) };
        if self.is_reclaimed(segment) {
            return Ok(None);
        }
        if !cursor.is_sealed() {
            let nothing = || ListedPiece { found: Vec::new(), next: None };
            match self.log.unsealed_run((segment, cursor.run()), targets) {
                Some(Some(run)) => return cursor.list_run(start, run).await.map(Some),
                Some(None) => return Ok(Some(nothing())),
                None => {}
            }
            let Some(outline) = self.outline_of(segment).await? else { return Ok(None) };
            cursor.seal(outline, targets);
        }
        cursor.list_pages(start, &self.file, targets, memory).await.map(Some)
    }
}

impl ListingCursor {
    pub(crate) fn new(segment: SegmentNumber) -> Self {
        Self { segment, pages: None, run: 0, listed: 0 }
    }

    pub(crate) fn segment(&self) -> SegmentNumber {
        self.segment
    }

    pub(super) fn run(&self) -> usize {
        self.run
    }

    /// Whether it lists the blobs of the segment in the order of their keys.
    pub(crate) fn is_in_key_order(&self) -> bool {
        self.is_sealed() && self.listed == 0
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.pages.is_some()
    }

    /// The segment is sealed on file, and this is its outline.
    pub(super) fn seal(&mut self, outline: Arc<Outline>, targets: &Arc<SearchTargets>) {
        let targets = targets.in_rows(|namespace| outline.row_of(namespace));
        // A listing has one target.
        let pages = targets.iter().next().map(|(row, prefix)| outline.pages_of(row, prefix));
        self.pages = Some((outline, pages.unwrap_or_default()));
    }

    /// The blobs of a run, in the order of the log.
    pub(super) async fn list_run(
        mut self,
        start: Position,
        (targets, listed): (SegmentTargets, ListedRun),
    ) -> io::Result<ListedPiece> {
        let ListedRun { run, reader, is_last } = listed;
        let mut steps = Pacer::default();
        let (mut bytes, mut spans, mut rest) = (Vec::new(), Vec::new(), Reader::new(run.entries()));
        while !rest.rest().is_empty() {
            steps.entry().await;
            let before = rest.rest();
            let read = reader.read(&mut rest, |row| Some(targets.named(row)));
            let (row, entry) = read.map_err(damaged)?;
            self.listed = entry.offset + 1;
            let (Some(row), Change::Blob(blob)) = (row, entry.change) else { continue };
            if targets.matches(row, blob.key) {
                let entry = before.get(..before.len() - rest.rest().len()).unwrap_or_default();
                spans.push(bytes.len()..bytes.len() + entry.len());
                bytes.extend_from_slice(entry);
            }
        }
        self.run += 1;
        let found = FoundBlobs::new(start, Arc::new(targets), reader, (bytes.into(), spans));
        Ok(ListedPiece { found: vec![found], next: (!is_last).then_some(self) })
    }

    /// The blobs of some pages, in the order of their keys. The permit covers so many bytes of
    /// memory, and is held until the device is done.
    pub(super) async fn list_pages(
        mut self,
        start: Position,
        file: &SegmentFile,
        targets: &Arc<SearchTargets>,
        (permit, bytes): (&Arc<Permit>, usize),
    ) -> io::Result<ListedPiece> {
        let (mut found, mut steps) = (Vec::new(), Pacer::default());
        let Some((outline, pages)) = &mut self.pages else {
            return Ok(ListedPiece { found, next: Some(self) });
        };
        if pages.start >= pages.end {
            return Ok(ListedPiece { found, next: None });
        }
        let of_segment = Arc::new(targets.in_rows(|namespace| outline.row_of(namespace)));
        let end_max = file.geometry.offset_in_segment(outline.footer.end) as usize;
        let reader = EntryReader { bases: outline.footer.bases, end_max };
        let offset = outline.span(pages.start).start / BLOCK_BYTES * BLOCK_BYTES;
        // Bounded: by the pages that are read together.
        let together = pages.clone().take_while(|page| {
            *page == pages.start || outline.span(*page).end <= offset + bytes / 2
        });
        let read = pages.start..together.last().map_or(pages.end, |last| last + 1);
        let end = outline.span(read.end - 1).end.next_multiple_of(BLOCK_BYTES);
        let held = Arc::clone(permit);
        let blocks = file.read_held(self.segment, offset, end - offset, held).await?;
        for number in read.clone() {
            let span = outline.span(number);
            let page = blocks.get(span.start - offset..span.end - offset);
            let page = page.ok_or_else(|| damaged(DecodeError::Truncated))?;
            steps.bytes(page.len()).await;
            if !outline.is_page(number, page) {
                return Err(damaged(DecodeError::Checksum));
            }
            let spans = matching(page, &of_segment, reader, &mut steps).await.map_err(damaged)?;
            if spans.is_empty() {
                continue;
            }
            // The blocks are returned with the permit.
            steps.bytes(page.len()).await;
            let page = (Bytes::copy_from_slice(page), spans);
            let mut blobs = FoundBlobs::new(start, Arc::clone(&of_segment), reader, page);
            if self.listed > 0 {
                blobs.leave_from(self.listed, &mut steps).await;
            }
            found.push(blobs);
        }
        pages.start = read.end;
        let is_over = pages.start >= pages.end;
        Ok(ListedPiece { found, next: (!is_over).then_some(self) })
    }
}
