//! `Cleanup`: removes entries that readers cannot see any more: invalidated, flushed or expired.
//! Batches go through the postings of labels, or in one round over all entries that serves all
//! invalidations. Their callers run them, later mutations, sweeps and the background sweeper. A
//! prefix scan finds the records of prefixes on disk.

use std::sync::Arc;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::engine::background::deadlines::Deadlines;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::parts::Parts;
use crate::engine::removal::{Removal, Removed};
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::events::{About, EntryChange, Events};
use crate::key::{HashedKey, KeyHash};
use crate::l1::L1;
use crate::l2::Slot;
use crate::pending::{PendingInvalidation, PendingInvalidations, RoundPosition, Scope};
use crate::sequence::Sequence;
use crate::sweep::SweepReport;

/// Entries that a mutation visits while invalidations are pending.
const HELP_ENTRIES: usize = 32;

pub(crate) struct Cleanup {
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    visibility: Visibility,
    removal: Removal,
    expired: ExpiredSlots,
    deadlines: Arc<Deadlines>,
}

impl Cleanup {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            visibility: Visibility::new(parts),
            removal: Removal::new(parts),
            expired: ExpiredSlots::new(parts),
            deadlines: parts.deadlines.clone(),
        }
    }

    /// Removes all entries that an invalidation matches. Gives their number.
    pub(crate) async fn finish_invalidation(
        &self,
        invalidation: &Arc<PendingInvalidation>,
    ) -> usize {
        self.pending.until_scanned(invalidation).await;
        // Bounded: a batch in each turn, then a yield. The first poll puts it in force and returns.
        while !self.pending.is_withdrawn(invalidation) {
            yield_now().await;
            self.step(invalidation, BATCH_ENTRIES, true);
        }
        // A caller that removed an entry before counts it in the same section.
        drop(self.commit_lock.section());
        invalidation.removed()
    }

    pub(crate) async fn finish_all(&self) {
        // Bounded: likewise.
        while self.advance().await {}
    }

    /// A batch of the oldest invalidation. False if none is pending.
    pub(crate) async fn advance(&self) -> bool {
        let Some(invalidation) = self.pending.oldest() else { return false };
        self.pending.until_scanned(&invalidation).await;
        self.step(&invalidation, BATCH_ENTRIES, true);
        yield_now().await;
        true
    }

    /// A small batch of the oldest invalidation, whose caller may be gone.
    pub(crate) fn help(&self) {
        self.help_along(HELP_ENTRIES);
    }

    /// A batch of up to `limit` entries.
    pub(crate) fn help_along(&self, limit: usize) {
        if self.pending.any_pending() {
            if let Some(invalidation) = self.pending.oldest() {
                self.step(&invalidation, limit, false);
            }
        }
    }

    /// Visits up to `limit` entries. If another caller runs a batch, waits for it or returns.
    fn step(&self, invalidation: &Arc<PendingInvalidation>, limit: usize, wait: bool) {
        let mut report = SweepReport::default();
        match &invalidation.scope {
            Scope::Labels(_) => self.run_postings_batch(invalidation, limit, wait, &mut report),
            Scope::Prefix(_) | Scope::All | Scope::Ended => {
                self.run_round_batch(limit, wait, &mut report);
            }
        }
    }

    pub(crate) fn run_postings_batch(
        &self,
        invalidation: &Arc<PendingInvalidation>,
        limit: usize,
        wait: bool,
        report: &mut SweepReport,
    ) {
        let Scope::Labels(labels) = &invalidation.scope else { return };
        let walk = if wait { Some(invalidation.walk.lock()) } else { invalidation.walk.try_lock() };
        let Some(mut walk) = walk else { return };
        let Some(&label) = labels.get(walk.label) else { return };
        let Some(generation) = &invalidation.generation else { return };
        let mut found = Vec::new();
        generation.labels(&mut self.commit_lock.section()).oldest(
            label,
            (&walk.met, invalidation.sequence),
            limit,
            &mut found,
        );
        // An ended generation is freed as a whole.
        let is_done = found.len() < limit || generation.has_ended();
        walk.label += usize::from(is_done);
        let stays = invalidation.since.is_some() && !is_done;
        walk.met = if stays { found.clone() } else { Vec::new() };
        report.entries_visited += found.len();
        // Bounded: by a batch.
        for posting in found {
            let removed =
                self.remove_matching(invalidation, (posting.key, &[]), posting.sequence, true);
            if let Some(bytes) = removed {
                report.of(generation.name(), bytes).dead += 1;
            }
        }
        if walk.label == labels.len() {
            self.pending.withdraw(invalidation);
        }
    }

    /// Removes the entry of a mutation from both tiers, for an invalidation that matches it. `key`
    /// is needed if the entry may be on disk only and a prefix matches it. `counts`: it is not
    /// known to be expired. Gives its charge; None if it was removed before.
    pub(crate) fn remove_matching(
        &self,
        invalidation: &PendingInvalidation,
        (hash, key): (KeyHash, &[u8]),
        sequence: Sequence,
        counts: bool,
    ) -> Option<usize> {
        let generation = invalidation.generation.as_ref()?;
        let place = self.l1.lock_place(hash);
        let mut section = self.commit_lock.section();
        let covered = place.entry().filter(|entry| entry.sequence() == sequence);
        // If an older invalidation matches it as well, that one is credited.
        let matching = match covered {
            Some(entry) => self.pending.matching(entry),
            None => self.visibility.matching_on_disk(
                generation,
                HashedKey { bytes: key, hash },
                sequence,
                &mut section,
            ),
        };
        if let (None, Some(since)) = (&matching, invalidation.since) {
            let mutation = (hash, sequence);
            let is_marked = self.expired.expire(generation, mutation, since, &mut section);
            match covered {
                // Asked above whether it is hidden, it has counted itself.
                Some(entry) => self.deadlines.note_end(entry.ends()),
                None if is_marked && counts => invalidation.count_stale(),
                None => {}
            }
            return None;
        }
        let removed = if covered.is_some() { place.remove() } else { None };
        let is_marked = generation.mark_dead(hash, sequence, &mut section);
        let about = || About::on_disk(generation.name(), key, None);
        let mut has_postings = true;
        match &removed {
            Some(entry) => {
                let matching = matching.as_deref();
                has_postings = self.removal.release_accounting(entry, matching, &mut section);
            }
            None if is_marked && counts => {
                self.removal.credit(matching.as_deref().unwrap_or(invalidation), about);
            }
            None if is_marked => {
                self.counters.count(Event::Expiration);
                self.events.tell(EntryChange::Expired { idle: false }, about);
            }
            None => {}
        }
        if has_postings {
            // The record of the invalidation says so for good.
            self.removal.release_labels(generation, hash, sequence, &mut section);
        }
        // The entry is freed after the section.
        drop(section);
        removed.map(|entry| entry.charge).or(is_marked.then_some(0))
    }

    /// Visits up to `limit` entries of the round. None if another caller does and `wait` is false.
    pub(crate) fn run_round_batch(
        &self,
        limit: usize,
        wait: bool,
        report: &mut SweepReport,
    ) -> Option<RoundPosition> {
        let mut found = Vec::new();
        let step = self.pending.step(wait, |cursor| self.l1.visit(cursor, limit, &mut found))?;
        report.entries_visited += found.len();
        // Bounded: by a batch.
        for entry in found {
            self.remove_if_gone(&entry, report);
        }
        let end = step.end();
        step.done();
        Some(end)
    }

    /// The record of an entry that was made stale is stale, too.
    fn expire_slot(&self, entry: &Entry) {
        let (generation, sequence) = (&entry.generation, entry.sequence());
        let is_unmarked = |slot: &Slot| !slot.expired;
        let live = generation.live_slot(entry.hash, sequence);
        // A namespace that was made stale as a whole says so for it.
        let is_known =
            || generation.expired_since(sequence).is_some_and(|it| it <= entry.expires());
        if live.as_ref().is_some_and(is_unmarked) && !is_known() {
            let mut section = self.commit_lock.section();
            let mutation = (entry.hash, entry.sequence());
            self.expired.expire(&entry.generation, mutation, entry.expires(), &mut section);
        }
    }

    /// Removes an entry that readers cannot see. Notes the deadlines of others.
    fn remove_if_gone(&self, entry: &Arc<Entry>, report: &mut SweepReport) {
        let generation = &entry.generation;
        let matching = self.pending.matching(entry).filter(|_| !generation.has_ended());
        if let Some(invalidation) = matching {
            let place = (entry.hash, &*entry.key);
            if let Some(bytes) = self.remove_matching(&invalidation, place, entry.sequence(), true)
            {
                report.of(generation.name(), bytes).dead += 1;
            }
            return;
        }
        if entry.is(Mark::Expired) {
            self.expire_slot(entry);
        }
        match self.removal.remove_dead(entry) {
            Some(Removed::Flushed) => report.of(generation.name(), entry.charge).dead += 1,
            Some(Removed::Expired) => report.of(generation.name(), entry.charge).expired += 1,
            None if entry.is_held() => self.deadlines.note_end(entry.ends()),
            None => {}
        }
    }
}
