//! What a listener is told of entries: only what can have happened, each end once, and every end
//! of an entry that a reader then misses.

use std::collections::HashMap;

use super::{Asked, Checker, Effect, Mutation, Scope};
use crate::engine::tests::histories::call::{FullKey, SPACES};
use crate::events::{BlobCacheEvent, EntryChange, EntryEvent};
use crate::modes::L1Admission;

/// What the listener of a process has been told.
#[derive(Debug, Default)]
pub(super) struct Heard {
    listener: Listener,
    /// The process began then.
    begun: u64,
    /// The events before the last ones had been told by then.
    until: u64,
    /// When entries of a key ended, or entries of a namespace whose keys are not known.
    ends: HashMap<(usize, Option<u8>), Vec<u64>>,
    /// Of those, when the cache forgot them by itself.
    losses: HashMap<(usize, Option<u8>), Vec<u64>>,
    /// When all entries of a namespace ended.
    flushes: [Vec<u64>; SPACES.len()],
    /// Entries that the open has found.
    recovered: usize,
}

/// What is known of a process that may have a listener.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Listener {
    /// There is one.
    pub(in super::super) is_there: bool,
    /// Keys may share a hash: an event may be about another key with that hash.
    pub(in super::super) has_shared_hashes: bool,
    /// Reads may fail, and are misses then.
    pub(in super::super) has_faults: bool,
}

impl Heard {
    /// Whether the cache may have forgotten an entry that was put since, and that nothing else has
    /// ended: what its own put has replaced is not it.
    fn has_forgotten_since(&self, full_key: FullKey, since: u64) -> bool {
        let FullKey { space, key } = full_key;
        let ends = |of| self.losses.get(&(space, of)).into_iter().flatten();
        ends(Some(key)).chain(ends(None)).chain(&self.flushes[space]).any(|&end| end > since)
    }

    fn ends_in(&self, space: usize) -> usize {
        let of_space = self.ends.iter().filter(|((of, _), _)| *of == space);
        of_space.map(|(_, ends)| ends.len()).sum()
    }
}

fn space_of(name: &str) -> Result<usize, String> {
    let place = SPACES.iter().position(|space| *space == name);
    place.ok_or_else(|| format!("an event tells of a namespace {name:?}"))
}

fn full_key_of(event: &EntryEvent) -> Result<(usize, Option<FullKey>), String> {
    let space = space_of(event.namespace())?;
    let Some(name) = event.key() else { return Ok((space, None)) };
    let found = FullKey::all().find(|it| it.space == space && it.name() == name);
    let full_key = found.ok_or_else(|| format!("{event:?} tells of a key that was never put"))?;
    Ok((space, Some(full_key)))
}

impl Checker {
    /// A process has begun, with a listener or without.
    pub(in super::super) fn listen(&mut self, listener: Listener) {
        let begun = self.tick();
        self.heard = Heard { listener, begun, until: begun, ..Heard::default() };
    }

    /// Checks what the listener was told since the last time.
    pub(in super::super) fn heard(
        &mut self,
        events: &[BlobCacheEvent],
        (clock, life): (u64, u32),
    ) -> Result<(), String> {
        let asked = Asked { begun: self.heard.until, clock, life };
        let now = self.tick();
        for event in events {
            self.heard_one(event, asked, now)?;
        }
        self.heard.until = self.tick();
        self.clock = clock;
        Ok(())
    }

    fn heard_one(&mut self, event: &BlobCacheEvent, asked: Asked, now: u64) -> Result<(), String> {
        match event {
            BlobCacheEvent::Entry(event) => self.heard_of(event, asked, now),
            BlobCacheEvent::Flushed { namespace, .. } => {
                let space = namespace.as_deref().map(space_of).transpose()?;
                let is_flush = |it: &Mutation| {
                    it.is_invalidation() && it.flushes(space) && it.ended > asked.begun
                };
                if !self.mutations.iter().any(is_flush) {
                    return Err(format!("{event:?}, though nobody flushes"));
                }
                for space in space.map_or(0..SPACES.len(), |space| space..space + 1) {
                    self.heard.flushes[space].push(now);
                }
                Ok(())
            }
            BlobCacheEvent::NamespaceExpired { namespace, .. } => {
                self.heard.flushes[space_of(namespace)?].push(now);
                Ok(())
            }
            BlobCacheEvent::Recovered { records, .. } => {
                let records = usize::try_from(*records).map_err(|error| error.to_string())?;
                self.heard.recovered += records;
                Ok(())
            }
            BlobCacheEvent::Lost(_) => Err(format!("{event:?}, though the listener keeps up")),
        }
    }

    fn heard_of(&mut self, event: &EntryEvent, asked: Asked, now: u64) -> Result<(), String> {
        let (space, full_key) = full_key_of(event)?;
        // It may be about any key with that hash, and those of one hash have one place in memory.
        if self.heard.listener.has_shared_hashes {
            return Ok(());
        }
        let puts = |it: &&Mutation| {
            let of = it.full_key();
            let is_of = of.is_some_and(|of| full_key.map_or(of.space == space, |it| it == of));
            is_of && it.effect != Effect::None
        };
        let puts: Vec<&Mutation> = self.mutations.iter().filter(puts).collect();
        let can_be = match event.change() {
            EntryChange::Promoted | EntryChange::Reinserted => {
                puts.iter().any(|put| self.shadow(put, asked).is_none())
            }
            EntryChange::Touched => {
                let is_touch = |it: &&Mutation| it.touch.is_some() && it.ended > asked.begun;
                let is_of = |it: &Mutation| puts.iter().any(|put| it.covers(put));
                self.mutations.iter().filter(is_touch).any(is_of)
            }
            EntryChange::Invalidated => puts.iter().any(|put| self.may_be_invalidated(put)),
            EntryChange::Expired { idle } => {
                !idle && puts.iter().any(|put| self.may_be_expired(put, asked.clock))
            }
            EntryChange::Replaced => puts.iter().any(|put| put.ended > asked.begun),
            EntryChange::Evicted { .. } | EntryChange::Dropped => !puts.is_empty(),
        };
        if !can_be {
            return Err(format!("{event:?} since {asked:?}, which cannot have happened"));
        }
        let ends = match event.change() {
            EntryChange::Evicted { on_disk } => !on_disk,
            EntryChange::Promoted | EntryChange::Reinserted | EntryChange::Touched => false,
            _ => true,
        };
        if !ends {
            return Ok(());
        }
        let key = full_key.map(|it| it.key);
        if matches!(event.change(), EntryChange::Evicted { .. } | EntryChange::Dropped) {
            self.heard.losses.entry((space, key)).or_default().push(now);
        }
        self.heard.ends.entry((space, key)).or_default().push(now);
        self.check_ends(space, full_key)
            .map_err(|what| format!("{event:?} since {asked:?}: {what}"))
    }

    /// No entry ends twice.
    fn check_ends(&self, space: usize, full_key: Option<FullKey>) -> Result<(), String> {
        let heard = &self.heard;
        // One whose call has ended in another process may have taken effect in that one alone.
        let began = |of: &dyn Fn(FullKey) -> bool| {
            let put = |it: &&Mutation| {
                it.full_key().is_some_and(of) && it.effect != Effect::None && it.ended > heard.begun
            };
            self.mutations.iter().filter(put).count()
        };
        let (ends, begun) = (heard.ends_in(space), began(&|it| it.space == space));
        if ends > begun + heard.recovered {
            return Err(format!("{ends} ends of {begun} puts and {} found", heard.recovered));
        }
        let Some(full_key) = full_key else { return Ok(()) };
        let ends = heard.ends.get(&(space, Some(full_key.key))).map_or(0, Vec::len);
        let begun = began(&|it| it == full_key);
        if ends > begun + heard.recovered.min(1) {
            return Err(format!("{ends} ends of {begun} puts of {full_key:?}"));
        }
        Ok(())
    }

    fn may_be_invalidated(&self, put: &Mutation) -> bool {
        let covers = |it: &Mutation| {
            // What has no stale window is gone when it is made stale.
            let removes = it.is_invalidation() || it.expires;
            removes && it.effect != Effect::None && it.ended > put.begun && it.covers(put)
        };
        self.mutations.iter().any(covers)
    }

    /// By its own ttl, because something has made it stale, or because of a touch: one that
    /// shortens a deadline ends the entry once the table of touches is full.
    fn may_be_expired(&self, put: &Mutation, clock: u64) -> bool {
        let ttl = put.put.as_ref().and_then(|put| put.ttl);
        let is_past = ttl.is_some_and(|ttl| put.begun_clock + ttl <= clock);
        let may_end = |it: &Mutation| {
            let ends = it.expires || it.touch.is_some();
            ends && it.effect != Effect::None && it.ended > put.begun && it.covers(put)
        };
        is_past || self.mutations.iter().any(may_end)
    }

    /// A miss of what this process has put in memory, which nothing can have changed since: the
    /// listener knows of its end. True if there was such an end.
    pub(super) fn missed_told(
        &self,
        full_key: FullKey,
        asked: Asked,
        decodes: impl Fn(u32) -> bool,
    ) -> Result<bool, String> {
        let heard = &self.heard;
        let Listener { is_there, has_shared_hashes, has_faults } = heard.listener;
        if !is_there || has_shared_hashes || has_faults || self.is_closed {
            return Ok(false);
        }
        let in_memory = |put: &&Mutation| {
            let admission = put.put.as_ref().map(|put| put.admission);
            put.begun > heard.begun && admission == Some(L1Admission::Always)
        };
        let lasting = self.lasting(full_key, asked, decodes).filter(in_memory);
        match lasting.into_iter().find(|put| self.stands(put, self.now)) {
            Some(put) if heard.has_forgotten_since(full_key, put.begun) => Ok(true),
            Some(put) => Err(format!(
                "a get of {full_key:?}, {asked:?}, misses {put:?}, and no event has told of its end"
            )),
            None => Ok(false),
        }
    }
}

impl Mutation {
    fn is_invalidation(&self) -> bool {
        self.put.is_none() && self.touch.is_none() && !self.expires
    }

    /// Flushes that namespace, or all if there is none.
    fn flushes(&self, space: Option<usize>) -> bool {
        let is_it = match (self.scope, space) {
            (Scope::Space(of), Some(space)) => of == space,
            (Scope::All, None) => true,
            _ => false,
        };
        is_it && self.effect != Effect::None
    }
}
