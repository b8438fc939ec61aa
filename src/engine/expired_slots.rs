//! `ExpiredSlots`: records that are stale before their time, and since when.
//! The slot of such a record is marked; a table of fixed size has the time, and a namespace that
//! was made stale as a whole has its own. A record that is marked and whose time is not known
//! any more is gone.

use std::sync::Arc;

use crate::access_times::AccessTimes;
use crate::clock::Timestamp;
use crate::commit_lock::Section;
use crate::engine::index_budget::IndexBudget;
use crate::engine::parts::Parts;
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::l2::ExpiredRecord;
use crate::namespace::Generation;
use crate::sequence::Sequence;

pub(crate) struct ExpiredSlots {
    expiry_times: Arc<AccessTimes>,
    budget: Arc<IndexBudget>,
}

impl ExpiredSlots {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self { expiry_times: parts.expiry_times.clone(), budget: parts.budget.clone() }
    }

    /// The record of a mutation is stale since then. False if it has none that is live, or was
    /// stale before its time already.
    pub(crate) fn expire(
        &self,
        generation: &Generation,
        (hash, sequence): (KeyHash, Sequence),
        since: Timestamp,
        section: &mut Section<'_>,
    ) -> bool {
        let Some(slot) = generation.live_slot(hash, sequence) else { return false };
        if slot.expired {
            self.expiry_times.note_earlier_expiry(hash, slot.position.value(), since);
            return false;
        }
        self.budget.want_expiries(section);
        // First the time: a reader that sees the mark finds it.
        self.expiry_times.note_expiry(hash, slot.position.value(), since);
        generation.mark_expired(hash, slot, section)
    }

    /// The same for a record that an open has found to be stale.
    pub(crate) fn restore_slot(
        &self,
        generation: &Generation,
        record: ExpiredRecord,
        section: &mut Section<'_>,
    ) {
        let (hash, sequence) = (record.hash, Sequence(record.position.value()));
        if let Some(slot) = generation.live_slot(hash, sequence).filter(|slot| slot.expired) {
            self.budget.want_expiries(section);
            self.expiry_times.note_expiry(hash, sequence.0, record.since);
            generation.count_expired(slot, section);
        }
    }

    /// Since when the record of a mutation is stale, if it is stale before its time.
    pub(crate) fn since(
        &self,
        generation: &Generation,
        hash: KeyHash,
        sequence: Sequence,
    ) -> Option<Timestamp> {
        let slot = generation.index().get(hash);
        let marked = slot.filter(|slot| slot.expired && slot.position.value() == sequence.0);
        let of_slot = marked.map(|slot| {
            let known = self.expiry_times.expiry(hash, slot.position.value());
            known.unwrap_or(Timestamp(0))
        });
        of_slot.into_iter().chain(generation.expired_since(sequence)).min()
    }

    /// An entry that was read from disk is as stale as its record.
    pub(crate) fn restore(&self, entry: &Entry) {
        if let Some(since) = self.since(&entry.generation, entry.hash, entry.sequence()) {
            entry.expire(since);
        }
    }
}
