//! Invalidating: by key, prefix, label, namespace, everything.
//!
//! Each takes effect in one append section, in the first poll. What is left to remove afterwards
//! is hidden by a rule until it is gone, so that a caller who goes away leaves nothing undone.
//! With a disk tier each is one record, whatever it covers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cache::durability::Acknowledgement;
use crate::cache::put::tombstone;
use crate::cache::record::named;
use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::entry::Entry;
use crate::error::CacheError;
use crate::invalidation::{Cover, Rule};
use crate::key::{LabelHash, LabelKind, NamespaceRef};
use crate::l2::{Change, Dealt, Draft, LabelHashes, NamedGeneration, Record, Refusal, Slot};
use crate::namespace::Namespace;
use crate::step::pause;

/// What an attempt to invalidate has come to.
enum Attempt<T> {
    Done(T, Acknowledgement),
    /// The log has no room yet.
    NoRoom,
}

impl Shared {
    pub(super) async fn invalidate_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(key)?;
        let (counted, acknowledgement) =
            self.attempt(|| self.try_invalidate_key(namespace, key)).await?;
        self.counters.add(Event::Invalidation, counted as u64);
        self.help();
        self.acknowledge(acknowledgement).await?;
        Ok(counted)
    }

    fn try_invalidate_key(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
    ) -> Result<Attempt<usize>, CacheError> {
        let hash = self.hasher.key(namespace.seed, key);
        let slot = self.l1.slot(hash);
        // The table comes before the section; a generation that has ended meanwhile holds nothing.
        let generation = self.namespaces.find(namespace.name);
        let mut section = self.order.section();
        if section.is_closed() {
            return Err(CacheError::Closed);
        }
        let generation = generation.filter(|generation| !generation.has_ended());
        let held = generation.as_ref().and_then(|generation| generation.index().get(hash));
        let on_disk = held.filter(|held| !held.gone);
        let mut end = None;
        // One that is gone may be so for this process only: unreadable, expired, or covered by a
        // record that is not on file yet.
        if let (Some(generation), Some(_)) = (&generation, held) {
            let change = Change::Tombstone { namespace: named(generation), hash: hash.0 };
            match self.record(tombstone(generation, hash), &change) {
                Err(Refusal::NoRoom) => return Ok(Attempt::NoRoom),
                Err(Refusal::Off) => {}
                Ok(dealt) => {
                    end = Some(dealt.end);
                    self.shadowed_until(dealt.end);
                    section.sequence(Some(dealt.position.value()));
                    let gone = Slot { gone: true, ..Slot::new(dealt.position, dealt.blocks) };
                    generation.index().insert(hash, gone);
                }
            }
        }
        let moment = section.moment();
        section.watermarks().key_mutated(hash, moment);
        let is_current = |entry: &Entry| {
            entry.is_of(namespace.name, key) && self.rules.covering(entry).is_none()
        };
        let in_memory =
            slot.entry().map(|entry| is_current(entry) && !self.freshness(entry).is_gone());
        // What is left behind of another key of the same hash would be as good as forgotten.
        let removed = slot.remove();
        if let Some(removed) = &removed {
            self.settle(removed, &mut section);
        }
        drop(section);
        let counted = match in_memory {
            Some(is_live) => is_live && removed.is_some(),
            None => on_disk.is_some(),
        };
        let acknowledgement = match held {
            Some(_) => Acknowledgement::over(true, end),
            None => Acknowledgement::Nothing,
        };
        Ok(Attempt::Done(usize::from(counted), acknowledgement))
    }

    pub(super) async fn invalidate_prefix(
        self: &Arc<Self>,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<usize, CacheError> {
        self.check_namespace(namespace.name)?;
        self.check_key(prefix)?;
        let (made, acknowledgement) =
            self.attempt(|| self.try_invalidate_prefix(namespace, prefix)).await?;
        let Some(made) = made else {
            self.acknowledge(acknowledgement).await?;
            return Ok(0);
        };
        if let Some(scan) = made.as_ref().and_then(|rule| self.scan_disk(rule)) {
            scan.await;
        }
        let removed = self.carry_out(namespace, made).await?;
        self.acknowledge(acknowledgement).await?;
        Ok(removed)
    }

    /// None: the name is not in use. Some(None): too many rules.
    #[allow(clippy::type_complexity)]
    fn try_invalidate_prefix(
        &self,
        namespace: NamespaceRef<'_>,
        prefix: &[u8],
    ) -> Result<Attempt<Option<Option<Arc<Rule>>>>, CacheError> {
        // A name that is not in use, with the table locked, can have nothing put into it meanwhile.
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(CacheError::Closed);
            }
            let Some(generation) = generation else {
                let moment = section.moment();
                section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
                return Ok(Attempt::Done(None, Acknowledgement::Nothing));
            };
            let named = named(generation);
            let record = Record::PrefixInvalidation { namespace: named, prefix };
            let change = Change::PrefixInvalidation { namespace: named, prefix };
            let is_held = !generation.index().is_empty();
            let Some(recorded) = self.record_if(true, &record, &change) else {
                return Ok(Attempt::NoRoom);
            };
            let moment = section.moment();
            section.watermarks().prefix_invalidated(namespace.seed, prefix, moment);
            let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
            let cover = Cover::Prefix(prefix.into());
            let made = self.rules.make(sequence, cover, Some(generation), is_held);
            let end = recorded.map(|dealt| dealt.end);
            end.into_iter().for_each(|end| self.shadowed_until(end));
            Ok(Attempt::Done(Some(made), Acknowledgement::over(is_held, end)))
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
        let hashes: Box<[LabelHash]> = labels.iter().map(hash).collect();
        let (made, acknowledgement) =
            self.attempt(|| self.try_invalidate_labels(namespace, &hashes)).await?;
        let Some(made) = made else {
            self.acknowledge(acknowledgement).await?;
            return Ok(0);
        };
        let removed = self.carry_out(namespace, made).await?;
        self.acknowledge(acknowledgement).await?;
        Ok(removed)
    }

    #[allow(clippy::type_complexity)]
    fn try_invalidate_labels(
        &self,
        namespace: NamespaceRef<'_>,
        hashes: &[LabelHash],
    ) -> Result<Attempt<Option<Option<Arc<Rule>>>>, CacheError> {
        self.namespaces.with(namespace.name, |generation| {
            let mut section = self.order.section();
            if section.is_closed() {
                return Err(CacheError::Closed);
            }
            let is_posted = hashes.iter().any(|&label| section.labels().has(label));
            let posted = generation.filter(|_| is_posted);
            let mut made = None;
            let mut acknowledgement = Acknowledgement::Nothing;
            if let Some(generation) = posted {
                let labels: Vec<u64> = hashes.iter().map(|label| label.0).collect();
                let labels = LabelHashes::new(&labels);
                let named = named(generation);
                let record = Record::LabelInvalidation { namespace: named, labels };
                let change = Change::LabelInvalidation { namespace: named, labels };
                let is_held = !generation.index().is_empty();
                let Some(recorded) = self.record_if(true, &record, &change) else {
                    return Ok(Attempt::NoRoom);
                };
                let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
                let cover = Cover::Labels(hashes.into());
                made = Some(self.rules.make(sequence, cover, Some(generation), false));
                let end = recorded.map(|dealt| dealt.end);
                end.into_iter().for_each(|end| self.shadowed_until(end));
                acknowledgement = Acknowledgement::over(is_held, end);
            }
            let moment = section.moment();
            for &label in hashes {
                section.watermarks().label_invalidated(label, moment);
            }
            Ok(Attempt::Done(made, acknowledgement))
        })
    }

    pub(super) async fn invalidate_namespace(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<bool, CacheError> {
        self.check_namespace(namespace.name)?;
        let (flushed, acknowledgement) = self.attempt(|| self.try_flush(namespace)).await?;
        self.help();
        self.acknowledge(acknowledgement).await?;
        Ok(flushed.is_some())
    }

    pub(super) async fn invalidate_all(&self) -> Result<(), CacheError> {
        let ((), acknowledgement) = self.attempt(|| self.try_flush_all()).await?;
        self.help();
        self.acknowledge(acknowledgement).await
    }

    fn try_flush_all(&self) -> Result<Attempt<()>, CacheError> {
        if self.order.is_closed() {
            return Err(CacheError::Closed);
        }
        let generation = self.next_generation();
        let record = Record::StoreInvalidation { generation };
        let change = Change::StoreInvalidation { generation };
        let mut acknowledgement = Acknowledgement::Now;
        let flushed = self.namespaces.flush_all(&self.order, |section| {
            let Some(recorded) = self.record_if(true, &record, &change) else { return false };
            let end = recorded.map(|dealt| dealt.end);
            acknowledgement = Acknowledgement::over(self.l2().is_some(), end);
            end.into_iter().for_each(|end| self.flushed_until(end));
            let moment = section.moment();
            section.watermarks().everything_flushed(moment);
            self.slots.store(0, Ordering::Relaxed);
            let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
            self.rules.make(sequence, Cover::Ended, None, false);
            true
        });
        let Some(flushed) = flushed else { return Ok(Attempt::NoRoom) };
        self.counters.add(Event::NamespaceFlush, flushed.len() as u64);
        Ok(Attempt::Done((), acknowledgement))
    }

    /// Ends the namespace's generation. None where the name is not in use.
    fn try_flush(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<Attempt<Option<Arc<Namespace>>>, CacheError> {
        if self.order.is_closed() {
            return Err(CacheError::Closed);
        }
        let generation = self.next_generation();
        let named = NamedGeneration { name: namespace.name, generation };
        let record = Record::NamespaceFlush { namespace: named };
        let change = Change::NamespaceFlush { namespace: named };
        let mut acknowledgement = Acknowledgement::Now;
        let flushed = self.namespaces.flush(namespace.name, &self.order, |section, ending| {
            let is_held = ending.is_some_and(|ending| !ending.index().is_empty());
            let is_used = ending.is_some();
            let Some(recorded) = self.record_if(is_used, &record, &change) else { return false };
            let end = recorded.map(|dealt| dealt.end);
            acknowledgement = Acknowledgement::over(is_held, end);
            end.into_iter().for_each(|end| self.flushed_until(end));
            let moment = section.moment();
            section.watermarks().namespace_flushed(namespace.seed, moment);
            if let Some(ending) = ending {
                self.slots.fetch_sub(ending.index().len(), Ordering::Relaxed);
                let sequence = section.sequence(recorded.map(|dealt| dealt.position.value()));
                self.rules.make(sequence, Cover::Ended, None, false);
            }
            true
        });
        let Some(flushed) = flushed else { return Ok(Attempt::NoRoom) };
        self.counters.add(Event::NamespaceFlush, u64::from(flushed.is_some()));
        Ok(Attempt::Done(flushed, acknowledgement))
    }

    /// Tries until the log has room.
    async fn attempt<T>(
        &self,
        mut attempt: impl FnMut() -> Result<Attempt<T>, CacheError>,
    ) -> Result<(T, Acknowledgement), CacheError> {
        loop {
            let turn = self.l2().map_or(0, |l2| l2.log.turn());
            match attempt()? {
                Attempt::Done(done, acknowledgement) => return Ok((done, acknowledgement)),
                Attempt::NoRoom => match self.l2() {
                    Some(l2) => l2.log.room(turn).await,
                    None => pause().await,
                },
            }
        }
    }

    /// Takes a record into the log where `is_wanted`. None: no room. Some(None): not wanted, or the
    /// log has ended.
    fn record_if(
        &self,
        is_wanted: bool,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Option<Option<Dealt>> {
        if !is_wanted || self.l2().is_none() {
            return Some(None);
        }
        match self.record(Draft::new(record, bytes::Bytes::new()).ok(), change) {
            Ok(dealt) => Some(Some(dealt)),
            Err(Refusal::NoRoom) => None,
            Err(Refusal::Off) => Some(None),
        }
    }

    fn record(&self, draft: Option<Draft>, change: &Change<'_>) -> Result<Dealt, Refusal> {
        match (self.l2(), draft) {
            (Some(l2), Some(draft)) => l2.log.append(draft, change),
            _ => Err(Refusal::Off),
        }
    }

    /// Flushes a namespace in place of an invalidation that would have been one too many.
    pub(super) async fn flush_instead(
        &self,
        namespace: NamespaceRef<'_>,
    ) -> Result<usize, CacheError> {
        let (flushed, acknowledgement) = self.attempt(|| self.try_flush(namespace)).await?;
        self.acknowledge(acknowledgement).await?;
        Ok(flushed.map_or(0, |generation| generation.entries()))
    }
}
