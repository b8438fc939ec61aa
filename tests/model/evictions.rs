//! What a tiny cache has forgotten: found out after each operation, and held against its own
//! counts of evictions and of what had expired, so that nothing else can pass for one.

use futures::executor::block_on;
use tamis::CachePresence;

use crate::driver::Driver;
use crate::operation::{Operation, Place};
use crate::seen::Counts;

impl Driver<'_> {
    /// Takes out of the model what was evicted in the last operation. `written` is the place of a
    /// put, and whether its slot was taken before.
    pub(crate) fn settle_evictions(&mut self, written: Option<(Place, bool)>, shown: &Operation) {
        let (found, counts) = (Counts::from(&self.cache.stats()), &mut self.model.counts);
        let evicted = found.evictions - counts.evictions;
        // What has expired makes room, too, and is counted as that.
        let expired = found.expirations - counts.expirations;
        if evicted + expired == 0 {
            return;
        }
        assert!(self.setting.is_tiny, "{evicted} evictions where there is room, in {shown:?}");
        (counts.evictions, counts.expirations) = (found.evictions, found.expirations);
        counts.idle_expirations = found.idle_expirations;
        let places: Vec<Place> =
            self.model.entries.iter().map(|entry| entry.put.place.clone()).collect();
        let lost: Vec<Place> = places.into_iter().filter(|place| self.is_lost(place)).collect();
        // What the put was to replace may have been evicted for it; both are gone then.
        let replaced = u64::from(written.as_ref().is_some_and(|(_, was_taken)| *was_taken));
        let number = lost.len() as u64;
        let is_gone = |place: &&Place| {
            self.model.find(place).is_some_and(|entry| entry.is_gone(self.model.now))
        };
        let gone = lost.iter().filter(is_gone).count() as u64;
        assert!(
            (number..=number + replaced).contains(&(evicted + expired))
                && expired <= gone + replaced,
            "{evicted} evictions and {expired} expirations, but {lost:?} are lost after {shown:?}"
        );
        self.check_priorities(&lost, written.map(|(place, _)| place).as_ref(), shown);
        self.model.entries.retain(|entry| !lost.contains(&entry.put.place));
    }

    /// Whether the cache has nothing of an entry that the model has.
    fn is_lost(&mut self, place: &Place) -> bool {
        let is_gone = self.model.find(place).is_some_and(|entry| entry.is_gone(self.model.now));
        if !is_gone {
            return self.cache.exists(place.namespace, &place.key) == CachePresence::Absent;
        }
        // An expired entry cannot be seen, but meeting it is counted.
        let before = Counts::from(&self.cache.stats());
        assert!(block_on(self.cache.get(place.namespace, &place.key)).is_none());
        let after = Counts::from(&self.cache.stats());
        if after.expirations > before.expirations {
            assert_eq!(self.model.get(place), None);
            return false;
        }
        self.model.counts.misses += 1;
        true
    }

    /// Victims come from the lowest priority in use. What has just been put came after them.
    fn check_priorities(&self, lost: &[Place], written: Option<&Place>, shown: &Operation) {
        let priority = |place: &Place| {
            self.model.find(place).map(|entry| entry.policy.priority.unwrap_or(128))
        };
        // What had expired may leave whatever its priority.
        let is_live = |place: &&Place| {
            self.model.find(place).is_some_and(|entry| !entry.is_gone(self.model.now))
        };
        let highest_lost = lost.iter().filter(is_live).filter_map(priority).max();
        let kept = self.model.entries.iter().map(|entry| &entry.put.place);
        let kept = kept.filter(|place| !lost.contains(place) && Some(*place) != written);
        let lowest_kept = kept.filter_map(priority).min();
        if let (Some(lost), Some(kept)) = (highest_lost, lowest_kept) {
            assert!(lost <= kept, "one of {lost} left while one of {kept} was there, in {shown:?}");
        }
    }
}
