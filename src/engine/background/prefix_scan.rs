//! `Scan`: looking through the directories on disk for what invalidated prefixes cover.
//!
//! Memory keeps no keys of what is on disk only, but every segment lists its own. One scan at a
//! time, on the disk's own thread, serves all rules that wait for one when it begins; those made
//! meanwhile are served by the next. A caller that goes away changes nothing.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures::FutureExt;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::attempt::Attempts;
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::engine::removal::Removal;
use crate::engine::visibility::Visibility;
use crate::key::{KeyHash, KeyHasher};
use crate::l2::{Change, L2, Position, ScanCursor, SegmentNumber};
use crate::namespace::Namespace;
use crate::pending::{PendingInvalidation, PendingInvalidations, Scope};
use crate::sequence::Sequence;
use crate::wake::contained;

/// See the module.
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

    /// Sees to it that somebody looks through the directories for the rules that want it.
    pub(crate) fn start_scan(self: &Arc<Self>) {
        if self.disk.l2().is_some() && self.pending.begin_scan() {
            let scan = Scan { scans: Arc::downgrade(self), is_over: false };
            // It tells how it ended through the rules.
            self.disk.spawn("prefix scan", Box::pin(scan.run_on()));
        }
    }

    /// Ends the namespaces of the rules that want a scan which has broken down: on disk, everything
    /// of theirs may be covered.
    pub(crate) async fn flush_unscanned(&self) {
        // Bounded: by the most rules at one time.
        for rule in self.pending.to_scan() {
            if let Some(generation) = rule.namespace.as_ref().filter(|it| !it.has_ended()) {
                let namespace = self.hasher.namespace(generation.name());
                // Where the cache is closed there is nothing left to be covered.
                drop(self.attempts.attempt(namespace, || self.flushes.try_flush(namespace)).await);
            }
            self.pending.scanned(&[rule]).await;
        }
    }

    async fn scan_segment(
        &self,
        l2: &L2,
        rules: &[Arc<PendingInvalidation>],
        segment: SegmentNumber,
    ) {
        let visit = |position: Position, change: &Change<'_>| {
            let Change::Blob(blob) = change else { return };
            let sequence = Sequence(position.value());
            let covers = |rule: &&Arc<PendingInvalidation>| {
                let Scope::Prefix(prefix) = &rule.scope else { return false };
                let is_of = |generation: &Arc<Namespace>| {
                    blob.namespace.generation == generation.generation()
                        && blob.namespace.name == generation.name()
                };
                sequence < rule.sequence
                    && rule.namespace.as_ref().is_some_and(is_of)
                    && blob.key.starts_with(prefix)
            };
            if let Some(rule) = rules.iter().find(covers) {
                let counts = !self.visibility.freshness_listed(position, blob).is_gone();
                self.cleanup.remove_covered(rule, (KeyHash(blob.hash), blob.key), sequence, counts);
            }
        };
        if !l2.visit_directory(segment, visit).await {
            // Nobody can say which keys it holds: all that it may hold of the namespaces goes.
            let Some(range) = l2.positions_of(segment) else { return };
            // Bounded: by the most rules at one time, with a pause in each turn.
            for generation in rules.iter().filter_map(|rule| rule.namespace.as_ref()) {
                let mut cursor = Some(Default::default());
                // Bounded: a step in each turn, then a pause.
                while let Some(from) = cursor {
                    cursor = self.mark_dead_batch(generation, &range, from);
                    yield_now().await;
                }
            }
        }
    }

    /// Buries a step's worth of what a generation has at these positions. Gives where to go on.
    fn mark_dead_batch(
        &self,
        generation: &Namespace,
        range: &Range<Position>,
        from: ScanCursor,
    ) -> Option<ScanCursor> {
        let mut found = Vec::new();
        let next = generation.index().scan(from, range.clone(), BATCH_ENTRIES, &mut found);
        // Bounded: by a step.
        for (hash, slot) in found {
            self.removal.mark_dead(generation, hash, Sequence(slot.position.value()));
        }
        next
    }
}

/// Serves the rules that want it, until there are none.
struct Scan {
    /// Weak, so that a drop of the cache does not wait for it.
    scans: Weak<PrefixScans>,
    /// None is left that it would have to see to.
    is_over: bool,
}

impl Scan {
    /// Goes on where a step of the scan has panicked, of a clock or a logger that is not ours.
    async fn run_on(mut self) {
        // Bounded: a panic in each turn, which is awaited.
        while AssertUnwindSafe(self.run()).catch_unwind().await.is_err() {
            contained(|| log::error!("a scan for invalidated prefixes has panicked"));
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
            let rules = scans.pending.to_scan();
            if rules.is_empty() {
                self.is_over = true;
                return;
            }
            let segments = l2.segments();
            drop(scans);
            // Bounded: a segment in each turn, which pauses.
            for segment in segments {
                let Some(scans) = self.scans.upgrade() else { return };
                if let Some(l2) = scans.disk.l2().filter(|_| !scans.commit_lock.is_closed()) {
                    scans.scan_segment(l2, &rules, SegmentNumber(segment)).await;
                }
            }
            let Some(scans) = self.scans.upgrade() else { return };
            scans.pending.scanned(&rules).await;
        }
    }
}

impl Drop for Scan {
    /// It was refused, or the lane has ended. What has no room in the log to be flushed there is
    /// not served any more, like all else on disk.
    fn drop(&mut self) {
        let Some(scans) = self.scans.upgrade().filter(|_| !self.is_over) else { return };
        let rules = scans.pending.to_scan();
        // Bounded: by the most rules at one time.
        for generation in rules.iter().filter_map(|rule| rule.namespace.as_ref()) {
            let namespace = scans.hasher.namespace(generation.name());
            let flush = || scans.flushes.try_flush(namespace).is_ok();
            let is_gone = generation.has_ended() || contained(flush) == Some(true);
            if let Some(l2) = scans.disk.l2().filter(|_| !is_gone && !scans.commit_lock.is_closed())
            {
                l2.health().degrade("a scan has ended before it was done".to_owned());
            }
        }
        scans.pending.given_up(&rules);
    }
}
