//! `Verb`: the kinds of calls whose latencies are told apart, and how frequent they are.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Verb {
    Get,
    Exists,
    Fetch,
    Refresh,
    Put,
    Key,
    Prefix,
    Labels,
    Namespace,
    All,
    Sweep,
    Sync,
    Stats,
    /// A call whose future is dropped after a few polls.
    Dropped,
}

impl Verb {
    pub(crate) const ALL: [Self; 14] = [
        Self::Get,
        Self::Exists,
        Self::Fetch,
        Self::Refresh,
        Self::Put,
        Self::Key,
        Self::Prefix,
        Self::Labels,
        Self::Namespace,
        Self::All,
        Self::Sweep,
        Self::Sync,
        Self::Stats,
        Self::Dropped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Fetch => "get_or_fetch",
            Self::Refresh => "get_or_refresh",
            Self::Put => "put",
            Self::Key => "invalidate_key",
            Self::Prefix => "invalidate_prefix",
            Self::Labels => "invalidate_tags, _dependencies",
            Self::Namespace => "invalidate_namespace",
            Self::All => "invalidate_all",
            Self::Sweep => "sweep_expired",
            Self::Sync => "sync",
            Self::Stats => "stats, namespace_stats",
            Self::Dropped => "dropped calls",
        }
    }

    /// The verb of a number below 1000. Flushes are made by the clock instead, since a rate of
    /// calls that suits a fast machine would leave a slow one's store empty.
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0..450 => Self::Get,
            450..480 => Self::Exists,
            480..530 => Self::Fetch,
            530..570 => Self::Refresh,
            570..880 => Self::Put,
            880..940 => Self::Key,
            940..950 => Self::Prefix,
            950..970 => Self::Labels,
            970..972 => Self::Sweep,
            972..974 => Self::Sync,
            974..980 => Self::Stats,
            _ => Self::Dropped,
        }
    }

    pub(crate) fn place(self) -> usize {
        self as usize
    }
}
