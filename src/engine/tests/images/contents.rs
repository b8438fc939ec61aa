//! What an image holds, and which settings it counts with.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::bench::Bench;
use super::{
    assert_goes_on, builder, call, close, closed, config, file, opened, segments_end, state, worked,
};
use crate::config::BlobCacheConfigBuilder;
use crate::failpoint::{Failpoint, plant};
use crate::io::Disk;
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::quota::NamespaceQuota;

#[test]
fn it_holds_what_the_directories_say() {
    let (mut slots, mut postings, mut reclaimed) = (0, 0, 0);
    for seed in 0..60 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let config = config();
        let calls = random.random_range(0..1500);
        let mut bench = worked(&mut random, &config, calls);
        reclaimed += bench.cache.stats().l2_reclaimed_segments();
        close(&mut random, &mut bench);
        let mut whole = file(&bench.disk);
        let (by_image, is_from_image) = opened(&whole, &config);
        assert!(is_from_image);
        whole.truncate(usize::try_from(segments_end(&config)).unwrap());
        let (by_directories, is_from_image) = opened(&whole, &config);
        assert!(!is_from_image);
        assert_eq!(by_image, by_directories);
        slots += by_image.values().map(|it| it.slots.len()).sum::<usize>();
        postings += by_image.values().map(|it| it.postings.len()).sum::<usize>();
        // The next open has cut it off, and goes on from there.
        bench.reopen();
        assert_eq!(state(&bench.cache), by_directories);
        for _ in 0..random.random_range(0..50) {
            call(&mut random, &mut bench);
        }
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.disk.length(), segments_end(&config));
        let before = state(&bench.cache);
        bench.run(bench.cache.clone().sync()).unwrap();
        bench.kill();
        assert!(!bench.cache.stats().recovery_from_image());
        assert_goes_on(&before, &bench.cache, "after a kill");
    }
    assert!(slots > 6000 && postings > 6000 && reclaimed > 100, "{slots} {postings} {reclaimed}");
}

#[test]
fn what_only_memory_knew_is_not_in_it() {
    let _planted = plant(Failpoint::ImageUnsettled);
    let differs = (0..60).any(|seed| {
        let mut random = StdRng::seed_from_u64(seed);
        let config = config();
        let mut bench = worked(&mut random, &config, 800);
        close(&mut random, &mut bench);
        let mut whole = file(&bench.disk);
        let (by_image, _) = opened(&whole, &config);
        whole.truncate(usize::try_from(segments_end(&config)).unwrap());
        by_image != opened(&whole, &config).0
    });
    assert!(differs, "the bug is not found");
}

/// Limits that are smaller than before hold after the open.
#[test]
fn it_counts_only_within_the_present_settings() {
    let (whole, _, by_directories) = closed(3, 600);
    let is_used = |builder: BlobCacheConfigBuilder| {
        let config = builder.build().unwrap();
        let (found, is_from_image) = opened(&whole, &config);
        assert_eq!(is_from_image, found == by_directories);
        is_from_image
    };
    let quota = |bytes| NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(bytes) };
    let blocks = by_directories["a"].blocks;
    assert!(blocks > 1);
    assert!(is_used(builder()) && is_used(builder().l1_bytes_max(1 << 20)));
    assert!(is_used(builder().max_namespaces(3)) && !is_used(builder().max_namespaces(2)));
    assert!(is_used(builder().quota("a", quota(blocks * 4096))));
    assert!(!is_used(builder().quota("a", quota(blocks * 4096 - 1))));
    let smaller = |bytes| {
        let mut config = config();
        // The builder permits no such small value.
        config.l2_index_bytes_max = bytes;
        opened(&whole, &config).1
    };
    let slots: usize = by_directories.values().map(|it| it.slots.len()).sum();
    assert!(smaller(64 << 10) && !smaller(slots * 32 - 1));
    let mut config = config();
    config.key_hash_bits = 20;
    assert!(!opened(&whole, &config).1);
}

/// A namespace that has reached its quota keeps its image.
#[test]
fn it_counts_at_a_quota() {
    let quota = NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(50_000) };
    let config = builder().quota("a", quota).build().unwrap();
    for length in [100, 900, 5000] {
        let mut bench = Bench::with(length, config.clone());
        let cache = bench.cache();
        let mut number = 0;
        while cache.stats().l2_full_rejections() == 0 {
            let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
            let value = vec![7; usize::try_from(length).unwrap()];
            let put = BlobCachePut::new(value).with_policy(policy);
            bench.run(cache.put("a", format!("{number}"), put)).unwrap();
            number += 1;
            assert!(number < 5000, "no quota");
        }
        bench.run(cache.close()).unwrap();
        drop(cache);
        bench.reopen();
        assert!(bench.cache.stats().recovery_from_image(), "{length}");
    }
}
