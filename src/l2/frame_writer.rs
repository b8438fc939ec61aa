//! `FrameWriter`: writes frames and directories, in the order of the log.
//! It owns the contents of the block in which the log ends.

use std::sync::Arc;
use std::{io, mem};

use futures::future::join;

use super::format::{BLOCK_BYTES, OpenCount, OpenRange, Position, align};
use super::log::{Finished, Log};
use super::outline::Outline;
use super::segment_file::SegmentFile;
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
    open_count: OpenCount,
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
    /// Bytes of the log before it, in its first block.
    before: usize,
    image: AlignedBuffer,
}

impl FrameWriter {
    pub(super) fn new(
        log: Arc<Log>,
        file: SegmentFile,
        open_count: OpenCount,
        tail_block: Vec<u8>,
    ) -> Self {
        let (ready, spare) = (None, AlignedBuffer::default());
        Self { log, file, open_count, tail_block, ready, spare }
    }

    /// Writes a batch, and those that are ready when it is on file; tells who waits for them.
    pub(super) async fn write_batches(&mut self, first: Arc<WriteBatch>) -> io::Result<()> {
        let (mut batch, mut before) = (first, None);
        // Bounded: a write in each turn.
        loop {
            self.write_batch(&batch, before).await?;
            let finished = self.log.finish();
            // The supply begins its steps between two frames.
            let has_more = self.log.is_supply_wanted() || self.log.sizes().latest().is_some();
            batch = match self.log.job(false) {
                Some(Job::Write(next)) if !has_more => next,
                _ => {
                    self.log.settle(finished).await;
                    return Ok(());
                }
            };
            before = Some(finished);
        }
    }

    /// Writes a frame behind the last one, and again what its first block holds before it.
    /// Meanwhile settles the batch before, and encodes the one behind.
    async fn write_batch(
        &mut self,
        batch: &WriteBatch,
        before: Option<Finished>,
    ) -> io::Result<()> {
        let ready = self.ready.take().filter(|ready| ready.position == batch.position);
        let Frame { position, before: bytes, image } = match ready {
            Some(ready) => ready,
            None => self.encode(batch).await?,
        };
        // Not when it was encoded: its segment may have been moved since.
        let offset = self.file.places.offset_at(position, self.file.geometry)? - bytes as u64;
        let (file, log) = (self.file.clone(), Arc::clone(&self.log));
        let writing = file.write_and_return(offset, image);
        let meanwhile = async {
            file.disk.begun().await;
            if let Some(before) = before {
                log.settle(before).await;
            }
            match log.second_batch() {
                Some(next) if next.record_bytes() <= KEPT_BYTES_MAX => {
                    self.encode(&next).await.map(Some)
                }
                _ => Ok(None),
            }
        };
        let (written, ready) = join(writing, meanwhile).await;
        let image = written?;
        if image.capacity() <= KEPT_BYTES_MAX {
            self.spare = image;
        }
        self.ready = ready?;
        Ok(())
    }

    async fn encode(&mut self, batch: &WriteBatch) -> io::Result<Frame> {
        let offset = self.file.geometry.offset_in_segment(batch.position) as usize;
        let before = offset % BLOCK_BYTES;
        let length = batch.end.value() - batch.position.value();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        // Most frames are about as long as that, and use the same buffer.
        let room = (before + length).max(FRAME_BYTES);
        let mut image = mem::take(&mut self.spare).emptied(room);
        image.append(self.tail_block.get(..before).unwrap_or_default());
        image.append(&batch.header);
        let mut steps = Pacer::default();
        for (head, body) in batch.records.iter() {
            steps.entry().await;
            for piece in head.chunks(BATCH_BYTES).chain(body.chunks(BATCH_BYTES)) {
                steps.bytes(piece.len()).await;
                image.append(piece);
            }
            let bytes = head.len() + body.len();
            image.append_zeroes(align(bytes) - bytes);
        }
        let last_block = image.len() / BLOCK_BYTES * BLOCK_BYTES;
        self.tail_block = image.get(last_block..).unwrap_or_default().to_vec();
        image.pad_to_block();
        Ok(Frame { position: batch.position, before, image })
    }

    /// Writes the directory of a segment, and returns its outline.
    pub(super) async fn write_directory(&self, seal: &Seal) -> io::Result<Outline> {
        let SegmentFile { geometry, key, .. } = self.file;
        let mut image = AlignedBuffer::with_capacity(seal.directory.encoded_len());
        let _counted = self.file.health.count_buffer(image.capacity());
        let opens = OpenRange::only(self.open_count);
        let written = seal.directory.write(key, opens.last, seal.end, &mut image);
        let tail = written.await.map_err(io::Error::other)?;
        let segment = self.file.places.offset_in_use(seal.segment)?;
        let start = segment + u64::from(geometry.segment_bytes()) - image.len() as u64;
        self.file.write(start, image).await?;
        let mut steps = Pacer::default();
        let outline = Outline::read(&tail, key, seal.segment, opens, geometry, &mut steps);
        outline.await.map_err(io::Error::other)
    }
}
