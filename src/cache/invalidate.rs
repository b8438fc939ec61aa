//! Invalidating: by key, prefix, label, namespace, everything.
//!
//! Each takes effect in one append section, in the first poll. What is left to remove afterwards
//! is hidden by a rule until it is gone, so that a caller who goes away leaves nothing undone.
//! With a disk tier each is one record, whatever it covers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cache::durability::Acknowledgement;
use crate::cache::record::named;
use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::flaw::{Flaw, planted};
use crate::invalidation::{Cover, Rule};
use crate::key::{LabelHash, LabelKind, NamespaceRef};
use crate::l2::{Change, Dealt, Draft, LabelHashes, NamedGeneration, Record, Refusal, Slot};
use crate::step::pause;
use crate::wake::contained;

/// Why an invalidation has not taken effect.
pub(super) enum Hindrance {
    /// The log has no room yet.
    NoRoom,
    /// Too many others are unfinished yet.
    TooMany,
    Closed,
}

/// What an invalidation that has taken effect comes to, and what it waits for before it returns.
pub(super) type Attempt<T> = Result<(T, Acknowledgement), Hindrance>;

/// A caller that waits for others' invalidations to end before its own takes effect. Should it go
/// away, all that it could have meant goes: the namespace is flushed.
struct Waiting<'a> {
    shared: &'a Arc<Shared>,
    namespace: NamespaceRef<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Where the log has no room either there is nothing left to be done.
        contained(|| _ = self.shared.try_flush(self.namespace));
    }
}

impl Shared {
    pub(super) async fn invalidate_key(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(key)?;
        let (counted, acknowledgement) =
            self.attempt(namespace, || self.try_invalidate_key(namespace, key)).await?;
        self.counters.add(Event::Invalidation, counted as u64);
        self.help();
        self.acknowledge(acknowledgement).await?;
        Ok(counted)
    }

    fn try_invalidate_key(&self, namespace: NamespaceRef<'_>, key: &[u8]) -> Attempt<usize> {
        let hash = self.hasher.key(namespace.seed, key);
        let slot = self.l1.slot(hash);
        // The table comes before the section; a generation that has ended meanwhile holds nothing.
        let generation = self.namespaces.find(namespace.name);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(Hindrance::Closed);
        }
        let generation = generation.filter(|generation| !generation.has_ended());
        let held = generation.as_ref().and_then(|generation| generation.index().get(hash));
        let in_memory = slot.entry().cloned();
        let covering = in_memory.as_ref().and_then(|entry| self.rules.covering(entry));
        let (mut is_removed_below, mut is_below) = (false, false);
        let mut end = None;
        // One that is gone may be so for this process only: unreadable, expired, or covered by a
        // record that is not on file yet.
        if let (Some(generation), Some(held)) = (&generation, held) {
            let namespace = named(generation);
            let record = Record::Tombstone { namespace, hash: hash.0 };
            let change = Change::Tombstone { namespace, hash: hash.0 };
            let recorded = match planted(Flaw::TombstoneOmitted) {
                true => None,
                false => self.record(&record, &change)?,
            };
            let key = (key, hash);
            let same = in_memory.as_ref().filter(|entry| entry.is_at(held.position));
            is_below = same.is_some() && !held.gone;
            is_removed_below = self.displace(generation, key, held, same, &mut section);
            if let Some(dealt) = recorded {
                end = Some(dealt.end);
                self.shadowed_until(dealt.end);
                section.sequence(Some(dealt.position.value()));
                generation.set_slot(hash, Slot::tombstone(dealt.position));
            } else {
                generation.bury_held(hash, held, &mut section);
            }
        }
        let moment = section.moment();
        section.watermarks().key_mutated(hash, moment);
        let is_current = |entry: &Entry| covering.is_none() && entry.is_of(namespace.name, key);
        let is_live = |entry: &Arc<Entry>| is_current(entry) && !self.freshness(entry).is_gone();
        let is_removed = in_memory.as_ref().is_some_and(is_live) && !is_below;
        // What is left behind of another key of the same hash would be as good as forgotten.
        let removed = slot.remove();
        if let Some(removed) = &removed {
            self.settle(removed, covering.as_deref().filter(|_| !is_below), &mut section);
            // What is alive is counted by the caller.
            let is_gone = self.freshness(removed).is_gone() && !removed.namespace.has_ended();
            if !is_below && covering.is_none() && is_gone {
                self.count_expired(self.freshness(removed));
            }
        }
        drop(section);
        let counted = is_removed_below || (is_removed && removed.is_some());
        let acknowledgement = match held {
            Some(_) if planted(Flaw::TombstoneOmitted) => Acknowledgement::Now,
            Some(_) => Acknowledgement::over(true, end),
            None => Acknowledgement::Nothing,
        };
        Ok((usize::from(counted), acknowledgement))
    }

    pub(super) async fn invalidate_prefix(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(prefix)?;
        let (made, acknowledgement) =
            self.attempt(namespace, || self.try_invalidate_prefix(namespace, prefix)).await?;
        self.start_scan();
        self.finish_rule(made, acknowledgement).await
    }

    /// Removes what a rule that has been made covers, and gives how many that were.
    async fn finish_rule(
        &self,
        made: Option<Arc<Rule>>,
        acknowledgement: Acknowledgement,
    ) -> Result<usize, CacheError> {
        let removed = match made {
            Some(rule) => self.carry_out(&rule).await,
            None => 0,
        };
        self.acknowledge(acknowledgement).await?;
        Ok(removed)
    }

    /// None: the name is not in use.
    fn try_invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Attempt<Option<Arc<Rule>>> {
        // A name that is not in use, with the table locked, can have nothing put into it meanwhile.
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(Hindrance::Closed);
            }
            let Some(generation) = generation else {
                let moment = section.moment();
                section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
                return Ok((None, Acknowledgement::Nothing));
            };
            let named = named(generation);
            let record = Record::PrefixInvalidation { namespace: named, prefix };
            let change = Change::PrefixInvalidation { namespace: named, prefix };
            let is_held = !generation.index().is_empty();
            let recorded = self.record_rule(&record, &change)?;
            let moment = section.moment();
            section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
            let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
            let cover = Cover::Prefix(prefix.into());
            let made = self.rules.make(sequence, cover, Some(generation), is_held);
            let end = recorded.map(|dealt| dealt.end);
            // Bounded: one.
            end.into_iter().for_each(|end| self.shadowed_until(end));
            Ok((Some(made), Acknowledgement::over(is_held, end)))
        })
    }

    pub(super) async fn invalidate_labels(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        kind: LabelKind,
        labels: &[&str],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_labels(labels.iter().copied())?;
        let hash = |label: &&str| self.hasher.label(namespace.seed, kind, label);
        // Bounded: by the labels of one call.
        let mut hashes: Vec<LabelHash> = labels.iter().map(hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let (made, acknowledgement) =
            self.attempt(namespace, || self.try_invalidate_labels(namespace, &hashes)).await?;
        self.finish_rule(made, acknowledgement).await
    }

    /// None: no entry has any of the labels.
    fn try_invalidate_labels(
        &self,
        namespace: NamespaceRef<'_>,
        hashes: &[LabelHash],
    ) -> Attempt<Option<Arc<Rule>>> {
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(Hindrance::Closed);
            }
            let is_posted = hashes.iter().any(|&label| section.labels().has(label));
            let posted = generation.filter(|_| is_posted);
            let mut made = None;
            let mut acknowledgement = Acknowledgement::Nothing;
            if let Some(generation) = posted {
                // Bounded: by the labels of one call.
                let labels: Vec<u64> = hashes.iter().map(|label| label.0).collect();
                let labels = LabelHashes::new(&labels);
                let named = named(generation);
                let record = Record::LabelInvalidation { namespace: named, labels };
                let change = Change::LabelInvalidation { namespace: named, labels };
                let is_held = !generation.index().is_empty();
                let recorded = self.record_rule(&record, &change)?;
                let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
                let cover = Cover::Labels(hashes.into());
                made = Some(self.rules.make(sequence, cover, Some(generation), false));
                let end = recorded.map(|dealt| dealt.end);
                // Bounded: one.
                end.into_iter().for_each(|end| self.shadowed_until(end));
                acknowledgement = Acknowledgement::over(is_held, end);
            }
            let moment = section.moment();
            // Bounded: by the labels of one call, which have a limit.
            for &label in hashes {
                section.watermarks().label_invalidated(label, moment);
            }
            Ok((made, acknowledgement))
        })
    }

    pub(super) async fn invalidate_namespace(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.check_namespace(namespace.name)?;
        let (is_flushed, acknowledgement) =
            self.attempt(namespace, || self.try_flush(namespace)).await?;
        self.help();
        self.acknowledge(acknowledgement).await?;
        Ok(is_flushed)
    }

    pub(super) async fn invalidate_all(self: &Arc<Self>) -> Result<(), CacheError> {
        let nowhere = self.hasher.namespace("");
        let ((), acknowledgement) = self.attempt(nowhere, || self.try_flush_all()).await?;
        self.help();
        self.acknowledge(acknowledgement).await
    }

    fn try_flush_all(self: &Arc<Self>) -> Attempt<()> {
        let generation = self.next_generation();
        let record = Record::StoreInvalidation { generation };
        let change = Change::StoreInvalidation { generation };
        let mut acknowledgement = Acknowledgement::Now;
        let flushed = self.namespaces.flush_all(&self.order, |section| {
            if section.is_closed() {
                return Err(Hindrance::Closed);
            }
            let recorded = self.record(&record, &change)?;
            let end = recorded.map(|dealt| dealt.end);
            self.is_flush_unrecorded.fetch_or(end.is_none(), Ordering::Relaxed);
            acknowledgement = Acknowledgement::over(self.l2().is_some(), end);
            // Bounded: one.
            end.into_iter().for_each(|end| self.flushed_until(end));
            let moment = section.moment();
            section.watermarks().everything_flushed(moment);
            self.slots.store(0, Ordering::Relaxed);
            section.sequence(recorded.map(|dealt| dealt.position.value()));
            Ok(())
        })?;
        self.rules.sweep_ended();
        self.counters.add(Event::NamespaceFlush, flushed.len() as u64);
        self.counters.add(Event::Flushed, flushed.entries() as u64);
        self.free_all(flushed);
        Ok(((), acknowledgement))
    }

    /// Ends the namespace's generation. False where the name is not in use.
    pub(super) fn try_flush(self: &Arc<Self>, namespace: NamespaceRef<'_>) -> Attempt<bool> {
        let generation = self.next_generation();
        let named = NamedGeneration { name: namespace.name, generation };
        let record = Record::NamespaceFlush { namespace: named };
        let change = Change::NamespaceFlush { namespace: named };
        let mut acknowledgement = Acknowledgement::Now;
        let flushed = self.namespaces.flush(namespace.name, &self.order, |section, ending| {
            if section.is_closed() {
                return Err(Hindrance::Closed);
            }
            let recorded = match ending {
                Some(_) => self.record(&record, &change)?,
                None => None,
            };
            let moment = section.moment();
            section.watermarks().namespace_flushed(namespace.seed, moment);
            let Some(ending) = ending else { return Ok(false) };
            let end = recorded.map(|dealt| dealt.end);
            self.is_flush_unrecorded.fetch_or(end.is_none(), Ordering::Relaxed);
            acknowledgement = Acknowledgement::over(!ending.index().is_empty(), end);
            // Bounded: one.
            end.into_iter().for_each(|end| self.flushed_until(end));
            self.slots.fetch_sub(ending.index().len(), Ordering::Relaxed);
            self.counters.add(Event::Flushed, ending.held() as u64);
            section.sequence(recorded.map(|dealt| dealt.position.value()));
            Ok(true)
        })?;
        let is_flushed = flushed.is_some();
        if is_flushed {
            self.rules.sweep_ended();
        }
        self.counters.add(Event::NamespaceFlush, u64::from(is_flushed));
        // Bounded: one.
        flushed.into_iter().for_each(|generation| self.free(generation));
        Ok((is_flushed, acknowledgement))
    }

    /// Tries until nothing hinders it any more.
    pub(super) async fn attempt<'a, T>(
        self: &'a Arc<Self>,
        namespace: NamespaceRef<'a>,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<(T, Acknowledgement), CacheError> {
        self.check_ours()?;
        let (mut waiting, mut place) = (None, None);
        // Bounded: a wait in each turn.
        let attempted = loop {
            match attempt() {
                Ok(done) => break Ok(done),
                Err(Hindrance::Closed) => break Err(CacheError::Closed),
                Err(Hindrance::NoRoom) => match self.l2() {
                    Some(l2) => place = Some(l2.log.room(0, place).await),
                    None => pause().await,
                },
                Err(Hindrance::TooMany) => {
                    waiting.get_or_insert(Waiting { shared: self, namespace });
                    self.carry_on().await;
                }
            }
        };
        // Nothing is to be flushed in its place.
        std::mem::forget(waiting);
        self.note_rule();
        attempted
    }

    /// Takes the record of a rule into the log, if there may be one more.
    fn record_rule(
        &self,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Result<Option<Dealt>, Hindrance> {
        if self.rules.is_full() {
            return Err(Hindrance::TooMany);
        }
        self.record(record, change)
    }

    /// Takes a record into the log. None: there is none, or it has ended.
    pub(super) fn record(
        &self,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Result<Option<Dealt>, Hindrance> {
        let draft = Draft::new(record, bytes::Bytes::new()).ok();
        let Some((l2, draft)) = self.l2().zip(draft) else { return Ok(None) };
        match l2.log.append(draft, change) {
            Ok(dealt) => Ok(Some(dealt)),
            Err(Refusal::NoRoom) => Err(Hindrance::NoRoom),
            Err(Refusal::Off) => Ok(None),
        }
    }
}
