//! `ClusterStats`: figures of one node.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Where a node stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterState {
    /// The server has not answered lately, and the lease is over: governed namespaces answer as
    /// their [`tamis::WhileClosed`] says.
    CutOff,
    /// The server answers, but this node has not applied all yet.
    CatchingUp,
    /// The gate is open.
    Live,
}

/// Figures of one node, since it has joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStats {
    /// Where the node stands.
    pub state: ClusterState,
    /// Invalidations of other nodes that were applied here.
    pub applied: u64,
    /// Invalidations that the server has acknowledged to this node.
    pub sent: u64,
    /// Invalidations that were sent again because the server may have lost them.
    pub sent_again: u64,
    /// Calls to the server that failed or were given up.
    pub failures: u64,
    /// How often the governed namespaces were flushed because invalidations may be missing. The
    /// first time may be when a node joins whose store is new.
    pub flushes: u64,
    /// How often invalidations that waited were replaced by flushes, since there were too many.
    pub overflows: u64,
    /// Bytes of the invalidations that wait to be sent, at most 1 MiB.
    pub waiting_bytes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) applied: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) sent_again: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) flushes: AtomicU64,
    /// Whether the last question was answered.
    pub(crate) is_connected: AtomicBool,
}

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(u64::try_from(by).unwrap_or(u64::MAX), Ordering::Relaxed);
}
