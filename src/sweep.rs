//! The limit and the report of a sweep: [`SweepLimit`], [`SweepReport`].

use std::collections::BTreeMap;
use std::time::Duration;

/// When a sweep stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepLimit {
    /// After looking at this many entries; at once with 0.
    Entries(usize),
    /// After this time, at the end of a batch of up to 256 entries; at once with 0.
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

/// The work done by a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Entries looked at: those in memory, and those in either tier with a label whose invalidation
    /// is unfinished.
    pub entries_visited: usize,
    /// Removed entries by namespace; only namespaces that lost some are listed.
    pub namespaces: BTreeMap<String, NamespaceSweep>,
    /// Whether the limit was reached; the next sweep continues there. When a series of sweeps ends
    /// with false, it has looked at all entries.
    pub truncated: bool,
}

/// The entries removed from one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NamespaceSweep {
    /// Expired entries, idle ones included.
    pub expired: usize,
    /// Entries flushed or invalidated before.
    pub dead: usize,
    /// Bytes that these entries counted against the memory budget.
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

    pub(crate) fn of(&mut self, namespace: &str, bytes: usize) -> &mut NamespaceSweep {
        let figures = self.namespaces.entry(namespace.to_owned()).or_default();
        figures.bytes += bytes;
        figures
    }
}
