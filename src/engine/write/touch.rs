//! `Touches`: gives a live entry other deadlines, and leaves everything else of it as it is.
//!
//! An entry in memory is replaced by a copy of it that shares its value, so that readers see all of
//! its deadlines change at one moment. The record on disk stays; a small one behind it says which
//! deadlines it has, and a table in memory. Both happen in one commit section, which takes no
//! moment: what was fetched before a touch may still be put after it.

use std::io;
use std::sync::Arc;

use crate::batch::yield_now;
use crate::clock::Clock;
use crate::commit_lock::{CommitLock, Section};
use crate::counters::{Counters, Event};
use crate::engine::acknowledge::{Acknowledgement, Acknowledger};
use crate::engine::admission::Admission;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::disk_tier::{DiskTier, NoRoom};
use crate::engine::eviction::Eviction;
use crate::engine::expired_slots::ExpiredSlots;
use crate::engine::last_access::LastAccess;
use crate::engine::parts::Parts;
use crate::engine::read::record_reader::{Read, RecordReader};
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::engine::visibility::Visibility;
use crate::entry::{Entry, Mark};
use crate::error::CacheError;
use crate::events::{About, EntryChange, Events};
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{HashedKey, KeyHasher, NamespaceRef};
use crate::l1::{L1, LockedPlace, Room};
use crate::l2::{Change, Extent, Position, Record, Renewal, Slot};
use crate::namespace::Namespaces;
use crate::pending::PendingInvalidations;
use crate::policy::{BlobCachePolicy, Lifetime};

pub(crate) struct Touches {
    clock: Clock,
    hasher: KeyHasher,
    counters: Counters,
    events: Events,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    pending: Arc<PendingInvalidations>,
    l1: Arc<L1>,
    disk: Arc<DiskTier>,
    deadlines: Arc<Deadlines>,
    acknowledger: Arc<Acknowledger>,
    admission: Admission,
    visibility: Visibility,
    last_access: LastAccess,
    expired: ExpiredSlots,
    renewed: RenewedSlots,
    removal: Removal,
    eviction: Eviction,
    reader: Arc<RecordReader>,
}

/// What is touched, and its life from now on.
#[derive(Clone, Copy)]
struct Touch<'a> {
    namespace: NamespaceRef<'a>,
    key: HashedKey<'a>,
    life: Lifetime,
}

enum Found {
    InMemory(Arc<Entry>),
    /// Its head.
    OnDisk(Arc<Entry>),
    Absent,
    /// It has moved meanwhile.
    Moved,
}

enum Tried {
    /// In force.
    Done(Acknowledgement),
    /// There is no live entry.
    Dead,
    /// There was one, and nothing is left of it: the disk tier was turned off, or memory, which had
    /// it alone, has no room for the copy.
    Lost(Acknowledgement),
    /// Another caller was faster.
    Moved,
    NoRoom,
    Closed,
}

impl From<NoRoom> for Tried {
    fn from(NoRoom: NoRoom) -> Self {
        Self::NoRoom
    }
}

/// What became of the record that a key has on disk.
#[derive(Default)]
struct OnDisk {
    had_slot: bool,
    /// The end of the record that says so.
    end: Option<Position>,
}

impl OnDisk {
    fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement::over(self.had_slot, self.end)
    }
}

impl Touches {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            clock: parts.clock.clone(),
            hasher: parts.hasher.clone(),
            counters: parts.counters.clone(),
            events: parts.events.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            pending: parts.pending.clone(),
            l1: parts.l1.clone(),
            disk: parts.disk.clone(),
            deadlines: parts.deadlines.clone(),
            acknowledger: parts.acknowledger.clone(),
            admission: Admission::new(parts),
            visibility: Visibility::new(parts),
            last_access: LastAccess::new(parts),
            expired: ExpiredSlots::new(parts),
            renewed: RenewedSlots::new(parts),
            removal: Removal::new(parts),
            eviction: Eviction::new(parts),
            reader: Arc::new(RecordReader::new(parts)),
        }
    }

    /// Whether there was a live entry.
    pub(crate) async fn touch(
        &self,
        namespace: NamespaceRef<'_>,
        key: &[u8],
        policy: &BlobCachePolicy,
    ) -> Result<bool, CacheError> {
        self.admission.check_open()?;
        self.admission.check_namespace(namespace.name)?;
        self.admission.check_key(key)?;
        let hashed = self.hasher.hashed(namespace.seed, key);
        let mut ticket = None;
        // Bounded: a read, a wait or a yield in each turn.
        loop {
            let found = self.find(namespace, hashed).await?;
            // Whoever has waited touches it now.
            let life = policy.lifetime(namespace.name, key, self.clock.timestamp());
            let touch = Touch { namespace, key: hashed, life };
            let tried = match found {
                Found::InMemory(entry) => self.touch_in_memory(touch, &entry).await,
                Found::OnDisk(entry) => {
                    self.touch_on_disk(touch, &entry).unwrap_or_else(Into::into)
                }
                Found::Absent => return Ok(false),
                Found::Moved => Tried::Moved,
            };
            match tried {
                Tried::Done(acknowledgement) => {
                    self.acknowledger.acknowledge(acknowledgement).await?;
                    return Ok(true);
                }
                Tried::Dead => return Ok(false),
                Tried::Lost(acknowledgement) => {
                    self.acknowledger.acknowledge(acknowledgement).await?;
                    return Ok(false);
                }
                Tried::Closed => return Err(CacheError::Closed),
                Tried::NoRoom => match self.disk.l2() {
                    Some(l2) => ticket = Some(l2.log.room(0, ticket).await),
                    None => yield_now().await,
                },
                Tried::Moved => yield_now().await,
            }
        }
    }

    async fn find(
        &self,
        namespace: NamespaceRef<'_>,
        key: HashedKey<'_>,
    ) -> Result<Found, CacheError> {
        if let Some(entry) = self.visibility.visible(namespace, key) {
            return Ok(Found::InMemory(entry));
        }
        if self.disk.is_off() {
            return Ok(Found::Absent);
        }
        let Some(generation) = self.namespaces.find(namespace.name) else {
            return Ok(Found::Absent);
        };
        let slot = generation.index().get(key.hash).filter(|slot| !slot.dead);
        let Some(slot) = slot else { return Ok(Found::Absent) };
        let bytes = key.bytes.into();
        match self.reader.read(&generation, (&bytes, key.hash), slot, Extent::Head).await {
            Ok(Some(Read::Entry(entry))) => {
                self.last_access.restore_from_either(&entry);
                Ok(Found::OnDisk(entry))
            }
            Ok(Some(Read::Other)) => Ok(Found::Absent),
            Ok(None) => Ok(Found::Moved),
            // Damaged records are gone, and so is everything on a tier that was turned off.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Found::Absent),
            Err(_) if self.disk.is_off() => Ok(Found::Absent),
            Err(error) => {
                self.admission.check_open()?;
                let context = "the entry to be touched cannot be read".to_owned();
                Err(CacheError::L2Io { context, source: error.into() })
            }
        }
    }

    async fn touch_in_memory(&self, touch: Touch<'_>, current: &Arc<Entry>) -> Tried {
        let mut renewed = current.renewed(&touch.life);
        self.renewed.begin(&mut renewed, &touch.life);
        renewed.charge = self.admission.charge(touch.key.bytes, &renewed.value, renewed.extras());
        let room = Room { bytes: renewed.charge, spare: current.charge };
        // It may always have the room of the present one.
        let (reservation, has_room) = if room.bytes > room.spare {
            let reserved = self.eviction.reserve(&current.generation, room, current.priority).await;
            let has_room = reserved.is_some();
            (reserved, has_room)
        } else {
            (None, true)
        };
        let renewed = Some(Arc::new(renewed)).filter(|_| has_room);
        let tried = self.replace(touch, current, renewed).unwrap_or_else(Into::into);
        drop(reservation);
        tried
    }

    /// `renewed`: None if memory has no room for it.
    fn replace(
        &self,
        touch: Touch<'_>,
        current: &Arc<Entry>,
        renewed: Option<Arc<Entry>>,
    ) -> Result<Tried, NoRoom> {
        let Touch { key, life, .. } = touch;
        let place = self.l1.lock_place(key.hash);
        let mut section = self.commit_lock.section();
        if section.is_closed() {
            return Ok(Tried::Closed);
        }
        if !place.entry().is_some_and(|held| Arc::ptr_eq(held, current)) {
            return Ok(Tried::Moved);
        }
        if !self.is_live(current) {
            return Ok(Tried::Dead);
        }
        let slot = current.generation.index().get(key.hash);
        let slot = slot.filter(|slot| current.is_at(slot.position) && !slot.is_tombstone());
        let on_disk = match slot {
            Some(slot) => self.record(touch, current, slot, &mut section)?,
            None => OnDisk::default(),
        };
        let is_below = on_disk.end.is_some() && slot.is_some_and(|slot| !slot.dead);
        let ends = renewed.as_ref().map(|renewed| {
            renewed.set_sequence(current.sequence());
            renewed.accessed_like(current);
            renewed.accessed(life.written);
            if current.is(Mark::LabelsAbove) {
                renewed.mark(Mark::LabelsAbove);
            }
            if current.hits.is_in_use() {
                renewed.hits.note();
            }
            renewed.ends()
        });
        let is_left = match renewed {
            Some(renewed) => Self::install(renewed, place, &mut section),
            None => {
                self.evict(place, is_below, &mut section);
                if !is_below {
                    return Ok(Tried::Lost(on_disk.acknowledgement()));
                }
                true
            }
        };
        if !is_left && !on_disk.had_slot {
            // It was evicted at this moment.
            return Ok(Tried::Moved);
        }
        self.finish(touch, section);
        // Bounded: one.
        ends.into_iter().for_each(|ends| self.deadlines.note_end(ends));
        self.events.tell(EntryChange::Touched, || About::of(current));
        Ok(Tried::Done(on_disk.acknowledgement()))
    }

    /// Puts the copy in the place of the entry. False if another caller has evicted that.
    fn install(renewed: Arc<Entry>, place: LockedPlace<'_>, section: &mut Section<'_>) -> bool {
        let (generation, charge) = (Arc::clone(&renewed.generation), renewed.charge);
        let ends = renewed.ends();
        let Some(replaced) = place.replace(renewed) else { return false };
        generation.grow(charge, section);
        generation.shrink(replaced.charge, section);
        generation.outlives(ends);
        true
    }

    /// Memory has no room for the copy.
    fn evict(&self, place: LockedPlace<'_>, is_below: bool, section: &mut Section<'_>) {
        let Some(removed) = place.remove() else { return };
        self.removal.release_accounting(&removed, None, section);
        self.counters.count(Event::Eviction);
        self.events.tell(EntryChange::Evicted { on_disk: is_below }, || About::of(&removed));
        self.counters.add(Event::Forgotten, u64::from(!is_below));
    }

    /// `read`: its head.
    fn touch_on_disk(&self, touch: Touch<'_>, read: &Arc<Entry>) -> Result<Tried, NoRoom> {
        let Touch { namespace, key, .. } = touch;
        let place = self.l1.lock_place(key.hash);
        let mut section = self.commit_lock.section();
        if section.is_closed() {
            return Ok(Tried::Closed);
        }
        if let Some(held) = place.entry() {
            let is_other = !held.is_of(namespace.name, key.bytes);
            let is_hidden = is_other || self.pending.matching(held).is_some();
            return Ok(if is_hidden { Tried::Dead } else { Tried::Moved });
        }
        let slot = read.generation.live_slot(key.hash, read.sequence());
        let Some(slot) = slot else { return Ok(Tried::Moved) };
        if self.pending.matching(read).is_some() {
            return Ok(Tried::Dead);
        }
        if !self.renewed.are_current(read) || !self.expired.restore(read) {
            return Ok(Tried::Moved);
        }
        if !self.is_live(read) {
            return Ok(Tried::Dead);
        }
        let on_disk = self.record(touch, read, slot, &mut section)?;
        if on_disk.end.is_none() {
            return Ok(Tried::Lost(on_disk.acknowledgement()));
        }
        self.finish(touch, section);
        let about = || About::on_disk(namespace.name, key.bytes, Some(slot));
        self.events.tell(EntryChange::Touched, about);
        Ok(Tried::Done(on_disk.acknowledgement()))
    }

    /// Whether an entry may be touched: what is stale before its time stays so.
    fn is_live(&self, entry: &Entry) -> bool {
        self.pending.matching(entry).is_none()
            && !entry.is(Mark::Expired)
            && !self.visibility.freshness(entry).is_expired()
    }

    /// Says on file which deadlines the record of a slot has, even if it is dead: it may be so in
    /// this process only.
    fn record(
        &self,
        touch: Touch<'_>,
        current: &Entry,
        slot: Slot,
        section: &mut Section<'_>,
    ) -> Result<OnDisk, NoRoom> {
        let Touch { key, life, .. } = touch;
        let generation = &current.generation;
        let shortened = slot.shortened || life.shortens(&current.life());
        let record = Record::Renewal(Renewal {
            namespace: generation.named(),
            hash: key.hash.0,
            position: slot.position,
            life,
            shortened,
        });
        let recorded = self.disk.record(&record, &Change::new(&record, 0, &[]))?;
        match recorded {
            Some(assigned) => {
                self.acknowledger.shadowed_until(assigned.end);
                section.sequence(Some(assigned.position.value()));
                let (life, of) = ((life, shortened), (key.hash, slot));
                if !slot.dead {
                    self.renewed.renew(generation, of, life, assigned.position, section);
                }
            }
            None => generation.mark_slot_dead(key.hash, slot, section),
        }
        Ok(OnDisk { had_slot: true, end: recorded.map(|assigned| assigned.end) })
    }

    fn finish(&self, touch: Touch<'_>, mut section: Section<'_>) {
        if failpoint(Failpoint::TouchVoidsFills) {
            let moment = section.moment();
            section.watermarks().key_mutated(touch.key.hash, moment);
        }
        self.counters.count(Event::Touch);
    }
}
