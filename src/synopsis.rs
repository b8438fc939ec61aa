//! `Synopsis`: a filter of the key hashes that the disk tier may hold.
//!
//! Bloom filters over the hashes of one namespace's index. About one percent of absent hashes get a
//! false "maybe"; a present hash never gets a "no", because it is inserted here before the index.
//!
//! A full filter gets a second one beside it, of twice its size, so that no caller waits for a
//! rebuild. A background task then replaces both by one of the right size, built from the index; it
//! does the same when many hashes were removed, which a filter cannot forget. During the rebuild
//! new hashes are inserted in the old filters and the new one.

use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bloomfilter::Bloom;
use parking_lot::RwLock;

use crate::key::KeyHash;
use crate::meter;

/// Rate of one full filter; there are at most two before a rebuild.
const FALSE_POSITIVES: f64 = 0.005;

const HASHES_MIN: usize = 64;

#[derive(Default)]
pub(crate) struct Synopsis {
    state: RwLock<State>,
    /// Changed under the lock.
    needs_rebuild: AtomicBool,
    /// Bytes of all filters. Changed under the lock.
    bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    filters: Vec<Filter>,
    /// The index holds hashes that the filters lack: every answer is "maybe".
    is_blind: bool,
    next: Option<Filter>,
    gone: usize,
    /// Hashes removed since `next` was begun.
    gone_since: usize,
}

struct Filter {
    bloom: Bloom<u64>,
    hashes: usize,
    hashes_max: usize,
}

impl Synopsis {
    /// The synopsis of an index whose hashes were not inserted yet.
    pub(crate) fn blind() -> Self {
        let state = State { is_blind: true, ..State::default() };
        Self { state: RwLock::new(state), needs_rebuild: true.into(), bytes: 0.into() }
    }

    /// False if the hash certainly has no slot.
    pub(crate) fn may_hold(&self, hash: KeyHash) -> bool {
        let state = self.state.read();
        // Bounded: by the filters, each twice as large as the one before.
        state.is_blind || state.filters.iter().any(|filter| filter.bloom.check(&hash.0))
    }

    /// Inserts a hash; called before it gets a new slot.
    pub(crate) fn insert(&self, hash: KeyHash) {
        let mut state = self.state.write();
        if state.filters.last().is_none_or(Filter::is_full) {
            let hashes_max = state.filters.last().map_or(HASHES_MIN, |last| 2 * last.hashes_max);
            // Bounded: one.
            state.filters.extend(Filter::new(hashes_max));
            self.weigh(&state);
        }
        let State { filters, next, is_blind, .. } = &mut *state;
        match filters.last_mut() {
            Some(filter) => filter.set(hash),
            // No filter could be allocated.
            None => *is_blind = true,
        }
        if let Some(next) = next {
            next.set(hash);
        }
        self.judge(&state);
    }

    pub(crate) fn forget(&self) {
        let mut state = self.state.write();
        state.gone += 1;
        state.gone_since += 1;
        self.judge(&state);
    }

    /// Whether it needs a rebuild. One load.
    pub(crate) fn needs_rebuild(&self) -> bool {
        self.needs_rebuild.load(Ordering::Relaxed)
    }

    fn judge(&self, state: &State) {
        // Bounded: by the filters, each twice as large as the one before.
        let hashes: usize = state.filters.iter().map(|filter| filter.hashes).sum();
        let is_stale = state.gone > HASHES_MIN + hashes / 3;
        // More hashes may have been inserted during a rebuild than it was sized for.
        // Bounded: by the filters.
        let is_overfull = state.filters.iter().any(|filter| filter.hashes > filter.hashes_max);
        let needs_rebuild = state.is_blind || state.filters.len() > 1 || is_stale || is_overfull;
        self.needs_rebuild.store(needs_rebuild && state.next.is_none(), Ordering::Relaxed);
    }

    /// Begins a rebuild for an index of `hashes`, with room for half as many more. From now on it
    /// must be told all hashes of the index, and no caller may be between `insert` and setting the
    /// slot. False if a rebuild is in progress.
    pub(crate) fn begin(&self, hashes: usize) -> bool {
        let mut state = self.state.write();
        if state.next.is_some() {
            return false;
        }
        state.next = Filter::new(HASHES_MIN.max(hashes + hashes / 2));
        state.gone_since = 0;
        self.weigh(&state);
        self.needs_rebuild.store(false, Ordering::Relaxed);
        state.next.is_some()
    }

    pub(crate) fn tell(&self, hashes: impl Iterator<Item = KeyHash>) {
        if let Some(next) = &mut self.state.write().next {
            hashes.for_each(|hash| {
                meter::entries(1);
                next.set(hash);
            });
        }
    }

    /// Replaces the old filters by the complete new one. Returns the old ones, to be freed.
    pub(crate) fn finish(&self) -> impl Sized + use<> {
        let mut state = self.state.write();
        let mut old = Vec::new();
        if let Some(next) = state.next.take() {
            old = mem::replace(&mut state.filters, vec![next]);
            state.is_blind = false;
            state.gone = state.gone_since;
        }
        self.weigh(&state);
        self.judge(&state);
        old
    }

    /// Clears everything; called when no more lookups follow.
    pub(crate) fn clear(&self) {
        let mut state = self.state.write();
        let old = mem::replace(&mut *state, State { is_blind: true, ..State::default() });
        self.weigh(&state);
        drop(state);
        drop(old);
    }

    /// One load.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn weigh(&self, state: &State) {
        // Bounded: by the filters, each twice as large as the one before.
        let bytes = state.filters.iter().chain(&state.next).map(Filter::bytes).sum();
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Synopsis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Synopsis").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

impl Filter {
    /// None if the allocation fails.
    fn new(hashes_max: usize) -> Option<Self> {
        let bytes = Bloom::<u64>::compute_bitmap_size(hashes_max, FALSE_POSITIVES);
        let bloom = Bloom::new_with_seed(bytes, hashes_max, &seed(hashes_max)).ok()?;
        Some(Self { bloom, hashes: 0, hashes_max })
    }

    fn set(&mut self, hash: KeyHash) {
        self.bloom.set(&hash.0);
        self.hashes += 1;
    }

    fn is_full(&self) -> bool {
        self.hashes >= self.hashes_max
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.bloom.len() / 8).unwrap_or(usize::MAX) + size_of::<Self>()
    }
}

/// A well-mixed seed that differs by size, so that the false positives of two filters are
/// independent. The hashes are keyed already, so outsiders cannot construct collisions.
fn seed(size: usize) -> [u8; 32] {
    let mut seed = [0; 32];
    let mut state = size as u64;
    // Bounded: four.
    for word in seed.chunks_exact_mut(8) {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    seed
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[derive(Default)]
    struct Pair {
        synopsis: Synopsis,
        index: HashSet<u64>,
    }

    impl Pair {
        fn insert(&mut self, hash: u64) {
            if !self.index.contains(&hash) {
                self.synopsis.insert(KeyHash(hash));
                self.index.insert(hash);
            }
        }

        fn remove(&mut self, hash: u64) {
            if self.index.remove(&hash) {
                self.synopsis.forget();
            }
        }

        /// Rebuilds it, with `meanwhile` called between the steps.
        fn rebuild(&mut self, mut meanwhile: impl FnMut(&mut Self)) {
            if !self.synopsis.begin(self.index.len()) {
                return;
            }
            let all: Vec<u64> = self.index.iter().copied().collect();
            for step in all.chunks(256) {
                self.synopsis.tell(step.iter().map(|hash| KeyHash(*hash)));
                meanwhile(self);
            }
            self.synopsis.finish();
        }

        fn assert_none_is_missed(&self) {
            assert!(self.index.iter().all(|hash| self.synopsis.may_hold(KeyHash(*hash))));
        }

        /// False positives per thousand absent hashes.
        fn false_positives(&self, random: &mut StdRng) -> usize {
            let asked = 100_000;
            let strangers =
                (0..).map(|_| random.random()).filter(|hash| !self.index.contains(hash));
            let yes = strangers.take(asked).filter(|hash| self.synopsis.may_hold(KeyHash(*hash)));
            yes.count() * 1000 / asked
        }
    }

    #[test]
    fn present_hashes_are_never_denied() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let mut pair = Pair::default();
            let keys = random.random_range(10..5000u64);
            let mut change = move |pair: &mut Pair| {
                for _ in 0..random.random_range(1..100) {
                    let hash = random.random_range(0..keys).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    match random.random_range(0..3) {
                        0 => pair.remove(hash),
                        _ => pair.insert(hash),
                    }
                }
                pair.assert_none_is_missed();
            };
            for _ in 0..20 {
                change(&mut pair);
                if pair.synopsis.needs_rebuild() {
                    pair.rebuild(&mut change);
                }
            }
        }
    }

    #[test]
    fn false_positives_stay_at_one_percent_at_any_size_and_after_churn() {
        let mut random = StdRng::seed_from_u64(1);
        let more = std::env::var("TAMIS_SYNOPSIS").ok().and_then(|size| size.parse().ok());
        for size in [10_000, 300_000].into_iter().chain(more) {
            let mut pair = Pair::default();
            while pair.index.len() < size {
                pair.insert(random.random());
                if pair.synopsis.needs_rebuild() {
                    pair.rebuild(|_| {});
                }
            }
            let rate = pair.false_positives(&mut random);
            assert!(rate <= 11, "{rate} per mille at {size}");
            // Five times over, as many are removed as are added.
            let mut old: Vec<u64> = pair.index.iter().copied().collect();
            for turn in 0..5 * size {
                let new = random.random();
                pair.remove(std::mem::replace(&mut old[turn % size], new));
                pair.insert(new);
                if pair.synopsis.needs_rebuild() {
                    pair.rebuild(|_| {});
                }
            }
            let rate = pair.false_positives(&mut random);
            assert!(rate <= 11, "{rate} per mille after churn at {size}");
            let each = pair.synopsis.bytes() / size;
            assert!(each <= 4, "{each} bytes a hash");
        }
    }

    #[test]
    fn an_overfull_rebuild_needs_another_one() {
        let mut pair = Pair::default();
        (0..100).for_each(|hash| pair.insert(hash));
        let mut new = 100..10_000;
        pair.rebuild(|pair| new.by_ref().for_each(|hash| pair.insert(hash)));
        pair.assert_none_is_missed();
        assert!(pair.synopsis.needs_rebuild());
        pair.rebuild(|_| {});
        assert!(!pair.synopsis.needs_rebuild());
    }

    #[test]
    fn a_blind_synopsis_answers_maybe_until_it_is_rebuilt() {
        let synopsis = Synopsis::blind();
        assert!(synopsis.may_hold(KeyHash(1)) && synopsis.needs_rebuild());
        synopsis.insert(KeyHash(2));
        assert!(synopsis.may_hold(KeyHash(1)));
        assert!(synopsis.begin(2) && !synopsis.begin(2));
        synopsis.tell([KeyHash(1), KeyHash(2)].into_iter());
        synopsis.finish();
        assert!(synopsis.may_hold(KeyHash(1)) && synopsis.may_hold(KeyHash(2)));
        assert!(!synopsis.may_hold(KeyHash(3)) && !synopsis.needs_rebuild());
    }
}
