//! `RenewedSlots`: which deadlines count for the record of a slot, once it was touched.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::commit_lock::Section;
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::l2::{Position, RenewedRecord, Slot};
use crate::namespace::Generation;
use crate::policy::Lifetime;
use crate::renewals::Renewals;
use crate::sequence::Sequence;

pub(crate) struct RenewedSlots {
    renewals: Arc<Renewals>,
    budget: Arc<IndexBudget>,
    /// Without a spawner nobody asks when the time of an entry began.
    has_spawner: bool,
}

impl RenewedSlots {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            renewals: parts.renewals.clone(),
            budget: parts.budget.clone(),
            has_spawner: parts.config.spawner.is_some(),
        }
    }

    /// A live record has that life from a touch on, whose record is at `touched_at`. `shortened`:
    /// it may have a deadline of its own that is later.
    pub(crate) fn renew(
        &self,
        generation: &Generation,
        (hash, slot): (KeyHash, Slot),
        (life, shortened): (Lifetime, bool),
        touched_at: Position,
        section: &mut Section<'_>,
    ) {
        self.want_room(&life, section);
        // First the deadlines: a reader that sees the mark finds them.
        self.renewals.note((hash, slot.position), life, touched_at.value());
        if shortened && !slot.shortened {
            generation.mark_shortened(hash, slot, section);
        }
        let ends = life.ends(life.written);
        generation.outlives(ends);
        generation.note_end_on_disk(ends);
    }

    /// The same for a record that an open has found to be touched.
    pub(crate) fn restore_slot(
        &self,
        generation: &Generation,
        record: RenewedRecord,
        section: &mut Section<'_>,
    ) {
        let RenewedRecord { hash, position, life, touched_at } = record;
        if generation.live_slot(hash, Sequence(position.value())).is_some() {
            self.want_room(&life, section);
            self.renewals.note((hash, position), life, touched_at.value());
        }
    }

    /// Room for its deadlines, and for accesses if an idle ttl is one: the touch may be the first
    /// to give one.
    fn want_room(&self, life: &Lifetime, section: &mut Section<'_>) {
        self.budget.want_renewals(section);
        if life.idle_ttl < u64::MAX && !self.budget.has_room_for_accesses() {
            self.budget.want_accesses(section);
        }
    }

    /// The life of a slot's record from the last touch on, if there was any.
    pub(crate) fn of(&self, hash: KeyHash, slot: Slot) -> Option<Lifetime> {
        self.renewals.of(hash, slot)
    }

    /// Tells an entry of a touch that has given it that life: one with a ttl alone takes memory for
    /// that.
    pub(crate) fn begin(&self, entry: &mut Entry, life: &Lifetime) {
        if self.has_spawner && life.expires != Timestamp::NEVER {
            entry.begin_at(life.written);
        }
    }

    /// Whether an entry that was read from disk has the deadlines that count by now.
    pub(crate) fn are_current(&self, read: &Entry) -> bool {
        let slot = read.generation.live_slot(read.hash, read.sequence());
        slot.is_none_or(|slot| self.renewals.are_those_of(read, slot))
    }
}
