//! `Flushes`: ends the generation of a namespace, or of all, and frees their entries.
//! A flush takes effect in one section; the background frees the memory.

use std::sync::Arc;

use crate::clock::Clock;
use crate::commit_lock::CommitLock;
use crate::counters::{Counters, Event};
use crate::disposal::{Freeing, Remains, Unfreed};
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::disk_tier::DiskTier;
use crate::engine::index_budget::IndexBudget;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::parts::Parts;
use crate::events::{BlobCacheEvent, Events};
use crate::key::NamespaceRef;
use crate::l2::{Change, NamedGeneration, Record};
use crate::namespace::{Ended, Freed, Generation, Namespaces};
use crate::pending::PendingInvalidations;

pub(crate) struct Flushes {
    clock: Clock,
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    freeing: Arc<Freeing>,
    budget: Arc<IndexBudget>,
    acknowledger: Arc<Acknowledger>,
    disk: Arc<DiskTier>,
}

impl Flushes {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            freeing: parts.freeing.clone(),
            budget: parts.budget.clone(),
            acknowledger: parts.acknowledger.clone(),
            disk: parts.disk.clone(),
        }
    }

    pub(crate) fn try_flush(&self, namespace: NamespaceRef<'_>) -> Attempt<bool> {
        let generation = self.disk.next_generation_number();
        let named = NamedGeneration { name: namespace.name, generation };
        let record = Record::NamespaceFlush { namespace: named };
        let change = Change::NamespaceFlush { namespace: named };
        let (mut acknowledgement, mut unfreed) = (Acknowledgement::Now, None);
        let flushed =
            self.namespaces.flush(namespace.name, &self.commit_lock, |section, ending| {
                if section.is_closed() {
                    return Err(Blocked::Closed);
                }
                let recorded = match ending {
                    Some(_) => self.disk.record(&record, &change)?,
                    None => None,
                };
                let moment = section.moment();
                section.watermarks().namespace_flushed(namespace.seed, moment);
                let Some(ending) = ending else { return Ok(false) };
                let end = recorded.map(|assigned| assigned.end);
                self.acknowledger.note_flush(end);
                acknowledgement = Acknowledgement::over(!ending.index().is_empty(), end);
                unfreed = Some(self.budget.end(ending, section));
                let entries = ending.entries_approx() as u64;
                self.counters.add(Event::Flushed, entries);
                let namespace = || Some(namespace.name.into());
                self.events
                    .tell_of_all(|| BlobCacheEvent::Flushed { namespace: namespace(), entries });
                section.sequence(recorded.map(|assigned| assigned.position.value()));
                Ok(true)
            })?;
        let is_flushed = flushed.is_some();
        if is_flushed {
            self.pending.sweep_ended();
        }
        self.counters.add(Event::NamespaceFlush, u64::from(is_flushed));
        // Bounded: one.
        flushed.zip(unfreed).into_iter().for_each(|ended| self.free(ended));
        Ok((is_flushed, acknowledgement))
    }

    pub(crate) fn try_flush_all(&self) -> Attempt<()> {
        let generation = self.disk.next_generation_number();
        let record = Record::StoreInvalidation { generation };
        let change = Change::StoreInvalidation { generation };
        let mut acknowledgement = Acknowledgement::Now;
        let ended = self.namespaces.flush_all(&self.commit_lock, |section, sums| {
            if section.is_closed() {
                return Err(Blocked::Closed);
            }
            let recorded = self.disk.record(&record, &change)?;
            let end = recorded.map(|assigned| assigned.end);
            self.acknowledger.note_flush(end);
            acknowledgement = Acknowledgement::over(self.disk.l2().is_some(), end);
            let moment = section.moment();
            section.watermarks().everything_flushed(moment);
            let unfreed = self.budget.end_all(sums, section);
            section.sequence(recorded.map(|assigned| assigned.position.value()));
            Ok(unfreed)
        });
        let (flushed, unfreed) = ended?;
        self.pending.sweep_ended();
        self.counters.add(Event::NamespaceFlush, flushed.len() as u64);
        let entries = flushed.entries() as u64;
        self.counters.add(Event::Flushed, entries);
        self.events.tell_of_all(|| BlobCacheEvent::Flushed { namespace: None, entries });
        self.free_all(flushed, unfreed);
        Ok(((), acknowledgement))
    }

    /// Ends a namespace without live entries. Its slots need a record, or they would come back.
    pub(crate) fn try_give_up(&self, generation: &Arc<Generation>) -> Attempt<bool> {
        let named = NamedGeneration {
            name: generation.name(),
            generation: self.disk.next_generation_number(),
        };
        let record = Record::NamespaceFlush { namespace: named };
        let change = Change::NamespaceFlush { namespace: named };
        let (mut expired, mut unfreed) = (0, None);
        let given_up =
            self.namespaces.flush(generation.name(), &self.commit_lock, |section, current| {
                if section.is_closed() {
                    return Err(Blocked::Closed);
                }
                let is_over = generation.is_over(self.clock.timestamp());
                if !is_over || !current.is_some_and(|current| Arc::ptr_eq(current, generation)) {
                    return Ok(false);
                }
                if !generation.index().is_empty() {
                    let recorded = self.disk.record(&record, &change)?;
                    self.acknowledger.note_flush(recorded.map(|assigned| assigned.end));
                    section.sequence(recorded.map(|assigned| assigned.position.value()));
                }
                unfreed = Some(self.budget.end(generation, section));
                expired = generation.entries_approx();
                Ok(true)
            })?;
        self.counters.add(Event::Expiration, expired as u64);
        let is_given_up = given_up.is_some();
        if expired > 0 {
            let (namespace, entries) = (|| generation.name().into(), expired as u64);
            let event = || BlobCacheEvent::NamespaceExpired { namespace: namespace(), entries };
            self.events.tell_of_all(event);
            self.pending.sweep_ended();
        }
        // Bounded: one.
        given_up.zip(unfreed).into_iter().for_each(|ended| self.free(ended));
        Ok((is_given_up, Acknowledgement::Now))
    }

    /// Frees the index and the postings of an ended generation: a batch now, the rest in the
    /// background.
    fn free(&self, (generation, unfreed): (Arc<Generation>, Unfreed)) {
        if generation.leaves_anything() {
            self.free_pieces(unfreed, generation.pieces());
        }
    }

    /// Frees all generations, likewise.
    pub(crate) fn free_all(&self, ended: Ended, unfreed: Unfreed) {
        self.free_pieces(unfreed, ended.pieces());
    }

    fn free_pieces(
        &self,
        mut unfreed: Unfreed,
        pieces: impl Iterator<Item = Freed> + Send + 'static,
    ) {
        let mut remains = Remains::new(pieces.map(move |freed| {
            unfreed.freed(freed.bytes);
            freed.entries
        }));
        if remains.free_some() && self.freeing.add(remains) {
            self.disk.free(Arc::clone(&self.freeing));
        }
    }
}
