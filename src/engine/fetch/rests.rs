//! `Rests`: the keys whose refresh has failed a moment ago, or is being tried.
//!
//! A table of fixed size, in sets: of nine keys that rest in the same set, the one that rests for
//! the longest time is refreshed early. Each key rests by the cache's clock. Beside the entries,
//! because an entry on disk has no place for it.

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::key::KeyHash;

/// How long a key is not refreshed.
const REST: Duration = Duration::from_secs(1);

/// The low bits of a hash choose the set, the high ones are compared.
const SETS: usize = 1024;

const WAYS: usize = 8;

/// Milliseconds of the time at which a rest began.
const TIME_BITS: u32 = 44;

const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

/// The high bits of a key's hash above the time; 0 for none.
type Rest = AtomicU64;

/// In a line of the processor's cache.
#[derive(Default)]
#[repr(align(64))]
struct Set([Rest; WAYS]);

const _: () = assert!(size_of::<Set>() == 64);

pub(crate) struct Rests(Box<[Set]>);

impl Rests {
    pub(crate) fn new() -> Self {
        // Bounded: by the sets.
        Self(iter::repeat_with(Set::default).take(SETS).collect())
    }

    pub(crate) fn begin(&self, hash: KeyHash, now: Timestamp) {
        let begun = (hash.0 & !TIME_MASK) | millis(now);
        let set = self.set(hash);
        // Times of the future, from before the clock was set back, count as the oldest.
        let age = |rest: &&Rest| match rest.load(Ordering::Relaxed) {
            0 => u64::MAX,
            rest => millis(now).checked_sub(rest & TIME_MASK).unwrap_or(u64::MAX - 1),
        };
        // Bounded: by the ways.
        let own = set.iter().find(|rest| is_of(rest.load(Ordering::Relaxed), hash));
        if let Some(place) = own.or_else(|| set.iter().max_by_key(age)) {
            place.store(begun, Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self, hash: KeyHash) {
        // Bounded: by the ways.
        for rest in self.set(hash) {
            let begun = rest.load(Ordering::Relaxed);
            if is_of(begun, hash) {
                // A rest that another caller begins meanwhile stays.
                let order = Ordering::Relaxed;
                let _ = rest.compare_exchange(begun, 0, order, order);
            }
        }
    }

    /// A clock that was set back ends all rests.
    pub(crate) fn is_resting(&self, hash: KeyHash, now: Timestamp) -> bool {
        // Bounded: by the ways.
        self.set(hash).iter().any(|rest| {
            let begun = rest.load(Ordering::Relaxed);
            let since = millis(now).checked_sub(begun & TIME_MASK);
            is_of(begun, hash) && since.is_some_and(|since| u128::from(since) < REST.as_millis())
        })
    }

    fn set(&self, hash: KeyHash) -> &[Rest; WAYS] {
        // Only the low bits are wanted.
        #[allow(clippy::cast_possible_truncation)]
        let place = hash.0 as usize % SETS;
        &self.0[place].0
    }
}

fn is_of(rest: u64, hash: KeyHash) -> bool {
    rest != 0 && (rest ^ hash.0) & !TIME_MASK == 0
}

fn millis(time: Timestamp) -> u64 {
    (time.0 / 1_000_000) & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(millis * 1_000_000)
    }

    #[test]
    fn a_key_rests_for_a_second_and_alone() {
        let rests = Rests::new();
        let [one, same_set, other] = [3 << 50 | 7, 4 << 50 | 7, 3 << 50 | 8].map(KeyHash);
        assert!(!rests.is_resting(one, at(5000)));
        rests.begin(one, at(5000));
        assert!(rests.is_resting(one, at(5000)) && rests.is_resting(one, at(5999)));
        assert!(!rests.is_resting(one, at(6000)));
        assert!(!rests.is_resting(one, at(4999)), "the clock was set back");
        assert!(!rests.is_resting(same_set, at(5000)) && !rests.is_resting(other, at(5000)));
        rests.begin(same_set, at(5001));
        assert!(rests.is_resting(same_set, at(5001)) && rests.is_resting(one, at(5001)));
        rests.end(one);
        assert!(!rests.is_resting(one, at(5001)));
        assert!(rests.is_resting(same_set, at(5001)), "that of another key");
        rests.end(same_set);
        assert!(!rests.is_resting(same_set, at(5001)));
        rests.begin(one, Timestamp::NEVER);
        assert!(rests.is_resting(one, Timestamp::NEVER));
    }

    #[test]
    fn the_oldest_rest_of_a_set_makes_room() {
        let (rests, key) = (Rests::new(), |number: u64| KeyHash((number + 1) << 50 | 7));
        let count = WAYS as u64;
        for number in 0..count {
            rests.begin(key(number), at(5000 + number));
        }
        let resting = |now| (0..=count).filter(|&it| rests.is_resting(key(it), at(now))).count();
        assert_eq!(resting(5100), WAYS);
        // Again: it takes no other place.
        rests.begin(key(0), at(5100));
        assert_eq!(resting(5100), WAYS);
        rests.begin(key(count), at(5101));
        assert!(rests.is_resting(key(count), at(5101)) && rests.is_resting(key(0), at(5101)));
        assert!(!rests.is_resting(key(1), at(5101)), "the oldest");
        assert_eq!(resting(5101), WAYS);
        // A time of the future goes before older ones.
        let rests = Rests::new();
        for number in 0..count {
            rests.begin(key(number), at(if number == 3 { 9000 } else { 5000 + number }));
        }
        rests.begin(key(count), at(5102));
        let still = (0..count).filter(|&it| rests.is_resting(key(it), at(5102))).count();
        assert!(rests.is_resting(key(count), at(5102)) && still == WAYS - 1);
    }

    /// A thousand hot pages of an origin that is down are asked for once a second, each.
    #[test]
    fn a_thousand_keys_rest_at_a_time() {
        let rests = Rests::new();
        let keys: Vec<KeyHash> = (0..1000u64)
            .map(|number| KeyHash(xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())))
            .collect();
        keys.iter().for_each(|&key| rests.begin(key, at(5000)));
        assert!(keys.iter().all(|&key| rests.is_resting(key, at(5900))));
    }
}
