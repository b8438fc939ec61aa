//! `SegmentFile`: reads and writes the store's file: superblocks, headers, frames, directories.
//! A write is retried before it counts as failed; in Power mode a sync follows each.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures::future::join;
use parking_lot::Mutex;

use super::checksum::ChecksumKey;
use super::footer::Footer;
use super::format::{BLOCK_BYTES, Geometry, OpenRange, SegmentNumber};
use super::health::{Health, count};
use super::outline::Outline;
use super::places::{Places, lost};
use super::segment::SegmentHeader;
use super::superblock::{CrashSafety, Superblock, SuperblockCopy};
use crate::batch::Pacer;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{AlignedBuffer, Disk, ReadRequest};
use crate::limiter::Permit;

const TRIES: usize = 3;

/// Read at once for an outline: most are shorter.
const OUTLINE_BYTES: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) geometry: Geometry,
    pub(crate) places: Arc<Places>,
    pub(crate) key: ChecksumKey,
    pub(crate) health: Arc<Health>,
    pub(crate) crash_safety: CrashSafety,
    /// The copy of the superblock to write next: never the only one that is known to be good.
    pub(crate) next_copy: Arc<Mutex<SuperblockCopy>>,
}

impl SegmentFile {
    /// Writes whole blocks at an offset of the file.
    pub(crate) async fn write(&self, offset: u64, buffer: AlignedBuffer) -> io::Result<()> {
        self.write_and_return(offset, buffer).await.map(drop)
    }

    /// The same, and returns the buffer.
    pub(crate) async fn write_and_return(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> io::Result<AlignedBuffer> {
        let (bytes, begun) = (buffer.len(), Instant::now());
        let failed_before = self.health.failed_syncs();
        let mut buffer = buffer;
        let mut tried = 0;
        // Bounded: by the tries.
        loop {
            let (result, returned) = self.disk.write(offset, buffer).await;
            tried += 1;
            match result {
                Ok(()) => {
                    buffer = returned;
                    break;
                }
                Err(_) if tried == TRIES && failpoint(Failpoint::FailedWriteIgnored) => {
                    buffer = returned;
                    break;
                }
                Err(error) if tried == TRIES || returned.len() != bytes => {
                    count(&self.health.metrics.io_errors, 1);
                    return Err(error);
                }
                Err(_) => count(&self.health.metrics.io_errors, 1),
            }
            buffer = returned;
        }
        self.health.metrics.write_latency.count(begun);
        count(&self.health.metrics.writes, 1);
        count(&self.health.metrics.write_bytes, bytes);
        if self.crash_safety == CrashSafety::Power && !failpoint(Failpoint::AcknowledgedUnsynced) {
            self.sync_since(failed_before).await?;
        }
        Ok(buffer)
    }

    /// Syncs all that was written since the log began.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        self.sync_since(self.health.failed_before_restart()).await
    }

    /// Syncs what was written after so many syncs had failed. A failed sync is not retried, nor
    /// trusted one beside or after it: the kernel may have dropped the writes that both cover, and
    /// reports that once.
    async fn sync_since(&self, failed_before: u64) -> io::Result<()> {
        count(&self.health.metrics.syncs, 1);
        let begun = Instant::now();
        let synced = self.disk.sync().await;
        if synced.is_ok() {
            self.health.metrics.sync_latency.count(begun);
        }
        if synced.is_err() {
            count(&self.health.metrics.io_errors, 1);
            self.health.count_failed_sync();
        } else if self.health.failed_syncs() != failed_before {
            return Err(io::Error::other("another sync has failed, and may have dropped writes"));
        }
        synced
    }

    /// Reads whole blocks of a segment, for recovery and reclaim.
    pub(crate) async fn read(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
    ) -> io::Result<AlignedBuffer> {
        self.read_counted(self.span(segment, offset, length)?.background()).await
    }

    /// The same for searches that callers wait for: beside the ring of the writer.
    pub(crate) async fn read_for_callers(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
    ) -> io::Result<AlignedBuffer> {
        self.read_counted(self.span(segment, offset, length)?).await
    }

    /// The same, and keeps the permit for its memory until the device is done.
    pub(crate) async fn read_held(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
        permit: Arc<Permit>,
    ) -> io::Result<AlignedBuffer> {
        let (start, pin) = self.places.pin(segment).ok_or_else(lost)?;
        let request = ReadRequest::new(start + offset as u64, length);
        self.read_counted(request.pinned(Arc::new((pin, permit)))).await
    }

    /// Reads what is going to be written until two reads agree: a bit that flips on the way must
    /// not stay.
    pub(super) async fn read_certain(
        &self,
        offset: u64,
        length: usize,
    ) -> io::Result<AlignedBuffer> {
        let mut failed = io::Error::other("no two reads of a part of the file agree");
        let read = || self.read_counted(ReadRequest::new(offset, length).background());
        // Bounded: by the tries.
        for _ in 0..TRIES {
            match join(read(), read()).await {
                (Ok(first), Ok(second))
                    if first[..] == second[..] || failpoint(Failpoint::CopiedUnseen) =>
                {
                    return Ok(first);
                }
                (Ok(_), Ok(_)) => {}
                (Err(error), _) | (_, Err(error)) => failed = error,
            }
        }
        Err(failed)
    }

    /// A span of a segment, which is pinned until the device is done.
    pub(super) fn span(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
    ) -> io::Result<ReadRequest> {
        let (start, pin) = self.places.pin(segment).ok_or_else(lost)?;
        Ok(ReadRequest::new(start + offset as u64, length).pinned(Arc::new(pin)))
    }

    pub(crate) async fn read_counted(&self, request: ReadRequest) -> io::Result<AlignedBuffer> {
        let length = request.length;
        let read = self.disk.read(request).await;
        count(&self.health.metrics.reads, 1);
        match &read {
            Ok(_) => count(&self.health.metrics.read_bytes, length),
            Err(_) => count(&self.health.metrics.io_errors, 1),
        }
        read
    }

    /// Writes both copies, the second once the first is durable, in every mode, so one copy is
    /// always good. After a failure, the failed copy is written first.
    pub(crate) async fn write_superblock(&self, superblock: &Superblock) -> io::Result<()> {
        let block = superblock.encode().map_err(io::Error::other)?;
        // Bounded: two.
        for _ in 0..2 {
            let copy = *self.next_copy.lock();
            let failed_before = self.health.failed_syncs();
            self.write(copy.offset(), AlignedBuffer::copy_from_slice(&block)).await?;
            self.sync_since(failed_before).await?;
            *self.next_copy.lock() = copy.other();
        }
        Ok(())
    }

    /// Makes the copy durable that an open has chosen, before the other one is overwritten. A
    /// killed process may not have synced it. If its sync had failed, what is read is in the
    /// kernel's memory alone, and no sync makes it durable unless it is written again.
    pub(crate) async fn keep_superblock(
        &self,
        (superblock, copy): &(Superblock, SuperblockCopy),
    ) -> io::Result<()> {
        let failed_before = self.health.failed_syncs();
        if !failpoint(Failpoint::SuperblockNotKept) {
            let block = superblock.encode().map_err(io::Error::other)?;
            self.write(copy.offset(), AlignedBuffer::copy_from_slice(&block)).await?;
        }
        self.sync_since(failed_before).await?;
        *self.next_copy.lock() = copy.other();
        Ok(())
    }

    /// A sealed segment from the start of its directory on. None without a valid footer.
    pub(crate) async fn read_directory(
        &self,
        segment: SegmentNumber,
        opens: OpenRange,
    ) -> io::Result<Option<AlignedBuffer>> {
        let segment_bytes = self.geometry.segment_bytes() as usize;
        let last = self.read(segment, segment_bytes - BLOCK_BYTES, BLOCK_BYTES).await?;
        let Ok(footer) = Footer::decode(&last, segment, opens, self.geometry) else {
            return Ok(None);
        };
        let start = footer.start as usize;
        if start + BLOCK_BYTES == segment_bytes {
            return Ok(Some(last));
        }
        self.read(segment, start, segment_bytes - start).await.map(Some)
    }

    /// The outline of a sealed segment, for a search. None without a good one.
    pub(crate) async fn read_outline(
        &self,
        segment: SegmentNumber,
        opens: OpenRange,
    ) -> io::Result<Option<Outline>> {
        let segment_bytes = self.geometry.segment_bytes() as usize;
        let tail_bytes = OUTLINE_BYTES.min(segment_bytes);
        let mut tail =
            self.read_for_callers(segment, segment_bytes - tail_bytes, tail_bytes).await?;
        let Ok(footer) = Footer::decode(&tail, segment, opens, self.geometry) else {
            return Ok(None);
        };
        if footer.tail_bytes() > tail.len() {
            let length = footer.tail_bytes().next_multiple_of(BLOCK_BYTES);
            tail = self.read_for_callers(segment, segment_bytes - length, length).await?;
        }
        let _counted = self.health.count_buffer(tail.len());
        let mut steps = Pacer::default();
        let read = Outline::read(&tail, self.key, segment, opens, self.geometry, &mut steps);
        Ok(read.await.ok())
    }

    /// Erases the header of a segment that begins at the offset.
    pub(crate) async fn erase_header(&self, offset: u64) -> io::Result<()> {
        let mut blank = AlignedBuffer::with_capacity(BLOCK_BYTES);
        blank.append_zeroes(BLOCK_BYTES);
        self.write(offset, blank).await
    }

    /// Gives a segment its place, and writes its header there.
    pub(crate) async fn write_header(
        &self,
        superblock: &Superblock,
        number: SegmentNumber,
    ) -> io::Result<()> {
        let Superblock { store_id, open_count, .. } = *superblock;
        let block = SegmentHeader { store_id, number, open_count }.encode();
        let offset = self.places.assign(number)?;
        self.write(offset, AlignedBuffer::copy_from_slice(&block)).await
    }
}
