//! Invalidating: by key, prefix, label, namespace, everything.
//!
//! Each takes effect in one append section, in the first poll. What is left to remove afterwards
//! is hidden by a rule until it is gone, so that a caller who goes away leaves nothing undone.

use std::sync::Arc;

use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::invalidation::{Cover, Rule};
use crate::key::{LabelHash, LabelKind, NamespaceRef};
use crate::namespace::Namespace;
use crate::step::{STEP_ENTRIES, pause};

/// What a mutation adds to its own work while invalidations are unfinished.
const HELP_ENTRIES: usize = 32;

impl Shared {
    pub(super) fn invalidate_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(key)?;
        let hash = self.hasher.key(namespace.seed, key);
        let slot = self.l1.slot(hash);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        let sequence = section.deal();
        section.watermarks().key_mutated(hash, sequence);
        let is_current =
            |held: &Entry| held.is_of(namespace.name, key) && self.rules.covering(held).is_none();
        let is_live =
            slot.entry().is_some_and(|held| is_current(held) && !self.freshness(held).is_gone());
        // What is left behind of another key of the same hash would be as good as forgotten.
        let removed = slot.remove();
        if let Some(removed) = &removed {
            self.settle(removed, &mut section);
        }
        drop(section);
        let counted = is_live && removed.is_some();
        self.counters.add(Event::Invalidation, u64::from(counted));
        self.help();
        Ok(usize::from(counted))
    }

    pub(super) async fn invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(prefix)?;
        // A name that is not in use, with the table locked, can have nothing put into it meanwhile.
        let made = self.namespaces.with(namespace.name, |generation| {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(CacheError::Closed);
            }
            let sequence = section.deal();
            section.watermarks().prefix_invalidated(namespace.seed, prefix, sequence);
            let name = namespace.name.into();
            let cover = || Cover::Prefix { namespace: name, prefix: prefix.into() };
            Ok(generation.map(|_| self.rules.make(sequence, cover())))
        })?;
        let Some(made) = made else { return Ok(0) };
        self.carry_out(namespace, made).await
    }

    pub(super) async fn invalidate_labels(
        &self,
        namespace: NamespaceRef<'_>,
        kind: LabelKind,
        labels: &[&str],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_labels(labels.iter().copied())?;
        let hash = |label: &&str| self.hasher.label(namespace.seed, kind, label);
        let hashes: Box<[LabelHash]> = labels.iter().map(hash).collect();
        let made = {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(CacheError::Closed);
            }
            let sequence = section.deal();
            for &label in &hashes {
                section.watermarks().label_invalidated(label, sequence);
            }
            if !hashes.iter().any(|&label| section.labels().has(label)) {
                return Ok(0);
            }
            self.rules.make(sequence, Cover::Labels(hashes))
        };
        self.carry_out(namespace, made).await
    }

    pub(super) fn invalidate_namespace(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_open()?;
        let known = self.flush(namespace).is_some();
        self.help();
        Ok(known)
    }

    pub(super) fn invalidate_all(&self) -> Result<(), CacheError> {
        self.check_open()?;
        let flushed = self.namespaces.flush_all(&self.order, |section| {
            let sequence = section.deal();
            section.watermarks().everything_flushed(sequence);
            self.rules.make(sequence, Cover::Ended);
        });
        self.counters.add(Event::NamespaceFlush, flushed.len() as u64);
        self.help();
        Ok(())
    }

    /// Ends the namespace's generation. None where the name is not in use.
    fn flush(&self, namespace: NamespaceRef<'_>) -> Option<Arc<Namespace>> {
        let flushed = self.namespaces.flush(namespace.name, &self.order, |section, known| {
            let sequence = section.deal();
            section.watermarks().namespace_flushed(namespace.seed, sequence);
            if known {
                self.rules.make(sequence, Cover::Ended);
            }
        });
        self.counters.add(Event::NamespaceFlush, u64::from(flushed.is_some()));
        flushed
    }

    /// Removes what a rule covers and gives its number. Where no rule could be made, the whole
    /// namespace goes.
    async fn carry_out(
        &self,
        namespace: NamespaceRef<'_>,
        made: Option<Arc<Rule>>,
    ) -> Result<usize, CacheError> {
        let Some(rule) = made else {
            return Ok(self.flush(namespace).map_or(0, |generation| generation.entries()));
        };
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
            Cover::Prefix { .. } | Cover::Ended => self.step_through_entries(limit, wait),
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
            let is_posted = |entry: &Entry| entry.sequence == posting.sequence;
            if let Some(entry) = self.l1.remove(posting.key, is_posted) {
                self.settle_later(&entry);
            }
        }
        walk.label += usize::from(walk.after.is_none());
        if walk.label == labels.len() {
            self.rules.withdraw(rule);
        }
    }

    fn step_through_entries(&self, limit: usize, wait: bool) {
        let mut found = Vec::new();
        let step = self.rules.step(wait, |cursor| self.l1.visit(cursor, limit, &mut found));
        let Some(step) = step else { return };
        for entry in found {
            let is_hidden = entry.namespace.has_ended() || self.rules.covering(&entry).is_some();
            if is_hidden && self.l1.remove_entry(&entry) {
                self.settle_later(&entry);
            }
        }
        step.done();
    }
}
