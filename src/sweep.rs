//! What a sweep may cost, and what it has done: [`SweepLimit`], [`SweepReport`].

use std::collections::BTreeMap;
use std::time::Duration;

/// How far a sweep goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepLimit {
    /// At most so many entries are looked at; none with 0.
    Entries(usize),
    /// It ends with the first step of up to 256 entries that ends after so long; none with 0.
    Duration(Duration),
    /// Whichever comes first.
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

/// What a sweep has done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Entries looked at, those in memory, and those that an unfinished invalidation by label leads
    /// to in either tier.
    pub entries_visited: usize,
    /// What was removed, by namespace; those without any are not listed.
    pub namespaces: BTreeMap<String, NamespaceSweep>,
    /// The limit was reached, and the next sweep goes on there. False once all entries have been
    /// looked at since this sweep began, or since the first of those did that were truncated before
    /// it: so that a caller may sweep a little at a time until it is.
    pub truncated: bool,
}

/// What a sweep has removed of one namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NamespaceSweep {
    /// Entries past their life.
    pub expired: usize,
    /// Entries that had been gone for readers already: flushed, or covered by an invalidation.
    pub dead: usize,
    /// What they counted against the budget of memory.
    pub bytes: usize,
}

impl SweepReport {
    /// Entries that were removed, of all namespaces.
    #[must_use]
    pub fn entries_removed(&self) -> usize {
        // Bounded: by the namespaces of one report.
        self.namespaces.values().map(|namespace| namespace.expired + namespace.dead).sum()
    }

    /// What they counted against the budget.
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
