//! `Scan`: what a first reading of a trace finds: how long it is, and its working set.
//!
//! Keys are counted exactly up to [`OBJECTS_MAX`] different ones. Beyond that only those whose
//! mixed bits are below a threshold are kept, and count for the others; the threshold halves
//! whenever they are too many again. So a trace of any length takes some tens of MiB, and the
//! estimate is about a thousandth off, more for bytes if few objects have most of them.

use std::collections::HashMap;

use super::super::traces::Request;
use super::super::values::mixed;

/// Objects that are kept.
const OBJECTS_MAX: usize = 1 << 21;

#[derive(Debug)]
pub(super) struct Scan {
    pub(super) requests: u64,
    /// Of one object, in bytes.
    pub(super) largest: u64,
    /// No request has a size.
    pub(super) is_of_keys: bool,
    working_set: WorkingSet,
}

impl Scan {
    pub(super) fn new() -> Self {
        let working_set = WorkingSet::new(OBJECTS_MAX);
        Self { requests: 0, largest: 0, is_of_keys: true, working_set }
    }

    pub(super) fn add(&mut self, request: Request) {
        self.requests += 1;
        self.largest = self.largest.max(request.size);
        self.is_of_keys &= request.size == 1;
        self.working_set.add(request);
    }

    /// Different keys.
    pub(super) fn objects(&self) -> u64 {
        self.working_set.scaled(self.working_set.sizes.len() as u64)
    }

    /// Bytes of all objects, each as large as when it came first.
    pub(super) fn bytes(&self) -> u64 {
        self.working_set.scaled(self.working_set.bytes)
    }

    /// Whether the two are estimates.
    pub(super) fn is_estimated(&self) -> bool {
        self.working_set.halvings > 0
    }
}

#[derive(Debug)]
struct WorkingSet {
    /// By key, of the objects that are kept.
    sizes: HashMap<u64, u64>,
    /// Their sum.
    bytes: u64,
    /// One of two to the power of so many objects is kept.
    halvings: u32,
    objects_max: usize,
}

impl WorkingSet {
    fn new(objects_max: usize) -> Self {
        Self { sizes: HashMap::new(), bytes: 0, halvings: 0, objects_max }
    }

    fn add(&mut self, Request { key, size }: Request) {
        if !self.keeps(key) || self.sizes.contains_key(&key) {
            return;
        }
        self.sizes.insert(key, size);
        self.bytes = self.bytes.saturating_add(size);
        while self.sizes.len() > self.objects_max {
            self.halvings += 1;
            let halvings = self.halvings;
            self.sizes.retain(|key, _| is_kept(*key, halvings));
            self.bytes = self.sizes.values().fold(0, |sum, size| sum.saturating_add(*size));
        }
    }

    fn keeps(&self, key: u64) -> bool {
        is_kept(key, self.halvings)
    }

    fn scaled(&self, figure: u64) -> u64 {
        figure.saturating_mul(1 << self.halvings.min(63))
    }
}

fn is_kept(key: u64, halvings: u32) -> bool {
    mixed(key).leading_zeros() >= halvings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: u64, objects_max: usize) -> WorkingSet {
        let mut set = WorkingSet::new(objects_max);
        for key in (0..keys).chain(0..keys) {
            set.add(Request { key, size: key % 7 + 1 });
        }
        set
    }

    #[test]
    fn few_objects_are_counted_exactly() {
        let set = of(1000, 1000);
        let bytes: u64 = (0..1000).map(|key| key % 7 + 1).sum();
        assert_eq!((set.sizes.len(), set.bytes, set.halvings), (1000, bytes, 0));
    }

    #[test]
    fn many_objects_are_estimated_in_bounded_memory() {
        let set = of(300_000, 4096);
        assert!(set.sizes.len() <= 4096 && set.halvings >= 6, "{}", set.halvings);
        let is_near = |estimate: u64, exact: u64| estimate.abs_diff(exact) < exact / 10;
        let objects = set.scaled(set.sizes.len() as u64);
        assert!(is_near(objects, 300_000), "{objects}");
        let bytes = set.scaled(set.bytes);
        assert!(is_near(bytes, 1_200_000), "{bytes}");
    }
}
