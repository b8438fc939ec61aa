//! The limit and the report of a sweep: [`SweepLimit`], [`SweepReport`].

use std::collections::BTreeMap;
use std::time::Duration;

/// How far a sweep goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepLimit {
    /// After looking at this many entries; at once with 0.
    Entries(usize),
    /// After this time, at the end of a step of up to 256 entries; at once with 0.
    Duration(Duration),
    /// At whichever limit comes first.
    Either {
        /// As in [`SweepLimit::Entries`].
        entries: usize,
        /// As in [`SweepLimit::Duration`].
        duration: Duration,
    },
}

impl SweepLimit {
    pub(crate) fn entries(self) -> usize {
        match self {
            Self::Entries(entries) | Self::Either { entries, .. } => entries,
            Self::Duration(_) => usize::MAX,
        }
    }

    pub(crate) fn duration(self) -> Duration {
        match self {
            Self::Duration(duration) | Self::Either { duration, .. } => duration,
            Self::Entries(_) => Duration::MAX,
        }
    }
}

/// The work that a sweep has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Entries looked at: those in memory, and those in either tier that carry a label whose
    /// invalidation is unfinished.
    pub entries_visited: usize,
    /// Removed entries by namespace; a namespace that lost none is not listed.
    pub namespaces: BTreeMap<String, NamespaceSweep>,
    /// The limit was reached, and the next sweep goes on there. A caller may sweep a little at a
    /// time until this is false: then all entries have been looked at since the first sweep of the
    /// row began.
    pub truncated: bool,
}

/// The entries that a sweep has removed from one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NamespaceSweep {
    /// Expired entries, idle ones included.
    pub expired: usize,
    /// Entries that a flush or an invalidation had removed from sight already.
    pub dead: usize,
    /// Bytes that both counted against the memory budget.
    pub bytes: usize,
}

impl SweepReport {
    /// Removed entries of all namespaces.
    #[must_use]
    pub fn entries_removed(&self) -> usize {
        // Bounded: by the namespaces of one report.
        self.namespaces.values().map(|namespace| namespace.expired + namespace.dead).sum()
    }

    /// Bytes that the removed entries counted against the memory budget.
    #[must_use]
    pub fn bytes_removed(&self) -> usize {
        // Bounded: by the namespaces of one report.
        self.namespaces.values().map(|namespace| namespace.bytes).sum()
    }

    /// The figures of a namespace, of which one more entry has been removed.
    pub(crate) fn of(&mut self, namespace: &str, bytes: usize) -> &mut NamespaceSweep {
        let figures = self.namespaces.entry(namespace.to_owned()).or_default();
        figures.bytes += bytes;
        figures
    }
}
