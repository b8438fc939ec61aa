//! `ListedRecord`: a record of a segment as replay needs it.

use super::directory_entry::{BlobSummary, Change, DirectoryEntry};
use super::format::BLOCK_BYTES;
use crate::clock::Timestamp;
use crate::key::KeyHash;
use crate::policy::Lifetime;

/// A record of a segment.
#[derive(Clone, Copy)]
pub(crate) struct ListedRecord {
    pub(crate) hash: KeyHash,
    /// When a blob expires, unless a read renews it.
    pub(crate) ends: Timestamp,
    pub(super) offset: u32,
    /// Where its entry begins in the pages.
    pub(super) entry: u32,
    /// Of the name table.
    pub(crate) row: u32,
    pub(super) first_label: u32,
    pub(super) label_count: u32,
    pub(crate) blocks: u16,
    pub(crate) kind: ListedKind,
    pub(crate) versioned: bool,
    /// A touch has made a deadline of it earlier.
    pub(crate) shortened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListedKind {
    Blob,
    ExpiredBlob,
    Tombstone,
    /// Read its entry.
    Other,
}

impl ListedRecord {
    pub(super) fn new(
        at: u32,
        row: Option<u32>,
        entry: &DirectoryEntry<'_>,
        now: Timestamp,
        labels: usize,
    ) -> Option<Self> {
        let mut record = Self {
            hash: KeyHash(0),
            ends: Timestamp(0),
            offset: entry.offset,
            entry: at,
            row: row.unwrap_or(u32::MAX),
            first_label: u32::try_from(labels).ok()?,
            label_count: 0,
            blocks: blocks(entry),
            kind: ListedKind::Other,
            versioned: false,
            shortened: false,
        };
        match &entry.change {
            Change::Blob(blob) => record.set_blob(blob, now)?,
            Change::Tombstone { hash, .. } => {
                (record.hash, record.kind) = (KeyHash(*hash), ListedKind::Tombstone);
            }
            _ => {}
        }
        Some(record)
    }

    fn set_blob(&mut self, blob: &BlobSummary<'_>, now: Timestamp) -> Option<()> {
        self.set_life(&blob.life(), now);
        self.hash = KeyHash(blob.hash);
        self.label_count = u32::try_from(blob.labels.len()).ok()?;
        self.versioned = blob.version.is_some();
        Some(())
    }

    /// A blob lives from a write or a touch on.
    pub(super) fn set_life(&mut self, life: &Lifetime, now: Timestamp) {
        // Accesses since then are not on file.
        let is_expired = life.freshness(now, life.written).is_expired();
        self.kind = if is_expired { ListedKind::ExpiredBlob } else { ListedKind::Blob };
        self.ends = life.ends(life.written);
    }

    /// Its own among those of the segment.
    pub(super) fn labels_of<'a>(&self, labels: &'a [u64]) -> &'a [u64] {
        let first = self.first_label as usize;
        labels.get(first..first + self.label_count as usize).unwrap_or_default()
    }

    pub(crate) fn label_count(&self) -> usize {
        self.label_count as usize
    }
}

fn blocks(entry: &DirectoryEntry<'_>) -> u16 {
    let bytes = entry.offset as usize % BLOCK_BYTES + entry.length as usize;
    u16::try_from(bytes.div_ceil(BLOCK_BYTES)).unwrap_or(u16::MAX)
}
