//! A get of many ranges: the blocks of all of them, in windows, each in memory while it is cut.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Core;
use super::answer::piece;
use super::ask::Ask;
use super::blocks::Blocks;
use super::error::{Failure, not_found};
use super::hand::Hand;
use super::moment::Moment;
use super::object::{Object, within};
use super::object_store::path::Path;
use super::object_store::{Extensions, GetRange, Result};
use super::opening::Opening;

impl Core {
    pub(crate) async fn get_many(
        self: &Arc<Self>,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let is_plain = !ranges.is_empty() && ranges.iter().all(|range| range.start < range.end);
        if is_plain && !self.unsettled.holds(location.as_ref()) {
            let mut sorted = ranges.to_vec();
            sorted.sort_unstable_by_key(|range| range.start);
            let attempt = |began| self.attempt_many(location, ranges, &sorted, began);
            if let Some(answer) = self.begun_anew(location, None, attempt).await? {
                return Ok(answer);
            }
        }
        self.counts.count_passed();
        self.inner.get_ranges(location, ranges).await
    }

    async fn attempt_many(
        self: &Arc<Self>,
        location: &Path,
        ranges: &[Range<u64>],
        sorted: &[Range<u64>],
        began: Moment,
    ) -> Result<Vec<Bytes>, Failure> {
        let (block, most) = (self.settings.block_bytes, self.settings.request_bytes_max);
        let extensions = Extensions::default();
        let opening = Opening {
            core: self,
            location,
            version: None,
            ask: Ask::of_range(&GetRange::Bounded(first_run(sorted, block)), block, most),
            extensions: &extensions,
            began,
        };
        let found = opening.found().await?;
        let Some(object) = found.meta.object else { return Err(not_found(location).into()) };
        if ranges.iter().any(|range| range.end > object.size) {
            return Err(Failure::Uncached);
        }
        let blocks = Blocks {
            core: Arc::clone(self),
            location: location.clone(),
            policy: self.policy_of_blocks(location, None, &object),
            object: Arc::new(object),
            version: None,
            extensions,
        };
        let needed = needed(sorted, &blocks.object);
        Cut::new(ranges).fill(&blocks, needed, found.hand).await
    }
}

/// The first of the ranges, which are sorted, with those behind it whose blocks are its neighbours.
fn first_run(sorted: &[Range<u64>], block: u64) -> Range<u64> {
    let mut run = sorted[0].clone();
    // Bounded: by the ranges.
    for range in &sorted[1..] {
        if range.start / block > run.end.div_ceil(block) {
            break;
        }
        run.end = run.end.max(range.end);
    }
    run
}

/// The answers, as far as they are filled.
struct Cut<'a> {
    ranges: &'a [Range<u64>],
    parts: Vec<Part>,
}

/// Bounded: by the range.
enum Part {
    Empty,
    /// All that there is so far, or all of it.
    One(Bytes),
    Many(BytesMut),
}

impl<'a> Cut<'a> {
    fn new(ranges: &'a [Range<u64>]) -> Self {
        Self { ranges, parts: ranges.iter().map(|_| Part::Empty).collect() }
    }

    async fn fill(
        mut self,
        blocks: &Blocks,
        needed: Vec<u64>,
        hand: Option<Hand>,
    ) -> Result<Vec<Bytes>, Failure> {
        let object = &blocks.object;
        let window = within(blocks.core.settings.window(object.block_bytes));
        let mut left = needed;
        if let Some(hand) = hand {
            let held = hand.first..hand.first + hand.blocks.len() as u64;
            let (indices, rest): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|index| held.contains(index));
            let in_hand = |index: &u64| hand.blocks[within(index - hand.first)].clone();
            let pieces: Vec<Bytes> = indices.iter().map(in_hand).collect();
            self.add(object, &indices, &pieces);
            left = rest;
        }
        // Bounded: by the blocks of the ranges.
        for indices in left.chunks(window) {
            let loaded = blocks.load(indices).await?;
            self.add(object, indices, &loaded);
        }
        Ok(self.parts.into_iter().map(Part::into_bytes).collect())
    }

    /// Takes what each range needs of these blocks, which ascend.
    fn add(&mut self, object: &Object, indices: &[u64], loaded: &[Bytes]) {
        // Bounded: by the ranges and the window.
        for (range, part) in self.ranges.iter().zip(&mut self.parts) {
            let of = object.blocks_of(range);
            let from = indices.partition_point(|index| *index < of.start);
            let to = indices.partition_point(|index| *index < of.end);
            for (index, block) in indices[from..to].iter().zip(&loaded[from..to]) {
                let whole = object.bytes_of(&(*index..index + 1));
                part.push(piece(block, &whole, range), within(range.end - range.start));
            }
        }
    }
}

impl Part {
    fn push(&mut self, bytes: Bytes, length: usize) {
        *self = match std::mem::replace(self, Self::Empty) {
            Self::Empty => Self::One(bytes),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(length);
                all.extend_from_slice(&first);
                all.extend_from_slice(&bytes);
                Self::Many(all)
            }
            Self::Many(mut all) => {
                all.extend_from_slice(&bytes);
                Self::Many(all)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

/// The blocks that the ranges, which are sorted, need: each once, in ascending order.
fn needed(sorted: &[Range<u64>], object: &Object) -> Vec<u64> {
    let mut indices: Vec<u64> = Vec::new();
    // Bounded: by the blocks of the object.
    for range in sorted {
        let span = object.blocks_of(range);
        let next = indices.last().map_or(0, |last| last + 1);
        indices.extend(span.start.max(next)..span.end);
    }
    indices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_run_ends_where_blocks_are_left_out() {
        assert_eq!(first_run(&[3..4, 12..13, 25..26], 10), 3..26);
        assert_eq!(first_run(&[3..4, 12..13, 35..36], 10), 3..13);
        assert_eq!(first_run(&[3..40, 5..6], 10), 3..40);
    }
}
