//! Copies a store to another disk while its log goes on.
//!
//! The copy is what an open would find if the log had been closed at one position, the end. The
//! order of the steps makes it so:
//!
//! 1. The head is read from the superblock on file. What reclaim has kept of the segments before it
//!    was appended again before that superblock was written.
//! 2. So it lies before the end of the log that is read now. Once everything before that is on
//!    file, the end of the copy is that of the last frame on file.
//! 3. The head on file is still the same. Otherwise slots of the segment that has left may be gone,
//!    and a mutation before the end may have left no record, since it found nothing.
//! 4. The segments from the head to the end are copied, oldest first. If one leaves the log before
//!    it is copied, what reclaim has kept of it may lie behind the end, so all begins again.
//! 5. The copy is synced, and then gets its superblock, of a store that was closed at the end.
//!
//! Until then the copy begins with a mark, by which every open refuses it. A segment is pinned for
//! one piece at a time, so a copy delays reclaim by the read of one piece. It may be moved
//! meanwhile: its header is erased at the old place, so a piece with a header is looked at.
//!
//! Where the file system can, blocks without a header are shared instead. Each gets room of its own
//! when the store overwrites it, so the file system must have room for a whole copy all the same.
//!
//! A store that is looked at from outside is copied in the same steps, by what `CopySource` asks.

use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, stream};
use parking_lot::Mutex;

use super::L2;
use super::block_sharing::BlockSharing;
use super::checksum::ChecksumKey;
use super::format::{BLOCK_BYTES, DATA_OFFSET, Geometry, Position, SegmentNumber, StoreId};
use super::health::Health;
use super::places::Places;
use super::recovery_error::RecoveryError;
use super::resume::start_of;
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use super::superblock::{CrashSafety, Superblock, SuperblockCopy, SuperblockError, unfinished};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{AlignedBuffer, Disk, LentBlocks, ReadRequest};

/// Copied at once of one segment.
const PIECE_BYTES: usize = if cfg!(test) { 16 << 10 } else { 1 << 20 };

/// Pieces that are copied at once.
const PIECES: usize = 4;

/// How often it begins again behind a segment that has left the log too early, and how often the
/// head may move while the end is found.
const TRIES: usize = 8;

/// Attempts to read a piece.
const READS: usize = 3;

/// The least that a store has.
const SEGMENTS_MIN: u64 = 4;

/// The length of a file that is made for a copy.
pub(crate) const EMPTY_BYTES: u64 = DATA_OFFSET;

/// What was copied.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Copied {
    pub(crate) segments: u64,
    /// The length of the copy.
    pub(crate) bytes: u64,
    /// Of these, what was shared instead of copied.
    pub(crate) shared_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum CopyError {
    /// The tier was turned off.
    Off,
    /// The store could not be read.
    Source(io::Error),
    /// The copy could not be written.
    Target(io::Error),
    /// The file system of the copy has no room.
    NoRoom { needed_bytes: u64, available_bytes: u64 },
    /// The log was written faster than it could be copied.
    Outrun,
}

/// What a disk that is to become a copy begins with, so that no open takes it for a store.
pub(crate) fn begin_unfinished() -> AlignedBuffer {
    AlignedBuffer::copy_from_slice(&[unfinished(), unfinished()].concat())
}

/// Whether a disk holds a copy that was not finished, and nothing else.
pub(crate) async fn is_unfinished(disk: &dyn Disk) -> io::Result<bool> {
    if disk.length() < EMPTY_BYTES {
        return Ok(false);
    }
    let blocks = disk.read(ReadRequest::new(0, 2 * BLOCK_BYTES).background()).await?;
    let (first, second) = blocks.split_at(BLOCK_BYTES);
    Ok(matches!(Superblock::choose(first, second), Err(SuperblockError::Unfinished)))
}

/// A store that is copied.
pub(super) trait CopySource: Sync {
    fn geometry(&self) -> Geometry;

    fn key(&self) -> ChecksumKey;

    /// Counts the buffer of a piece.
    fn health(&self) -> &Health;

    /// What its superblock on file says. It is asked for before and behind the end.
    fn on_file(&self) -> impl Future<Output = Result<Superblock, CopyError>> + Send;

    /// Where a frame ends, behind everything that the copy has to have.
    fn end(&self) -> impl Future<Output = Result<Position, CopyError>> + Send;

    /// Its segments.
    fn file(&self) -> Result<SegmentFile, CopyError>;

    /// The blocks of its file, for another one.
    fn lend(&self) -> impl Future<Output = io::Result<LentBlocks>> + Send;

    /// So many bytes of a segment were copied.
    fn note_copied(&self, _bytes: usize) {}

    /// What has become of a segment whose copy has ended so.
    fn settle(
        &self,
        number: SegmentNumber,
        copied: Result<(), CopyError>,
    ) -> impl Future<Output = Result<Settled, CopyError>> + Send;
}

/// What has become of a segment that was to be copied.
pub(super) enum Settled {
    Copied,
    /// It has left the log before all of it was read.
    Left,
    /// It may have been read where it no longer lay.
    #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
    Moved,
}

/// One copy, which is under way.
struct Copying<'a, S> {
    source: &'a S,
    store_id: StoreId,
    target: Arc<dyn Disk>,
    sharing: BlockSharing,
}

/// What is copied: all from the head to the end.
struct Extent {
    superblock: Superblock,
    head: Position,
    end: Position,
}

/// Whether all was copied, or from which position on to begin again.
enum Pass {
    Whole,
    Again(Position),
}

/// Copies a store to a disk that holds an unfinished copy. It has everything that was appended
/// before the call. Dropped, it leaves an unfinished copy, or one that is whole.
pub(crate) async fn copy_store(source: &L2, target: Arc<dyn Disk>) -> Result<Copied, CopyError> {
    copy(source, target).await
}

/// The same for any source.
pub(super) async fn copy<S: CopySource>(
    source: &S,
    target: Arc<dyn Disk>,
) -> Result<Copied, CopyError> {
    let store_id = source.on_file().await?.store_id;
    let sharing = BlockSharing::new(source.lend().await);
    let unfinished = Unfinished(Some(Arc::clone(&target)));
    let copying = Copying { source, store_id, target, sharing };
    let mut head = Position::FIRST;
    // Bounded: by the tries.
    for _ in 0..TRIES {
        let extent = copying.extent(head).await?;
        let copy = copying.make_room(&extent).await?;
        match copying.pass(&extent, &copy).await {
            Ok(Pass::Whole) => return copying.finish(&extent, &copy, unfinished).await,
            Ok(Pass::Again(from)) => head = from,
            // What was to be copied into a file whose room is not reserved.
            Err(CopyError::Target(error)) => return Err(no_room(error, copy.geometry)),
            Err(error) => return Err(error),
        }
    }
    Err(CopyError::Outrun)
}

/// The disk of a copy that is not whole. At an end before that it gives back its room: blocks that
/// it shares would take the store's reserved room, as the store overwrites them.
struct Unfinished(Option<Arc<dyn Disk>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(target) = self.0.take() {
            // Carried out without being polled again.
            let _ = target.resize(EMPTY_BYTES).now_or_never();
        }
    }
}

impl CopySource for L2 {
    fn geometry(&self) -> Geometry {
        Self::geometry(self)
    }

    fn key(&self) -> ChecksumKey {
        self.file.key
    }

    fn health(&self) -> &Health {
        &self.file.health
    }

    async fn on_file(&self) -> Result<Superblock, CopyError> {
        let request = ReadRequest::new(0, 2 * BLOCK_BYTES).background();
        let blocks = self.file.read_counted(request).await.map_err(CopyError::Source)?;
        let (first, second) = blocks.split_at(BLOCK_BYTES);
        match Superblock::choose(first, second) {
            Ok((superblock, _)) => Ok(superblock),
            Err(error) => Err(CopyError::Source(io::Error::other(error))),
        }
    }

    /// Behind everything that the log has now. A log that is off has not all mutations.
    async fn end(&self) -> Result<Position, CopyError> {
        let tail = self.log.running_tail().ok_or(CopyError::Off)?;
        if failpoint(Failpoint::BackupNotAwaited) {
            return Ok(tail);
        }
        self.log.written(tail).await.map_err(|_| CopyError::Off)?;
        self.log.running_end_on_file().ok_or(CopyError::Off)
    }

    fn file(&self) -> Result<SegmentFile, CopyError> {
        Ok(self.file.clone())
    }

    async fn lend(&self) -> io::Result<LentBlocks> {
        self.file.disk.lend().await
    }

    /// What was read of it was pinned.
    async fn settle(
        &self,
        number: SegmentNumber,
        copied: Result<(), CopyError>,
    ) -> Result<Settled, CopyError> {
        match copied {
            Ok(()) => Ok(Settled::Copied),
            Err(CopyError::Source(_)) if self.is_reclaimed(number) => Ok(Settled::Left),
            Err(error) => Err(error),
        }
    }
}

impl<S: CopySource> Copying<'_, S> {
    /// `head`: what was left of the log then.
    async fn extent(&self, head: Position) -> Result<Extent, CopyError> {
        let mut before = self.source.on_file().await?;
        // Bounded: by the tries.
        for _ in 0..TRIES {
            let end = self.source.end().await?;
            let after = self.source.on_file().await?;
            if after.head == before.head {
                let head = before.head.max(head);
                // Otherwise the log begins anew.
                let extent = Extent { superblock: before, head, end };
                return Some(extent).filter(|it| it.head <= it.end).ok_or(CopyError::Off);
            }
            before = after;
        }
        Err(CopyError::Outrun)
    }

    /// Gives the disk its size. It holds nothing but the mark then.
    async fn make_room(&self, extent: &Extent) -> Result<SegmentFile, CopyError> {
        let geometry = self.geometry();
        let count = extent.last(geometry).0 + 1 - geometry.segment_of(extent.head).0;
        // The one behind the last must be free, for the log to go on.
        let count = (count + 1).max(SEGMENTS_MIN);
        let geometry = u32::try_from(count).ok();
        let geometry = geometry.and_then(|it| Geometry::new(self.geometry().segment_bytes(), it));
        let geometry = geometry.ok_or(CopyError::Outrun)?;
        let needed = geometry.file_bytes();
        let resized = self.resize(needed).await;
        resized.map_err(|error| no_room(error, geometry))?;
        Ok(SegmentFile {
            disk: Arc::clone(&self.target),
            geometry,
            places: Arc::new(Places::new(geometry)),
            key: self.source.key(),
            health: Arc::new(Health::default()),
            crash_safety: CrashSafety::Cold,
            next_copy: Arc::new(Mutex::new(SuperblockCopy::First)),
        })
    }

    async fn resize(&self, length: u64) -> io::Result<()> {
        let shares = self.sharing.has_blocks() && {
            self.target.resize(EMPTY_BYTES + BLOCK_BYTES as u64).await?;
            self.sharing.try_out(&*self.target, EMPTY_BYTES).await
        };
        // What an earlier attempt has left reads as zeroes.
        self.target.resize(EMPTY_BYTES).await?;
        if shares {
            self.target.resize_unreserved(length).await
        } else {
            self.target.resize(length).await
        }
    }

    async fn pass(&self, extent: &Extent, copy: &SegmentFile) -> Result<Pass, CopyError> {
        let geometry = self.geometry();
        let (first, last) = (geometry.segment_of(extent.head), extent.last(geometry));
        // Bounded: a segment in each turn, with waits in between.
        for number in (first.0..=last.0).map(SegmentNumber) {
            let length = match number == last {
                true => geometry.offset_in_segment(extent.end) as usize,
                false => geometry.segment_bytes() as usize,
            };
            match self.copy_segment(number, length, copy).await? {
                Settled::Copied => {}
                Settled::Left => return Ok(Pass::Again(self.start_of(number.0 + 1)?)),
                #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
                Settled::Moved => return Ok(Pass::Again(extent.head)),
            }
        }
        Ok(Pass::Whole)
    }

    /// Copies so many bytes of a segment.
    async fn copy_segment(
        &self,
        number: SegmentNumber,
        length: usize,
        copy: &SegmentFile,
    ) -> Result<Settled, CopyError> {
        let place = copy.places.assign(number).map_err(CopyError::Target)?;
        let failed = &Mutex::new(None);
        // Bounded: a piece in each turn. After a failure those under way end all the same, since
        // none of their writes may come after what is written next.
        let pieces = stream::iter((0..length).step_by(PIECE_BYTES));
        let copying = pieces.for_each_concurrent(PIECES, |start| async move {
            if failed.lock().is_some() {
                return;
            }
            let kept = start..length.min(start + PIECE_BYTES);
            if let Err(error) = self.copy_piece(number, kept, (copy, place)).await {
                failed.lock().get_or_insert(error);
            }
        });
        copying.await;
        let failed = failed.lock().take();
        self.source.settle(number, failed.map_or(Ok(()), Err)).await
    }

    /// Shares the blocks of a piece that can be shared, and copies the rest.
    async fn copy_piece(
        &self,
        number: SegmentNumber,
        kept: Range<usize>,
        (copy, place): (&SegmentFile, u64),
    ) -> Result<(), CopyError> {
        // The header is looked at, and zeroes follow the last bytes of a segment.
        let start = kept.start.max(BLOCK_BYTES);
        let blocks = start..(kept.end / BLOCK_BYTES * BLOCK_BYTES).max(start);
        let mut rest = [kept.clone(), kept.end..kept.end];
        if !blocks.is_empty() {
            let span = self.source.file()?.span(number, blocks.start, blocks.len());
            let offset = place + blocks.start as u64;
            let shared = self.sharing.share(&*copy.disk, span, offset).await;
            if shared.map_err(CopyError::Target)? {
                rest = [kept.start..blocks.start, blocks.end..kept.end];
            }
        }
        // Bounded: two.
        for rest in rest.into_iter().filter(|rest| !rest.is_empty()) {
            self.copy_bytes(number, rest, (copy, place)).await?;
        }
        self.source.note_copied(kept.len());
        Ok(())
    }

    async fn copy_bytes(
        &self,
        number: SegmentNumber,
        kept: Range<usize>,
        (copy, place): (&SegmentFile, u64),
    ) -> Result<(), CopyError> {
        let _counted = self.source.health().count_buffer(kept.len());
        let mut read = self.read(number, kept.clone()).await;
        // Bounded: by the attempts.
        for _ in 1..READS {
            if read.is_err() {
                read = self.read(number, kept.clone()).await;
            }
        }
        let piece = read.map_err(CopyError::Source)?;
        copy.write(place + kept.start as u64, piece).await.map_err(CopyError::Target)
    }

    /// Whole blocks, of which these bytes are kept, and zeroes behind them.
    async fn read(&self, number: SegmentNumber, kept: Range<usize>) -> io::Result<AlignedBuffer> {
        let length = kept.len().next_multiple_of(BLOCK_BYTES);
        let file = self.source.file().map_err(|_| io::Error::other("no attempt has begun"))?;
        let piece = file.read(number, kept.start, length).await?;
        if kept.start == 0 && !failpoint(Failpoint::BackupHeaderUnseen) {
            let found = SegmentHeader::identify(&piece, self.store_id).map(|it| it.number);
            if found != Ok(number) {
                return Err(io::Error::other("the header of a segment is gone"));
            }
        }
        if kept.len() == length {
            return Ok(piece);
        }
        let mut cut = AlignedBuffer::with_capacity(length);
        cut.append(piece.get(..kept.len()).unwrap_or_default());
        cut.append_zeroes(length - kept.len());
        Ok(cut)
    }

    /// Makes a store of a copy that is whole.
    async fn finish(
        &self,
        extent: &Extent,
        copy: &SegmentFile,
        mut unfinished: Unfinished,
    ) -> Result<Copied, CopyError> {
        if !failpoint(Failpoint::BackupUnsynced) {
            // Blocks that were shared, and then written elsewhere, may take their room here.
            copy.sync().await.map_err(|error| no_room(error, copy.geometry))?;
        }
        // Whole, whether or not the rest is carried out to its end.
        unfinished.0 = None;
        let superblock = extent.superblock(copy.geometry);
        copy.write_superblock(&superblock).await.map_err(CopyError::Target)?;
        Ok(Copied {
            segments: copy.places.in_use(),
            bytes: copy.geometry.file_bytes(),
            shared_bytes: self.sharing.bytes(),
        })
    }

    fn geometry(&self) -> Geometry {
        self.source.geometry()
    }

    fn start_of(&self, segment: u64) -> Result<Position, CopyError> {
        start_of(self.geometry(), SegmentNumber(segment)).map_err(CopyError::Source)
    }
}

impl Extent {
    /// The segment in which the log ends.
    fn last(&self, geometry: Geometry) -> SegmentNumber {
        geometry.segment_of(self.end)
    }

    /// That of the copy.
    fn superblock(&self, geometry: Geometry) -> Superblock {
        let crash_safety = match self.superblock.crash_safety {
            // What it has is whole, whatever the store would have begun with.
            CrashSafety::Cold => CrashSafety::Process,
            other => other,
        };
        Superblock {
            crash_safety,
            geometry,
            head: self.head,
            newest: self.last(geometry),
            tail: self.end,
            clean: true,
            void: false,
            ..self.superblock
        }
    }
}

fn no_room(source: io::Error, of: Geometry) -> CopyError {
    let needed = of.file_bytes() - EMPTY_BYTES;
    let refused = RecoveryError::Grow { needed, source };
    match (refused.no_room(), refused) {
        (Some((needed_bytes, available_bytes)), _) => {
            CopyError::NoRoom { needed_bytes, available_bytes }
        }
        (None, RecoveryError::Grow { source, .. }) => CopyError::Target(source),
        (None, other) => CopyError::Target(io::Error::other(other)),
    }
}
