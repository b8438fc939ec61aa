//! `ReplayedExpiries`: since when the records of a namespace that are yet to be read are stale.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::batch::Pacer;
use crate::footprint::{ALLOCATION_BYTES, tree_entry};

/// Bytes of a prefix, with its time, beside its own.
pub(super) const PREFIX_BYTES: usize = tree_entry(size_of::<(Box<[u8]>, u64)>()) + ALLOCATION_BYTES;

/// Bytes of a key hash, or a label's, with its time.
pub(super) const EXPIRY_BYTES: usize = tree_entry(size_of::<(u64, u64)>());

/// Times in nanoseconds. The earliest counts.
#[derive(Debug, Default)]
pub(super) struct ReplayedExpiries {
    keys: BTreeMap<u64, u64>,
    /// None covers another: of two that do, the shorter one has the earlier time of both.
    prefixes: BTreeMap<Box<[u8]>, u64>,
}

impl ReplayedExpiries {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.prefixes.is_empty()
    }

    pub(super) fn since(&self, hash: u64, key: &[u8]) -> Option<u64> {
        let up_to = (Bound::Unbounded, Bound::Included(key));
        let of_prefix = self.prefixes.range::<[u8], _>(up_to).next_back();
        let of_prefix = of_prefix.filter(|(prefix, _)| key.starts_with(prefix));
        let of_key = self.keys.get(&hash);
        of_prefix.map(|(_, since)| since).into_iter().chain(of_key).min().copied()
    }

    /// Gives the bytes that it takes.
    pub(super) fn insert_key(&mut self, hash: u64, since: u64) -> usize {
        note_earliest(&mut self.keys, hash, since)
    }

    /// Gives the bytes that it takes, and those that it frees.
    pub(super) async fn insert_prefix(
        &mut self,
        prefix: &[u8],
        mut since: u64,
        steps: &mut Pacer,
    ) -> (usize, usize) {
        let up_to = (Bound::Unbounded, Bound::Included(prefix));
        let covering = self.prefixes.range_mut::<[u8], _>(up_to).next_back();
        if let Some((_, of)) = covering.filter(|(covering, _)| prefix.starts_with(covering)) {
            *of = since.min(*of);
            return (0, 0);
        }
        let mut freed = 0;
        loop {
            let from = (Bound::Included(prefix), Bound::Unbounded);
            let next = self.prefixes.range::<[u8], _>(from).next();
            let next = next.filter(|(next, _)| next.starts_with(prefix));
            let Some((covered, of)) = next.map(|(next, of)| (next.clone(), *of)) else { break };
            (since, freed) = (since.min(of), freed + PREFIX_BYTES + covered.len());
            self.prefixes.remove(&covered);
            steps.entry().await;
        }
        self.prefixes.insert(prefix.into(), since);
        (PREFIX_BYTES + prefix.len(), freed)
    }

    /// Frees one. False if there was none.
    pub(super) fn pop(&mut self) -> bool {
        self.keys.pop_first().is_some() || self.prefixes.pop_first().is_some()
    }
}

/// Gives the bytes that it takes.
pub(super) fn note_earliest(times: &mut BTreeMap<u64, u64>, hash: u64, since: u64) -> usize {
    let before = times.len();
    let of = times.entry(hash).or_insert(since);
    *of = since.min(*of);
    (times.len() - before) * EXPIRY_BYTES
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    #[test]
    fn the_time_of_a_key_is_never_later_than_that_of_any_prefix_of_it() {
        let texts = ["", "a", "ab", "abc", "abd", "b", "ba", "bab"];
        for seed in 0..4096_usize {
            let (mut expiries, mut steps) = (ReplayedExpiries::default(), Pacer::default());
            let (mut given, mut bytes) = (Vec::new(), 0);
            for step in 0..4 {
                let prefix = texts[(seed >> (3 * step)) % texts.len()];
                let since = (seed.wrapping_mul(31 + step) % 97) as u64;
                given.push((prefix, since));
                let insert = expiries.insert_prefix(prefix.as_bytes(), since, &mut steps);
                let (added, freed) = block_on(insert);
                bytes = bytes + added - freed;
            }
            for key in texts.iter().chain(&["abcd", "c", "ac"]) {
                let exact = given.iter().filter(|(prefix, _)| key.starts_with(prefix));
                let exact = exact.map(|(_, since)| *since).min();
                let found = expiries.since(0, key.as_bytes());
                assert_eq!(found.is_some(), exact.is_some(), "{key} by {given:?}");
                assert!(found <= exact, "{key} by {given:?}");
            }
            let held: usize = expiries.prefixes.keys().map(|it| PREFIX_BYTES + it.len()).sum();
            assert_eq!(bytes, held);
        }
    }
}
