//! `SearchTargets`: what a search is for.

use std::sync::Arc;

use super::blob::NamedGeneration;
use super::directory_run::UNNAMED;
use super::format::GenerationNumber;

/// Prefixes of keys, in generations of namespaces. A search has few.
#[derive(Debug, Default)]
pub(crate) struct SearchTargets(Vec<Target>);

#[derive(Debug)]
struct Target {
    name: Box<str>,
    generation: GenerationNumber,
    /// Sorted. None covers another: only the last one at or before a key can match it.
    prefixes: Vec<Box<[u8]>>,
}

impl Target {
    fn named(&self) -> NamedGeneration<'_> {
        NamedGeneration { name: &self.name, generation: self.generation }
    }
}

impl SearchTargets {
    pub(crate) fn add(&mut self, namespace: NamedGeneration<'_>, prefix: &[u8]) {
        // Bounded: by the targets of one search.
        let found = self.0.iter().position(|target| target.named() == namespace);
        let place = found.unwrap_or(self.0.len());
        if found.is_none() {
            let NamedGeneration { name, generation } = namespace;
            self.0.push(Target { name: name.into(), generation, prefixes: Vec::new() });
        }
        let Some(Target { prefixes, .. }) = self.0.get_mut(place) else { return };
        // Bounded: by the targets of one search.
        if prefixes.iter().any(|other| prefix.starts_with(other)) {
            return;
        }
        // Bounded: by the targets of one search.
        prefixes.retain(|other| !other.starts_with(prefix));
        let place = prefixes.partition_point(|other| **other < *prefix);
        prefixes.insert(place, prefix.into());
    }

    /// The targets that have a row in a segment.
    pub(super) fn in_rows(
        self: &Arc<Self>,
        row_of: impl Fn(NamedGeneration<'_>) -> Option<u32>,
    ) -> SegmentTargets {
        let rows = self.0.iter().enumerate();
        // Bounded: by the targets of one search.
        let mut rows: Vec<_> =
            rows.filter_map(|(target, it)| Some((row_of(it.named())?, target))).collect();
        rows.sort_unstable();
        SegmentTargets { targets: Arc::clone(self), rows }
    }
}

/// The targets of a search that have rows in one segment.
#[derive(Debug, Clone)]
pub(super) struct SegmentTargets {
    targets: Arc<SearchTargets>,
    /// A row, and the place of its target.
    rows: Vec<(u32, usize)>,
}

impl SegmentTargets {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows and prefixes, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.rows.iter().flat_map(|(row, target)| {
            let target = self.targets.0.get(*target);
            let prefixes = target.map_or(&[][..], |target| &target.prefixes);
            prefixes.iter().map(|prefix| (*row, &**prefix))
        })
    }

    /// The namespace of a row that is searched. Others get no name.
    pub(super) fn named(&self, row: u32) -> NamedGeneration<'_> {
        self.target(row).map_or(UNNAMED, Target::named)
    }

    pub(super) fn matches(&self, row: u32, key: &[u8]) -> bool {
        let Some(Target { prefixes, .. }) = self.target(row) else { return false };
        let behind = prefixes.partition_point(|prefix| **prefix <= *key);
        let last = behind.checked_sub(1).and_then(|last| prefixes.get(last));
        last.is_some_and(|prefix| key.starts_with(prefix))
    }

    fn target(&self, row: u32) -> Option<&Target> {
        let place = self.rows.binary_search_by_key(&row, |(row, _)| *row).ok()?;
        let (_, target) = self.rows.get(place)?;
        self.targets.0.get(*target)
    }
}
