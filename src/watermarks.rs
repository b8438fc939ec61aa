//! `Watermarks`: upper bounds for when a key, a label or a namespace was last mutated.
//!
//! Each is an array of maxima in which a hash has two cells. Hashes that share a cell share the
//! later moment, and the earlier of a hash's two cells counts (as in a count-min sketch; Cormode
//! and Muthukrishnan, 2005). So "mutated since?" has rare false positives and no false negatives,
//! in constant memory. Keys being fetched are tracked exactly, so that colliding keys cannot reject
//! a slow fill. Prefixes have no hash; the latest ones are listed, and one that leaves the list
//! counts for its whole namespace.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;

use crate::key::{Identity, KeyHash, LabelHash, LabelKind, NamespaceSeed, label_hash};
use crate::moment::Moment;

/// Limits of the prefix list, and of that of labels: count and total bytes.
const PREFIXES_MAX: usize = 1024;
const PREFIX_BYTES_MAX: usize = 64 * 1024;

const NAMESPACE_MARKS: usize = 256;

/// Capacity kept when no keys are tracked.
const WATCHED_KEPT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Watermarks {
    keys: Marks,
    watched: HashMap<u64, Watched, BuildHasherDefault<Identity>>,
    labels: Marks,
    namespaces: Marks,
    everything: Moment,
    /// The latest prefix invalidations, oldest first.
    prefixes: VecDeque<(NamespaceSeed, Box<[u8]>, Moment)>,
    prefix_bytes: usize,
    /// The latest labels that were invalidated in all namespaces, oldest first.
    everywhere: VecDeque<(LabelKind, Box<str>, Moment)>,
    everywhere_bytes: usize,
}

#[derive(Debug)]
struct Watched {
    by: usize,
    /// Mutations after this moment are known exactly.
    since: Moment,
    mutated: Moment,
}

impl Watermarks {
    /// Watermarks with `keys` cells for keys, a power of two, and a quarter of that for labels.
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            keys: Marks::new(keys),
            watched: HashMap::default(),
            labels: Marks::new(keys / 4),
            namespaces: Marks::new(NAMESPACE_MARKS),
            everything: Moment::default(),
            prefixes: VecDeque::new(),
            prefix_bytes: 0,
            everywhere: VecDeque::new(),
            everywhere_bytes: 0,
        }
    }

    pub(crate) fn key_mutated(&mut self, hash: KeyHash, at: Moment) {
        self.keys.raise(hash.0, at);
        if !self.watched.is_empty() {
            if let Some(watched) = self.watched.get_mut(&hash.0) {
                watched.mutated = at;
            }
        }
    }

    /// Tracks this key exactly from `now`, the last moment, until `unwatch` is called as often.
    pub(crate) fn watch(&mut self, hash: KeyHash, now: Moment) {
        let unseen = Watched { by: 0, since: now, mutated: Moment::default() };
        self.watched.entry(hash.0).or_insert(unseen).by += 1;
    }

    #[cfg(test)]
    pub(crate) fn watched(&self) -> usize {
        self.watched.len()
    }

    pub(crate) fn unwatch(&mut self, hash: KeyHash) {
        if let Some(watched) = self.watched.get_mut(&hash.0) {
            watched.by -= 1;
            if watched.by == 0 {
                self.watched.remove(&hash.0);
                if self.watched.is_empty() {
                    self.watched.shrink_to(WATCHED_KEPT);
                }
            }
        }
    }

    fn key_mutated_since(&self, then: Moment, hash: KeyHash) -> bool {
        let watched = self.watched.get(&hash.0).filter(|watched| watched.since <= then);
        watched.map_or_else(|| self.keys.at(hash.0), |watched| watched.mutated) > then
    }

    pub(crate) fn label_invalidated(&mut self, label: LabelHash, at: Moment) {
        self.labels.raise(label.0, at);
    }

    /// A label was invalidated in all namespaces, also in those that begin later.
    pub(crate) fn label_invalidated_everywhere(
        &mut self,
        kind: LabelKind,
        label: &str,
        at: Moment,
    ) {
        self.everywhere.push_back((kind, label.into(), at));
        self.everywhere_bytes += label.len();
        // Bounded: by the labels that one label pushes out, at most the whole list.
        while self.everywhere.len() > PREFIXES_MAX || self.everywhere_bytes > PREFIX_BYTES_MAX {
            let Some((_, fallen, earlier)) = self.everywhere.pop_front() else { return };
            self.everywhere_bytes -= fallen.len();
            self.everything = self.everything.max(earlier);
        }
    }

    pub(crate) fn namespace_flushed(&mut self, namespace: NamespaceSeed, at: Moment) {
        self.namespaces.raise(namespace.0, at);
    }

    pub(crate) fn everything_flushed(&mut self, at: Moment) {
        self.everything = self.everything.max(at);
    }

    pub(crate) fn prefix_invalidated(&mut self, of: NamespaceSeed, prefix: &[u8], at: Moment) {
        self.prefixes.push_back((of, prefix.into(), at));
        self.prefix_bytes += prefix.len();
        // Bounded: by the prefixes that one prefix pushes out, at most the whole list.
        while self.prefixes.len() > PREFIXES_MAX || self.prefix_bytes > PREFIX_BYTES_MAX {
            let Some((namespace, fallen, earlier)) = self.prefixes.pop_front() else { return };
            self.prefix_bytes -= fallen.len();
            self.namespaces.raise(namespace.0, earlier);
        }
    }

    /// Whether a later mutation has touched the key, or covered an entry of it with these labels.
    pub(crate) fn mutated_since(
        &self,
        then: Moment,
        (namespace, key): (NamespaceSeed, &[u8]),
        hash: KeyHash,
        labels: &[LabelHash],
    ) -> bool {
        let newer = self.prefixes.iter().rev().take_while(|(_, _, at)| *at > then);
        let everywhere = self.everywhere.iter().rev().take_while(|(_, _, at)| *at > then);
        let has = |(kind, label, _): &(LabelKind, Box<str>, Moment)| {
            labels.contains(&label_hash(namespace, *kind, label))
        };
        // Bounded: by the labels of one entry, and the prefixes that are remembered.
        self.everything > then
            || self.key_mutated_since(then, hash)
            || self.namespaces.at(namespace.0) > then
            || labels.iter().any(|label| self.labels.at(label.0) > then)
            || newer.into_iter().any(|(of, prefix, _)| *of == namespace && key.starts_with(prefix))
            || (!labels.is_empty() && everywhere.into_iter().any(has))
    }
}

/// Maxima by hash. Both cells of a hash are in one cache line of the processor.
#[derive(Debug)]
struct Marks(Box<[Line]>);

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line([Moment; LINE]);

const LINE: usize = 8;

impl Marks {
    fn new(keys: usize) -> Self {
        let lines = (2 * keys / LINE).next_power_of_two();
        Self(vec![Line::default(); lines].into())
    }

    /// The line of a hash, and its two cells there.
    fn cells(&self, hash: u64) -> (usize, [usize; 2]) {
        // Only the low bits are used.
        #[allow(clippy::cast_possible_truncation)]
        let [line, one, step] = [hash, hash.rotate_right(32), hash.rotate_right(40)]
            .map(|bits| (bits & 0xFF_FFFF) as usize);
        let one = one % LINE;
        (line & (self.0.len() - 1), [one, (one + 1 + step % (LINE - 1)) % LINE])
    }

    fn raise(&mut self, hash: u64, at: Moment) {
        let (line, cells) = self.cells(hash);
        let Line(marks) = &mut self.0[line];
        // Bounded: two.
        cells.into_iter().for_each(|cell| marks[cell] = marks[cell].max(at));
    }

    fn at(&self, hash: u64) -> Moment {
        let (line, [one, other]) = self.cells(hash);
        let Line(marks) = &self.0[line];
        marks[one].min(marks[other])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The earliest moment since which nothing has happened.
    fn latest(
        marks: &Watermarks,
        full_key: (NamespaceSeed, &[u8]),
        hash: KeyHash,
        labels: &[LabelHash],
    ) -> u64 {
        let is_since = |then: &u64| !marks.mutated_since(Moment(*then), full_key, hash, labels);
        (0..).find(is_since).unwrap_or_default()
    }

    #[test]
    fn a_prefix_that_leaves_the_list_counts_for_its_namespace() {
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
    fn a_label_of_all_namespaces_counts_in_each_and_for_everything_once_it_leaves_the_list() {
        let (here, label) = (NamespaceSeed(1), |kind| label_hash(NamespaceSeed(1), kind, "t"));
        let mut marks = Watermarks::new(64);
        marks.label_invalidated_everywhere(LabelKind::Tag, "t", Moment(1));
        let of = |marks: &Watermarks, kind| latest(marks, (here, b"k"), KeyHash(9), &[label(kind)]);
        assert_eq!((of(&marks, LabelKind::Tag), of(&marks, LabelKind::Dependency)), (1, 0));
        for at in 2..=PREFIXES_MAX as u64 + 1 {
            assert_eq!(of(&marks, LabelKind::Dependency), 0, "one of {at}");
            marks.label_invalidated_everywhere(LabelKind::Tag, "x", Moment(at));
        }
        assert_eq!(of(&marks, LabelKind::Dependency), 1, "widened, not forgotten");
        assert!(marks.everywhere.len() == PREFIXES_MAX && marks.everywhere_bytes == PREFIXES_MAX);
    }

    #[test]
    fn every_kind_of_mutation_raises_its_watermark() {
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

    /// Mutations of other keys do not count for a watched key, except those before the watch.
    #[test]
    fn a_watched_key_is_tracked_exactly() {
        let (here, hash) = (NamespaceSeed(1), KeyHash(7));
        let mut marks = Watermarks::new(64);
        let since =
            |marks: &Watermarks, then| marks.mutated_since(Moment(then), (here, b"k"), hash, &[]);
        marks.key_mutated(hash, Moment(1));
        marks.watch(hash, Moment(2));
        marks.watch(hash, Moment(2));
        (3..10_000).for_each(|at| marks.key_mutated(KeyHash(at << 20 | at), Moment(at)));
        assert!(!since(&marks, 2) && !since(&marks, 5000), "only other keys were mutated");
        assert!(since(&marks, 1), "it was not watched then");
        marks.key_mutated(hash, Moment(10_000));
        assert!(since(&marks, 2) && since(&marks, 9_999) && !since(&marks, 10_000));
        marks.unwatch(hash);
        assert!(!since(&marks, 10_000), "one is left");
        marks.unwatch(hash);
        assert!(marks.watched.is_empty());
        assert!(since(&marks, 9_999), "still known");
    }

    /// Two keys that share one cell seldom share the other.
    #[test]
    fn collisions_are_rare_and_mutations_never_missed() {
        let hash = |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number << 17);
        let mut marks = Marks::new(1024);
        (1..=128).for_each(|number| marks.raise(hash(number), Moment(number)));
        assert!((1..=128).all(|number| marks.at(hash(number)) >= Moment(number)));
        let raised = (1000..11_000).filter(|number| marks.at(hash(*number)) > Moment(0)).count();
        assert!(raised < 500, "{raised} of 10,000, where one cell would have 1,200");
    }
}
