//! `Ledger`: what a task knows of the keys that it alone puts.
//!
//! Other tasks may remove an entry at any time, and the cache may forget it, so a miss is always
//! right. A hit must be the newest value. A put that the cache may refuse (at a read point, or of a
//! fetched value), or whose future is dropped, leaves several values possible, until a hit decides.

/// The number of a put that stores an absence. Others are numbered from 1.
pub(crate) const ABSENT: u64 = u64::MAX;

/// The most puts that are told apart.
const POSSIBLE_MAX: usize = 4;

/// The puts whose value a key may have. Of one size from the beginning on, for the sake of the
/// memory that is measured.
#[derive(Debug, Clone, Copy, Default)]
struct Possible {
    puts: [u64; POSSIBLE_MAX],
    count: usize,
    /// There were more: each value is taken for right, until a put is certain.
    is_unknown: bool,
    /// All of them were made stale before their time.
    is_expired: bool,
}

impl Possible {
    fn only(put: u64) -> Self {
        Self { puts: [put, 0, 0, 0], count: 1, ..Self::default() }
    }
}

pub(crate) struct Ledger(Vec<Possible>);

impl Ledger {
    pub(crate) fn new(keys: u32) -> Self {
        // Written, so that its pages are there.
        Self(
            (0..keys)
                .map(|key| Possible { puts: [u64::from(key); 4], ..Possible::default() })
                .collect(),
        )
    }

    fn of(&mut self, number: u32) -> &mut Possible {
        &mut self.0[number as usize]
    }

    /// The put has taken effect.
    pub(crate) fn put(&mut self, number: u32, put: u64) {
        *self.of(number) = Possible::only(put);
    }

    /// The put has taken effect, or has not.
    pub(crate) fn may_have_put(&mut self, number: u32, put: u64) {
        let possible = self.of(number);
        possible.is_expired = false;
        if let Some(place) = possible.puts.get_mut(possible.count) {
            *place = put;
            possible.count += 1;
        } else {
            possible.is_unknown = true;
        }
    }

    pub(crate) fn removed(&mut self, number: u32) {
        *self.of(number) = Possible::default();
    }

    /// What it has is stale from now on: no touch makes it fresh.
    pub(crate) fn expired(&mut self, number: u32) {
        self.of(number).is_expired = true;
    }

    /// A hit, stale or not, has the value of `put`. False if it must not.
    pub(crate) fn found(&mut self, number: u32, put: u64, is_stale: bool) -> bool {
        let possible = self.of(number);
        let is_possible = possible.is_unknown || possible.puts[..possible.count].contains(&put);
        let is_marked = is_stale || !possible.is_expired;
        if is_possible {
            *possible = Possible { is_expired: possible.is_expired, ..Possible::only(put) };
        }
        is_possible && is_marked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_value_is_right_and_a_refused_put_leaves_two() {
        let mut ledger = Ledger::new(2);
        assert!(!ledger.found(1, 1, false));
        ledger.put(1, 1);
        ledger.put(1, 2);
        assert!(!ledger.found(1, 1, false) && ledger.found(1, 2, false));
        ledger.may_have_put(1, 3);
        assert!(ledger.found(1, 2, false), "it was refused");
        assert!(!ledger.found(1, 3, false), "and cannot come later");
        ledger.may_have_put(1, 4);
        assert!(ledger.found(1, 4, false) && !ledger.found(1, 2, false));
        ledger.removed(1);
        assert!(!ledger.found(1, 4, false) && !ledger.found(0, 1, false));
        (5..10).for_each(|put| ledger.may_have_put(1, put));
        assert!(ledger.found(1, 9, false) && !ledger.found(1, 8, false), "a hit decides");
    }

    #[test]
    fn what_was_made_stale_is_marked_as_such_until_the_next_put() {
        let mut ledger = Ledger::new(1);
        ledger.put(0, 1);
        ledger.expired(0);
        assert!(ledger.found(0, 1, true) && !ledger.found(0, 1, false));
        assert!(ledger.found(0, 1, true), "and stays so");
        ledger.may_have_put(0, 2);
        assert!(ledger.found(0, 2, false) && !ledger.found(0, 1, true));
        ledger.expired(0);
        ledger.put(0, 3);
        assert!(ledger.found(0, 3, false));
    }
}
