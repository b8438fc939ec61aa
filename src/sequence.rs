//! `Sequence`: identifies a mutation and orders it among all others.

/// The number of a put or an invalidation in their total order: the log position of its record, if
/// it has one. 0 precedes all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence(pub(crate) u64);
