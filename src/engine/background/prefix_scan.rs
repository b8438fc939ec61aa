//! `PrefixScans`: finds the records of invalidated prefixes through the directories on disk.
//!
//! Memory keeps no keys of records that are only on disk, but each segment lists its own, sorted.
//! One scan at a time, beside the writer, serves all invalidations that are pending when it begins;
//! the next scan serves later ones. It searches some segments at a time, and does not depend on its
//! callers.

use std::io;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};

use futures::{FutureExt, StreamExt, stream};

use crate::batch::{BATCH_ENTRIES, Pacer, yield_now};
use crate::commit_lock::CommitLock;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::attempt::Attempts;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::key::{KeyHash, KeyHasher};
use crate::l2::{BlobSummary, L2, Position, ScanCursor, SearchTargets, SegmentNumber, Slot};
use crate::namespace::Generation;
use crate::pending::{PendingInvalidation, PendingInvalidations, Scope};
use crate::scope::NamespaceScope;
use crate::sequence::Sequence;
use crate::telemetry::tell;
use crate::wake::contained;

/// Segments that are searched at the same time. One poll may do a batch for each.
const SEGMENTS_AT_ONCE: usize = 4;

pub(crate) struct PrefixScans {
    hasher: KeyHasher,
    pending: Arc<PendingInvalidations>,
    visibility: Visibility,
    removal: Removal,
    commit_lock: Arc<CommitLock>,
    disk: Arc<DiskTier>,
    cleanup: Cleanup,
    flushes: Arc<Flushes>,
    attempts: Attempts,
}

impl PrefixScans {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            pending: parts.pending.clone(),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            commit_lock: parts.commit_lock.clone(),
            disk: parts.disk.clone(),
            cleanup: Cleanup::new(parts),
            flushes: Arc::new(Flushes::new(parts)),
            attempts: Attempts::new(parts),
        }
    }

    /// Starts a scan if invalidations wait for one and none runs.
    pub(crate) fn start_scan(self: &Arc<Self>) {
        if self.disk.l2().is_some() && self.pending.begin_scan() {
            let scan = Scan { scans: Arc::downgrade(self), is_over: false };
            // Its outcome shows in the pending invalidations.
            self.disk.spawn_search("prefix scan", Box::pin(scan.run_on()));
        }
    }

    /// Flushes the namespaces whose scan has failed: any of their records may match.
    pub(crate) async fn flush_unscanned(&self) {
        // Bounded: by the most invalidations at one time.
        for invalidation in self.pending.to_scan() {
            if let Some(generation) = invalidation.generation.as_ref().filter(|it| !it.has_ended())
            {
                let namespace = self.hasher.namespace(generation.name());
                let scope = NamespaceScope::One(namespace.name);
                // A closed cache has nothing left to flush.
                drop(self.attempts.attempt(scope, || self.flushes.try_flush(namespace)).await);
            }
            self.pending.scanned(&[invalidation]).await;
        }
    }

    /// Removes what one segment has. If that is not known, all records of these namespaces in it.
    async fn scan_segment(&self, l2: &L2, sought: &Sought, segment: SegmentNumber) {
        let searched = self.search_segment(l2, sought, segment).await;
        if searched.is_ok() || l2.is_reclaimed(segment) || self.commit_lock.is_closed() {
            return;
        }
        let Some(range) = l2.positions_of(segment) else { return };
        // Bounded: by the most invalidations at one time, with a yield in each turn.
        for generation in
            sought.invalidations.iter().filter_map(|invalidation| invalidation.generation.as_ref())
        {
            let mut cursor = Some(Default::default());
            // Bounded: a batch in each turn, then a yield.
            while let Some(from) = cursor {
                cursor = self.mark_dead_batch(generation, &range, from);
                yield_now().await;
            }
        }
    }

    async fn search_segment(
        &self,
        l2: &L2,
        sought: &Sought,
        segment: SegmentNumber,
    ) -> io::Result<()> {
        let Some(mut search) = l2.search(segment, &sought.targets).await? else { return Ok(()) };
        let mut steps = Pacer::default();
        while let Some(found) = search.next().await? {
            for (position, blob) in found.iter() {
                steps.entry().await;
                let sequence = Sequence(position.value());
                let Some(invalidation) = sought.invalidation_of(sequence, &blob) else { continue };
                // Only a slot says that a deadline was shortened and is forgotten.
                let slot = Slot::new(position, 1);
                let counts = !self.visibility.freshness_listed(slot, &blob).is_expired();
                let key = (KeyHash(blob.hash), blob.key);
                self.cleanup.remove_matching(invalidation, key, sequence, counts);
            }
            if self.commit_lock.is_closed() {
                break;
            }
        }
        Ok(())
    }

    /// Marks a batch of a generation's slots in this range dead. Gives the place to go on from.
    fn mark_dead_batch(
        &self,
        generation: &Generation,
        range: &Range<Position>,
        from: ScanCursor,
    ) -> Option<ScanCursor> {
        let mut found = Vec::new();
        let next = generation.index().scan(from, range.clone(), BATCH_ENTRIES, &mut found);
        // Bounded: by a batch.
        for (hash, slot) in found {
            self.removal.mark_dead(generation, hash, Sequence(slot.position.value()));
        }
        next
    }
}

/// The invalidations of one scan.
struct Sought {
    invalidations: Vec<Arc<PendingInvalidation>>,
    targets: Arc<SearchTargets>,
}

impl Sought {
    fn new(invalidations: Vec<Arc<PendingInvalidation>>) -> Self {
        let mut targets = SearchTargets::default();
        // Bounded: by the most invalidations at one time.
        for invalidation in &invalidations {
            // An ended generation has nothing that a reader could find.
            let generation = invalidation.generation.as_ref().filter(|it| !it.has_ended());
            if let (Some(generation), Scope::Prefix(prefix)) = (generation, &invalidation.scope) {
                targets.add(generation.named(), prefix);
            }
        }
        Self { invalidations, targets: Arc::new(targets) }
    }

    fn invalidation_of(
        &self,
        sequence: Sequence,
        blob: &BlobSummary<'_>,
    ) -> Option<&Arc<PendingInvalidation>> {
        let matches = |invalidation: &&Arc<PendingInvalidation>| {
            let Scope::Prefix(prefix) = &invalidation.scope else { return false };
            let is_of = |generation: &Arc<Generation>| blob.namespace == generation.named();
            sequence < invalidation.sequence
                && invalidation.generation.as_ref().is_some_and(is_of)
                && blob.key.starts_with(prefix)
        };
        // Bounded: by the most invalidations at one time.
        self.invalidations.iter().find(matches)
    }
}

struct Scan {
    /// Weak, so that dropping the cache does not wait for it.
    scans: Weak<PrefixScans>,
    is_over: bool,
}

impl Scan {
    /// Goes on after a panic.
    async fn run_on(mut self) {
        // Bounded: a panic in each turn, which is awaited.
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            tell!(error, "disk", "a scan for invalidated prefixes has panicked");
            let Some(scans) = self.scans.upgrade() else { return };
            if AssertUnwindSafe(scans.flush_unscanned()).catch_unwind().await.is_err() {
                return;
            }
        }
    }

    async fn run(&mut self) {
        // Bounded: a scan of all segments in each turn.
        loop {
            let Some(scans) = self.scans.upgrade() else { return };
            let Some(l2) = scans.disk.l2() else { return };
            let invalidations = scans.pending.to_scan();
            if invalidations.is_empty() {
                self.is_over = true;
                return;
            }
            let segments = l2.segments();
            drop(scans);
            let sought = Sought::new(invalidations);
            let searches = segments.map(|segment| self.search(&sought, SegmentNumber(segment)));
            let mut searches = pin!(stream::iter(searches).buffer_unordered(SEGMENTS_AT_ONCE));
            let mut steps = Pacer::default();
            while searches.next().await.is_some() {
                steps.entry().await;
            }
            let Some(scans) = self.scans.upgrade() else { return };
            scans.pending.scanned(&sought.invalidations).await;
        }
    }

    async fn search(&self, sought: &Sought, segment: SegmentNumber) {
        let Some(scans) = self.scans.upgrade() else { return };
        if let Some(l2) = scans.disk.l2().filter(|_| !scans.commit_lock.is_closed()) {
            scans.scan_segment(l2, sought, segment).await;
        }
    }
}

impl Drop for Scan {
    /// The scan was refused, or its runner has ended. If a namespace cannot be flushed on file, the
    /// tier is turned off.
    fn drop(&mut self) {
        let Some(scans) = self.scans.upgrade().filter(|_| !self.is_over) else { return };
        let invalidations = scans.pending.to_scan();
        // Bounded: by the most invalidations at one time.
        for generation in
            invalidations.iter().filter_map(|invalidation| invalidation.generation.as_ref())
        {
            let namespace = scans.hasher.namespace(generation.name());
            let flush = || scans.flushes.try_flush(namespace).is_ok();
            let is_gone = generation.has_ended() || contained(flush) == Some(true);
            if let Some(l2) = scans.disk.l2().filter(|_| !is_gone && !scans.commit_lock.is_closed())
            {
                l2.health().degrade("a scan has ended before it was done".to_owned());
                l2.log.fail();
            }
        }
        scans.pending.given_up(&invalidations);
    }
}
