//! `Verb`: the kinds of calls whose latencies are told apart, and how frequent they are.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Verb {
    Get,
    GetMany,
    Exists,
    Fetch,
    Refresh,
    Spawned,
    Put,
    PutMany,
    Typed,
    Touch,
    List,
    Key,
    Keys,
    Prefix,
    Labels,
    Namespace,
    All,
    Expire,
    ExpireMany,
    ExpireNamespace,
    Sweep,
    Sync,
    Stats,
    /// A call whose future is dropped after a few polls.
    Dropped,
}

impl Verb {
    pub(crate) const ALL: [Self; 24] = [
        Self::Get,
        Self::GetMany,
        Self::Exists,
        Self::Fetch,
        Self::Refresh,
        Self::Spawned,
        Self::Put,
        Self::PutMany,
        Self::Typed,
        Self::Touch,
        Self::List,
        Self::Key,
        Self::Keys,
        Self::Prefix,
        Self::Labels,
        Self::Namespace,
        Self::All,
        Self::Expire,
        Self::ExpireMany,
        Self::ExpireNamespace,
        Self::Sweep,
        Self::Sync,
        Self::Stats,
        Self::Dropped,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetMany => "get_many",
            Self::Exists => "exists",
            Self::Fetch => "get_or_fetch",
            Self::Refresh => "get_or_refresh",
            Self::Spawned => "get_or_fetch_spawned",
            Self::Put => "put",
            Self::PutMany => "put_many",
            Self::Typed => "typed put, get, get_or_fetch",
            Self::Touch => "touch",
            Self::List => "keys, to its end",
            Self::Key => "invalidate_key",
            Self::Keys => "invalidate_keys",
            Self::Prefix => "invalidate_prefix",
            Self::Labels => "invalidate_tags, _dependencies",
            Self::Namespace => "invalidate_namespace",
            Self::All => "invalidate_all",
            Self::Expire => "expire_key",
            Self::ExpireMany => "expire_prefix, _tags, _dependencies",
            Self::ExpireNamespace => "expire_namespace",
            Self::Sweep => "sweep_expired",
            Self::Sync => "sync",
            Self::Stats => "stats, namespace_stats",
            Self::Dropped => "dropped calls",
        }
    }

    /// The verb of a number below 1000. Flushes, and what makes a namespace stale, are made by the
    /// clock instead, since a rate of calls that suits a fast machine would leave a slow one's
    /// store empty.
    pub(crate) fn of(number: u32) -> Self {
        match number {
            0..400 => Self::Get,
            400..410 => Self::GetMany,
            410..435 => Self::Exists,
            435..475 => Self::Fetch,
            475..515 => Self::Refresh,
            515..535 => Self::Spawned,
            535..790 => Self::Put,
            790..798 => Self::PutMany,
            798..838 => Self::Typed,
            838..868 => Self::Touch,
            868..869 => Self::List,
            869..914 => Self::Key,
            914..918 => Self::Keys,
            918..926 => Self::Prefix,
            926..940 => Self::Labels,
            940..965 => Self::Expire,
            965..970 => Self::ExpireMany,
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
