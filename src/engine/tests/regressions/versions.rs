//! Faults of conditional puts: a version on disk, and mutations while it is read.

use futures::FutureExt;

use super::*;
use crate::io::{Fault, OperationKind};

#[test]
fn a_version_invalidated_while_it_is_read_does_not_block() {
    for seed in 0..300 {
        let mut bench = Bench::new(seed);
        let cache = bench.cache();
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(3);
        let put = || BlobCachePut::new("value").with_policy(policy.clone());
        bench.run(async {
            cache.put("a", "k", put()).await.unwrap();
            cache.sync().await.unwrap();
        });
        // Dropped, it is in force; other calls finish it while the put reads the version.
        assert!(cache.invalidate_prefix("a", "k").now_or_never().is_none());
        let others = async {
            for number in 0..20 {
                cache.put("a", format!("other{number}"), "value").await.unwrap();
                yield_now().await;
            }
        };
        let (again, ()) = bench.run(join(cache.put("a", "k", put()), others));
        assert!(again.is_ok(), "seed {seed}: {again:?}");
    }
}

/// A failed read must not discard a version that may be newer.
#[test]
fn an_unreadable_version_is_not_overwritten() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put =
        |value, version| BlobCachePut::new(value).with_policy(policy.clone().version(version));
    bench.run(cache.put("a", "k", put("nine", 9))).unwrap();
    bench.run(cache.sync()).unwrap();
    bench.disk.fail(OperationKind::Read, 0, Fault::Io, false);
    let refused = bench.run(cache.put("a", "k", put("three", 3)));
    let is_told = matches!(refused, Err(crate::CacheError::VersionUnknown { attempted: 3, .. }));
    assert!(is_told, "{refused:?}");
    assert_eq!(bench.get("k").as_deref(), Some("nine"), "nothing has changed");
    let refused = bench.run(cache.put("a", "k", put("three", 3)));
    let mismatch = crate::CacheError::VersionMismatch { existing: 9, attempted: 3 };
    assert_eq!(refused, Err(mismatch));
    bench.run(cache.put("a", "k", put("ten", 10))).unwrap();
    assert_eq!(bench.get("k").as_deref(), Some("ten"));
}

#[test]
fn a_version_check_reads_only_the_header_of_the_record() {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 << 20)
        .l2_segment_bytes(1 << 20)
        .l2_compression(L2Compression::Off)
        .content_metadata_bytes_max(64 << 10);
    let mut bench = Bench::with(1, config.build().unwrap());
    let cache = bench.cache();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    for (key, metadata, most) in [("plain", 10, 2 * 4096), ("much of it", 40_000, 14 * 4096)] {
        let put = |version| {
            let metadata = [("note", "m".repeat(metadata))];
            BlobCachePut::new(vec![7; 500_000])
                .with_content_metadata(metadata)
                .with_policy(policy.clone().version(version))
        };
        bench.run(cache.put("a", key, put(5))).unwrap();
        bench.run(cache.sync()).unwrap();
        let before = cache.stats().l2_read_bytes();
        let refused = bench.run(cache.put("a", key, put(5)));
        let mismatch = crate::CacheError::VersionMismatch { existing: 5, attempted: 5 };
        assert_eq!(refused, Err(mismatch), "{key}");
        let read = cache.stats().l2_read_bytes() - before;
        assert!((1..=most).contains(&read), "{key}: {read} bytes");
        bench.run(cache.put("a", key, put(6))).unwrap();
        assert_eq!(bench.run(cache.get("a", key)).unwrap().version(), Some(6));
    }
}
