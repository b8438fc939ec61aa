//! Listings of a namespace.

use super::value::{FullKey, SPACES, TAGS, tag};
use crate::cache::BlobCache;
use crate::keys::KeysQuery;

/// What is listed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Query {
    All(usize),
    /// With the heads of records.
    Details(usize),
    /// Keys that begin with a byte.
    Prefix(usize, u8),
    Tag(usize, u8),
}

/// An entry of a listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) full_key: FullKey,
    pub(super) version: Option<u64>,
    /// None: the listing does not tell.
    pub(super) is_stale: Option<bool>,
}

impl Query {
    pub(super) fn of(full_key: FullKey, kind: u8) -> Self {
        match kind {
            0 => Self::Details(full_key.space),
            1 => Self::Prefix(full_key.space, full_key.name()[0]),
            2 | 3 => Self::Tag(full_key.space, full_key.key % TAGS),
            _ => Self::All(full_key.space),
        }
    }

    /// The tag that listed entries carry, if it is one.
    pub(super) fn tag(self) -> Option<u8> {
        match self {
            Self::Tag(_, tag) => Some(tag),
            Self::All(_) | Self::Details(_) | Self::Prefix(..) => None,
        }
    }

    fn build(self) -> KeysQuery {
        match self {
            Self::All(_) => KeysQuery::default(),
            Self::Details(_) => KeysQuery::default().details(),
            Self::Prefix(_, first) => KeysQuery::default().prefix([first]),
            Self::Tag(_, number) => KeysQuery::default().tags([tag(number)]),
        }
    }

    fn space(self) -> usize {
        match self {
            Self::All(space) | Self::Details(space) => space,
            Self::Prefix(space, _) | Self::Tag(space, _) => space,
        }
    }
}

pub(super) async fn list(cache: &BlobCache, query: Query) -> Vec<Listed> {
    let space = query.space();
    let mut keys = cache.keys(SPACES[space], query.build());
    let mut listed = Vec::new();
    while let Some(entry) = keys.next().await {
        let of_space = |it: &FullKey| it.space == space && it.name() == *entry.key();
        let full_key = FullKey::all().find(of_space).expect("a key that was put");
        if let Query::Prefix(_, first) = query {
            assert_eq!(full_key.name()[0], first, "{full_key:?}");
        }
        let (version, is_stale) = (entry.version(), entry.is_stale());
        listed.push(Listed { full_key, version, is_stale });
    }
    listed
}
