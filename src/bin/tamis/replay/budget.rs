//! `Budget`: a size of the cache, divided between its tiers.

use super::super::cache_size::CacheSize;
use super::super::failure::Failure;
use super::super::file_system::store_room;
use super::super::output::size;
use super::arguments::Replay;

/// The least memory of a cache.
const L1_BYTES_MIN: u64 = 64 << 10;

/// The least file of a disk tier: four segments of the least size.
const L2_BYTES_MIN: u64 = 256 << 10;

const L1_SHARE_DEFAULT: u64 = 10;

/// Of the working set, in percent, if nothing is asked for.
const DEFAULTS: [u64; 6] = [1, 2, 5, 10, 20, 40];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    pub(super) l1_bytes: u64,
    /// None for memory alone.
    pub(super) l2_bytes: Option<u64>,
}

impl Budget {
    /// All that are asked for, the smallest first, for a working set.
    pub(super) fn all(asked: &Replay, working_set: u64) -> Result<Vec<Self>, Failure> {
        let has_disk = asked.l2.is_some();
        let least = if has_disk { L1_BYTES_MIN + L2_BYTES_MIN } else { L1_BYTES_MIN };
        let defaults = || DEFAULTS.map(|percent| CacheSize::parts(percent, 100)).to_vec();
        let given = if asked.budgets.is_empty() { defaults() } else { asked.budgets.clone() };
        let mut sizes: Vec<_> = given.iter().map(|size| size.of(working_set)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        if asked.budgets.is_empty() {
            sizes.retain(|bytes| *bytes >= least);
        }
        let smallest = sizes.first().copied();
        if smallest.is_none_or(|bytes| bytes < least) {
            let is = smallest
                .map_or("every usual part".to_owned(), |it| format!("a budget of {}", size(it)));
            return Err(Failure::usage(format!(
                "{is} of a working set of {} is too small: a cache has at least {}",
                size(working_set),
                size(least)
            )));
        }
        let share = asked.l1_share.unwrap_or(L1_SHARE_DEFAULT);
        Ok(sizes.into_iter().map(|bytes| Self::new(bytes, has_disk.then_some(share))).collect())
    }

    /// Not less than both tiers need.
    fn new(bytes: u64, l1_share: Option<u64>) -> Self {
        let Some(share) = l1_share else { return Self { bytes, l1_bytes: bytes, l2_bytes: None } };
        let of_memory = u64::try_from(u128::from(bytes) * u128::from(share) / 100);
        let of_memory = of_memory.unwrap_or(u64::MAX);
        let l1_bytes = of_memory.clamp(L1_BYTES_MIN, bytes - L2_BYTES_MIN);
        Self { bytes, l1_bytes, l2_bytes: Some(bytes - l1_bytes) }
    }

    /// What the largest stores take that there are at one time.
    pub(super) fn room(budgets: &[Self], jobs: usize) -> u64 {
        let largest = budgets.iter().rev().take(jobs).filter_map(|budget| budget.l2_bytes);
        largest.fold(0, |sum, bytes| sum.saturating_add(store_room(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tiers_have_what_they_need_and_the_budget_together() {
        for bytes in [L1_BYTES_MIN + L2_BYTES_MIN, 1 << 20, 1 << 40, u64::MAX] {
            for share in [1, 10, 99] {
                let budget = Budget::new(bytes, Some(share));
                let l2_bytes = budget.l2_bytes.unwrap();
                assert!(budget.l1_bytes >= L1_BYTES_MIN && l2_bytes >= L2_BYTES_MIN, "{budget:?}");
                assert_eq!(budget.l1_bytes + l2_bytes, bytes);
            }
        }
        let budget = Budget::new(100 << 20, Some(10));
        assert_eq!((budget.l1_bytes, budget.l2_bytes), (10 << 20, Some(90 << 20)));
    }

    #[test]
    fn room_is_that_of_the_largest_stores_at_one_time() {
        let budgets = [1_u64, 2, 4].map(|mib| Budget::new(mib << 20, Some(10)));
        let file = |place: usize| budgets[place].l2_bytes.unwrap();
        let both = Budget::room(&budgets, 2);
        assert!(both > file(1) + file(2) && both < file(0) + file(1) + file(2) + (2 << 20));
        assert_eq!(Budget::room(&[Budget::new(1 << 20, None)], 9), 0);
    }
}
