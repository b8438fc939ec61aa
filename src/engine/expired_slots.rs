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
use crate::l2::{ExpiredRecord, Slot};
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
    /// stale before its time already. One of a namespace that was made stale as a whole needs no
    /// room in the table.
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
        if generation.expired_since(sequence).is_some_and(|of_all| of_all <= since) {
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

    /// Since when the record of a mutation is stale, if it is live and stale before its time.
    pub(crate) fn since(
        &self,
        generation: &Generation,
        hash: KeyHash,
        sequence: Sequence,
    ) -> Option<Timestamp> {
        let slot = generation.live_slot(hash, sequence)?;
        self.since_of(generation, (hash, sequence), slot)
    }

    fn since_of(
        &self,
        generation: &Generation,
        (hash, sequence): (KeyHash, Sequence),
        slot: Slot,
    ) -> Option<Timestamp> {
        let of_slot = slot.expired.then(|| {
            let known = self.expiry_times.expiry(hash, slot.position.value());
            known.unwrap_or(Timestamp(0))
        });
        of_slot.into_iter().chain(generation.expired_since(sequence)).min()
    }

    /// An entry that was read from disk is as stale as its record. False if that is not the live
    /// one of its hash any more. One look at the slot tells both: a mark leaves with its slot, and
    /// after a second look the entry would be answered as fresh.
    pub(crate) fn restore(&self, entry: &Entry) -> bool {
        let mutation = (entry.hash, entry.sequence());
        let Some(slot) = entry.generation.live_slot(mutation.0, mutation.1) else { return false };
        let since = self.since_of(&entry.generation, mutation, slot);
        since.inspect(|since| _ = entry.expire(*since));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BlobCacheConfig;
    use crate::entry::Extras;
    use crate::key::{HashedKey, KeyHasher};
    use crate::l2::{GenerationNumber, Position};
    use crate::modes::L1Admission;
    use crate::policy::{Freshness, Lifetime};
    use crate::timer::Timer;

    fn read(generation: &Arc<Generation>, hash: KeyHash, at: Position) -> Entry {
        let (written, expires) = (Timestamp(0), Timestamp::NEVER);
        let life = Lifetime { written, expires, stale_serve: 100, idle_ttl: u64::MAX };
        let extras = Extras::new(Default::default(), Default::default(), None, &life);
        let key = HashedKey { bytes: b"k", hash };
        let entry = Entry::new(Arc::clone(generation), key, &life, (0, L1Admission::Auto), extras);
        entry.set_sequence(Sequence(at.value()));
        entry
    }

    /// A record is read, and expired before or after; then its slot goes to a newer one, or the
    /// namespace is flushed. The mark has left with the slot, so the entry must not be answered.
    #[test]
    fn an_entry_whose_slot_has_another_record_is_not_answered_as_fresh() {
        let config = BlobCacheConfig::default();
        let parts = Parts::new(config, KeyHasher::random(64), None, &Timer::Process);
        let slots = ExpiredSlots::new(&parts);
        let begun = parts.namespaces.find_or_begin("a", &parts.commit_lock, || GenerationNumber(1));
        let (generation, hash) = (begun.unwrap(), KeyHash(5));
        let [first, second] = [1 << 10, 1 << 11].map(Position::from_multiple);
        let slot = Slot::new(first, 1);
        generation.set_slot(hash, slot, None);
        assert!(slots.restore(&read(&generation, hash, first)));
        let mutation = (hash, Sequence(first.value()));
        let expire = || {
            let mut section = parts.commit_lock.section();
            slots.expire(&generation, mutation, Timestamp(7), &mut section)
        };
        assert_eq!([expire(), expire()], [true, false]);
        let entry = read(&generation, hash, first);
        assert!(slots.restore(&entry));
        assert!(matches!(entry.freshness(Timestamp(3)), Freshness::Stale(_)));
        generation.set_slot(hash, Slot::new(second, 1), generation.index().get(hash));
        assert!(!slots.restore(&read(&generation, hash, first)));
        assert!(slots.restore(&read(&generation, hash, second)));
        let mut section = parts.commit_lock.section();
        generation.mark_dead(hash, Sequence(second.value()), &mut section);
        assert!(!slots.restore(&read(&generation, hash, second)));
    }
}
