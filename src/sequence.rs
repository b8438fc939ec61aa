//! `Sequence`: identifies a mutation and orders it among all others.

/// The number of a mutation in their order: the log position of its record, if it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence(pub(crate) u64);
