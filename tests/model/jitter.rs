//! The jittered expiry of an entry, taken from a second cache: jitter is a pure function of
//! namespace, key and write time, so both caches must agree on one of the allowed times.

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, Clock};

use crate::operation::{FullKey, Policy, START, time};
use crate::seen::Seen;

pub(crate) struct Jitter {
    twin: BlobCache,
    clock: Clock,
}

impl Jitter {
    pub(crate) fn new() -> Self {
        let clock = Clock::manual(time(START));
        let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).clock(clock.clone());
        let config = builder.build().expect("every field is in its range");
        let twin = block_on(BlobCache::open(config)).expect("a cache in memory opens");
        Self { twin, clock }
    }

    /// When the ttl of an entry written at `now` ends; `u64::MAX` for never.
    pub(crate) fn expiry(&self, full_key: &FullKey, now: u64, policy: &Policy) -> u64 {
        let Some(ttl) = policy.ttl else { return u64::MAX };
        let stretched = |percent: u64| {
            let stretched = u128::from(ttl) + u128::from(ttl) * u128::from(percent) / 100;
            now.saturating_add(u64::try_from(stretched).unwrap_or(u64::MAX))
        };
        if policy.jitter_pct == 0 || ttl == 0 {
            return stretched(0);
        }
        let only_jitter =
            Policy { ttl: Some(ttl), jitter_pct: policy.jitter_pct, ..Default::default() };
        self.clock.set(time(now));
        let put = BlobCachePut::new("").with_policy(only_jitter.build());
        let seen = block_on(async {
            self.twin.put(full_key.namespace, &full_key.key, put).await.expect("it fits");
            self.twin.get(full_key.namespace, &full_key.key).await
        });
        let seen = Seen::from(&seen.expect("its ttl is not zero"));
        let expires = seen.expires.unwrap_or(u64::MAX);
        let mut allowed = (0..=u64::from(policy.jitter_pct.min(100))).map(stretched);
        assert!(allowed.any(|end| end == expires), "{expires} is no stretch of {policy:?}");
        expires
    }
}
