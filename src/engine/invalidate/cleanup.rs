//! Removing what is gone for readers: what invalidations cover, what was flushed, what has expired.
//!
//! It goes in bounded steps, which whoever waits for an invalidation takes, every mutation that
//! follows it, callers of `sweep_expired`, and the background sweeper: through the postings of
//! labels, and in one round over all entries, which serves all of them. What is on disk and covered
//! by a prefix is found by a scan, see `scan`.

use std::sync::Arc;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::engine::background::deadlines::Deadlines;
use crate::engine::parts::Parts;
use crate::engine::removal::{Gone, Removal};
use crate::engine::visibility::Visibility;
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::l1::L1;
use crate::pending::{PendingInvalidation, PendingInvalidations, Round, Scope};
use crate::sequence::Sequence;
use crate::sweep::SweepReport;

/// What a mutation adds to its own work while invalidations are unfinished.
const HELP_ENTRIES: usize = 32;

/// See the module.
pub(crate) struct Cleanup {
    counters: Arc<Counters>,
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    visibility: Visibility,
    removal: Removal,
    deadlines: Arc<Deadlines>,
}

impl Cleanup {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            deadlines: parts.deadlines.clone(),
        }
    }

    /// Removes what a rule covers, and gives how many that were.
    pub(crate) async fn finish_invalidation(&self, rule: &Arc<PendingInvalidation>) -> usize {
        self.pending.until_scanned(rule).await;
        // Bounded: a step of the meter in each turn, then a pause.
        while !self.pending.is_withdrawn(rule) {
            self.step(rule, BATCH_ENTRIES, true);
            yield_now().await;
        }
        // Whoever took an entry out before the walk came by counts it in the same section.
        drop(self.commit_lock.section());
        rule.removed()
    }

    /// Removes what the oldest rule hides, in steps, until there is no such rule.
    pub(crate) async fn finish_all(&self) {
        // Bounded: likewise.
        while self.advance().await {}
    }

    /// A step towards the end of the oldest rule. False where there is no rule.
    pub(crate) async fn advance(&self) -> bool {
        let Some(rule) = self.pending.oldest() else { return false };
        self.pending.until_scanned(&rule).await;
        self.step(&rule, BATCH_ENTRIES, true);
        yield_now().await;
        true
    }

    /// A small step towards the end of the oldest rule, which nobody may be waiting for.
    pub(crate) fn help(&self) {
        self.help_along(HELP_ENTRIES);
    }

    /// A step of up to `limit` entries.
    pub(crate) fn help_along(&self, limit: usize) {
        if self.pending.any_pending() {
            if let Some(rule) = self.pending.oldest() {
                self.step(&rule, limit, false);
            }
        }
    }

    /// Visits up to `limit` entries for a rule. Where somebody else is at it, waits for that step
    /// to end or leaves it at that.
    fn step(&self, rule: &Arc<PendingInvalidation>, limit: usize, wait: bool) {
        let mut report = SweepReport::default();
        match &rule.scope {
            Scope::Labels(_) => self.run_postings_batch(rule, limit, wait, &mut report),
            Scope::Prefix(_) | Scope::Ended => {
                self.run_round_batch(limit, wait, &mut report);
            }
        }
    }

    /// Visits up to `limit` postings of a rule's labels.
    pub(crate) fn run_postings_batch(
        &self,
        rule: &Arc<PendingInvalidation>,
        limit: usize,
        wait: bool,
        report: &mut SweepReport,
    ) {
        let Scope::Labels(labels) = &rule.scope else { return };
        let walk = if wait { Some(rule.walk.lock()) } else { rule.walk.try_lock() };
        let Some(mut walk) = walk else { return };
        let Some(&label) = labels.get(walk.label) else { return };
        let mut found = Vec::new();
        let after = walk.after;
        walk.after = self.commit_lock.section().labels().walk(
            label,
            after,
            rule.sequence,
            limit,
            &mut found,
        );
        report.entries_visited += found.len();
        // Bounded: by a step.
        for posting in found {
            let removed = self.remove_covered(rule, (posting.key, &[]), posting.sequence, true);
            if let Some((namespace, bytes)) = rule.namespace.as_ref().zip(removed) {
                report.of(namespace.name(), bytes).dead += 1;
            }
        }
        walk.label += usize::from(walk.after.is_none());
        if walk.label == labels.len() {
            self.pending.withdraw(rule);
        }
    }

    /// Removes what a mutation has put, from both tiers, for a rule that covers it. The key is
    /// wanted where it may be on disk only and is covered by a prefix. `counts` where it is not
    /// known to be expired. Gives what it counted in memory, None where it was gone already.
    pub(crate) fn remove_covered(
        &self,
        rule: &PendingInvalidation,
        (hash, key): (KeyHash, &[u8]),
        sequence: Sequence,
        counts: bool,
    ) -> Option<usize> {
        let generation = rule.namespace.as_ref()?;
        let slot = self.l1.slot(hash);
        let mut section = self.commit_lock.section();
        let covered = slot.entry().filter(|entry| entry.sequence() == sequence);
        // An older rule may cover it as well: then it had been gone before.
        let covering = match covered {
            Some(entry) => self.pending.matching(entry),
            None => {
                self.visibility.matching_on_disk(generation, (key, hash), sequence, &mut section)
            }
        };
        let removed = if covered.is_some() { slot.remove() } else { None };
        let is_marked = generation.mark_dead(hash, sequence, &mut section);
        match &removed {
            Some(entry) => {
                self.removal.release_accounting(entry, covering.as_deref(), &mut section)
            }
            None if is_marked && counts => self.removal.credit(covering.as_deref().unwrap_or(rule)),
            None => self.counters.add(Event::Expiration, u64::from(is_marked)),
        }
        // The rule's record says so on file, for good.
        section.labels().release(hash, sequence);
        // What was removed is freed behind the section.
        drop(section);
        removed.map(|entry| entry.charge).or(is_marked.then_some(0))
    }

    /// Visits up to `limit` entries of the round. Gives where it stands then; None where somebody
    /// else is at a step, and that is not waited for.
    pub(crate) fn run_round_batch(
        &self,
        limit: usize,
        wait: bool,
        report: &mut SweepReport,
    ) -> Option<Round> {
        let mut found = Vec::new();
        let step = self.pending.step(wait, |cursor| self.l1.visit(cursor, limit, &mut found))?;
        report.entries_visited += found.len();
        // Bounded: by a step.
        for entry in found {
            self.remove_if_gone(&entry, report);
        }
        let end = step.end();
        step.done();
        Some(end)
    }

    /// Removes an entry that is gone for readers: flushed, covered by an invalidation, or past its
    /// life. Of others it is noted when they end, for the round after this one.
    fn remove_if_gone(&self, entry: &Arc<Entry>, report: &mut SweepReport) {
        let namespace = &entry.namespace;
        let covering = self.pending.matching(entry).filter(|_| !namespace.has_ended());
        if let Some(rule) = covering {
            let place = (entry.hash, &*entry.key);
            if let Some(bytes) = self.remove_covered(&rule, place, entry.sequence(), true) {
                report.of(namespace.name(), bytes).dead += 1;
            }
            return;
        }
        match self.removal.remove_dead(entry) {
            Some(Gone::Dead) => report.of(namespace.name(), entry.charge).dead += 1,
            Some(Gone::Expired) => report.of(namespace.name(), entry.charge).expired += 1,
            None if entry.is_held() => self.deadlines.note_end(entry.ends()),
            None => {}
        }
    }
}
