//! `Plan`: which pieces of a closed index go into which chunk of its image.
//!
//! A namespace is *settled* first. It loses the slots and postings that no replay would find:
//! those of segments that were reclaimed while the cache was closing, and postings of entries that
//! were in memory only.

use std::collections::VecDeque;
use std::iter;
use std::sync::Arc;

use super::piece::{Part, PieceSource};
use super::{ClosedIndex, ClosedNamespace};
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::failpoint::{Failpoint, failpoint};
use crate::helpers::Helpers;
use crate::key::KeyHash;
use crate::l2::format::Position;
use crate::labels::{Posting, PostingsPart, PostingsShape};
use crate::sequence::Sequence;

pub(super) struct Plan<'a> {
    index: Arc<dyn ClosedIndex>,
    helpers: &'a Helpers,
    /// Nothing before it has a slot from now on.
    head: Position,
    /// Whether something before it may have one.
    is_head_moved: bool,
    chunk_bytes: usize,
    /// Where the next batch of namespaces begins.
    next: Option<usize>,
    waiting: VecDeque<Arc<dyn ClosedNamespace>>,
    begun: Option<PlannedNamespace>,
    pub(super) totals: Totals,
    steps: Pacer,
}

/// What was planned so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) namespaces: u32,
    pub(super) slots: u64,
    pub(super) postings: u64,
}

/// A namespace whose pieces are being planned.
struct PlannedNamespace {
    namespace: Arc<dyn ClosedNamespace>,
    parts: Box<dyn Iterator<Item = Part> + Send>,
}

/// The pieces of a chunk, and the bytes that they take.
pub(super) struct PlannedChunk {
    pub(super) pieces: Vec<PieceSource>,
    pub(super) bytes: usize,
}

impl<'a> Plan<'a> {
    /// `is_head_moved`: the head is behind what the index was closed with.
    pub(super) fn new(
        index: &Arc<dyn ClosedIndex>,
        helpers: &'a Helpers,
        (head, is_head_moved): (Position, bool),
        chunk_bytes: usize,
    ) -> Self {
        Self {
            index: Arc::clone(index),
            helpers,
            head,
            is_head_moved,
            chunk_bytes,
            next: Some(0),
            waiting: VecDeque::new(),
            begun: None,
            totals: Totals::default(),
            steps: Pacer::default(),
        }
    }

    /// The next chunk: it ends with the piece with which it is long enough, or has a batch of them.
    /// None at the end.
    pub(super) async fn chunk(&mut self) -> Option<PlannedChunk> {
        let mut chunk = PlannedChunk { pieces: Vec::new(), bytes: 0 };
        while chunk.bytes < self.chunk_bytes && chunk.pieces.len() < BATCH_ENTRIES {
            self.steps.entry().await;
            let next = self.begun.as_mut().and_then(|begun| {
                let (namespace, part) = (Arc::clone(&begun.namespace), begun.parts.next()?);
                Some(PieceSource { namespace, part })
            });
            match next {
                Some(piece) => {
                    chunk.bytes += piece.bytes();
                    chunk.pieces.push(piece);
                }
                None if self.begin_next().await => {}
                None => break,
            }
        }
        (!chunk.pieces.is_empty()).then_some(chunk)
    }

    /// Begins the next namespace that has anything. False at the end.
    async fn begin_next(&mut self) -> bool {
        self.begun = None;
        // Bounded: a namespace in each turn, in steps.
        loop {
            let Some(namespace) = self.waiting.pop_front() else {
                let Some(from) = self.next else { return false };
                let mut found = Vec::new();
                self.next = self.index.namespaces_from(from, &mut found);
                // Bounded: by a batch.
                self.waiting.extend(found);
                self.steps.entries(BATCH_ENTRIES).await;
                continue;
            };
            if self.begin(namespace).await {
                return true;
            }
        }
    }

    /// False if there is nothing of it.
    async fn begin(&mut self, namespace: Arc<dyn ClosedNamespace>) -> bool {
        self.steps.entry().await;
        if !failpoint(Failpoint::ImageUnsettled) {
            let settling = settle(Arc::clone(&namespace), self.head, self.is_head_moved);
            self.helpers.run(settling).await;
        }
        let slots = namespace.index().len();
        let shape = namespace.postings().shape();
        let Some((shape, postings)) = shape.and_then(|it| Some((it, it.postings()?))) else {
            return false;
        };
        if slots == 0 {
            return false;
        }
        self.totals.namespaces = self.totals.namespaces.saturating_add(1);
        self.totals.slots += slots as u64;
        self.totals.postings += postings as u64;
        let tables = (0..namespace.index().tables()).map(Part::Table);
        let parts = iter::once(Part::Namespace(shape)).chain(tables).chain(parts_of(shape));
        self.begun = Some(PlannedNamespace { namespace, parts: Box::new(parts) });
        true
    }
}

fn parts_of(shape: PostingsShape) -> impl Iterator<Item = Part> + Send {
    PostingsPart::ALL.into_iter().flat_map(move |part| {
        let length = shape.length(part);
        let places = shape.places;
        (0..length).step_by(PostingsPart::CHUNK_ITEMS).map(move |first| {
            let left = (length - first) as usize;
            let items = u32::try_from(left.min(PostingsPart::CHUNK_ITEMS)).unwrap_or(0);
            Part::Postings { part, first, items, places }
        })
    })
}

/// Removes what no replay from `head` on would find.
async fn settle(namespace: Arc<dyn ClosedNamespace>, head: Position, is_head_moved: bool) {
    let mut steps = Pacer::default();
    let mut cursor = is_head_moved.then(Default::default);
    while let Some(from) = cursor {
        steps.entries(BATCH_ENTRIES).await;
        let mut found = Vec::new();
        let before = Position::FIRST..head;
        cursor = namespace.index().scan(from, before, BATCH_ENTRIES, &mut found);
        // Bounded: by a batch.
        for (hash, slot) in found {
            namespace.index().remove_if(hash, slot.position);
        }
    }
    let has_unrecorded = namespace.has_unrecorded();
    let is_left = |posting: Posting| {
        posting.sequence < Sequence(head.value())
            || (has_unrecorded && !is_recorded(&*namespace, posting.key, posting.sequence))
    };
    let mut cursor = Some(Default::default());
    while let Some(from) = cursor {
        steps.entries(BATCH_ENTRIES).await;
        let mut postings = namespace.postings();
        let mut found = Vec::new();
        cursor = postings.visit(from, BATCH_ENTRIES, is_left, &mut found);
        // Bounded: by a batch.
        for Posting { key, sequence } in found {
            postings.release(key, sequence);
        }
    }
}

/// Whether a mutation has a record with labels.
fn is_recorded(namespace: &dyn ClosedNamespace, key: KeyHash, sequence: Sequence) -> bool {
    let slot = namespace.index().get(key);
    slot.is_some_and(|slot| slot.position.value() == sequence.0 && !slot.is_tombstone())
}
