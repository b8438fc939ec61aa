//! `SegmentFile`: the store's file in its own units: superblocks, segment headers, frames, directories.
//!
//! Writes are tried again a few times before they count as failed; in Power mode each is followed
//! by its sync.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::checksum::ChecksumKey;
use super::directory::Footer;
use super::format::{BLOCK_BYTES, Geometry, OpenRange, SegmentNumber};
use super::health::{Health, count};
use super::segment::SegmentHeader;
use super::superblock::{CrashSafety, Superblock, SuperblockCopy};
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{AlignedBuffer, Disk, ReadRequest};

/// How often a write or sync is tried.
const TRIES: usize = 3;

#[derive(Clone)]
pub(crate) struct SegmentFile {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) geometry: Geometry,
    pub(crate) key: ChecksumKey,
    pub(crate) health: Arc<Health>,
    pub(crate) crash_safety: CrashSafety,
    /// Which copy of the superblock is written next: never the one that is known to be good, while
    /// the other may not be.
    pub(crate) next_copy: Arc<Mutex<SuperblockCopy>>,
}

impl SegmentFile {
    /// Writes whole blocks at a place in the file.
    pub(crate) async fn write(&self, offset: u64, buffer: AlignedBuffer) -> io::Result<()> {
        let bytes = buffer.len();
        let mut buffer = buffer;
        let mut tried = 0;
        // Bounded: by the tries.
        loop {
            let (result, returned) = self.disk.write(offset, buffer).await;
            tried += 1;
            match result {
                Ok(()) => break,
                Err(_) if tried == TRIES && failpoint(Failpoint::FailedWriteIgnored) => break,
                Err(error) if tried == TRIES || returned.len() != bytes => {
                    count(&self.health.metrics.io_errors, 1);
                    return Err(error);
                }
                Err(_) => count(&self.health.metrics.io_errors, 1),
            }
            buffer = returned;
        }
        count(&self.health.metrics.writes, 1);
        count(&self.health.metrics.write_bytes, bytes);
        if self.crash_safety == CrashSafety::Power && !failpoint(Failpoint::AcknowledgedUnsynced) {
            self.sync().await?;
        }
        Ok(())
    }

    /// A failed sync is not tried again: what it has lost is lost, and the next one would not say.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        count(&self.health.metrics.syncs, 1);
        let synced = self.disk.sync().await;
        if synced.is_err() {
            count(&self.health.metrics.io_errors, 1);
        }
        synced
    }

    /// Reads whole blocks of a segment, for recovery, reclaim and scans.
    pub(crate) async fn read(
        &self,
        segment: SegmentNumber,
        offset: usize,
        length: usize,
    ) -> io::Result<AlignedBuffer> {
        let start = self.geometry.file_offset_of_segment(segment) + offset as u64;
        let read = self.disk.read(ReadRequest::new(start, length).background()).await;
        count(&self.health.metrics.reads, 1);
        match &read {
            Ok(_) => count(&self.health.metrics.read_bytes, length),
            Err(_) => count(&self.health.metrics.io_errors, 1),
        }
        read
    }

    /// Both copies, one after the other: the second is begun when the first can no longer be torn
    /// by a power loss, in every mode, so that one of them is always good. After a failure the copy
    /// that failed is written first.
    pub(crate) async fn write_superblock(&self, superblock: &Superblock) -> io::Result<()> {
        let block = superblock.encode().map_err(io::Error::other)?;
        // Bounded: two.
        for _ in 0..2 {
            let copy = *self.next_copy.lock();
            self.write(copy.offset(), AlignedBuffer::copy_from_slice(&block)).await?;
            self.sync().await?;
            *self.next_copy.lock() = copy.other();
        }
        Ok(())
    }

    /// The last blocks of a sealed segment, from the start of its directory on. None where no
    /// footer can be made out.
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

    /// The header of a segment, in its place.
    pub(crate) async fn write_header(
        &self,
        superblock: &Superblock,
        number: SegmentNumber,
    ) -> io::Result<()> {
        let Superblock { store_id, open_count, .. } = *superblock;
        let block = SegmentHeader { store_id, number, open_count }.encode();
        let offset = self.geometry.file_offset_of_segment(number);
        self.write(offset, AlignedBuffer::copy_from_slice(&block)).await
    }
}
