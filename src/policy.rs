//! Policies, and the entry lifetimes that they determine: pure functions of times.
//!
//! ```text
//! written            expires = min(written + jittered ttl, expires_at)
//!    |----- fresh ------|------ stale_serve ------|
//!    served as fresh    served as stale         expired
//! ```
//!
//! Independently, an entry expires once it was idle for longer than its idle ttl.

use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::clock::{Timestamp, nanos};
use crate::modes::L1Admission;

/// How long an entry is fresh, where it may live, and how readily it is evicted.
///
/// The default keeps it until it is evicted or invalidated, at normal priority. Times saturate: a
/// ttl beyond the year 2554 never ends.
///
/// ```
/// use std::time::Duration;
/// use tamis::{BlobCachePolicy, ExtendedTtlPolicy};
///
/// let policy = BlobCachePolicy::default().ttl(Duration::from_secs(60)).jitter_pct(10);
/// let extended = ExtendedTtlPolicy { jitter_pct: 10, ..Default::default() };
/// let same = BlobCachePolicy::default().ttl(Duration::from_secs(60)).extended(extended);
/// assert_eq!(policy, same);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobCachePolicy {
    pub(crate) ttl: Option<Duration>,
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) blob_bytes_max: Option<usize>,
    pub(crate) l1_admission: L1Admission,
    pub(crate) priority: u8,
    pub(crate) version: Option<u64>,
    pub(crate) extended: ExtendedTtlPolicy,
}

impl BlobCachePolicy {
    pub(crate) const NORMAL_PRIORITY: u8 = 128;

    /// Fresh for this long after the put, plus the jitter. After that the entry is stale within its
    /// stale window, and expired without one. Default: no end.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Fresh until this time at the latest, whatever the ttl; not jittered. Default: no end.
    #[must_use]
    pub fn expires_at(mut self, expires_at: SystemTime) -> Self {
        self.expires_at = Some(expires_at);
        self
    }

    /// Refuses a larger value with [`BlobTooLarge`](crate::CacheError::BlobTooLarge). In bytes.
    /// Default: only the limits of the tiers.
    #[must_use]
    pub fn max_blob_bytes(mut self, max: usize) -> Self {
        self.blob_bytes_max = Some(max);
        self
    }

    /// Whether the entry may live in memory. Default: [`L1Admission::Auto`].
    #[must_use]
    pub fn l1_admission(mut self, admission: L1Admission) -> Self {
        self.l1_admission = admission;
        self
    }

    /// Entries of a lower priority are evicted from memory first; each priority in use has a SIEVE
    /// queue of its own. Default: 128.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Makes the put conditional: it fails with
    /// [`VersionMismatch`](crate::CacheError::VersionMismatch) if the live entry's version is not
    /// below this one. A stale entry is live; only a fetched value may renew it with the same
    /// version. Expired entries block nothing, and a flush forgets versions. Zero is a version.
    /// Default: none, the put wins.
    #[must_use]
    pub fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// Expires the entry, fresh or stale, once it was idle for longer than this. Every hit restarts
    /// the time; `exists` does not. Default: idleness does not end it. Sets
    /// [`ExtendedTtlPolicy::idle_ttl`], which says how well accesses on disk are known.
    #[must_use]
    pub fn idle_ttl(mut self, idle_ttl: Duration) -> Self {
        self.extended.idle_ttl = Some(idle_ttl);
        self
    }

    /// Served as stale for this long after its ttl or deadline: gets return it, marked
    /// [`is_stale`](crate::BlobCacheHit::is_stale), and the fetching methods refresh it. No effect
    /// without a ttl, a deadline or a soft invalidation such as
    /// [`expire_key`](crate::BlobCache::expire_key). Default: none, the entry expires at once. Sets
    /// [`ExtendedTtlPolicy::stale_serve`].
    ///
    /// ```
    /// # futures::executor::block_on(async {
    /// # use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, Clock};
    /// # use std::time::{Duration, SystemTime};
    /// # let clock = Clock::manual(SystemTime::now());
    /// # let config = BlobCacheConfig::builder().clock(clock.clone()).build()?;
    /// # let cache = BlobCache::open(config).await?;
    /// let policy = BlobCachePolicy::default()
    ///     .ttl(Duration::from_secs(60))
    ///     .stale_serve(Duration::from_secs(10));
    /// cache.put("pages", "/", BlobCachePut::new("...").with_policy(policy)).await?;
    /// // 65 seconds later:
    /// # clock.advance(Duration::from_secs(65));
    /// let hit = cache.get("pages", "/").await.unwrap();
    /// assert_eq!(hit.stale_window_remaining(), Some(Duration::from_secs(5)));
    /// # Ok::<(), tamis::CacheError>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn stale_serve(mut self, stale_serve: Duration) -> Self {
        self.extended.stale_serve = Some(stale_serve);
        self
    }

    /// Extends the ttl by 0 to this many percent, so that entries put together do not expire
    /// together. Default 0; over 100 counts as 100. Sets [`ExtendedTtlPolicy::jitter_pct`].
    #[must_use]
    pub fn jitter_pct(mut self, percent: u8) -> Self {
        self.extended.jitter_pct = percent;
        self
    }

    /// Idle ttl, stale window and jitter in one call. Default: all off.
    #[must_use]
    pub fn extended(mut self, extended: ExtendedTtlPolicy) -> Self {
        self.extended = extended;
        self
    }

    /// The life of an entry written at `written` under (`namespace`, `key`).
    pub(crate) fn lifetime(&self, namespace: &str, key: &[u8], written: Timestamp) -> Lifetime {
        let relative = self.ttl.map_or(Timestamp::NEVER, |ttl| {
            written.saturating_add(jittered(ttl, self.extended.jitter_pct, || {
                let seed = xxh3_64_with_seed(namespace.as_bytes(), written.0);
                xxh3_64_with_seed(key, seed)
            }))
        });
        let absolute = self.expires_at.map_or(Timestamp::NEVER, Timestamp::from);
        Lifetime {
            written,
            expires: relative.min(absolute),
            stale_serve: self.extended.stale_serve.map_or(0, nanos),
            idle_ttl: self.extended.idle_ttl.map_or(u64::MAX, nanos),
        }
    }
}

impl Default for BlobCachePolicy {
    fn default() -> Self {
        Self {
            ttl: None,
            expires_at: None,
            blob_bytes_max: None,
            l1_admission: L1Admission::default(),
            priority: Self::NORMAL_PRIORITY,
            version: None,
            extended: ExtendedTtlPolicy::default(),
        }
    }
}

/// Idle ttl, stale window and jitter of an entry. The default is all off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtendedTtlPolicy {
    /// Expires the entry once it was idle for longer than this. For entries that are only on disk,
    /// memory stores a limited number of last accesses; the others, and all entries after a
    /// restart, count as last accessed when they were written.
    pub idle_ttl: Option<Duration>,
    /// Served as stale for this long after its ttl or deadline.
    pub stale_serve: Option<Duration>,
    /// Extends the ttl by up to this many percent, so that entries put together do not expire
    /// together. A pure function of namespace, key and write time. Over 100 counts as 100.
    pub jitter_pct: u8,
}

/// When an entry was written, and its limits. Times are nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    pub(crate) written: Timestamp,
    pub(crate) expires: Timestamp,
    /// Zero without a stale window.
    pub(crate) stale_serve: u64,
    /// `u64::MAX` without an idle ttl.
    pub(crate) idle_ttl: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh,
    /// The rest of its stale window.
    Stale(Duration),
    Expired(ExpiredBy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpiredBy {
    /// Its stale window, or without one its ttl, is over.
    Ttl,
    IdleTtl,
}

impl Freshness {
    /// Nanoseconds left of the stale window; None unless stale.
    pub(crate) fn stale_window_left(self) -> Option<NonZeroU64> {
        let Self::Stale(left) = self else { return None };
        NonZeroU64::new(nanos(left))
    }

    pub(crate) fn is_expired(self) -> bool {
        matches!(self, Self::Expired(_))
    }
}

impl Lifetime {
    /// Over at any time.
    pub(crate) const GONE: Self =
        Self { written: Timestamp(0), expires: Timestamp(0), stale_serve: 0, idle_ttl: u64::MAX };

    /// Whether it ends earlier than another one in any respect.
    pub(crate) fn shortens(&self, other: &Self) -> bool {
        self.expires < other.expires
            || self.stale_serve < other.stale_serve
            || self.idle_ttl < other.idle_ttl
    }

    pub(crate) fn freshness(&self, now: Timestamp, last_access: Timestamp) -> Freshness {
        let end = self.end();
        if now >= end && end != Timestamp::NEVER {
            Freshness::Expired(ExpiredBy::Ttl)
        } else if is_idle(self.idle_ttl, last_access, now) {
            Freshness::Expired(ExpiredBy::IdleTtl)
        } else if now < self.expires || self.expires == Timestamp::NEVER {
            Freshness::Fresh
        } else {
            // A window without an end has something left even at the end of time.
            Freshness::Stale(end.saturating_since(now).max(Duration::from_nanos(1)))
        }
    }

    /// When it is gone, however often it is accessed.
    pub(crate) fn end(&self) -> Timestamp {
        end_of_window(self.expires, self.stale_serve)
    }

    /// When it expires unless it is accessed before.
    pub(crate) fn ends(&self, last_access: Timestamp) -> Timestamp {
        let idle = last_access.0.saturating_add(self.idle_ttl).saturating_add(1);
        self.end().min(Timestamp(idle))
    }
}

/// When an entry expires for certain, however often it is accessed.
pub(crate) fn end_of_window(expires: Timestamp, stale_serve: u64) -> Timestamp {
    expires.saturating_add(Duration::from_nanos(stale_serve))
}

/// Whether an entry was idle for too long. A clock that has stepped back counts as no idle time.
fn is_idle(idle_ttl: u64, last_access: Timestamp, now: Timestamp) -> bool {
    now.0.saturating_sub(last_access.0) > idle_ttl
}

/// `ttl + ttl * k / 100` for a `k` in `0..=jitter_pct` drawn from `draw`.
fn jittered(ttl: Duration, jitter_pct: u8, draw: impl FnOnce() -> u64) -> Duration {
    let span = u64::from(jitter_pct.min(100));
    if span == 0 {
        return ttl;
    }
    let k = u128::from(draw() % (span + 1));
    let stretch = ttl.as_nanos().saturating_mul(k) / 100;
    ttl.saturating_add(Duration::from_nanos(u64::try_from(stretch).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(policy: &BlobCachePolicy, written: u64) -> Lifetime {
        policy.lifetime("namespace", b"key", Timestamp(written))
    }

    #[test]
    fn freshness_changes_exactly_at_its_boundaries() {
        let policy =
            BlobCachePolicy::default().ttl(Duration::from_nanos(100)).extended(ExtendedTtlPolicy {
                stale_serve: Some(Duration::from_nanos(10)),
                ..Default::default()
            });
        let life = life(&policy, 1000);
        let at = |now| life.freshness(Timestamp(now), Timestamp(1000));
        assert_eq!(at(1099), Freshness::Fresh);
        assert_eq!(at(1100), Freshness::Stale(Duration::from_nanos(10)));
        assert_eq!(at(1109), Freshness::Stale(Duration::from_nanos(1)));
        assert_eq!(at(1110), Freshness::Expired(ExpiredBy::Ttl));
        assert_eq!(at(0), Freshness::Fresh, "a clock that steps back");
    }

    #[test]
    fn the_absolute_deadline_caps_the_ttl_and_is_not_jittered() {
        let deadline = Timestamp(1050);
        let policy = BlobCachePolicy::default()
            .ttl(Duration::from_nanos(100))
            .expires_at(deadline.into())
            .extended(ExtendedTtlPolicy { jitter_pct: 100, ..Default::default() });
        assert_eq!(life(&policy, 1000).expires, deadline);
        assert_eq!(life(&policy, 900).expires.min(deadline), life(&policy, 900).expires);
    }

    #[test]
    fn idle_time_is_counted_from_the_last_access() {
        let policy = BlobCachePolicy::default().extended(ExtendedTtlPolicy {
            idle_ttl: Some(Duration::from_nanos(10)),
            ..Default::default()
        });
        let life = life(&policy, 0);
        assert_eq!(life.freshness(Timestamp(60), Timestamp(50)), Freshness::Fresh, "equal lives");
        assert_eq!(
            life.freshness(Timestamp(61), Timestamp(50)),
            Freshness::Expired(ExpiredBy::IdleTtl)
        );
        assert_eq!(life.freshness(Timestamp(40), Timestamp(50)), Freshness::Fresh);
    }

    #[test]
    fn jitter_is_pure_and_covers_exactly_its_range() {
        let policy = |pct| {
            BlobCachePolicy::default()
                .ttl(Duration::from_nanos(1000))
                .extended(ExtendedTtlPolicy { jitter_pct: pct, ..Default::default() })
        };
        for (pct, most) in [(0, 0), (1, 10), (20, 200), (100, 1000), (255, 1000)] {
            let stretches: Vec<u64> = (0..5000u32)
                .map(|key| {
                    let key = key.to_le_bytes();
                    let life = policy(pct).lifetime("n", &key, Timestamp(7));
                    assert_eq!(life, policy(pct).lifetime("n", &key, Timestamp(7)));
                    life.expires.0 - 7 - 1000
                })
                .collect();
            assert_eq!(stretches.iter().min(), Some(&0), "{pct} %");
            assert_eq!(stretches.iter().max(), Some(&most), "{pct} %");
        }
    }

    #[test]
    fn extreme_durations_saturate() {
        let forever = BlobCachePolicy::default().ttl(Duration::MAX).extended(ExtendedTtlPolicy {
            idle_ttl: Some(Duration::MAX),
            stale_serve: Some(Duration::MAX),
            jitter_pct: 255,
        });
        let life = life(&forever, u64::MAX - 1);
        assert_eq!((life.expires, life.idle_ttl), (Timestamp::NEVER, u64::MAX));
        assert_eq!(life.freshness(Timestamp::NEVER, Timestamp(0)), Freshness::Fresh);
        let stale = ExtendedTtlPolicy { stale_serve: Some(Duration::MAX), ..Default::default() };
        let policy = BlobCachePolicy::default().ttl(Duration::ZERO).extended(stale);
        let at_the_end = policy.lifetime("n", b"key", Timestamp(5));
        let freshness = at_the_end.freshness(Timestamp::NEVER, Timestamp(5));
        assert_eq!(freshness, Freshness::Stale(Duration::from_nanos(1)));
        let nothing = BlobCachePolicy::default().ttl(Duration::ZERO);
        let life = super::tests::life(&nothing, 5);
        assert_eq!(life.freshness(Timestamp(5), Timestamp(5)), Freshness::Expired(ExpiredBy::Ttl));
    }
}
