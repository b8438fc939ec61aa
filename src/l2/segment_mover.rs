//! `SegmentMover`: moves segments that lie behind the new end of a file which becomes shorter.
//!
//! One at a time, a step at a time. Its body is copied beside the writes. A segment that is not
//! sealed grows meanwhile: it is copied up to the last whole block that is on file, again and
//! again, until no more than a piece is left or it is sealed. That rest, and the header of any
//! segment that is not sealed, are copied while nothing is written.
//!
//! Then readers find it at its new place, and its old header is erased before the log goes on: only
//! the new place has what is written from then on, and the old one, once its readers are done, may
//! get the body of another segment before that one's header. So a place that is free never has the
//! header of a segment in use.
//!
//! In Power mode each write is durable before the next one. Otherwise no sync is needed: a store
//! that is in use does not survive a power loss, and a close syncs.

use std::io;
use std::sync::Arc;

use super::format::{BLOCK_BYTES, SegmentNumber};
use super::log::Log;
use super::places::Move;
use super::resizing::{PIECE_BYTES, Written, copy_body, first_copied, write_header};
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use crate::failpoint::{Failpoint, failpoint};

/// Copied in one step.
const STEP_BYTES: usize = 8 * PIECE_BYTES;

pub(super) struct SegmentMover {
    log: Arc<Log>,
    file: SegmentFile,
    moving: Option<Moving>,
    /// A place that a segment has left, maybe with readers.
    left: Option<u32>,
    is_pause_wanted: bool,
}

struct Moving {
    moved: Move,
    /// From its beginning on.
    copied: usize,
}

impl SegmentMover {
    pub(super) fn new(log: Arc<Log>, file: SegmentFile) -> Self {
        Self { log, file, moving: None, left: None, is_pause_wanted: false }
    }

    /// Whether [`Self::finish_open`] has something to do.
    pub(super) fn is_pause_wanted(&self) -> bool {
        self.is_pause_wanted
    }

    /// Whether a place that no segment has is kept for one.
    pub(super) fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// Waits for the readers of the place that was left last. Gives up a move that does not bring
    /// its segment to one of the first `count` places.
    pub(super) async fn settle(&mut self, count: u32) {
        if let Some(place) = self.left.take() {
            self.file.places.leave(place).await;
        }
        let places = &self.file.places;
        let given_up = self.moving.take_if(|moving| !places.is_wanted(&moving.moved, count));
        self.cancel(given_up);
    }

    /// A segment is going to leave the log.
    pub(super) fn forget(&mut self, segment: SegmentNumber) {
        let given_up = self.moving.take_if(|moving| moving.moved.segment == segment);
        self.cancel(given_up);
    }

    fn cancel(&mut self, given_up: Option<Moving>) {
        if let Some(Moving { moved, .. }) = given_up {
            self.file.places.cancel_move(&moved);
            self.is_pause_wanted = false;
        }
    }

    /// Copies more of what is on file of a segment to one of the first `count` places, but for what
    /// may be written meanwhile. A segment before `writing` is sealed, and moved when it is copied.
    pub(super) async fn copy(
        &mut self,
        segment: SegmentNumber,
        count: u32,
        (writing, superblock): (SegmentNumber, &Superblock),
    ) -> io::Result<()> {
        let begun = self.moving.take_if(|moving| moving.moved.segment == segment);
        let abandoned = self.moving.take();
        self.cancel(abandoned);
        let moving = match begun {
            Some(moving) => moving,
            None => {
                let moved = self.file.places.begin_move(segment, count)?;
                Moving { moved, copied: first_copied() }
            }
        };
        let moving = self.moving.insert(moving);
        let geometry = self.file.geometry;
        let is_sealed = segment < writing;
        let whole_blocks = || {
            let written = self.log.end_on_file();
            let is_last = geometry.segment_of(written) == segment;
            let end = if is_last { geometry.offset_in_segment(written) as usize } else { 0 };
            end / BLOCK_BYTES * BLOCK_BYTES
        };
        let segment_bytes = geometry.segment_bytes() as usize;
        let end = if is_sealed { segment_bytes } else { whole_blocks() };
        let end = end.min(moving.copied + STEP_BYTES);
        copy_body(&self.file, &moving.moved, moving.copied..end, is_sealed).await?;
        moving.copied = moving.copied.max(end);
        match is_sealed {
            true if moving.copied == segment_bytes => self.switch(superblock).await?,
            true => {}
            false => {
                let left = whole_blocks().saturating_sub(moving.copied);
                self.is_pause_wanted = left <= PIECE_BYTES;
            }
        }
        Ok(())
    }

    /// Copies the rest of a segment that is not sealed, and moves it, unless much was written since
    /// the last step. Nothing is written meanwhile.
    pub(super) async fn finish_open(
        &mut self,
        (writing, superblock): (SegmentNumber, &Superblock),
    ) -> io::Result<()> {
        self.is_pause_wanted = false;
        let Some(moving) = &mut self.moving else { return Ok(()) };
        let (segment, end) = (moving.moved.segment, self.log.end_on_file());
        let Written { bytes, is_sealed } = Written::of(segment, self.file.geometry, end);
        if is_sealed || segment < writing || bytes.saturating_sub(moving.copied) > 2 * PIECE_BYTES {
            return Ok(());
        }
        copy_body(&self.file, &moving.moved, moving.copied..bytes, false).await?;
        self.switch(superblock).await
    }

    /// Has a copied segment lie at its new place.
    async fn switch(&mut self, superblock: &Superblock) -> io::Result<()> {
        let Some(Moving { moved, .. }) = &self.moving else { return Ok(()) };
        write_header(&self.file, moved, superblock).await?;
        self.left = self.file.places.switch(moved);
        let from = moved.from;
        self.moving = None;
        if failpoint(Failpoint::MovedHeaderLeft) {
            return Ok(());
        }
        self.file.erase_header(from).await
    }
}
