//! Charges and quotas at the limits of their ranges: no sum overflows, in either tier.

use futures::executor::block_on;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, L1Admission,
    NamespaceQuota,
};

type Charge = fn(&[u8], &[u8]) -> usize;

const CHARGES: [Charge; 5] =
    [|_, _| 0, |_, _| 1, |_, value| value.len(), |_, _| usize::MAX / 2, |_, _| usize::MAX];

const ADMISSIONS: [L1Admission; 3] = [L1Admission::Never, L1Admission::Auto, L1Admission::Always];

const L1_BYTES_MAX: usize = 1 << 20;

fn quotas() -> impl Iterator<Item = NamespaceQuota> {
    let in_memory = [None, Some(0), Some(1), Some(usize::MAX / 2), Some(usize::MAX)];
    let on_disk = [None, Some(0), Some(u64::MAX / 2), Some(u64::MAX)];
    in_memory.into_iter().flat_map(move |l1_bytes_max| {
        on_disk.map(|l2_bytes_max| NamespaceQuota { l1_bytes_max, l2_bytes_max })
    })
}

fn put(admission: L1Admission) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(admission);
    BlobCachePut::new("value").with_policy(policy)
}

/// Calls that add up charges, with values that are alive at the same time.
fn exercise(cache: &BlobCache) {
    for admission in ADMISSIONS {
        let puts = (0_u8..20).map(|key| cache.put("tenant", [key], put(admission)));
        for outcome in block_on(join_all(puts)) {
            let is_refused = matches!(outcome, Err(CacheError::BlobTooLarge { .. }));
            assert!(outcome.is_ok() || is_refused, "{outcome:?}");
        }
        for key in 0_u8..20 {
            if let Some(hit) = block_on(cache.get("tenant", [key])) {
                assert_eq!(hit.value(), b"value");
            }
        }
        assert!(cache.stats().bytes_in_use() <= L1_BYTES_MAX);
    }
    block_on(cache.invalidate_prefix("tenant", [])).unwrap();
    block_on(cache.close()).unwrap();
}

#[test]
fn no_sum_overflows_in_memory() {
    for charge in CHARGES {
        for quota in quotas() {
            let builder = BlobCacheConfig::builder().l1_bytes_max(L1_BYTES_MAX);
            let config = builder.l1_charge(charge).quota("tenant", quota).build().unwrap();
            exercise(&block_on(BlobCache::open(config)).unwrap());
        }
    }
}

#[test]
fn no_sum_overflows_with_a_disk_tier() {
    for charge in CHARGES {
        for quota in quotas().step_by(3) {
            let folder = tempfile::tempdir().unwrap();
            let builder = BlobCacheConfig::builder()
                .l1_bytes_max(L1_BYTES_MAX)
                .l2_path(folder.path())
                .l2_engine(crate::engine::engine(0))
                .l2_bytes_max(4 << 20)
                .l2_segment_bytes(1 << 20);
            let config = builder.l1_charge(charge).quota("tenant", quota).build().unwrap();
            exercise(&block_on(BlobCache::open(config)).unwrap());
        }
    }
}

#[test]
fn a_panicking_charge_counts_as_memory_and_delays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(L1_BYTES_MAX)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(4 << 20)
        .l2_segment_bytes(1 << 20)
        .l1_charge(|_, _| std::panic::resume_unwind(Box::new("a charge")))
        .build()
        .unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    for admission in ADMISSIONS {
        block_on(cache.put("tenant", "key", put(admission))).unwrap();
        assert_eq!(block_on(cache.get("tenant", "key")).unwrap().value(), b"value");
    }
    assert!(cache.stats().bytes_in_use() > b"keyvalue".len());
    block_on(cache.close()).unwrap();
}
