//! `Hand`: the blocks that came along with what is known of an object, and the rest of the answer
//! that they are from.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::error::ended_early;
use super::object::{Object, within};
use super::object_store::Result;

/// Whole blocks, one after the other.
pub(crate) struct Hand {
    /// The index of the first.
    pub(crate) first: u64,
    pub(crate) blocks: VecDeque<Bytes>,
    /// What follows them.
    pub(crate) rest: Option<Rest>,
}

impl fmt::Debug for Hand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, blocks) = (self.first, self.blocks.len());
        write!(formatter, "Hand({first}, {blocks} blocks)")
    }
}

impl Hand {
    /// The blocks from `first` on; None if it does not have that one.
    pub(crate) fn from(mut self, first: u64) -> Option<Self> {
        let skipped = within(first.checked_sub(self.first)?);
        if skipped >= self.blocks.len() {
            return None;
        }
        self.blocks.drain(..skipped);
        self.first = first;
        Some(self)
    }
}

/// An answer that is read block by block.
pub(crate) struct Rest {
    stream: BoxStream<'static, Result<Bytes>>,
    /// What has arrived beyond the last block.
    arrived: Bytes,
}

impl Rest {
    pub(crate) fn new(stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self { stream, arrived: Bytes::new() }
    }

    /// The next block, which has this index.
    ///
    /// # Errors
    ///
    /// Those of the stream, and if it ends before the block does.
    pub(crate) async fn block(&mut self, object: &Object, index: u64) -> Result<Bytes> {
        let range = object.bytes_of(&(index..index + 1));
        let length = within(range.end - range.start);
        if self.arrived.is_empty() {
            self.arrived = self.chunk().await?;
        }
        if self.arrived.len() >= length {
            return Ok(self.arrived.split_to(length));
        }
        let mut block = BytesMut::with_capacity(length);
        // Bounded: by the block, since no chunk is empty.
        loop {
            let taken = self.arrived.split_to(self.arrived.len().min(length - block.len()));
            block.extend_from_slice(&taken);
            if block.len() == length {
                return Ok(block.freeze());
            }
            self.arrived = self.chunk().await?;
        }
    }

    async fn chunk(&mut self) -> Result<Bytes> {
        // Bounded: by the empty chunks of the stream.
        loop {
            let chunk = self.stream.next().await.ok_or_else(ended_early)??;
            if !chunk.is_empty() {
                return Ok(chunk);
            }
        }
    }
}
