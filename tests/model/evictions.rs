//! Evictions of a tiny cache: found after each operation and compared with the cache's own counts
//! of evictions and expirations, so that no other loss passes for one.

use futures::executor::block_on;
use tamis::CachePresence;

use crate::driver::Driver;
use crate::operation::{FullKey, Operation};
use crate::seen::Counts;

impl Driver<'_> {
    /// Removes entries from the model that the last operation evicted. `written` is the key of a
    /// put, and whether its slot was occupied before.
    pub(crate) fn settle_evictions(&mut self, written: Option<(FullKey, bool)>, shown: &Operation) {
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
        let full_keys: Vec<FullKey> =
            self.model.entries.iter().map(|entry| entry.put.full_key.clone()).collect();
        let lost: Vec<FullKey> =
            full_keys.into_iter().filter(|full_key| self.is_lost(full_key)).collect();
        // The entry that the put replaces may have been evicted for it; both are gone then.
        let replaced = u64::from(written.as_ref().is_some_and(|(_, was_taken)| *was_taken));
        let number = lost.len() as u64;
        let is_gone = |full_key: &&FullKey| {
            self.model.find(full_key).is_some_and(|entry| entry.is_gone(self.model.now))
        };
        let gone = lost.iter().filter(is_gone).count() as u64;
        assert!(
            (number..=number + replaced).contains(&(evicted + expired))
                && expired <= gone + replaced,
            "{evicted} evictions and {expired} expirations, but {lost:?} are lost after {shown:?}"
        );
        self.check_priorities(&lost, written.map(|(full_key, _)| full_key).as_ref(), shown);
        self.model.entries.retain(|entry| !lost.contains(&entry.put.full_key));
    }

    /// Whether the cache has lost an entry of the model.
    fn is_lost(&mut self, full_key: &FullKey) -> bool {
        let is_gone = self.model.find(full_key).is_some_and(|entry| entry.is_gone(self.model.now));
        if !is_gone {
            return self.cache.exists(full_key.namespace, &full_key.key) == CachePresence::Absent;
        }
        // An expired entry is never returned, but finding it is counted.
        let before = Counts::from(&self.cache.stats());
        assert!(block_on(self.cache.get(full_key.namespace, &full_key.key)).is_none());
        let after = Counts::from(&self.cache.stats());
        if after.expirations > before.expirations {
            assert_eq!(self.model.get(full_key), None);
            return false;
        }
        self.model.counts.misses += 1;
        true
    }

    /// Victims come from the lowest priority in use. The entry just put came after them.
    fn check_priorities(&self, lost: &[FullKey], written: Option<&FullKey>, shown: &Operation) {
        let priority = |full_key: &FullKey| {
            self.model.find(full_key).map(|entry| entry.policy.priority.unwrap_or(128))
        };
        // Expired entries may be removed whatever their priority.
        let is_live = |full_key: &&FullKey| {
            self.model.find(full_key).is_some_and(|entry| !entry.is_gone(self.model.now))
        };
        let highest_lost = lost.iter().filter(is_live).filter_map(priority).max();
        let kept = self.model.entries.iter().map(|entry| &entry.put.full_key);
        let kept = kept.filter(|full_key| !lost.contains(full_key) && Some(*full_key) != written);
        let lowest_kept = kept.filter_map(priority).min();
        if let (Some(lost), Some(kept)) = (highest_lost, lowest_kept) {
            assert!(lost <= kept, "one of {lost} left while one of {kept} was there, in {shown:?}");
        }
    }
}
