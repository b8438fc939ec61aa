//! `FrameWriter`: writes frames, directories and superblocks, in the order of the log.
//! It owns the superblock, and the contents of the block in which the log ends.

use std::sync::Arc;
use std::{io, mem};

use futures::future::join;

use super::format::{BLOCK_BYTES, Position, SegmentNumber, align};
use super::log::Log;
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use super::write_batch::{Job, Seal, WriteBatch};
use crate::batch::{BATCH_BYTES, Pacer};
use crate::io::AlignedBuffer;

/// Frames of up to this many bytes are encoded ahead, and their buffers are kept.
const KEPT_BYTES_MAX: usize = 2 << 20;

/// About the length of a full write batch.
const FRAME_BYTES: usize = (1 << 20) + 2 * BLOCK_BYTES;

pub(super) struct FrameWriter {
    log: Arc<Log>,
    file: SegmentFile,
    superblock: Superblock,
    /// The bytes of the log in the block in which it ends.
    tail_block: Vec<u8>,
    /// The next frame, encoded while the last one was written.
    ready: Option<Frame>,
    /// A buffer for another one.
    spare: AlignedBuffer,
}

/// A frame as whole blocks.
struct Frame {
    position: Position,
    offset: u64,
    image: AlignedBuffer,
}

impl FrameWriter {
    pub(super) fn new(
        log: Arc<Log>,
        file: SegmentFile,
        superblock: Superblock,
        tail_block: Vec<u8>,
    ) -> Self {
        let (ready, spare) = (None, AlignedBuffer::default());
        Self { log, file, superblock, tail_block, ready, spare }
    }

    pub(super) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Writes the batches that wait, up to a job of another kind.
    pub(super) async fn write_waiting(&mut self) -> io::Result<()> {
        // Bounded: a write in each turn.
        while let Some(Job::Write(batch)) = self.log.job(true) {
            self.write_batch(&batch).await?;
            self.log.done().await;
        }
        Ok(())
    }

    /// Writes a frame behind the last one, and again what its first block holds before it. The
    /// batch behind it is encoded meanwhile.
    pub(super) async fn write_batch(&mut self, batch: &WriteBatch) -> io::Result<()> {
        let ready = self.ready.take().filter(|ready| ready.position == batch.position);
        let Frame { offset, image, .. } = match ready {
            Some(ready) => ready,
            None => self.encode(batch).await?,
        };
        let file = self.file.clone();
        let writing = file.write_and_return(offset, image);
        let encoding = async {
            file.disk.begun().await;
            match self.log.second_batch() {
                Some(next) if next.record_bytes() <= KEPT_BYTES_MAX => {
                    self.encode(&next).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        let (written, ready) = join(writing, encoding).await;
        let image = written?;
        if image.capacity() <= KEPT_BYTES_MAX {
            self.spare = image;
        }
        self.ready = ready?;
        Ok(())
    }

    async fn encode(&mut self, batch: &WriteBatch) -> io::Result<Frame> {
        let offset = self.file.geometry.file_offset(batch.position);
        let before = usize::try_from(offset % BLOCK_BYTES as u64).unwrap_or(0);
        let length = batch.end.value() - batch.position.value();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // Most frames are about as long as that, and use the same buffer.
        let room = (before + length).max(FRAME_BYTES);
        let mut image = mem::take(&mut self.spare).emptied(room);
        image.append(self.tail_block.get(..before).unwrap_or_default());
        image.append(&batch.header);
        let mut steps = Pacer::default();
        for record in &batch.records {
            steps.entry().await;
            for piece in record.head.chunks(BATCH_BYTES).chain(record.body.chunks(BATCH_BYTES)) {
                steps.bytes(piece.len()).await;
                image.append(piece);
            }
            let bytes = record.head.len() + record.body.len();
            image.append_zeroes(align(bytes) - bytes);
        }
        let last_block = image.len() / BLOCK_BYTES * BLOCK_BYTES;
        self.tail_block = image.get(last_block..).unwrap_or_default().to_vec();
        image.pad_to_block();
        Ok(Frame { position: batch.position, offset: offset - before as u64, image })
    }

    pub(super) async fn write_directory(&self, seal: &Seal) -> io::Result<()> {
        let SegmentFile { geometry, key, .. } = self.file;
        let mut image = Vec::new();
        seal.directory
            .write(key, self.superblock.open_count, seal.end, &mut image)
            .await
            .map_err(io::Error::other)?;
        // Counted twice: the write needs an aligned copy.
        let _counted = self.file.health.count_buffer(2 * image.len());
        let end = geometry.file_offset_of_segment(seal.segment);
        let start = end + u64::from(geometry.segment_bytes()) - image.len() as u64;
        self.file.write(start, AlignedBuffer::copy_from_slice(&image)).await
    }

    /// Writes the header of segment `next`, then the superblocks that announce it.
    pub(super) async fn write_announcement(&mut self, next: SegmentNumber) -> io::Result<()> {
        self.file.write_header(&self.superblock, next).await?;
        self.superblock.newest = next;
        self.write_superblock().await
    }

    pub(super) async fn write_head(&mut self, head: Position) -> io::Result<()> {
        self.superblock.head = head;
        self.write_superblock().await
    }

    /// Marks the store as closed with its end at `tail`. Everything before is on the device first.
    pub(super) async fn write_close(&mut self, tail: Position) -> io::Result<()> {
        self.file.sync().await?;
        self.superblock.clean = true;
        self.superblock.tail = tail;
        self.write_superblock().await?;
        self.file.sync().await
    }

    /// Tries once to mark the store as void: nothing in it may be served.
    pub(super) async fn write_void(&mut self) -> io::Result<()> {
        self.superblock.void = true;
        self.superblock.clean = false;
        self.write_superblock().await?;
        self.file.sync().await?;
        self.file.health.set_voided();
        Ok(())
    }

    async fn write_superblock(&mut self) -> io::Result<()> {
        self.superblock.write_counter += 1;
        self.file.write_superblock(&self.superblock).await
    }
}
