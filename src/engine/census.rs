//! `Census`: what the disk tier has, by namespace and by segment, and its largest entries. Every
//! record that the directories list is looked up in the index.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use crate::batch::Pacer;
use crate::engine::Engine;
use crate::engine::parts::Parts;
use crate::key::KeyHash;
use crate::l2::{LISTED_BYTES, ListedPiece, ListingCursor, SearchTargets, SegmentNumber};
use crate::namespace::Generation;

/// Entries that count, and the bytes of their records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.entries += 1;
        self.bytes += bytes;
    }
}

#[derive(Debug)]
pub(crate) struct NamespaceCensus {
    pub(crate) name: Box<str>,
    pub(crate) count: Count,
    /// Different labels of its entries.
    pub(crate) labels: usize,
    /// Labels of its entries, each counted for each entry.
    pub(crate) postings: usize,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LargeEntry {
    pub(crate) bytes: u64,
    pub(crate) namespace: Box<str>,
    pub(crate) key: Box<[u8]>,
}

#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) namespaces: Vec<NamespaceCensus>,
    /// By number of the segment.
    pub(crate) segments: BTreeMap<u64, Count>,
    /// Largest last.
    pub(crate) largest: BTreeSet<LargeEntry>,
    /// Segments whose directories could not be read to their ends.
    pub(crate) unread: BTreeSet<u64>,
}

impl Census {
    /// Takes the census of a cache without entries in memory, and keeps as many of the largest
    /// entries.
    pub(crate) async fn of(engine: &Engine, largest: usize) -> Self {
        let (mut census, parts) = (Self::default(), &engine.parts);
        let mut steps = Pacer::default();
        for generation in generations(parts) {
            steps.entry().await;
            let named = census.namespace(parts, &generation, largest).await;
            if named.count.entries > 0 {
                census.namespaces.push(named);
            }
        }
        census
    }

    async fn namespace(
        &mut self,
        parts: &Parts,
        generation: &Arc<Generation>,
        largest: usize,
    ) -> NamespaceCensus {
        let (postings, labels) = {
            let mut section = parts.commit_lock.section();
            let labels = generation.labels(&mut section);
            (labels.len(), labels.different())
        };
        let mut targets = SearchTargets::default();
        targets.add(generation.named(), &[]);
        let (targets, mut count) = (Arc::new(targets), Count::default());
        let segments = parts.disk.l2().map(|l2| l2.segments());
        let mut steps = Pacer::default();
        for number in segments.into_iter().flatten() {
            let mut cursor = Some(ListingCursor::new(SegmentNumber(number)));
            while let Some(next) = cursor {
                let Ok(Some(piece)) = piece(parts, next, &targets).await else {
                    self.unread.insert(number);
                    break;
                };
                for blobs in &piece.found {
                    for at in 0..blobs.len() {
                        steps.entry().await;
                        let Some((position, bytes, blob)) = blobs.at(at) else { continue };
                        let slot = generation.index().get(KeyHash(blob.hash));
                        if slot.is_none_or(|slot| slot.position != position || slot.dead) {
                            continue;
                        }
                        let bytes = bytes as u64;
                        count.add(bytes);
                        self.segments.entry(number).or_default().add(bytes);
                        let (namespace, key) = (generation.name(), blob.key);
                        self.keep((bytes, namespace, key), largest);
                    }
                }
                cursor = piece.next;
            }
        }
        NamespaceCensus { name: generation.name().into(), count, labels, postings }
    }

    fn keep(&mut self, (bytes, namespace, key): (u64, &str, &[u8]), largest: usize) {
        let least = self.largest.first().filter(|_| self.largest.len() >= largest);
        if largest == 0 || least.is_some_and(|least| least.bytes >= bytes) {
            return;
        }
        self.largest.insert(LargeEntry { bytes, namespace: namespace.into(), key: key.into() });
        if self.largest.len() > largest {
            self.largest.pop_first();
        }
    }
}

/// The names in use.
pub(crate) fn names(engine: &Engine) -> Vec<Box<str>> {
    let generations = generations(&engine.parts);
    // Bounded: by the namespaces of a store.
    generations.iter().map(|generation| generation.name().into()).collect()
}

/// All of them: the cache has no more than the store has names.
fn generations(parts: &Parts) -> Vec<Arc<Generation>> {
    let (mut found, mut from) = (Vec::new(), Some(0));
    // Bounded: by the namespaces of a store.
    while let Some(next) = from {
        from = parts.namespaces.some(next, &mut found);
    }
    found
}

async fn piece(
    parts: &Parts,
    cursor: ListingCursor,
    targets: &Arc<SearchTargets>,
) -> io::Result<Option<ListedPiece>> {
    let bytes = parts.reads.short_max().min(LISTED_BYTES);
    let reading = parts.reads.of(bytes).run(bytes, |permit| {
        let (disk, targets) = (Arc::clone(&parts.disk), Arc::clone(targets));
        let cursor = cursor.clone();
        async move {
            match disk.l2() {
                Some(l2) => l2.list(cursor, &targets, (&permit, bytes)).await,
                None => Ok(None),
            }
        }
    });
    reading.await
}
