//! The calls of a workload, and what each makes of the entries that it is about.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

pub(super) const SPACES: [&str; 2] = ["a", "b"];
pub(super) const KEYS: u8 = 8;

/// How long an entry is fresh, unless it is touched.
const TTL: Duration = Duration::from_secs(1000);

/// How long one is that was touched to last.
const LONG_TTL: Duration = Duration::from_secs(100_000);

/// Between the two, and within the stale windows.
pub(super) const LATER: Duration = Duration::from_secs(2000);

const WINDOW: Duration = Duration::from_secs(50_000);

pub(super) type Key = (usize, u8);

#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Put(Key, u32, usize),
    Key(Key),
    Tag(usize, u8),
    Prefix(usize, u8),
    Flush(usize),
    ExpireKey(Key),
    /// Ends its freshness.
    TouchKey(Key),
    /// Makes it last.
    ExtendKey(Key),
    ExpireTag(usize, u8),
    ExpirePrefix(usize, u8),
    ExpireSpace(usize),
    Get(Key),
    Sync,
}

/// How long an entry is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// As it was put.
    Put,
    Extended,
    /// No longer, by a touch.
    Ended,
    /// No longer, and no touch makes it last.
    Expired,
}

impl Freshness {
    pub(super) fn is_stale(self, is_later: bool) -> bool {
        match self {
            Self::Put => is_later,
            Self::Extended => false,
            Self::Ended | Self::Expired => true,
        }
    }

    pub(super) fn is_live(self) -> bool {
        matches!(self, Self::Put | Self::Extended)
    }
}

fn tag_of((_, key): Key) -> u8 {
    key % 3
}

fn value(number: u32, length: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(length.max(4)).collect()
}

pub(super) fn number_in(value: &[u8]) -> Option<u32> {
    let number = u32::from_le_bytes(*value.first_chunk()?);
    (value == self::value(number, value.len())).then_some(number)
}

fn fresh_for(ttl: Duration) -> BlobCachePolicy {
    BlobCachePolicy::default().ttl(ttl).stale_serve(WINDOW)
}

impl Call {
    pub(super) fn draw(random: &mut StdRng, number: u32) -> Self {
        let key = (random.random_range(0..SPACES.len()), random.random_range(0..KEYS));
        match random.random_range(0..100) {
            0..44 => Self::Put(key, number, random.random_range(4..12_000)),
            44..46 => Self::ExpireKey(key),
            46 => Self::TouchKey(key),
            47..48 => Self::ExpireTag(key.0, tag_of(key)),
            48..49 => Self::ExpirePrefix(key.0, key.1),
            49 => Self::ExpireSpace(key.0),
            50..63 => Self::Get(key),
            63..68 => Self::ExtendKey(key),
            68..77 => Self::Key(key),
            77..82 => Self::Tag(key.0, tag_of(key)),
            82..86 => Self::Prefix(key.0, key.1),
            86..88 => Self::Flush(key.0),
            _ => Self::Sync,
        }
    }

    pub(super) fn matches(self, key: Key) -> bool {
        match self {
            Self::Put(of, ..) | Self::Key(of) => of == key,
            Self::ExpireKey(of) | Self::TouchKey(of) | Self::ExtendKey(of) => of == key,
            Self::Tag(space, tag) | Self::ExpireTag(space, tag) => {
                key.0 == space && tag_of(key) == tag
            }
            Self::Prefix(space, first) | Self::ExpirePrefix(space, first) => key == (space, first),
            Self::Flush(space) | Self::ExpireSpace(space) => key.0 == space,
            Self::Get(_) | Self::Sync => false,
        }
    }

    pub(super) fn is_touch(self) -> bool {
        matches!(self, Self::TouchKey(_) | Self::ExtendKey(_))
    }

    /// What it makes of the freshness of an entry; None if it removes or replaces it.
    pub(super) fn changes(self, freshness: Freshness) -> Option<Freshness> {
        match self {
            Self::ExpireKey(_)
            | Self::ExpireTag(..)
            | Self::ExpirePrefix(..)
            | Self::ExpireSpace(_) => Some(Freshness::Expired),
            Self::TouchKey(_) | Self::ExtendKey(_) if freshness == Freshness::Expired => {
                Some(freshness)
            }
            Self::TouchKey(_) => Some(Freshness::Ended),
            Self::ExtendKey(_) => Some(Freshness::Extended),
            _ => None,
        }
    }

    /// Returns whether it has found something, if it is a touch.
    pub(super) async fn make(self, cache: BlobCache) -> Result<bool, String> {
        let made = self.made(cache).await;
        made.map_err(|error| format!("{self:?} fails: {error}"))
    }

    async fn made(self, cache: BlobCache) -> Result<bool, CacheError> {
        match self {
            Self::Put((space, key), number, length) => {
                let policy = fresh_for(TTL).l1_admission(L1Admission::Never);
                let put = BlobCachePut::new(value(number, length)).with_policy(policy);
                let put = put.with_tags([tag_of((space, key)).to_string()]);
                cache.put(SPACES[space], [key], put).await?;
            }
            Self::Key((space, key)) => drop(cache.invalidate_key(SPACES[space], [key]).await?),
            Self::Tag(space, tag) => {
                cache.invalidate_tags(SPACES[space], &[&tag.to_string()]).await?;
            }
            Self::Prefix(space, first) => {
                cache.invalidate_prefix(SPACES[space], [first]).await?;
            }
            Self::Flush(space) => drop(cache.invalidate_namespace(SPACES[space]).await?),
            Self::ExpireKey((space, key)) => drop(cache.expire_key(SPACES[space], [key]).await?),
            Self::TouchKey((space, key)) => {
                return cache.touch(SPACES[space], [key], &fresh_for(Duration::ZERO)).await;
            }
            Self::ExtendKey((space, key)) => {
                return cache.touch(SPACES[space], [key], &fresh_for(LONG_TTL)).await;
            }
            Self::ExpireTag(space, tag) => {
                cache.expire_tags(SPACES[space], &[&tag.to_string()]).await?;
            }
            Self::ExpirePrefix(space, first) => {
                cache.expire_prefix(SPACES[space], [first]).await?;
            }
            Self::ExpireSpace(space) => drop(cache.expire_namespace(SPACES[space]).await?),
            // It counts as a use, for which the record is appended again.
            Self::Get((space, key)) => drop(cache.get(SPACES[space], [key]).await),
            Self::Sync => cache.sync().await?,
        }
        Ok(true)
    }
}
