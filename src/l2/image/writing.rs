//! `ImageWriter`: writes an image of the index behind the segments, when the cache is closed.
//!
//! Helpers encode chunks ahead of the one that is written; a few of them are in memory. Nothing
//! depends on the image: the store is closed before it is begun, and stays so if its process is
//! killed meanwhile. A write that fails is not retried, and the next open goes without one.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered};
use futures::{FutureExt, StreamExt};

use super::ClosedIndex;
use super::header::{ChunkRow, ImageHeader, Ties};
use super::plan::{Plan, PlannedChunk};
use crate::batch::Pacer;
use crate::helpers::Helpers;
use crate::io::AlignedBuffer;
use crate::l2::checksum::Domain;
use crate::l2::directory_builder::checksum_in_steps;
use crate::l2::format::BLOCK_BYTES;
use crate::l2::health::count;
use crate::l2::segment_file::SegmentFile;
use crate::l2::superblock::{CrashSafety, Superblock};
use crate::telemetry::tell;

/// A chunk ends with the piece with which it has so many bytes.
const CHUNK_BYTES: usize = if cfg!(test) { 8 << 10 } else { 1 << 20 };

/// The file is made longer by as many bytes as the image has so far, up to this many.
const GROWTH_BYTES_MAX: u64 = if cfg!(test) { 64 << 10 } else { 64 << 20 };

/// The file becomes shorter by so much at once.
const CUT_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 2 << 20 };

/// Chunks that are being written at once.
const WRITES: usize = 4;

/// More threads would wait for the device.
const THREADS_MAX: usize = 4;

/// What an image needs to know of its cache beside the superblock.
#[derive(Clone, Copy, Debug)]
pub(in crate::l2) struct ImageSettings {
    pub(in crate::l2) key_hash_bits: u32,
    /// Threads that encode chunks.
    pub(in crate::l2) helpers: usize,
}

pub(in crate::l2) struct ImageWriter {
    file: SegmentFile,
    settings: ImageSettings,
}

struct EncodedChunk {
    blocks: AlignedBuffer,
    row: ChunkRow,
}

impl ImageWriter {
    pub(in crate::l2) fn new(file: SegmentFile, settings: ImageSettings) -> Self {
        Self { file, settings }
    }

    /// Cuts off what lies behind the segments. What an earlier close has left there must not be
    /// needed any more: a superblock that it does not belong to is on file.
    async fn cut_off(&self) {
        // Bounded: a piece in each turn.
        while self.cut_piece_off().await {}
    }

    /// The same for a piece at the end: writes wait while the file system frees blocks. False if
    /// nothing is left to be done.
    pub(in crate::l2) async fn cut_piece_off(&self) -> bool {
        let (end, length) = (self.file.places.file_bytes(), self.file.disk.length());
        if length <= end {
            return false;
        }
        let cut = self.file.disk.resize(end.max(length.saturating_sub(CUT_BYTES))).await;
        if let Err(error) = &cut {
            tell!(warn, "close", %error, "the image of the index cannot be cut off");
        }
        cut.is_ok()
    }

    /// Writes an image for the clean superblock that is on file, if the next open could use it.
    pub(in crate::l2) async fn write(&self, superblock: &Superblock, index: &Arc<dyn ClosedIndex>) {
        if superblock.crash_safety == CrashSafety::Cold {
            return;
        }
        let mut blocks = Blocks::new(&self.file);
        if let Err(error) = self.write_blocks(superblock, index, &mut blocks).await {
            blocks.settle().await;
            self.cut_off().await;
            tell!(
                warn,
                "close",
                %error,
                "no image of the index could be written, the next open is slower"
            );
        }
    }

    async fn write_blocks(
        &self,
        superblock: &Superblock,
        index: &Arc<dyn ClosedIndex>,
        blocks: &mut Blocks<'_>,
    ) -> io::Result<()> {
        let tail = superblock.tail;
        let Some(head) = superblock.head_at(tail) else { return Err(unfit()) };
        let geometry = self.file.geometry;
        let ties = Ties {
            store_id: superblock.store_id,
            open_count: superblock.open_count,
            key_hash_bits: self.settings.key_hash_bits,
            head,
            tail,
        };
        let helpers = Helpers::start(self.settings.helpers.min(THREADS_MAX));
        let is_head_moved = geometry.segment_of(head) > index.oldest_segment();
        let mut plan = Plan::new(index, &helpers, (head, is_head_moved), CHUNK_BYTES);
        let (mut encoding, mut numbers) = (FuturesOrdered::new(), 0..);
        let mut table = Vec::new();
        let mut chunks = 0;
        // Bounded: a chunk in each turn, encoded in steps.
        loop {
            // Bounded: by the cores.
            while encoding.len() <= helpers.count() {
                let Some((chunk, number)) = plan.chunk().await.zip(numbers.next()) else { break };
                let seed = ties.seed(Domain::ImageChunk, number);
                encoding.push_back(helpers.run(encode(chunk, seed, blocks.spare())));
            }
            let Some(encoded) = encoding.next().await else { break };
            let EncodedChunk { blocks: encoded, row } = encoded.flatten().ok_or_else(unfit)?;
            row.write(&mut table);
            chunks += 1;
            blocks.write(encoded).await?;
        }
        let totals = plan.totals;
        let table_sum = blocks.write_table(&table, ties).await?;
        let header = ImageHeader {
            ties,
            slots: totals.slots,
            postings: totals.postings,
            namespaces: totals.namespaces,
            chunks,
            length: blocks.length,
            table_sum,
        };
        blocks.finish(&header).await
    }
}

/// Writes the image's blocks one after the other, some at once.
struct Blocks<'a> {
    file: &'a SegmentFile,
    /// Of the image so far.
    length: u64,
    writing: FuturesUnordered<BoxFuture<'static, (io::Result<()>, AlignedBuffer)>>,
    spare: Vec<AlignedBuffer>,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a SegmentFile) -> Self {
        let length = BLOCK_BYTES as u64;
        Self { file, length, writing: FuturesUnordered::new(), spare: Vec::new() }
    }

    /// A buffer that is to be used again.
    fn spare(&mut self) -> AlignedBuffer {
        self.spare.pop().unwrap_or_default()
    }

    async fn write(&mut self, blocks: AlignedBuffer) -> io::Result<()> {
        let start = self.file.places.file_bytes();
        let (offset, bytes) = (start + self.length, blocks.len());
        self.length += bytes as u64;
        if self.file.disk.length() < offset + bytes as u64 {
            let growth = self.length.min(GROWTH_BYTES_MAX);
            self.file.disk.resize(start + self.length + growth).await?;
        }
        self.count_write(bytes);
        self.writing.push(self.file.disk.write(offset, blocks));
        // It is requested by its first poll.
        let mut written = self.writing.next().now_or_never().flatten();
        // Bounded: a write in each turn.
        while let Some((result, blocks)) = written {
            self.done(result, blocks)?;
            written = self.writing.next().now_or_never().flatten();
        }
        // Bounded: by the writes at once.
        while self.writing.len() >= WRITES {
            let Some((result, blocks)) = self.writing.next().await else { break };
            self.done(result, blocks)?;
        }
        Ok(())
    }

    /// Waits for the writes that are under way.
    async fn settle(&mut self) {
        // Bounded: by the writes at once.
        while self.writing.next().await.is_some() {}
    }

    fn count_write(&self, bytes: usize) {
        count(&self.file.health.metrics.writes, 1);
        count(&self.file.health.metrics.write_bytes, bytes);
    }

    fn done(&mut self, result: io::Result<()>, blocks: AlignedBuffer) -> io::Result<()> {
        self.spare.push(blocks);
        result.inspect_err(|_| count(&self.file.health.metrics.io_errors, 1))
    }

    /// Writes the table of chunks. Returns its checksum.
    async fn write_table(&mut self, table: &[u8], ties: Ties) -> io::Result<u64> {
        let mut steps = Pacer::default();
        let sum = checksum_in_steps(table, ties.seed(Domain::ImageTable, 0), &mut steps).await;
        if !table.is_empty() {
            steps.bytes(table.len()).await;
            let mut blocks = AlignedBuffer::with_capacity(table.len());
            blocks.append(table);
            blocks.pad_to_block();
            self.write(blocks).await?;
        }
        Ok(sum)
    }

    /// Writes the header, last, gives the file its length, and syncs both.
    async fn finish(&mut self, header: &ImageHeader) -> io::Result<()> {
        // Bounded: by the writes at once.
        while let Some((result, blocks)) = self.writing.next().await {
            self.done(result, blocks)?;
        }
        let start = self.file.places.file_bytes();
        self.file.disk.resize(start + self.length).await?;
        let block = AlignedBuffer::copy_from_slice(&header.encode());
        self.count_write(block.len());
        let (result, block) = self.file.disk.write(start, block).await;
        self.done(result, block)?;
        self.file.sync().await
    }
}

/// None if something cannot be in an image.
async fn encode(chunk: PlannedChunk, seed: u64, buffer: AlignedBuffer) -> Option<EncodedChunk> {
    let mut blocks = buffer.emptied(chunk.bytes);
    let mut steps = Pacer::default();
    for piece in &chunk.pieces {
        let bytes = piece.bytes();
        steps.entry().await;
        steps.bytes(bytes).await;
        if bytes > blocks.remaining() || !piece.write(&mut blocks) {
            return None;
        }
    }
    let row = ChunkRow {
        length: u32::try_from(blocks.len()).ok()?,
        sum: checksum_in_steps(&blocks, seed, &mut steps).await,
    };
    blocks.pad_to_block();
    Some(EncodedChunk { blocks, row })
}

fn unfit() -> io::Error {
    io::Error::other("the index does not fit an image")
}
