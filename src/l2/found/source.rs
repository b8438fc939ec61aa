//! `FoundSource`: a store from outside, as what is copied.
//!
//! Nothing pins what is read of a store that has an owner. So the superblock and the header of a
//! segment are read again behind the segment: the owner moves the head on file, or erases the
//! header, before anything else comes into the place.
//!
//! What reclaim has kept of the segments before the head may lie behind the last sealed one. Then
//! the copy is without it, which makes a get find nothing, and never something older: a mark counts
//! for what lies before it in the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::FoundStore;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{Disk, LentBlocks};
use crate::l2::backup::{Copied, CopyError, CopySource, Settled, copy};
use crate::l2::checksum::ChecksumKey;
use crate::l2::format::{BLOCK_BYTES, Geometry, Position, SegmentNumber};
use crate::l2::frames::Frames;
use crate::l2::health::Health;
use crate::l2::recovery_error::RecoveryError;
use crate::l2::resume::start_of;
use crate::l2::segment::SegmentHeader;
use crate::l2::segment_file::SegmentFile;
use crate::l2::superblock::Superblock;

/// Is told of bytes that are done, and of all.
pub(crate) type CopyProgress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

struct FoundSource<'a> {
    store: &'a FoundStore,
    /// The store as it was when the attempt began.
    now: Mutex<Option<Arc<FoundStore>>>,
    tell: CopyProgress<'a>,
    done: AtomicU64,
    total: AtomicU64,
}

impl FoundStore {
    /// Copies the store to a disk that holds an unfinished copy: up to the end of its log, or, if
    /// it has an owner, to that of the last sealed segment. What comes before a segment that has
    /// lost its header is left out, as by an open.
    ///
    /// # Errors
    /// It cannot be read, there is nothing that a copy could have, its owner is too quick, or the
    /// copy cannot be written.
    pub(crate) async fn copy_to(
        &self,
        target: Arc<dyn Disk>,
        tell: CopyProgress<'_>,
    ) -> Result<Copied, CopyError> {
        let source = FoundSource {
            store: self,
            now: Mutex::new(None),
            tell,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        };
        copy(&source, target).await
    }

    /// Whether a copy would have something. It would not if no segment is sealed, and the store has
    /// an owner.
    pub(crate) async fn is_copyable(&self) -> Result<bool, RecoveryError> {
        let end = self.copied_end().await?;
        Ok(end.is_some_and(|end| self.copied_head(end) <= end))
    }

    /// The newest segment that counts and has lost its header, if the store has no owner.
    pub(crate) async fn lost_segment(&self) -> Result<Option<SegmentNumber>, RecoveryError> {
        let end = self.copied_end().await?;
        Ok(end.and_then(|end| self.lost_before(end)))
    }

    fn lost_before(&self, end: Position) -> Option<SegmentNumber> {
        let last = self.file.geometry.segment_of(end);
        // Bounded: by the segments.
        let mut lost = self.segments.iter().rev().filter(|segment| segment.offset.is_none());
        let lost = lost.find(|segment| segment.number <= last).filter(|_| !self.has_owner);
        lost.map(|segment| segment.number)
    }

    fn copied_head(&self, end: Position) -> Position {
        let (geometry, head) = (self.file.geometry, self.superblock.head);
        let lost = self.lost_before(end);
        let behind = lost.and_then(|lost| geometry.start_of(SegmentNumber(lost.0 + 1)));
        behind.map_or(head, |behind| behind.max(head))
    }

    /// Where the log ends, as far as it is copied. None if it has no segment.
    async fn copied_end(&self) -> Result<Option<Position>, RecoveryError> {
        if !self.has_owner && self.superblock.clean {
            return Ok(Some(self.superblock.tail));
        }
        // Bounded: by the segments.
        for segment in self.segments.iter().rev() {
            match &segment.footer {
                Some(footer) => return Ok(Some(footer.end)),
                None if self.has_owner || segment.offset.is_none() => {}
                None => {
                    if let Some(end) = self.end_of_frames(segment.number).await? {
                        return Ok(Some(end));
                    }
                }
            }
        }
        if self.has_owner {
            return Ok(None);
        }
        // The first segment is there, and empty.
        let first = self.file.geometry.segment_of(self.superblock.head);
        Ok(start_of(self.file.geometry, first)?.after(BLOCK_BYTES as u64))
    }

    /// Where the last good frame of a segment ends.
    async fn end_of_frames(
        &self,
        number: SegmentNumber,
    ) -> Result<Option<Position>, RecoveryError> {
        let start = start_of(self.file.geometry, number)?;
        let mut frames = Frames::new(&self.file, number, start, self.opens());
        let (mut next, mut end) = (BLOCK_BYTES, None);
        // Bounded: a frame in each turn, read in steps.
        while let Some(found) = frames.find_from(next).await? {
            let Some(header) = frames.at(found).await? else { break };
            // As an open does: a frame of an older open is a leftover.
            frames.opens.first = header.open_count;
            next = found + header.length as usize;
            end = start.after(next as u64);
        }
        Ok(end)
    }

    /// Whether what was read of a segment until now was the segment.
    async fn is_still_there(&self, number: SegmentNumber) -> Result<Settled, RecoveryError> {
        let head = self.head_now().await?;
        if head.is_some_and(|head| number < head) {
            return Ok(Settled::Left);
        }
        let id = self.superblock.store_id;
        let block = self.file.read(number, 0, BLOCK_BYTES).await;
        let header =
            block.ok().map(|block| SegmentHeader::decode(&block, id, number, self.opens()));
        let is_there = matches!(header, Some(Ok(_)));
        Ok(if is_there && head.is_some() { Settled::Copied } else { Settled::Moved })
    }
}

impl FoundSource<'_> {
    fn now(&self) -> Result<Arc<FoundStore>, CopyError> {
        let now = self.now.lock().clone();
        now.ok_or_else(|| CopyError::Source(io::Error::other("no attempt has begun")))
    }

    fn begin(&self, store: FoundStore, head: Position, end: Position) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(end.value().saturating_sub(head.value()), Ordering::Relaxed);
        *self.now.lock() = Some(Arc::new(store));
    }
}

impl CopySource for FoundSource<'_> {
    fn geometry(&self) -> Geometry {
        self.store.file.geometry
    }

    fn key(&self) -> ChecksumKey {
        self.store.file.key
    }

    fn health(&self) -> &Health {
        &self.store.file.health
    }

    async fn on_file(&self) -> Result<Superblock, CopyError> {
        let now = self.store.again().await.map_err(not_read)?;
        if now.superblock.store_id != self.store.superblock.store_id || now.superblock.void {
            return Err(not_read(io::Error::other("the store has begun anew").into()));
        }
        let end = now.copied_end().await.map_err(not_read)?.ok_or_else(nothing)?;
        let head = now.copied_head(end);
        if end < head {
            return Err(nothing());
        }
        let superblock = Superblock { head, ..now.superblock };
        self.begin(now, head, end);
        Ok(superblock)
    }

    async fn end(&self) -> Result<Position, CopyError> {
        let end = self.now()?.copied_end().await.map_err(not_read)?;
        end.ok_or_else(nothing)
    }

    fn file(&self) -> Result<SegmentFile, CopyError> {
        Ok(self.now()?.file.clone())
    }

    /// Those beneath what was erased in memory: headers that mislead, in no segment's midst.
    async fn lend(&self) -> io::Result<LentBlocks> {
        self.store.disk.lend().await
    }

    fn note_copied(&self, bytes: usize) {
        let total = self.total.load(Ordering::Relaxed);
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        (self.tell)(done.min(total), total);
    }

    async fn settle(
        &self,
        number: SegmentNumber,
        copied: Result<(), CopyError>,
    ) -> Result<Settled, CopyError> {
        if !self.store.has_owner || failpoint(Failpoint::OverwrittenCopied) {
            return copied.map(|()| Settled::Copied);
        }
        let settled = self.now()?.is_still_there(number).await.map_err(not_read)?;
        match copied {
            Ok(()) | Err(CopyError::Source(_)) if !matches!(settled, Settled::Copied) => {
                Ok(settled)
            }
            other => other.map(|()| Settled::Copied),
        }
    }
}

fn not_read(error: RecoveryError) -> CopyError {
    CopyError::Source(match error {
        RecoveryError::Io(source) => source,
        other => io::Error::other(other.to_string()),
    })
}

fn nothing() -> CopyError {
    CopyError::Source(io::Error::other("it has no sealed segment any more"))
}
