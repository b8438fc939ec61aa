//! An image of the index: whatever is read holds what its header says, and is the same after it was
//! written again.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::executor::block_on;
use parking_lot::{Mutex, MutexGuard};

use super::header::{ChunkRow, ImageHeader, Ties};
use super::{ClosedIndex, ClosedNamespace, ImageSettings, ImageWriter, Loaded, load};
use crate::clock::Timestamp;
use crate::footprint::{POSTING_BYTES, SLOT_BYTES};
use crate::helpers::Helpers;
use crate::l2::blob::NamedGeneration;
use crate::l2::checksum::{Domain, checksum};
use crate::l2::format::{
    BLOCK_BYTES, BLOCK_CHECKSUM_OFFSET, GenerationNumber, Position, SegmentNumber,
};
use crate::l2::fuzz::{OPEN, SEALED, SEGMENT, STORE, file_with, geometry, position};
use crate::l2::index::{Index, ScanCursor};
use crate::l2::replay::Limits;
use crate::l2::replayed_namespace::RecoveredNamespace;
use crate::l2::segment_file::SegmentFile;
use crate::l2::superblock::{CrashSafety, Superblock};
use crate::l2::wire::{Reader, Sink};
use crate::labels::{LabelIndex, PostingsShape};
use crate::quota::Quotas;

/// In the first byte of an input: it is the image itself, not its chunks.
const WHOLE: u8 = 2;

const INDEX_BYTES_MAX: usize = 1 << 20;

/// Any bytes, behind the segments of a closed store: an image, or what it says in its header
/// (slots, postings and namespaces) and its chunks, each with its length before it.
pub(crate) fn image(bytes: &[u8]) {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let mut image = match mode & WHOLE {
        0 => made(bytes).unwrap_or_default(),
        _ => bytes.to_vec(),
    };
    image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
    if mode & WHOLE != 0 && mode & SEALED != 0 {
        reseal(&mut image);
    }
    let end = geometry().file_bytes();
    let file = file_with(end, &image, end + image.len() as u64);
    block_on(check(&file));
}

/// What the image belongs to.
fn superblock() -> Superblock {
    Superblock {
        write_counter: 1,
        store_id: STORE,
        hash_key: 1,
        geometry: geometry(),
        created_ns: 0,
        open_count: OPEN,
        crash_safety: CrashSafety::Process,
        clean: true,
        void: false,
        boot_id: [0; 16],
        newest: SEGMENT,
        head: Position::FIRST,
        tail: position(2 * BLOCK_BYTES),
        generation_floor: GenerationNumber(0),
    }
}

fn ties() -> Ties {
    let superblock = superblock();
    let head = superblock.head_at(superblock.tail).expect("an early position");
    let tail = superblock.tail;
    Ties { store_id: STORE, open_count: OPEN, key_hash_bits: 64, head, tail }
}

/// An image of such chunks. None if they are cut off.
fn made(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let (slots, postings) = (reader.u16().ok()?.into(), reader.u16().ok()?.into());
    let namespaces = reader.u8().ok()?.into();
    let (mut image, mut table, mut chunks) = (vec![0; BLOCK_BYTES], Vec::new(), 0);
    while !reader.rest().is_empty() {
        let length = usize::from(reader.u16().ok()?).min(reader.rest().len());
        let chunk = reader.take(length).ok()?;
        let sum = checksum(chunk, ties().seed(Domain::ImageChunk, chunks.into()));
        ChunkRow { length: u32::try_from(length).ok()?, sum }.write(&mut table);
        image.bytes(chunk);
        image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
        chunks += 1;
    }
    let table_sum = checksum(&table, ties().seed(Domain::ImageTable, 0));
    image.bytes(&table);
    let length = image.len().next_multiple_of(BLOCK_BYTES) as u64;
    let header =
        ImageHeader { ties: ties(), slots, postings, namespaces, chunks, length, table_sum };
    image[..BLOCK_BYTES].copy_from_slice(&header.encode());
    Some(image)
}

/// Sets the checksum of the header, whatever it says.
fn reseal(image: &mut [u8]) {
    let Some(block) = image.get_mut(..BLOCK_BYTES) else { return };
    let sum = checksum(&block[..BLOCK_CHECKSUM_OFFSET], ties().seed(Domain::Image, 0));
    block[BLOCK_CHECKSUM_OFFSET..].copy_from_slice(&sum.to_le_bytes());
    if let Ok(header) = ImageHeader::decode(block) {
        assert_eq!(header.encode(), block);
    }
}

async fn check(file: &SegmentFile) {
    let Some(loaded) = read(file).await else { return };
    let bytes = loaded.bytes;
    let index = Arc::new(Found::new(loaded));
    let (slots, postings) = index.totals();
    assert_eq!(bytes, slots * SLOT_BYTES + postings * POSTING_BYTES);
    assert!(bytes <= INDEX_BYTES_MAX);
    let before = index.state();
    if index.0.iter().any(|found| found.has_early_postings()) {
        // A replay would not find them, so that a writer would try to unlink them.
        return;
    }
    let settings = ImageSettings { key_hash_bits: 64, helpers: 0 };
    file.disk.resize(file.geometry.file_bytes()).await.expect("the disk has no faults");
    let closed: Arc<dyn ClosedIndex> = Arc::clone(&index) as _;
    ImageWriter::new(file.clone(), settings).write(&superblock(), &closed).await;
    let after = read(file).await.map(|loaded| Found::new(loaded).state());
    let before: Vec<_> = before.into_iter().filter(|state| !state.slots.is_empty()).collect();
    assert_eq!(after, Some(before));
}

async fn read(file: &SegmentFile) -> Option<Loaded> {
    let limits =
        Limits { index_bytes_max: INDEX_BYTES_MAX, namespaces_max: 64, quotas: Quotas::default() };
    load(file, &superblock(), (&limits, 64), &Helpers::start(0)).await
}

/// An index that was read.
struct Found(Vec<Arc<FoundNamespace>>);

struct FoundNamespace {
    name: Box<str>,
    generation: GenerationNumber,
    index: Index,
    labels: Mutex<LabelIndex>,
    alive_until: Timestamp,
}

/// What is compared of a namespace.
#[derive(Debug, PartialEq)]
struct State {
    name: Box<str>,
    generation: u64,
    alive_until: u64,
    slots: Vec<(u64, u64, u16)>,
    postings: Vec<(u64, u64)>,
    shape: Option<PostingsShape>,
}

impl Found {
    fn new(loaded: Loaded) -> Self {
        let namespaces: BTreeMap<Box<str>, RecoveredNamespace> = loaded.namespaces;
        Self(namespaces.into_iter().map(|it| Arc::new(FoundNamespace::new(it))).collect())
    }

    fn totals(&self) -> (usize, usize) {
        let slots = self.0.iter().map(|found| found.index.len()).sum();
        (slots, self.0.iter().map(|found| found.labels.lock().len()).sum())
    }

    fn state(&self) -> Vec<State> {
        self.0.iter().map(|found| found.state()).collect()
    }
}

impl FoundNamespace {
    fn new((name, found): (Box<str>, RecoveredNamespace)) -> Self {
        let RecoveredNamespace { generation, index, labels, alive_until, .. } = found;
        Self { name, generation, index, labels: Mutex::new(labels), alive_until }
    }

    fn postings(&self) -> Vec<(u64, u64)> {
        let (mut found, mut cursor) = (Vec::new(), Some(Default::default()));
        while let Some(from) = cursor {
            cursor = self.labels.lock().visit(from, 1 << 10, |_| true, &mut found);
        }
        let mut postings: Vec<_> = found.iter().map(|it| (it.key.0, it.sequence.0)).collect();
        postings.sort_unstable();
        postings
    }

    fn has_early_postings(&self) -> bool {
        self.postings().iter().any(|(_, sequence)| *sequence < ties().head.value())
    }

    fn state(&self) -> State {
        let (mut found, mut cursor) = (Vec::new(), Some(ScanCursor::default()));
        while let Some(from) = cursor {
            let all = Position::FIRST..Position::LAST;
            cursor = self.index.scan(from, all, 1 << 10, &mut found);
        }
        assert_eq!(found.len(), self.index.len());
        assert!(found.iter().all(|(hash, _)| self.index.get(*hash).is_some()));
        let mut slots: Vec<_> =
            found.iter().map(|(hash, slot)| (hash.0, slot.to_word(), slot.blocks)).collect();
        slots.sort_unstable();
        State {
            name: self.name.clone(),
            generation: self.generation.0,
            alive_until: self.alive_until.0,
            slots,
            postings: self.postings(),
            shape: self.labels.lock().shape(),
        }
    }
}

impl ClosedIndex for Found {
    fn oldest_segment(&self) -> SegmentNumber {
        SEGMENT
    }

    fn namespaces_from(
        &self,
        _from: usize,
        found: &mut Vec<Arc<dyn ClosedNamespace>>,
    ) -> Option<usize> {
        found.extend(self.0.iter().map(|it| Arc::clone(it) as _));
        None
    }

    fn free_contents(&self) {}
}

impl ClosedNamespace for FoundNamespace {
    fn named(&self) -> NamedGeneration<'_> {
        NamedGeneration { name: &self.name, generation: self.generation }
    }

    fn index(&self) -> &Index {
        &self.index
    }

    fn postings(&self) -> MutexGuard<'_, LabelIndex> {
        self.labels.lock()
    }

    fn has_unrecorded(&self) -> bool {
        false
    }

    fn alive_until(&self) -> Timestamp {
        self.alive_until
    }

    fn l2_bytes_max(&self) -> Option<u64> {
        None
    }
}

/// Images of good indexes: an empty one, a small one, and one with labels and holes.
#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [(0, 0), (3, 0), (40, 25)].map(|(slots, labels)| seed(slots, labels)).to_vec()
}

#[cfg(test)]
fn seed(slots: u64, postings: u64) -> Vec<u8> {
    use super::plan::Plan;
    use crate::key::{KeyHash, LabelHash};
    use crate::l2::index::Slot;
    use crate::sequence::Sequence;

    let (index, mut labels) = (Index::new(), LabelIndex::default());
    let at = |number: u64| ties().head.after(4096 + 8 * number).unwrap();
    let hash = |number: u64| KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for number in 0..slots {
        index.insert(hash(number), Slot::new(at(number), 1));
    }
    for number in 0..postings {
        let sequence = Sequence(at(number % slots).value());
        labels.insert(LabelHash(number % 7), hash(number % slots), sequence);
    }
    (0..postings / 5).for_each(|number| {
        labels.release(hash(number), Sequence(at(number).value()));
    });
    let found = FoundNamespace {
        name: "a".into(),
        generation: GenerationNumber(1),
        index,
        labels: Mutex::new(labels),
        alive_until: Timestamp::NEVER,
    };
    let found: Arc<dyn ClosedIndex> = Arc::new(Found(vec![Arc::new(found)]));
    let helpers = Helpers::start(0);
    let mut plan = Plan::new(&found, &helpers, (ties().head, false), 1 << 10);
    let mut chunks = Vec::new();
    while let Some(planned) = block_on(plan.chunk()) {
        let mut chunk = Vec::new();
        assert!(planned.pieces.iter().all(|piece| piece.write(&mut chunk)));
        chunks.bytes(&u16::try_from(chunk.len()).unwrap().to_le_bytes());
        chunks.bytes(&chunk);
    }
    let mut seed = vec![0];
    seed.bytes(&u16::try_from(plan.totals.slots).unwrap().to_le_bytes());
    seed.bytes(&u16::try_from(plan.totals.postings).unwrap().to_le_bytes());
    seed.u8(u8::try_from(plan.totals.namespaces).unwrap());
    seed.bytes(&chunks);
    seed
}
