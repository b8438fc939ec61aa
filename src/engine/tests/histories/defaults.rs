//! What the namespaces of a history have of their own: the policy of puts without one, and when
//! fetches are given up and tried again. No two have the same.

use std::time::Duration;

use super::call::{SPACES, policy_of};
use crate::config::BlobCacheConfigBuilder;
use crate::fetch_policy::FetchPolicy;
use crate::modes::{L1Admission, L2Compression};

/// How long a caller waits that has a stale entry.
pub(super) const SOFT_TIMEOUT: Duration = Duration::from_millis(40);

/// Deadlines in seconds, from the put on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub(super) ttl: Option<u64>,
    pub(super) stale: u64,
    pub(super) admission: L1Admission,
}

impl Defaults {
    pub(super) fn of(seed: u64, space: usize) -> Self {
        let (ttl, stale) = if space == 0 { (Some(25 + seed % 20), 15) } else { (None, 40) };
        let is_kept_out = space == 1 && seed % 2 == 1;
        let admission = if is_kept_out { L1Admission::Never } else { L1Admission::Always };
        Self { ttl, stale, admission }
    }
}

fn fetch_policy(seed: u64) -> FetchPolicy {
    let policy = FetchPolicy::default().soft_timeout(SOFT_TIMEOUT).refresh_ahead(0.9);
    match seed % 6 {
        // A slow origin takes longer.
        1 => policy.hard_timeout(SOFT_TIMEOUT * 3 / 2),
        3 => policy.retry_after(Duration::from_secs(20)),
        _ => policy,
    }
}

/// That of the cache holds for the first one.
pub(super) fn fetch_policies(seed: u64) -> [FetchPolicy; SPACES.len()] {
    [fetch_policy(seed), fetch_policy(seed + 2)]
}

pub(super) fn configured(builder: BlobCacheConfigBuilder, seed: u64) -> BlobCacheConfigBuilder {
    let [first, second] = [0, 1].map(|space| Defaults::of(seed, space));
    let [of_cache, of_second] = fetch_policies(seed);
    builder
        .fetch_policy(of_cache)
        .namespace(SPACES[0], |it| {
            let it = it.policy(policy_of(first.ttl, first.stale).l1_admission(first.admission));
            if seed % 8 == 2 { it.compression(L2Compression::On) } else { it }
        })
        .namespace(SPACES[1], |it| {
            // In place of that of the policy.
            it.l1_admission(second.admission)
                .policy(policy_of(second.ttl, second.stale))
                .fetch_policy(of_second)
        })
}
