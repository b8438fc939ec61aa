//! `Watermarks`: when a key, a label or a namespace was last mutated, roughly.
//!
//! Each is two arrays of maxima, indexed by other bits of the hash: two that share a place share
//! the later moment, and the earlier of both places counts (as in a count-min sketch; Cormode and
//! Muthukrishnan, 2005). So they answer "mutated since?" with a yes too many now and then, never
//! with a no too many, in memory that does not grow. Prefixes have no hash to be found by; the last
//! ones are listed, and what falls off the list counts for the whole of its namespace.

use std::collections::VecDeque;

use crate::key::{KeyHash, LabelHash, NamespaceSeed};
use crate::moment::Moment;

/// How many prefixes are listed, and of how many bytes together.
const PREFIXES_MAX: usize = 1024;
const PREFIX_BYTES_MAX: usize = 64 * 1024;

const NAMESPACE_MARKS: usize = 256;

#[derive(Debug)]
pub(crate) struct Watermarks {
    keys: Marks,
    labels: Marks,
    namespaces: Marks,
    everything: Moment,
    /// The latest prefix invalidations, oldest first.
    prefixes: VecDeque<(NamespaceSeed, Box<[u8]>, Moment)>,
    prefix_bytes: usize,
}

impl Watermarks {
    /// Watermarks with `keys` places for keys, a power of two, and a quarter of that for labels.
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            keys: Marks::new(keys),
            labels: Marks::new(keys / 4),
            namespaces: Marks::new(NAMESPACE_MARKS),
            everything: Moment::default(),
            prefixes: VecDeque::new(),
            prefix_bytes: 0,
        }
    }

    pub(crate) fn key_mutated(&mut self, hash: KeyHash, at: Moment) {
        self.keys.raise(hash.0, at);
    }

    pub(crate) fn label_invalidated(&mut self, label: LabelHash, at: Moment) {
        self.labels.raise(label.0, at);
    }

    pub(crate) fn namespace_flushed(&mut self, namespace: NamespaceSeed, at: Moment) {
        self.namespaces.raise(namespace.0, at);
    }

    pub(crate) fn everything_flushed(&mut self, at: Moment) {
        self.everything = at;
    }

    pub(crate) fn prefix_invalidated(&mut self, of: NamespaceSeed, prefix: &[u8], at: Moment) {
        self.prefixes.push_back((of, prefix.into(), at));
        self.prefix_bytes += prefix.len();
        while self.prefixes.len() > PREFIXES_MAX || self.prefix_bytes > PREFIX_BYTES_MAX {
            let Some((namespace, fallen, earlier)) = self.prefixes.pop_front() else { return };
            self.prefix_bytes -= fallen.len();
            self.namespaces.raise(namespace.0, earlier);
        }
    }

    /// Whether any mutation since then has touched the key, or covered an entry of it with these
    /// labels.
    pub(crate) fn mutated_since(
        &self,
        then: Moment,
        (namespace, key): (NamespaceSeed, &[u8]),
        hash: KeyHash,
        labels: &[LabelHash],
    ) -> bool {
        let newer = self.prefixes.iter().rev().take_while(|(_, _, at)| *at > then);
        self.everything > then
            || self.keys.at(hash.0) > then
            || self.namespaces.at(namespace.0) > then
            || labels.iter().any(|label| self.labels.at(label.0) > then)
            || newer.into_iter().any(|(of, prefix, _)| *of == namespace && key.starts_with(prefix))
    }
}

/// Maxima by hash, in two rows; a power of two of them in each.
#[derive(Debug)]
struct Marks([Box<[Moment]>; 2]);

impl Marks {
    fn new(places: usize) -> Self {
        let places = places.next_power_of_two();
        Self([(); 2].map(|()| vec![Moment::default(); places].into()))
    }

    fn places(&self, hash: u64) -> [usize; 2] {
        let most = self.0[0].len() - 1;
        // The bits wanted are the low ones, whatever is cut off.
        #[allow(clippy::cast_possible_truncation)]
        [hash as usize & most, hash.rotate_right(32) as usize & most]
    }

    fn raise(&mut self, hash: u64, at: Moment) {
        for (row, place) in self.places(hash).into_iter().enumerate() {
            self.0[row][place] = self.0[row][place].max(at);
        }
    }

    fn at(&self, hash: u64) -> Moment {
        let [one, other] = self.places(hash);
        self.0[0][one].min(self.0[1][other])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The earliest moment since which nothing has happened.
    fn latest(
        marks: &Watermarks,
        place: (NamespaceSeed, &[u8]),
        hash: KeyHash,
        labels: &[LabelHash],
    ) -> u64 {
        let is_since = |then: &u64| !marks.mutated_since(Moment(*then), place, hash, labels);
        (0..).find(is_since).unwrap_or_default()
    }

    #[test]
    fn a_prefix_that_falls_off_the_list_counts_for_its_namespace() {
        let (here, there) = (NamespaceSeed(1), NamespaceSeed(2));
        for long in [1, PREFIX_BYTES_MAX / 4] {
            let mut marks = Watermarks::new(64);
            let of = |marks: &Watermarks, key| latest(marks, (here, key), KeyHash(9), &[]);
            marks.prefix_invalidated(here, b"a/", Moment(1));
            assert_eq!((of(&marks, b"a/1"), of(&marks, b"b/1")), (1, 0));
            let most = (PREFIX_BYTES_MAX / long).min(PREFIXES_MAX) as u64;
            for at in 2..=most + 1 {
                assert_eq!(of(&marks, b"b/1"), 0, "one of {at}");
                marks.prefix_invalidated(there, &vec![b'x'; long], Moment(at));
            }
            assert_eq!(of(&marks, b"b/1"), 1, "widened, not forgotten");
            assert!(marks.prefixes.len() as u64 <= most);
            assert!(marks.prefix_bytes <= PREFIX_BYTES_MAX);
        }
    }

    #[test]
    fn every_kind_of_mutation_raises_what_it_covers() {
        let mut marks = Watermarks::new(64);
        let (hash, label, namespace) = (KeyHash(70), LabelHash(3), NamespaceSeed(5));
        let of =
            |marks: &Watermarks| latest(marks, (namespace, b"k"), hash, &[LabelHash(1), label]);
        marks.key_mutated(hash, Moment(1));
        assert_eq!(of(&marks), 1);
        marks.label_invalidated(label, Moment(2));
        assert_eq!(of(&marks), 2);
        marks.namespace_flushed(namespace, Moment(3));
        assert_eq!(of(&marks), 3);
        marks.everything_flushed(Moment(4));
        assert_eq!(of(&marks), 4);
        assert_eq!(latest(&marks, (NamespaceSeed(6), b"k"), KeyHash(1), &[]), 4);
    }

    /// Two keys that share a place in one row seldom share it in the other.
    #[test]
    fn keys_are_seldom_taken_for_each_other_and_never_missed() {
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number << 17);
        let mut marks = Marks::new(1024);
        (1..=128).for_each(|number| marks.raise(hash(number), Moment(number)));
        assert!((1..=128).all(|number| marks.at(hash(number)) >= Moment(number)));
        let taken = (1000..11_000).filter(|number| marks.at(hash(*number)) > Moment(0)).count();
        assert!(taken < 400, "{taken} of 10,000, where one row would have 1,200");
    }
}
