//! `RecordWalk`: lists the records of a part of the log, segment by segment, by their directories.
//! The slot of a record's hash decides whether it is the live one.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::Pacer;
use crate::engine::disk_tier::DiskTier;
use crate::engine::list::judge::{Judge, Listed, Verdict};
use crate::engine::read::read_limit::Reads;
use crate::entry::{Entry, Mark};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::KeyHash;
use crate::keys::KeyEntry;
use crate::l2::{
    FoundBlobs, LISTED_BYTES, ListedPiece, ListingCursor, Position, SearchTargets, SegmentNumber,
};

/// Of more segments that cannot be listed no list is kept.
const UNLISTED_MAX: usize = 64;

pub(super) struct RecordWalk {
    disk: Arc<DiskTier>,
    reads: Arc<Reads>,
    targets: Arc<SearchTargets>,
    /// The positions that it lists.
    window: Range<Position>,
    /// Only keys after this one.
    after: Option<Box<[u8]>>,
    /// The segments that are left, and the place in the one that is under way.
    segments: Range<u64>,
    cursor: Option<ListingCursor>,
    /// What was read and not listed yet, and the place in the first of them.
    found: VecDeque<FoundBlobs>,
    next: usize,
    /// What was listed last, of the segment.
    last: Option<FoundBlobs>,
    /// The hash that was asked for last, and had the key.
    asked: Option<KeyHash>,
    unlisted: Unlisted,
}

/// The parts of segments that were not listed.
#[derive(Default)]
pub(super) struct Unlisted {
    segments: Vec<(SegmentNumber, Option<Box<[u8]>>)>,
    /// There are more, or all may be.
    is_full: bool,
    /// Some have left the log, and records of theirs may have been appended again.
    has_gone: bool,
}

impl Unlisted {
    /// From the start, or behind a key.
    fn add(&mut self, segment: SegmentNumber, behind: Option<Box<[u8]>>, is_gone: bool) {
        self.has_gone |= is_gone;
        if self.segments.len() < UNLISTED_MAX {
            self.segments.push((segment, behind));
        } else {
            self.is_full = true;
        }
    }

    fn has(&self, segment: SegmentNumber, key: &[u8]) -> bool {
        let is_it = |(of, behind): &(SegmentNumber, Option<Box<[u8]>>)| {
            *of == segment && behind.as_ref().is_none_or(|behind| **behind < *key)
        };
        // Bounded: by the most that are kept.
        self.is_full || self.segments.iter().any(is_it)
    }

    pub(super) fn has_gone(&self) -> bool {
        self.has_gone
    }

    /// All keys that are missing because segments have left the log are after this one.
    pub(super) fn behind(&self) -> Option<Box<[u8]>> {
        // Bounded: by the most that are kept.
        let least = self.segments.iter().map(|(_, behind)| behind).min();
        least.filter(|_| !self.is_full).cloned().flatten()
    }
}

impl RecordWalk {
    /// `segments`: those that may have the positions of the window.
    pub(super) fn new(
        (disk, reads): (&Arc<DiskTier>, &Arc<Reads>),
        listed: &Listed,
        (window, segments): (Range<Position>, Range<u64>),
        after: Option<Box<[u8]>>,
    ) -> Self {
        let mut targets = SearchTargets::default();
        targets.add(listed.generation.named(), &listed.prefix);
        Self {
            disk: Arc::clone(disk),
            reads: Arc::clone(reads),
            targets: Arc::new(targets),
            window,
            after,
            segments,
            cursor: None,
            found: VecDeque::new(),
            next: 0,
            last: None,
            asked: None,
            unlisted: Unlisted::default(),
        }
    }

    /// Where the log ended for it.
    pub(super) fn end(&self) -> Position {
        self.window.end
    }

    pub(super) fn unlisted(&self) -> &Unlisted {
        &self.unlisted
    }

    pub(super) async fn next(
        &mut self,
        (judge, listed): (&Judge, &Listed),
        steps: &mut Pacer,
    ) -> Option<KeyEntry> {
        loop {
            steps.entry().await;
            let Some(blobs) = self.found.front() else {
                self.read_on().await?;
                continue;
            };
            let Some((position, bytes, blob)) = blobs.at(self.next) else {
                self.last = self.found.pop_front();
                self.next = 0;
                continue;
            };
            self.next += 1;
            let is_after = self.after.as_ref().is_none_or(|after| **after < *blob.key);
            if !is_after || !self.window.contains(&position) {
                continue;
            }
            match judge.record(listed, (position, bytes, blob), self.window.end) {
                Verdict::Entry(entry) => return Some(entry),
                Verdict::Nothing => {}
                // A record and an older one of the same key, which follow each other.
                Verdict::Unknown if self.asked == Some(KeyHash(blob.hash)) => {}
                Verdict::Unknown => {
                    let (hash, key) = (KeyHash(blob.hash), blob.key);
                    let has_key = |entry: &Entry| *entry.key == *key;
                    let found = judge.current(&listed.generation, hash, has_key).await;
                    if found.is_some() {
                        self.asked = Some(hash);
                        return found;
                    }
                }
            }
        }
    }

    /// Reads more of the segment that is under way, or begins the next one. None at the end.
    async fn read_on(&mut self) -> Option<()> {
        let l2 = self.disk.l2()?;
        let Some(cursor) = &self.cursor else {
            self.last = None;
            self.asked = None;
            self.cursor = Some(ListingCursor::new(SegmentNumber(self.segments.next()?)));
            return Some(());
        };
        if self.disk.is_off() {
            // It may come back, with another log.
            self.unlisted.is_full = true;
            return None;
        }
        let bytes = self.reads.short_max().min(LISTED_BYTES);
        let piece = self.reads.of(bytes).run(bytes, |permit| {
            let (disk, cursor) = (Arc::clone(&self.disk), cursor.clone());
            let targets = Arc::clone(&self.targets);
            async move {
                match disk.l2() {
                    Some(l2) => l2.list(cursor, &targets, (&permit, bytes)).await,
                    None => Ok(None),
                }
            }
        });
        match piece.await {
            Ok(Some(ListedPiece { found, next })) => {
                // Bounded: by the pages of a piece.
                self.found.extend(found);
                self.cursor = next;
            }
            unlisted => {
                let is_gone = unlisted.is_ok();
                if let Err(error) = &unlisted {
                    l2.note_damage(cursor.segment(), error);
                }
                let last = self.last.as_ref().filter(|_| cursor.is_in_key_order());
                let last = last.and_then(|last| last.at(last.len().checked_sub(1)?));
                let behind = last.map(|(.., blob)| blob.key.into());
                self.unlisted.add(cursor.segment(), behind, is_gone);
                self.cursor = None;
            }
        }
        Some(())
    }

    /// Whether it has listed the record of an entry, whatever became of it since, or is to be
    /// followed by a walk that does.
    pub(super) fn has_listed(&self, entry: &Entry) -> bool {
        let Some(l2) = self.disk.l2().filter(|l2| !l2.health().is_off()) else { return false };
        let segment = SegmentNumber(entry.sequence().0 / u64::from(l2.geometry().segment_bytes()));
        entry.is(Mark::Recorded)
            && entry.sequence().0 >= self.window.start.value()
            && !self.unlisted.has(segment, &entry.key)
            && !failpoint(Failpoint::ListedTwice)
    }
}
