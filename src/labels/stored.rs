//! `StoredChunk`: postings and the buckets that lead to them, as an image of the index has them:
//! linked by number as in memory, so that nothing is linked again. `docs/format.md`, section 9.

use super::LabelIndex;
use super::buckets::Buckets;
use super::nodes::{Nodes, StoredNode, is_link};

/// What the arrays of an image's postings hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PostingsPart {
    Postings,
    BucketsOfKeys,
    BucketsOfLabels,
}

/// The lengths of the arrays, and what is counted of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PostingsShape {
    /// Places of postings, holes included.
    pub(crate) places: u32,
    pub(crate) holes: u32,
    pub(crate) first_hole: u32,
    /// Labels that have postings.
    pub(crate) lists: u32,
    pub(crate) key_buckets: u32,
    pub(crate) label_buckets: u32,
}

/// Consecutive items of an array.
pub(crate) struct StoredChunk {
    items: StoredItems,
    /// The places that links may lead to.
    places: u32,
}

enum StoredItems {
    Postings(Vec<StoredNode>),
    BucketsOfKeys(Vec<u32>),
    BucketsOfLabels(Vec<u32>),
}

/// Postings of a shape, of which some chunks were added.
pub(crate) struct LabelIndexOfChunks {
    index: LabelIndex,
    shape: PostingsShape,
}

impl PostingsPart {
    /// The most items of a chunk.
    pub(crate) const CHUNK_ITEMS: usize = super::chunks::CHUNK;
    pub(crate) const ALL: [Self; 3] = [Self::Postings, Self::BucketsOfKeys, Self::BucketsOfLabels];

    pub(crate) const fn item_bytes(self) -> usize {
        match self {
            Self::Postings => StoredNode::BYTES,
            Self::BucketsOfKeys | Self::BucketsOfLabels => size_of::<u32>(),
        }
    }
}

impl PostingsShape {
    pub(crate) fn postings(self) -> Option<usize> {
        self.places.checked_sub(self.holes).map(|count| count as usize)
    }

    pub(crate) fn length(self, part: PostingsPart) -> u32 {
        match part {
            PostingsPart::Postings => self.places,
            PostingsPart::BucketsOfKeys => self.key_buckets,
            PostingsPart::BucketsOfLabels => self.label_buckets,
        }
    }
}

impl LabelIndex {
    /// None if it has more postings than an image can.
    pub(crate) fn shape(&self) -> Option<PostingsShape> {
        let (places, holes, first_hole) = self.nodes.shape();
        let count = |count: usize| u32::try_from(count).ok();
        Some(PostingsShape {
            places: count(places)?,
            holes: count(holes)?,
            first_hole,
            lists: count(self.lists)?,
            key_buckets: count(self.keys.len())?,
            label_buckets: count(self.labels.len())?,
        })
    }

    /// Passes on the bytes of the chunk that begins with an item of that number. Returns its
    /// number of items; zero at the end.
    pub(crate) fn store_chunk(
        &self,
        part: PostingsPart,
        first: u32,
        to: &mut impl FnMut(&[u8]),
    ) -> usize {
        match part {
            PostingsPart::Postings => self.nodes.store_chunk(first, to),
            PostingsPart::BucketsOfKeys => self.keys.store_chunk(first, to),
            PostingsPart::BucketsOfLabels => self.labels.store_chunk(first, to),
        }
    }
}

impl StoredChunk {
    /// Reads a chunk of an index that has so many places of postings. None: it is none.
    pub(crate) fn read(part: PostingsPart, bytes: &[u8], places: u32) -> Option<Self> {
        let items = match part {
            PostingsPart::Postings => {
                StoredItems::Postings(read_items(bytes, |item| StoredNode::read(item, places))?)
            }
            PostingsPart::BucketsOfKeys => StoredItems::BucketsOfKeys(read_buckets(bytes, places)?),
            PostingsPart::BucketsOfLabels => {
                StoredItems::BucketsOfLabels(read_buckets(bytes, places)?)
            }
        };
        Some(Self { items, places })
    }
}

impl LabelIndexOfChunks {
    /// None if nothing has that shape.
    pub(crate) fn new(shape: PostingsShape) -> Option<Self> {
        let is_sound = shape.holes <= shape.places
            && shape.lists <= shape.places
            && is_link(shape.first_hole, shape.places);
        let index = LabelIndex {
            nodes: Nodes::of_chunks(shape.first_hole, shape.holes as usize),
            keys: Buckets::default(),
            labels: Buckets::default(),
            lists: shape.lists as usize,
            added: 0,
        };
        is_sound.then_some(Self { index, shape })
    }

    /// Adds the chunk that begins with an item of that number. False if it is not the next one, or
    /// belongs to other postings.
    pub(crate) fn add(&mut self, first: u32, chunk: StoredChunk) -> bool {
        let Self { index, shape } = self;
        let first = first as usize;
        if chunk.places != shape.places {
            return false;
        }
        match chunk.items {
            StoredItems::Postings(chunk) => index.nodes.add_chunk(first, shape.places, chunk),
            StoredItems::BucketsOfKeys(chunk) => {
                index.keys.add_chunk(first, shape.key_buckets, chunk)
            }
            StoredItems::BucketsOfLabels(chunk) => {
                index.labels.add_chunk(first, shape.label_buckets, chunk)
            }
        }
    }

    /// Whether all chunks were added.
    pub(crate) fn is_whole(&self) -> bool {
        self.index.shape() == Some(self.shape)
    }

    pub(crate) fn into_postings(self) -> LabelIndex {
        self.index
    }
}

fn read_buckets(bytes: &[u8], places: u32) -> Option<Vec<u32>> {
    let read = |item: &[u8; 4]| Some(u32::from_le_bytes(*item));
    read_items(bytes, |item| read(item).filter(|first| is_link(*first, places)))
}

/// With no more room than it needs.
fn read_items<T, const BYTES: usize>(
    bytes: &[u8],
    read: impl Fn(&[u8; BYTES]) -> Option<T>,
) -> Option<Vec<T>> {
    let items = bytes.chunks_exact(BYTES);
    let is_whole = items.remainder().is_empty();
    let mut read_items = Vec::with_capacity(items.len());
    // Bounded: by a chunk.
    for item in items {
        read_items.push(read(item.first_chunk()?)?);
    }
    is_whole.then_some(read_items)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::key::{KeyHash, LabelHash};
    use crate::sequence::Sequence;

    /// Some were released.
    fn random_index(random: &mut StdRng, entries: u64) -> LabelIndex {
        let mut index = LabelIndex::default();
        for number in 0..entries {
            for _ in 0..random.random_range(0..3) {
                let label = random.random_range(0..1 + entries / 3);
                index.insert(LabelHash(label), KeyHash(number), Sequence(number));
            }
            if random.random_bool(0.3) {
                let other = random.random_range(0..=number);
                index.release(KeyHash(other), Sequence(other));
            }
        }
        index
    }

    type Stored = Vec<(PostingsPart, u32, Vec<u8>)>;

    fn stored(index: &LabelIndex) -> (PostingsShape, Stored) {
        let shape = index.shape().unwrap();
        let mut chunks = Vec::new();
        for part in PostingsPart::ALL {
            for first in (0..shape.length(part)).step_by(PostingsPart::CHUNK_ITEMS) {
                let mut bytes = Vec::new();
                let items =
                    index.store_chunk(part, first, &mut |item| bytes.extend_from_slice(item));
                assert_eq!(bytes.len(), items * part.item_bytes());
                chunks.push((part, first, bytes));
            }
        }
        (shape, chunks)
    }

    fn made(shape: PostingsShape, chunks: &Stored) -> Option<LabelIndex> {
        let mut made = LabelIndexOfChunks::new(shape)?;
        for (part, first, bytes) in chunks {
            let chunk = StoredChunk::read(*part, bytes, shape.places)?;
            if !made.add(*first, chunk) {
                return None;
            }
        }
        made.is_whole().then(|| made.into_postings())
    }

    #[test]
    fn chunks_make_the_same_postings_again() {
        let mut random = StdRng::seed_from_u64(1);
        for entries in [0, 1, 10, 900, 1100, 20_000] {
            let mut index = random_index(&mut random, entries);
            let (shape, chunks) = stored(&index);
            assert_eq!(shape.postings(), Some(index.len()));
            let mut made = made(shape, &chunks).unwrap();
            assert!(made.heap_bytes() <= index.heap_bytes());
            // Both go on in the same way.
            for number in entries.max(1)..entries + 2000 {
                let other = random.random_range(0..number);
                let (key, sequence) = (KeyHash(other), Sequence(other));
                assert_eq!(made.of(key, sequence), index.of(key, sequence));
                assert_eq!(made.release(key, sequence), index.release(key, sequence));
                let label = LabelHash(random.random_range(0..1 + entries / 3));
                made.insert(label, KeyHash(number), Sequence(number));
                index.insert(label, KeyHash(number), Sequence(number));
                let listed = |index: &LabelIndex| {
                    let mut found = Vec::new();
                    index.oldest(label, (&[], Sequence(u64::MAX)), 50, &mut found);
                    found
                };
                assert_eq!(listed(&made), listed(&index));
            }
            assert_eq!(made.shape(), index.shape());
        }
    }

    #[test]
    fn chunks_that_do_not_belong_together_make_none() {
        let mut random = StdRng::seed_from_u64(2);
        let index = random_index(&mut random, 5000);
        let (shape, chunks) = stored(&index);
        assert!(made(shape, &chunks).is_some());
        for at in 0..chunks.len() {
            let mut changed = chunks.clone();
            let (part, first, bytes) = changed.remove(at);
            assert!(made(shape, &changed).is_none(), "chunk {at} is missing");
            changed.insert(at, (part, first + 1, bytes.clone()));
            assert!(made(shape, &changed).is_none(), "chunk {at} is elsewhere");
            let shorter = bytes[..bytes.len() - part.item_bytes()].to_vec();
            changed[at] = (part, first, shorter);
            assert!(made(shape, &changed).is_none(), "chunk {at} is short");
            // A link to nowhere.
            let mut strange = bytes;
            let end = strange.len();
            strange[end - 4..].copy_from_slice(&shape.places.to_le_bytes());
            assert!(StoredChunk::read(part, &strange, shape.places).is_none());
        }
        // Chunks whose links may lead behind the last place.
        let mut made = LabelIndexOfChunks::new(shape).unwrap();
        let (part, first, bytes) = &chunks[0];
        assert!(!made.add(*first, StoredChunk::read(*part, bytes, shape.places + 1).unwrap()));
        assert!(made.add(*first, StoredChunk::read(*part, bytes, shape.places).unwrap()));
        let holes = PostingsShape { holes: shape.places + 1, ..shape };
        assert!(LabelIndexOfChunks::new(holes).is_none());
        let elsewhere = PostingsShape { first_hole: shape.places, ..shape };
        assert!(LabelIndexOfChunks::new(elsewhere).is_none());
    }
    #[test]
    fn what_is_not_whole_has_no_postings() {
        let mut index = random_index(&mut StdRng::seed_from_u64(3), 5000);
        (0..50).for_each(|number| _ = index.release(KeyHash(number), Sequence(number)));
        let (shape, _) = stored(&index);
        assert!(shape.holes > 0);
        let postings = LabelIndexOfChunks::new(shape).unwrap();
        assert!(!postings.is_whole());
        assert_eq!(postings.into_postings().len(), 0);
    }
}
