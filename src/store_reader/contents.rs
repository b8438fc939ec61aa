//! `StoreContents`: the entries of a store, found as an open finds them.

use std::collections::BTreeSet;
use std::fmt;

use crate::blocking::block_on;
use crate::engine::View;
use crate::engine::census::{Census, names};
use crate::keys::{BlobCacheKeys, KeyEntry, KeysQuery};

/// The entries of a store, as the next open would find them if it found any: without what has
/// expired, was overwritten or invalidated. It takes as much memory as the index of a cache, some
/// 32 bytes for each entry, and 52 for each label of it.
pub struct StoreContents {
    /// None if there is nothing in the store, whose creation was never finished.
    view: Option<View>,
    is_live: bool,
}

/// Keys of a store, as they are found in it. See [`StoreContents::keys`].
#[must_use = "it lists nothing until it is asked"]
pub struct StoreKeys(Option<BlobCacheKeys>);

/// A namespace that has entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountedNamespace {
    /// Its name.
    pub name: String,
    /// How many it has.
    pub entries: u64,
    /// The bytes of their records, with keys, metadata and labels, as compressed.
    pub bytes: u64,
    /// Different tags and dependencies of them.
    pub labels: u64,
    /// Their tags and dependencies, each counted for each entry that has it.
    pub postings: u64,
}

/// The entries that lie in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountedSegment {
    /// The number of the segment.
    pub number: u64,
    /// How many there are.
    pub entries: u64,
    /// The bytes of their records.
    pub bytes: u64,
}

/// The segment in which a log goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenStoreSegment {
    /// Its number.
    pub number: u64,
    /// Records of all kinds, live or dead.
    pub records: u64,
    /// Bytes of its frames, which hold the records.
    pub used_bytes: u64,
}

/// One of the largest entries.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LargeEntry {
    /// Its namespace.
    pub namespace: String,
    /// Its key.
    pub key: Vec<u8>,
    /// The bytes of its record.
    pub bytes: u64,
}

/// Everything that a store has, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCensus {
    /// By name.
    pub namespaces: Vec<CountedNamespace>,
    /// By number; those without entries are left out.
    pub segments: Vec<CountedSegment>,
    /// Largest first.
    pub largest: Vec<LargeEntry>,
    /// Segments whose directories are damaged or could not be read to their ends: their entries are
    /// not counted. None of a live store, whose owner may have overwritten them.
    pub unread: BTreeSet<u64>,
    /// The segment in which the log would go on. It may be one behind those in use.
    pub open_segment: Option<OpenStoreSegment>,
}

impl StoreContents {
    pub(super) fn new(view: Option<View>, is_live: bool) -> Self {
        Self { view, is_live }
    }

    /// Segments that an open would drop, because they are damaged or lie before damage. What they
    /// hold is not found here either.
    #[must_use]
    pub fn segments_dropped(&self) -> u64 {
        // An owner may have overwritten those of a live store.
        self.view.as_ref().filter(|_| !self.is_live).map_or(0, |view| view.dropped)
    }

    /// The names of the namespaces, in order.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        // Bounded: by the namespaces of the store.
        let names = self.view.iter().flat_map(|view| names(&view.engine)).map(String::from);
        // Bounded: likewise.
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        names
    }

    /// Lists entries of a namespace, as [`BlobCache::keys`](crate::BlobCache::keys) does: in no
    /// order, and nothing of an unknown namespace.
    pub fn keys(&self, namespace: &str, query: impl Into<KeysQuery>) -> StoreKeys {
        let view = self.view.as_ref();
        StoreKeys(view.map(|view| view.engine.lister().list(namespace, query.into())))
    }

    /// Counts all entries, and finds so many of the largest. Reads all directories, those of a
    /// segment once for each namespace.
    #[must_use]
    pub fn census(&self, largest: usize) -> StoreCensus {
        let Some(View { engine, open_segment, .. }) = &self.view else {
            return StoreCensus::default();
        };
        let found = block_on(Census::of(engine, largest));
        let namespaces = found.namespaces.into_iter().map(|it| CountedNamespace {
            name: it.name.into(),
            entries: it.count.entries,
            bytes: it.count.bytes,
            labels: it.labels as u64,
            postings: it.postings as u64,
        });
        let segments = found.segments.into_iter().map(|(number, count)| CountedSegment {
            number,
            entries: count.entries,
            bytes: count.bytes,
        });
        let largest = found.largest.into_iter().rev().map(|it| LargeEntry {
            namespace: it.namespace.into(),
            key: it.key.into(),
            bytes: it.bytes,
        });
        // Bounded: by the namespaces of the store.
        let mut namespaces: Vec<_> = namespaces.collect();
        namespaces.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        StoreCensus {
            namespaces,
            // Bounded: by its segments.
            segments: segments.collect(),
            // Bounded: by what was asked for.
            largest: largest.collect(),
            // An owner may have overwritten those of a live store.
            unread: if self.is_live { BTreeSet::new() } else { found.unread },
            open_segment: Some(OpenStoreSegment {
                number: open_segment.number,
                records: open_segment.records.into(),
                used_bytes: open_segment.used_bytes,
            }),
        }
    }
}

impl Iterator for StoreKeys {
    type Item = KeyEntry;

    fn next(&mut self) -> Option<KeyEntry> {
        block_on(self.0.as_mut()?.next())
    }
}

impl fmt::Debug for StoreContents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreContents").finish_non_exhaustive()
    }
}

impl fmt::Debug for StoreKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StoreKeys").finish_non_exhaustive()
    }
}
