//! `Rests`: the keys whose refresh has failed a moment ago, or is being tried.
//!
//! A table of fixed size: the rest of a key may be cut short by that of another one, and each key
//! rests by the cache's clock. Beside the entries, because an entry on disk has no place for it.

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::key::KeyHash;

/// How long a key is not refreshed.
const REST: Duration = Duration::from_secs(1);

/// The low bits of a hash choose the slot, the high ones are compared.
const SLOTS: usize = 512;

/// Milliseconds of the time at which a rest began.
const TIME_BITS: u32 = 44;

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

pub(crate) struct Rests(Box<[AtomicU64]>);

impl Rests {
    pub(crate) fn new() -> Self {
        // Bounded: by the slots.
        Self(iter::repeat_with(AtomicU64::default).take(SLOTS).collect())
    }

    pub(crate) fn begin(&self, hash: KeyHash, now: Timestamp) {
        let begun = (hash.0 & !TIME_MASK) | millis(now);
        self.slot(hash).store(begun, Ordering::Relaxed);
    }

    pub(crate) fn end(&self, hash: KeyHash) {
        let slot = self.slot(hash);
        let begun = slot.load(Ordering::Relaxed);
        if (begun ^ hash.0) & !TIME_MASK == 0 {
            // A rest that another caller begins meanwhile stays.
            let order = Ordering::Relaxed;
            let _ = slot.compare_exchange(begun, 0, order, order);
        }
    }

    /// A clock that was set back ends all rests.
    pub(crate) fn is_resting(&self, hash: KeyHash, now: Timestamp) -> bool {
        let begun = self.slot(hash).load(Ordering::Relaxed);
        let is_of = begun != 0 && (begun ^ hash.0) & !TIME_MASK == 0;
        let since = millis(now).checked_sub(begun & TIME_MASK);
        is_of && since.is_some_and(|since| u128::from(since) < REST.as_millis())
    }

    fn slot(&self, hash: KeyHash) -> &AtomicU64 {
        // Only the low bits are wanted.
        #[allow(clippy::cast_possible_truncation)]
        let place = hash.0 as usize % SLOTS;
        &self.0[place]
    }
}

fn millis(time: Timestamp) -> u64 {
    (time.0 / 1_000_000) & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_rests_for_a_second_and_alone() {
        let (rests, at) = (Rests::new(), |millis: u64| Timestamp(millis * 1_000_000));
        let [one, same_slot, other] = [3 << 50 | 7, 4 << 50 | 7, 3 << 50 | 8].map(KeyHash);
        assert!(!rests.is_resting(one, at(5000)));
        rests.begin(one, at(5000));
        assert!(rests.is_resting(one, at(5000)) && rests.is_resting(one, at(5999)));
        assert!(!rests.is_resting(one, at(6000)));
        assert!(!rests.is_resting(one, at(4999)), "the clock was set back");
        assert!(!rests.is_resting(same_slot, at(5000)) && !rests.is_resting(other, at(5000)));
        rests.begin(same_slot, at(5001));
        assert!(rests.is_resting(same_slot, at(5001)) && !rests.is_resting(one, at(5001)));
        rests.end(one);
        assert!(rests.is_resting(same_slot, at(5001)), "that of another key");
        rests.end(same_slot);
        assert!(!rests.is_resting(same_slot, at(5001)));
        rests.begin(one, Timestamp::NEVER);
        assert!(rests.is_resting(one, Timestamp::NEVER));
    }
}
