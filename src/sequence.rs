//! `Sequence`: what tells a mutation from all others, and which of two is the later one.

/// The place of a put or an invalidation in the order: the position of its record, where it has
/// one. 0 stands before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Sequence(pub(crate) u64);
