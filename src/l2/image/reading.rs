//! Reads the image of the index at an open, if it belongs to the state that was closed.
//!
//! A few chunks are read ahead and decoded by helpers, in any order; they are put together in
//! theirs. An image that exceeds what the present settings allow does not count: directories are
//! replayed within any limit.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use thiserror::Error;

use super::assembly::{Assembly, Misfit, free};
use super::header::{ChunkRow, ImageHeader, Ties};
use super::piece::Piece;
use crate::batch::Pacer;
use crate::failpoint::{Failpoint, failpoint};
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::helpers::Helpers;
use crate::io::ReadRequest;
use crate::l2::checksum::Domain;
use crate::l2::directory_builder::checksum_in_steps;
use crate::l2::error::DecodeError;
use crate::l2::format::{BLOCK_BYTES, Position};
use crate::l2::replay::Limits;
use crate::l2::replayed_namespace::RecoveredNamespace;
use crate::l2::segment_file::SegmentFile;
use crate::l2::superblock::Superblock;
use crate::l2::wire::{Reader, is_zero};
use crate::telemetry::tell;

/// Chunks that are read ahead, beside one for each thread.
const AHEAD: usize = 3;

/// The most, with any number of threads: more would wait for the device.
const AHEAD_MAX: usize = 12;

/// An index that was read from its image.
pub(in crate::l2) struct Loaded {
    pub(in crate::l2) namespaces: BTreeMap<Box<str>, RecoveredNamespace>,
    /// Live records.
    pub(in crate::l2) records: u64,
    /// Bytes that it takes of the index budget.
    pub(in crate::l2) bytes: usize,
}

impl Loaded {
    /// Frees it, in steps.
    pub(in crate::l2) async fn discard(self) {
        free(self.namespaces.into_values()).await;
    }
}

/// Why an image does not count.
#[derive(Debug, Error)]
enum Unusable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Damaged(#[from] DecodeError),
    #[error("it belongs to another state of the store")]
    OtherState,
    #[error("its parts do not fit together")]
    Order,
    #[error("it is larger than the present settings allow")]
    Limits,
}

impl From<Misfit> for Unusable {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::Order => Self::Order,
            Misfit::Limits => Self::Limits,
        }
    }
}

/// The index as a clean close has left it, with something behind the segments. None without a good
/// image.
pub(in crate::l2) async fn load(
    file: &SegmentFile,
    superblock: &Superblock,
    (limits, key_hash_bits): (&Limits, u32),
    helpers: &Helpers,
) -> Option<Loaded> {
    let length = file.disk.length().saturating_sub(file.places.file_bytes());
    let image = Image { file, length, helpers };
    let ties = image.ties(superblock, key_hash_bits)?;
    let mut assembly = Assembly::new(limits);
    match image.read(ties, limits, &mut assembly).await {
        Ok(bytes) => {
            let records = assembly.live;
            Some(Loaded { namespaces: assembly.into_namespaces(), records, bytes })
        }
        Err(reason) => {
            tell!(
                warn,
                "recovery",
                %reason,
                "the image of the index is not used, the open is slower"
            );
            assembly.discard().await;
            None
        }
    }
}

/// Whether the image of a store that was closed is whole, and why not. None: it belongs to another
/// state of the store.
#[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
pub(in crate::l2) async fn check(
    file: &SegmentFile,
    superblock: &Superblock,
) -> Option<Result<(), String>> {
    let length = file.disk.length().saturating_sub(file.places.file_bytes());
    let helpers = Helpers::start(0);
    let image = Image { file, length, helpers: &helpers };
    let ties = image.ties(superblock, u64::BITS)?;
    match image.check(ties).await {
        Err(Unusable::OtherState) => None,
        checked => Some(checked.map_err(|reason| reason.to_string())),
    }
}

struct Image<'a> {
    file: &'a SegmentFile,
    /// Of what lies behind the segments.
    length: u64,
    helpers: &'a Helpers,
}

impl Image<'_> {
    /// What the image must belong to.
    fn ties(&self, superblock: &Superblock, key_hash_bits: u32) -> Option<Ties> {
        Some(Ties {
            store_id: superblock.store_id,
            open_count: superblock.open_count,
            key_hash_bits,
            head: superblock.head_at(superblock.tail)?,
            tail: superblock.tail,
        })
    }

    /// Reads all of it. Returns the bytes that it takes of the index budget.
    async fn read(
        &self,
        ties: Ties,
        limits: &Limits,
        assembly: &mut Assembly<'_>,
    ) -> Result<usize, Unusable> {
        let header = ImageHeader::decode(&self.blocks(0, BLOCK_BYTES).await?)?;
        if header.ties != ties && !failpoint(Failpoint::ImageOfAnotherState) {
            return Err(Unusable::OtherState);
        }
        if header.length != self.length {
            return Err(DecodeError::Length.into());
        }
        let bytes = cost(&header).filter(|bytes| *bytes <= limits.index_bytes_max);
        let is_within = header.namespaces as usize <= limits.namespaces_max;
        let bytes = match bytes.filter(|_| is_within) {
            Some(bytes) => bytes,
            None if failpoint(Failpoint::ReplayUnbounded) => 0,
            None => return Err(Unusable::Limits),
        };
        let rows = self.rows(&header).await?;
        self.read_chunks(&header, &rows, assembly).await?;
        assembly.end_namespace()?;
        let is_whole = assembly.slots == header.slots
            && assembly.postings == header.postings
            && assembly.namespaces() == header.namespaces as usize;
        if is_whole { Ok(bytes) } else { Err(Unusable::Order) }
    }

    /// Checks every checksum.
    #[cfg(all(any(test, feature = "cli"), target_os = "linux"))]
    async fn check(&self, ties: Ties) -> Result<(), Unusable> {
        let header = ImageHeader::decode(&self.blocks(0, BLOCK_BYTES).await?)?;
        if header.ties != ties {
            return Err(Unusable::OtherState);
        }
        if header.length != self.length {
            return Err(DecodeError::Length.into());
        }
        let rows = self.rows(&header).await?;
        let (log, mut offset) = (ties.head..ties.tail, BLOCK_BYTES as u64);
        // Bounded: a chunk in each turn, in steps.
        for (number, row) in (0..).zip(rows) {
            let seed = ties.seed(Domain::ImageChunk, number);
            self.chunk((offset, row), seed, log.clone()).await?;
            offset += row.padded();
        }
        Ok(())
    }

    /// The table of chunks.
    async fn rows(&self, header: &ImageHeader) -> Result<Vec<ChunkRow>, Unusable> {
        let offset = header.table_offset().ok_or(DecodeError::Length)?;
        let padded = header.table_bytes().next_multiple_of(BLOCK_BYTES);
        let table = if padded == 0 { Bytes::new() } else { self.blocks(offset, padded).await? };
        let (table, padding) = table.split_at(header.table_bytes());
        let mut steps = Pacer::default();
        let seed = header.ties.seed(Domain::ImageTable, 0);
        if checksum_in_steps(table, seed, &mut steps).await != header.table_sum {
            return Err(DecodeError::Checksum.into());
        }
        let mut reader = Reader::new(table);
        let (mut rows, mut end) = (Vec::new(), BLOCK_BYTES as u64);
        while !reader.rest().is_empty() {
            steps.entry().await;
            let row = ChunkRow::read(&mut reader)?;
            end += row.padded();
            rows.push(row);
        }
        let is_sound = end == offset && is_zero(padding);
        if is_sound { Ok(rows) } else { Err(DecodeError::Length.into()) }
    }

    async fn read_chunks(
        &self,
        header: &ImageHeader,
        rows: &[ChunkRow],
        assembly: &mut Assembly<'_>,
    ) -> Result<(), Unusable> {
        let log = header.ties.head..header.ties.tail;
        let (mut numbered, mut offset) = ((0..).zip(rows), BLOCK_BYTES as u64);
        let threads = self.helpers.count();
        let ahead = (threads + AHEAD * threads.min(1)).min(AHEAD_MAX);
        let mut reading = FuturesOrdered::new();
        // Bounded: a chunk in each turn, in steps.
        loop {
            // Bounded: by the cores.
            while reading.len() <= ahead {
                let Some((number, row)) = numbered.next() else { break };
                let seed = header.ties.seed(Domain::ImageChunk, number);
                reading.push_back(self.chunk((offset, *row), seed, log.clone()).boxed());
                offset += row.padded();
            }
            let Some(pieces) = reading.next().await else { break };
            assembly.add_all(pieces?).await?;
            // Before they are in memory.
            if assembly.slots > header.slots {
                return Err(Unusable::Order);
            }
        }
        Ok(())
    }

    async fn chunk(
        &self,
        (start, row): (u64, ChunkRow),
        seed: u64,
        log: Range<Position>,
    ) -> Result<Vec<Piece>, Unusable> {
        let length = (row.length as usize).next_multiple_of(BLOCK_BYTES);
        let blocks = self.blocks(start, length).await?;
        let decoded = self.helpers.run(decode(blocks, row, seed, log)).await;
        Ok(decoded.ok_or_else(|| io::Error::other("a thread has panicked"))??)
    }

    async fn blocks(&self, offset: u64, length: usize) -> Result<Bytes, Unusable> {
        let start = self.file.places.file_bytes() + offset;
        let request = ReadRequest::new(start, length).background();
        Ok(self.file.read_counted(request).await?.into_bytes())
    }
}

async fn decode(
    blocks: Bytes,
    row: ChunkRow,
    seed: u64,
    log: Range<Position>,
) -> Result<Vec<Piece>, DecodeError> {
    let chunk = blocks.get(..row.length as usize).ok_or(DecodeError::Truncated)?;
    let padding = blocks.get(row.length as usize..).unwrap_or_default();
    let mut steps = Pacer::default();
    let sum = checksum_in_steps(chunk, seed, &mut steps).await;
    let is_good = sum == row.sum && is_zero(padding);
    if !is_good && !failpoint(Failpoint::ImageUnchecked) {
        return Err(DecodeError::Checksum);
    }
    let (mut reader, mut pieces) = (Reader::new(chunk), Vec::new());
    while !reader.rest().is_empty() {
        let left = reader.rest().len();
        steps.entry().await;
        pieces.push(Piece::read(&mut reader, &log)?);
        steps.bytes(left - reader.rest().len()).await;
    }
    Ok(pieces)
}

/// Bytes of the index budget.
fn cost(header: &ImageHeader) -> Option<usize> {
    let slots = usize::try_from(header.slots).ok()?.checked_mul(SLOT_BYTES)?;
    let postings = usize::try_from(header.postings).ok()?.checked_mul(POSTING_BYTES)?;
    slots.checked_add(postings)
}
