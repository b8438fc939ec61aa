//! `Watermarks`: when a key, a label or a namespace was last mutated, roughly.
//!
//! Each is an array of maxima, indexed by hash: two that share a place share the later moment. So
//! they answer "mutated since?" with a yes too many now and then, never with a no too many, in
//! memory that does not grow. Prefixes have no hash to be found by; the last ones are listed, and
//! what falls off the list counts for the whole of its namespace.

use std::collections::VecDeque;

use crate::key::{KeyHash, LabelHash, NamespaceSeed};
use crate::moment::Moment;

const PREFIXES_MAX: usize = 64;
const NAMESPACE_MARKS: usize = 256;

#[derive(Debug)]
pub(crate) struct Watermarks {
    keys: Marks,
    labels: Marks,
    namespaces: Marks,
    everything: Moment,
    /// The latest prefix invalidations, oldest first.
    prefixes: VecDeque<(NamespaceSeed, Box<[u8]>, Moment)>,
}

impl Watermarks {
    /// Watermarks with `keys` places for keys, a power of two, and a quarter of that for labels.
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            keys: Marks::new(keys),
            labels: Marks::new(keys / 4),
            namespaces: Marks::new(NAMESPACE_MARKS),
            everything: Moment::default(),
            prefixes: VecDeque::with_capacity(PREFIXES_MAX),
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
        if self.prefixes.len() == PREFIXES_MAX {
            if let Some((namespace, _, earlier)) = self.prefixes.pop_front() {
                self.namespaces.raise(namespace.0, earlier);
            }
        }
        self.prefixes.push_back((of, prefix.into(), at));
    }

    /// The latest mutation that touched the key or covered an entry of it with these labels.
    pub(crate) fn latest(
        &self,
        namespace: NamespaceSeed,
        key: &[u8],
        hash: KeyHash,
        labels: &[LabelHash],
    ) -> Moment {
        let prefixes = self
            .prefixes
            .iter()
            .filter(|(of, prefix, _)| *of == namespace && key.starts_with(prefix))
            .map(|(_, _, at)| *at);
        labels
            .iter()
            .map(|label| self.labels.at(label.0))
            .chain(prefixes)
            .chain([self.everything, self.keys.at(hash.0), self.namespaces.at(namespace.0)])
            .max()
            .unwrap_or_default()
    }
}

/// Maxima by hash; a power of two of them.
#[derive(Debug)]
struct Marks(Box<[Moment]>);

impl Marks {
    fn new(places: usize) -> Self {
        Self(vec![Moment::default(); places.next_power_of_two()].into())
    }

    fn place(&self, hash: u64) -> usize {
        // The bits wanted are the low ones, whatever is cut off.
        #[allow(clippy::cast_possible_truncation)]
        let hash = hash as usize;
        hash & (self.0.len() - 1)
    }

    fn raise(&mut self, hash: u64, at: Moment) {
        let place = self.place(hash);
        self.0[place] = self.0[place].max(at);
    }

    fn at(&self, hash: u64) -> Moment {
        self.0[self.place(hash)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_falls_off_the_list_counts_for_its_namespace() {
        let (here, there) = (NamespaceSeed(1), NamespaceSeed(2));
        let mut marks = Watermarks::new(64);
        let latest = |marks: &Watermarks, of, key| marks.latest(of, key, KeyHash(9), &[]);
        marks.prefix_invalidated(here, b"a/", Moment(1));
        assert_eq!(latest(&marks, here, b"a/1".as_slice()), Moment(1));
        assert_eq!(latest(&marks, here, b"b/1"), Moment(0));
        for at in 2..=65 {
            marks.prefix_invalidated(there, b"x", Moment(at));
        }
        assert_eq!(latest(&marks, here, b"b/1"), Moment(1), "widened, not forgotten");
        assert_eq!(marks.prefixes.len(), PREFIXES_MAX);
    }

    #[test]
    fn every_kind_of_mutation_raises_what_it_covers() {
        let mut marks = Watermarks::new(64);
        let (hash, label, namespace) = (KeyHash(70), LabelHash(3), NamespaceSeed(5));
        let latest =
            |marks: &Watermarks| marks.latest(namespace, b"k", hash, &[LabelHash(1), label]).0;
        marks.key_mutated(hash, Moment(1));
        assert_eq!(latest(&marks), 1);
        marks.label_invalidated(label, Moment(2));
        assert_eq!(latest(&marks), 2);
        marks.namespace_flushed(namespace, Moment(3));
        assert_eq!(latest(&marks), 3);
        marks.everything_flushed(Moment(4));
        assert_eq!(latest(&marks), 4);
        assert_eq!(marks.latest(NamespaceSeed(6), b"k", KeyHash(1), &[]), Moment(4));
    }
}
