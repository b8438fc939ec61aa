//! Removing what invalidations cover: in bounded steps, by whoever waits for it, and a little by
//! every mutation that follows. What is on disk and covered by a prefix is found by a scan, see
//! `scan`.

use std::sync::Arc;

use crate::cache::shared::Shared;
use crate::entry::Entry;
use crate::invalidation::{Cover, Rule};
use crate::key::{KeyHash, LabelHash};
use crate::sequence::Sequence;
use crate::step::{STEP_ENTRIES, pause};

/// What a mutation adds to its own work while invalidations are unfinished.
const HELP_ENTRIES: usize = 32;

impl Shared {
    /// Removes what a rule covers, and gives how many that were.
    pub(super) async fn carry_out(&self, rule: &Arc<Rule>) -> usize {
        self.rules.until_scanned(rule).await;
        while !self.rules.is_withdrawn(rule) {
            self.step(rule, STEP_ENTRIES, true);
            pause().await;
        }
        // Whoever took an entry out before the walk came by counts it in the same section.
        drop(self.order.section());
        rule.removed()
    }

    /// Removes what the oldest rule hides, in steps, until there is no such rule.
    pub(super) async fn carry_out_all(&self) {
        while self.carry_on().await {}
    }

    /// A step towards the end of the oldest rule. False where there is no rule.
    pub(super) async fn carry_on(&self) -> bool {
        let Some(rule) = self.rules.oldest() else { return false };
        self.rules.until_scanned(&rule).await;
        self.step(&rule, STEP_ENTRIES, true);
        pause().await;
        true
    }

    /// A small step towards the end of the oldest rule, which nobody may be waiting for.
    pub(super) fn help(&self) {
        self.help_along(HELP_ENTRIES);
    }

    /// A step of up to `limit` entries.
    pub(super) fn help_along(&self, limit: usize) {
        if self.rules.any_pending() {
            if let Some(rule) = self.rules.oldest() {
                self.step(&rule, limit, false);
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
        let mut found = Vec::new();
        let after = walk.after;
        walk.after =
            self.order.section().labels().walk(label, after, rule.sequence, limit, &mut found);
        for posting in found {
            self.remove_covered(rule, (posting.key, &[]), posting.sequence, true);
        }
        walk.label += usize::from(walk.after.is_none());
        if walk.label == labels.len() {
            self.rules.withdraw(rule);
        }
    }

    /// Removes what a mutation has put, from both tiers, for a rule that covers it. The key is
    /// wanted where it may be on disk only and is covered by a prefix. `counts` where it is not
    /// known to be expired.
    pub(super) fn remove_covered(
        &self,
        rule: &Rule,
        (hash, key): (KeyHash, &[u8]),
        sequence: Sequence,
        counts: bool,
    ) {
        let Some(generation) = &rule.namespace else { return };
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        let covered = slot.entry().filter(|entry| entry.sequence() == sequence);
        // An older rule may cover it as well: then it had been gone before.
        let covering = match covered {
            Some(entry) => self.rules.covering(entry),
            None => self.covering_on_disk(generation, (key, hash), sequence, &mut section),
        };
        let removed = if covered.is_some() { slot.remove() } else { None };
        let is_buried = generation.bury(hash, sequence, &mut section);
        match &removed {
            Some(entry) => self.settle(entry, covering.as_deref(), &mut section),
            None if is_buried && counts => self.credit(covering.as_deref().unwrap_or(rule)),
            None => {}
        }
        // The rule's record says so on file, for good.
        section.labels().release(hash, sequence);
        // What was removed is freed behind the section.
        drop(section);
    }

    fn step_through_entries(&self, limit: usize, wait: bool) {
        let mut found = Vec::new();
        let step = self.rules.step(wait, |cursor| self.l1.visit(cursor, limit, &mut found));
        let Some(step) = step else { return };
        for entry in found {
            self.remove_if_dead(&entry);
        }
        step.done();
    }

    /// Removes an entry that is gone for readers already: flushed, or covered by an invalidation.
    /// False where it is not.
    pub(super) fn remove_if_dead(&self, entry: &Arc<Entry>) -> bool {
        if entry.namespace.has_ended() {
            if self.l1.remove_entry(entry) {
                self.settle(entry, None, &mut self.order.section());
            }
        } else if let Some(rule) = self.rules.covering(entry) {
            self.remove_covered(&rule, (entry.hash, &entry.key), entry.sequence(), true);
        } else {
            return false;
        }
        true
    }
}
