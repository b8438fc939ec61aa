//! Evictions of a tiny cache: found after each operation and compared with the cache's own counts
//! of evictions and expirations, so that no other loss passes for one.

use futures::executor::block_on;
use tamis::CachePresence;

use crate::driver::Driver;
use crate::operation::{Operation, Place};
use crate::seen::Counts;

impl Driver<'_> {
    /// Removes entries from the model that the last operation evicted. `written` is the place of a
    /// put, and whether its slot was occupied before.
    pub(crate) fn settle_evictions(&mut self, written: Option<(Place, bool)>, shown: &Operation) {
        let (found, counts) = (Counts::from(&self.cache.stats()), &mut self.model.counts);
        let evicted = found.evictions - counts.evictions;
        // Expired entries make room, too, and are counted as expired.
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
        // The entry that the put replaces may have been evicted for it; both are gone then.
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

    /// Whether the cache has lost an entry of the model.
    fn is_lost(&mut self, place: &Place) -> bool {
        let is_gone = self.model.find(place).is_some_and(|entry| entry.is_gone(self.model.now));
        if !is_gone {
            return self.cache.exists(place.namespace, &place.key) == CachePresence::Absent;
        }
        // An expired entry is never returned, but finding it is counted.
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

    /// Victims come from the lowest priority in use. The entry just put came after them.
    fn check_priorities(&self, lost: &[Place], written: Option<&Place>, shown: &Operation) {
        let priority = |place: &Place| {
            self.model.find(place).map(|entry| entry.policy.priority.unwrap_or(128))
        };
        // Expired entries may be removed whatever their priority.
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
