//! `Request`: one line or record of a trace.

/// A request of an object, with its size if it must be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// The number of the object, or a hash of its name: of so many objects as fit into a trace, two
    /// with one hash are as good as impossible.
    pub(crate) key: u64,
    /// In bytes. 1 where the trace has no sizes.
    pub(crate) size: u64,
}
