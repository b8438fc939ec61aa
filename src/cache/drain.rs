//! Removing what invalidations cover: in bounded steps, by whoever waits for it, and a little by
//! every mutation that follows.

use std::sync::Arc;

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::error::CacheError;
use crate::invalidation::{Cover, Rule};
use crate::io::TaskEnd;
use crate::key::{KeyHash, LabelHash, NamespaceRef};
use crate::l2::{Change, L2, Position, SegmentNumber};
use crate::namespace::Namespace;
use crate::sequence::Sequence;
use crate::step::{STEP_ENTRIES, pause};

/// What a mutation adds to its own work while invalidations are unfinished.
const HELP_ENTRIES: usize = 32;

impl Shared {
    /// Removes what a rule covers and gives its number. Where no rule could be made, the whole
    /// namespace goes.
    pub(super) async fn carry_out(
        &self,
        namespace: NamespaceRef<'_>,
        made: Option<Arc<Rule>>,
    ) -> Result<usize, CacheError> {
        let Some(rule) = made else { return self.flush_instead(namespace).await };
        loop {
            self.step(&rule, STEP_ENTRIES, true);
            if self.rules.is_withdrawn(&rule) {
                return Ok(rule.removed());
            }
            pause().await;
        }
    }

    /// Removes everything that rules still hide, in steps.
    pub(super) async fn carry_out_all(&self) {
        while let Some(rule) = self.rules.oldest() {
            self.step(&rule, STEP_ENTRIES, true);
            pause().await;
        }
    }

    /// A small step towards the end of the oldest rule, which nobody may be waiting for.
    pub(super) fn help(&self) {
        if self.rules.any_pending() {
            if let Some(rule) = self.rules.oldest() {
                self.step(&rule, HELP_ENTRIES, false);
            }
        }
    }

    /// Visits up to `limit` entries for a rule. Where somebody else is at it, waits for that step
    /// to end or leaves it at that.
    fn step(&self, rule: &Arc<Rule>, limit: usize, wait: bool) {
        match &rule.cover {
            Cover::Labels(labels) => self.step_through_postings(rule, labels, limit, wait),
            Cover::Prefix(_) | Cover::Ended => self.step_through_entries(limit, wait),
        }
    }

    fn step_through_postings(
        &self,
        rule: &Arc<Rule>,
        labels: &[LabelHash],
        limit: usize,
        wait: bool,
    ) {
        let walk = if wait { Some(rule.walk.lock()) } else { rule.walk.try_lock() };
        let Some(mut walk) = walk else { return };
        let Some(&label) = labels.get(walk.label) else { return };
        let mut taken = Vec::new();
        let after = walk.after;
        walk.after =
            self.order.section().labels().take(label, after, rule.sequence, limit, &mut taken);
        for posting in taken {
            self.remove_covered(rule, posting.key, posting.sequence, true);
        }
        walk.label += usize::from(walk.after.is_none());
        if walk.label == labels.len() {
            self.rules.withdraw(rule);
        }
    }

    /// Removes what a mutation has put, from both tiers, for a rule that covers it. `counts` where
    /// it is not known to be expired.
    fn remove_covered(&self, rule: &Rule, hash: KeyHash, sequence: Sequence, counts: bool) {
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        let is_in_memory = slot.entry().is_some_and(|entry| entry.sequence == sequence);
        let removed = if is_in_memory { slot.remove() } else { None };
        let is_buried = rule
            .namespace
            .as_ref()
            .is_some_and(|generation| generation.bury(hash, sequence, &mut section));
        match &removed {
            Some(entry) => self.settle(entry, &mut section),
            None if is_buried && counts => {
                rule.count();
                self.counters.count(Event::Invalidation);
            }
            None => {}
        }
    }

    fn step_through_entries(&self, limit: usize, wait: bool) {
        let mut found = Vec::new();
        let step = self.rules.step(wait, |cursor| self.l1.visit(cursor, limit, &mut found));
        let Some(step) = step else { return };
        for entry in found {
            if entry.namespace.has_ended() {
                if self.l1.remove_entry(&entry) {
                    self.settle_later(&entry);
                }
            } else if let Some(rule) = self.rules.covering(&entry) {
                self.remove_covered(&rule, entry.hash, entry.sequence, true);
            }
        }
        step.done();
    }

    /// Looks through the directories on disk for what a prefix covers, on the disk's own thread, so
    /// that it is done though the caller goes away. None where there is nothing to look through.
    pub(super) fn scan_disk(self: &Arc<Self>, rule: &Arc<Rule>) -> Option<TaskEnd> {
        self.l2()?;
        let (shared, rule) = (Arc::clone(self), Arc::clone(rule));
        let scan = async move {
            if let (Some(l2), Some(generation)) = (shared.l2(), &rule.namespace) {
                for segment in l2.segments() {
                    shared.scan_segment(l2, generation, &rule, SegmentNumber(segment)).await;
                }
            }
            rule.scanned();
        };
        Some(self.below.as_ref()?.lane.spawn("prefix scan", Box::pin(scan)))
    }

    async fn scan_segment(
        &self,
        l2: &L2,
        generation: &Arc<Namespace>,
        rule: &Rule,
        segment: SegmentNumber,
    ) {
        let Cover::Prefix(prefix) = &rule.cover else { return };
        let now = self.clock.timestamp();
        let visit = |position: Position, change: &Change<'_>| {
            let Change::Blob(blob) = change else { return };
            let is_covered = blob.namespace.generation == generation.generation()
                && blob.namespace.name == generation.name()
                && position.value() < rule.sequence.0
                && blob.key.starts_with(prefix);
            if is_covered {
                let counts = blob.gone_at_ns.is_none_or(|gone| now.0 < gone);
                let sequence = Sequence(position.value());
                self.remove_covered(rule, KeyHash(blob.hash), sequence, counts);
            }
        };
        if !l2.visit_directory(segment, visit).await {
            // Nobody can say which keys it holds: all that it may hold of the namespace goes.
            self.bury_segment(l2, generation, segment).await;
        }
    }

    async fn bury_segment(&self, l2: &L2, generation: &Arc<Namespace>, segment: SegmentNumber) {
        let Some(range) = l2.positions_of(segment) else { return };
        let mut cursor = Some(Default::default());
        while let Some(from) = cursor {
            let mut found = Vec::new();
            cursor = generation.index().scan(from, range.clone(), STEP_ENTRIES, &mut found);
            for (hash, slot) in found {
                self.bury(generation, hash, Sequence(slot.position.value()));
            }
            pause().await;
        }
    }
}
