//! `Namespaces`: live generations, by name and by index.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::era::{Era, Figures};
use super::{Ends, Freed, Generation, Settings};
use crate::batch::BATCH_ENTRIES;
use crate::clock::Timestamp;
use crate::commit_lock::{CommitLock, Section};
use crate::config::cores;
use crate::failpoint::{Failpoint, failpoint};
use crate::gate::{Answerable, Gates};
use crate::key::NameHasher;
use crate::l2::{GenerationNumber, RecoveredNamespace};
use crate::meter;
use crate::quota::Quotas;
use crate::scope::NamespaceScope;
use crate::sequence::Sequence;
use crate::synopsis::Synopsis;
use crate::tallies::Tallies;

#[derive(Debug)]
pub(crate) struct Namespaces {
    table: RwLock<Table>,
    max: usize,
    quotas: Quotas,
    gates: Gates,
    ends: Arc<Ends>,
    found: AtomicUsize,
    tallies: Tallies,
}

#[derive(Debug)]
pub(crate) struct Search {
    begun: usize,
    looked_at: usize,
    soonest: Timestamp,
    changes: u64,
}

pub(crate) enum Searched {
    Found(Arc<Generation>),
    SoFar,
    InVain,
}

#[derive(Debug, Default)]
struct Table {
    names: HashMap<Box<str>, Arc<Generation>, NameHasher>,
    /// The same, at fixed indices, for walks in batches.
    slots: Vec<Option<Arc<Generation>>>,
    vacant: Vec<usize>,
    era: Arc<Era>,
}

/// The contents ended by a flush of everything, to be freed piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Ended(Table);

impl Namespaces {
    pub(crate) fn new(max: usize, quotas: Quotas, gates: Gates) -> Self {
        Self {
            table: RwLock::new(Table::with_room(max)),
            max,
            quotas,
            gates,
            ends: Arc::default(),
            found: AtomicUsize::new(0),
            tallies: Tallies::new(cores()),
        }
    }

    fn settings(&self, name: &str) -> Settings {
        Settings { quota: self.quotas.of(name), governed: self.gates.of(name).cloned() }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Generation>> {
        self.table.read().names.get(name).cloned()
    }

    /// The name's generation, begun if there is none. None if all slots are taken.
    pub(crate) fn find_or_begin(
        &self,
        name: &str,
        order: &CommitLock,
        number: impl FnOnce() -> GenerationNumber,
    ) -> Option<Arc<Generation>> {
        if let Some(generation) = self.find(name) {
            return Some(generation);
        }
        let mut table = self.table.write();
        if let Some(generation) = table.names.get(name) {
            return Some(Arc::clone(generation));
        }
        if table.names.len() >= self.max {
            return None;
        }
        let ends = (&self.ends, &table.era);
        let mut generation = Generation::begin(name, number(), ends, self.settings(name));
        generation.slot = table.vacant_slot();
        generation.tally = self.tallies.begin(generation.slot);
        Some(table.insert(generation, &mut order.section()))
    }

    /// Begins a search for a generation that can give up its slot. None: there is known to be none.
    pub(crate) fn search(&self, now: Timestamp) -> Option<Search> {
        let changes = self.ends.changes.load(Ordering::Acquire);
        let begun = self.found.load(Ordering::Relaxed);
        let search = Search { begun, looked_at: 0, soonest: Timestamp::NEVER, changes };
        (self.ends.soonest() <= now).then_some(search)
    }

    /// Continues the search by one step.
    pub(crate) fn search_on(
        &self,
        search: &mut Search,
        now: Timestamp,
        order: &CommitLock,
    ) -> Searched {
        let table = self.table.read();
        let slots = table.slots.len();
        let most = slots.saturating_sub(search.looked_at).min(BATCH_ENTRIES);
        meter::entries(most);
        for _ in 0..most {
            let slot = (search.begun + search.looked_at) % slots;
            search.looked_at += 1;
            let Some(generation) = &table.slots[slot] else { continue };
            if generation.is_over(now) {
                self.found.store(slot, Ordering::Relaxed);
                return Searched::Found(Arc::clone(generation));
            }
            search.soonest = search.soonest.min(generation.alive_until());
        }
        if search.looked_at < slots {
            return Searched::SoFar;
        }
        // Times are brought forward in sections only.
        let _section = order.section();
        if self.ends.changes.load(Ordering::Acquire) == search.changes {
            self.ends.soonest.store(search.soonest.0, Ordering::Release);
        }
        Searched::InVain
    }

    /// Calls `then` while no generation can begin or end.
    pub(crate) fn with<T>(
        &self,
        name: &str,
        then: impl FnOnce(Option<&Arc<Generation>>) -> T,
    ) -> T {
        let table = self.table.read();
        then(table.names.get(name))
    }

    /// Calls `then` with the generations of these names, or of all, while none can begin or end.
    pub(crate) fn with_all<T>(
        &self,
        scope: NamespaceScope<'_>,
        then: impl FnOnce(Vec<&Arc<Generation>>) -> T,
    ) -> T {
        let table = self.table.read();
        let names_max = if failpoint(Failpoint::SeveralCutShort) { 1 } else { usize::MAX };
        let listed = scope.names().iter().take(names_max).filter_map(|it| table.names.get(*it));
        // Bounded: by the names of the call, or by those in use.
        let mut found: Vec<_> = match scope {
            // Bounded: likewise.
            NamespaceScope::All => table.slots.iter().flatten().collect(),
            // Bounded: likewise.
            _ => listed.collect(),
        };
        found.sort_unstable_by_key(|generation| generation.slot);
        found.dedup_by_key(|generation| generation.slot);
        then(found)
    }

    /// Ends the name's generation in one section with `mark`, which gets the generation and
    /// decides.
    ///
    /// # Errors
    ///
    /// Those of `mark`; then nothing has changed.
    pub(crate) fn flush<E>(
        &self,
        name: &str,
        order: &CommitLock,
        mark: impl FnOnce(&mut Section<'_>, Option<&Arc<Generation>>) -> Result<bool, E>,
    ) -> Result<Option<Arc<Generation>>, E> {
        let mut table = self.table.write();
        let mut section = order.section();
        let ends = mark(&mut section, table.names.get(name))?;
        let flushed = if ends { table.remove(name) } else { None };
        if let Some(generation) = &flushed {
            generation.end(&mut section);
        }
        Ok(flushed)
    }

    /// Likewise ends every generation. `mark` gets the sums over all of them; gives what it gave.
    pub(crate) fn flush_all<T, E>(
        &self,
        order: &CommitLock,
        mark: impl FnOnce(&mut Section<'_>, Figures) -> Result<T, E>,
    ) -> Result<(Ended, T), E> {
        let fresh = Table::with_room(self.max);
        let mut table = self.table.write();
        let mut section = order.section();
        let marked = mark(&mut section, table.era.totals.sums())?;
        table.era.end();
        Ok((Ended(mem::replace(&mut table, fresh)), marked))
    }

    /// Gives up a generation begun for a put that was refused, unless another put has used it.
    pub(crate) fn give_up(&self, generation: &Arc<Generation>, order: &CommitLock) {
        let mut table = self.table.write();
        let is_current = table
            .names
            .get(generation.name())
            .is_some_and(|current| Arc::ptr_eq(current, generation));
        let mut section = order.section();
        if is_current && generation.is_empty() {
            generation.end(&mut section);
            table.remove(generation.name());
        }
    }

    /// Makes room for `count` restored generations, which may exceed the limit.
    pub(crate) fn expect(&self, count: usize) {
        *self.table.write() = Table::with_room(count.max(self.max));
    }

    pub(crate) fn restore(&self, name: &str, found: RecoveredNamespace, order: &CommitLock) {
        let RecoveredNamespace {
            generation,
            index,
            labels,
            further_blocks,
            live,
            alive_until,
            expiries,
            ..
        } = found;
        let mut table = self.table.write();
        let ends = (&self.ends, &table.era);
        let blank = Generation::begin(name, generation, ends, self.settings(name));
        // Until it is rebuilt from the index, it answers "maybe" to everything.
        let synopsis = if index.is_empty() { Synopsis::default() } else { Synopsis::blind() };
        let blocks = further_blocks.into();
        // No expiry is known yet.
        let ends_on_disk = 0.into();
        let (live, alive_until) = (live.into(), alive_until.0.into());
        let generation = Generation {
            index,
            synopsis,
            labels: labels.into(),
            blocks,
            expiries: expiries.into(),
            live,
            alive_until,
            ends_on_disk,
            slot: table.vacant_slot(),
            tally: self.tallies.begin(table.vacant_slot()),
            ..blank
        };
        table.insert(generation, &mut order.section());
    }

    /// Appends a batch of live generations to `found`, starting at `from`. Returns where to
    /// continue; None at the end. One that begins meanwhile may be missed.
    pub(crate) fn some(&self, from: usize, found: &mut Vec<Arc<Generation>>) -> Option<usize> {
        self.table.read().some(from, BATCH_ENTRIES, found)
    }

    /// The same with those in the next `slots` slots.
    pub(crate) fn in_slots(
        &self,
        from: usize,
        slots: usize,
        found: &mut Vec<Arc<Generation>>,
    ) -> Option<usize> {
        self.table.read().some(from, slots, found)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> Vec<Arc<Generation>> {
        self.table.read().names.values().cloned().collect()
    }

    /// Whether any has records that are stale before their time, among those from `first` on.
    pub(crate) fn have_expired(&self, first: Sequence) -> bool {
        // Bounded: by the namespaces in use.
        self.table.read().names.values().any(|generation| generation.has_expired(first))
    }

    pub(crate) fn len(&self) -> usize {
        self.table.read().names.len()
    }

    /// Hits of all namespaces there ever were.
    pub(crate) fn hits(&self) -> u64 {
        self.tallies.hits()
    }

    /// Counts a miss for a namespace, if it is in use. Whether its gate keeps its entries back.
    pub(crate) fn count_miss(&self, name: &str) -> bool {
        let table = self.table.read();
        let Some(generation) = table.names.get(name) else { return false };
        generation.tally().count_miss();
        generation.ask_gate() == Answerable::No
    }

    pub(crate) fn totals(&self) -> Figures {
        self.table.read().era.totals.sums()
    }
}

impl Table {
    /// Allocated for `max` names at once, because a growing table is rebuilt under its lock.
    fn with_room(max: usize) -> Self {
        Self {
            names: HashMap::with_capacity_and_hasher(max, NameHasher::default()),
            slots: Vec::with_capacity(max),
            ..Self::default()
        }
    }

    fn some(&self, from: usize, count: usize, found: &mut Vec<Arc<Generation>>) -> Option<usize> {
        let slots = self.slots.get(from..).unwrap_or_default();
        meter::entries(slots.len().min(count));
        found.extend(slots.iter().take(count).flatten().cloned());
        (slots.len() > count).then(|| from + count)
    }

    /// The slot that the next generation takes.
    fn vacant_slot(&self) -> usize {
        self.vacant.last().copied().unwrap_or(self.slots.len())
    }

    fn insert(&mut self, generation: Generation, _section: &mut Section<'_>) -> Arc<Generation> {
        self.vacant.pop();
        let (name, generation) = (generation.name.clone(), Arc::new(generation));
        let begun = Some(Arc::clone(&generation));
        match self.slots.get_mut(generation.slot) {
            Some(slot) => *slot = begun,
            None => self.slots.push(begun),
        }
        self.era.totals.change(Figures::default(), generation.figures());
        self.names.insert(name, Arc::clone(&generation));
        generation
    }

    fn remove(&mut self, name: &str) -> Option<Arc<Generation>> {
        let generation = self.names.remove(name)?;
        self.slots[generation.slot] = None;
        self.vacant.push(generation.slot);
        Some(generation)
    }
}

impl Ended {
    pub(crate) fn len(&self) -> usize {
        self.0.names.len()
    }

    /// Their entries, as [`Generation::entries_approx`] counts them.
    pub(crate) fn entries(&self) -> usize {
        let Figures { entries, live, .. } = self.0.era.totals.sums();
        entries.max(live)
    }

    /// Appends a batch of them to `found`, starting at `from`. Returns where to continue; None at
    /// the end.
    pub(crate) fn some(&self, from: usize, found: &mut Vec<Arc<Generation>>) -> Option<usize> {
        self.0.some(from, BATCH_ENTRIES, found)
    }

    /// Each item frees a piece. Frees the contents of a generation even if other references to it
    /// exist.
    pub(crate) fn pieces(self) -> impl Iterator<Item = Freed> + Send {
        let names = self.0.names.into_iter().map(|_| Freed { entries: 1, bytes: 0 });
        let generations = self.0.slots.into_iter().flatten();
        names.chain(generations.flat_map(Generation::pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_names_are_never_rebuilt() {
        let lock = CommitLock::new(1, 64);
        let namespaces = Namespaces::new(5000, Quotas::default(), Gates::default());
        for _ in 0..2 {
            let room = namespaces.table.read().names.capacity();
            for number in 0..5000 {
                let begun = namespaces
                    .find_or_begin(&format!("{number}"), &lock, || GenerationNumber(number));
                assert!(begun.is_some());
            }
            assert_eq!(namespaces.table.read().names.capacity(), room);
            // A flush of everything begins with as much room.
            let Ok(_) = namespaces.flush_all(&lock, |_, _| Ok::<(), std::convert::Infallible>(()));
        }
        // A store may hold more of them than are allowed.
        namespaces.expect(9000);
        assert!(namespaces.table.read().names.capacity() >= 9000);
    }
}
