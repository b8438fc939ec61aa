//! `Answer`: the bytes of a get, block by block: those in hand, then the rest of the request that
//! brought them, then windows of blocks from the cache or the inner store.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tamis::BlobCachePut;

use super::blocks::Blocks;
use super::error::{Failure, changed, ended_early, own};
use super::hand::{Hand, Rest};
use super::object::within;
use super::object_store::Result;
use crate::keys::Keys;

pub(crate) struct Answer {
    blocks: Blocks,
    /// Of the object, in bytes.
    range: Range<u64>,
    /// The blocks that are still to come.
    left: Range<u64>,
    /// The first of them.
    hand: VecDeque<Bytes>,
    /// What follows those in hand.
    rest: Option<Rest>,
}

impl Answer {
    /// With its first window, so that a change of the object is seen before anything is said.
    pub(crate) async fn begin(
        blocks: Blocks,
        range: Range<u64>,
        hand: Option<Hand>,
    ) -> Result<Self, Failure> {
        let left = blocks.object.blocks_of(&range);
        let (hand, rest) = match hand.and_then(|hand| hand.from(left.start)) {
            Some(hand) => (hand.blocks, hand.rest),
            None => (VecDeque::new(), None),
        };
        let mut answer = Self { blocks, range, left, hand, rest };
        if answer.hand.is_empty() && !answer.left.is_empty() {
            answer.load().await?;
        }
        Ok(answer)
    }

    pub(crate) fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        let next = |mut answer: Self| async move {
            let block = answer.next().await?;
            Ok(block.map(|block| (block, answer)))
        };
        stream::try_unfold(self, next).boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let index = self.left.start;
        if self.hand.is_empty() {
            if self.rest.is_some() {
                self.read_on(index).await?;
            } else if let Err(failure) = self.load().await {
                return Err(self.broken(failure).await);
            }
        }
        let block = self.hand.pop_front().ok_or_else(ended_early)?;
        self.left.start += 1;
        let whole = self.blocks.object.bytes_of(&(index..index + 1));
        Ok(Some(piece(&block, &whole, &self.range)))
    }

    /// A window of what is left.
    async fn load(&mut self) -> Result<(), Failure> {
        let object = &self.blocks.object;
        let window = self.blocks.core.settings.window(object.block_bytes);
        let end = self.left.end.min(self.left.start.saturating_add(window));
        // Bounded: by a window.
        let indices: Vec<u64> = (self.left.start..end).collect();
        self.hand = self.blocks.load(&indices).await?.into();
        Ok(())
    }

    /// A block of the rest.
    async fn read_on(&mut self, index: u64) -> Result<()> {
        let Some(rest) = &mut self.rest else { return Ok(()) };
        let Blocks { core, object, .. } = &self.blocks;
        let block = rest.block(object, index).await?;
        core.counts.inner_bytes.add(block.len() as u64);
        let put = BlobCachePut::new(block.clone()).with_policy(self.blocks.policy.clone());
        // What the cache does not take, the next caller fetches.
        let _ = core.blobs.put(Keys::block(&object.generation, index), put).await;
        self.hand.push_back(block);
        Ok(())
    }

    /// The error of an answer that has begun.
    async fn broken(&mut self, failure: Failure) -> super::object_store::Error {
        match failure {
            Failure::Inner(error) | Failure::OfObject { error, .. } => own(error),
            Failure::Changed | Failure::Uncached => {
                let Blocks { core, location, version, .. } = &self.blocks;
                core.refresh(location, version.as_deref()).await;
                changed(location)
            }
        }
    }
}

/// The part of a block, which has the bytes `whole` of its object, that is in `range`. A small part
/// is copied: it would keep all of the block in memory.
pub(crate) fn piece(block: &Bytes, whole: &Range<u64>, range: &Range<u64>) -> Bytes {
    let start = within(range.start.max(whole.start) - whole.start);
    let end = within(range.end.min(whole.end).saturating_sub(whole.start));
    let part = block.slice(start.min(end)..end);
    if part.len() < block.len() / 4 { Bytes::copy_from_slice(&part) } else { part }
}
