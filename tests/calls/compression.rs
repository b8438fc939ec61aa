//! Two tiers on a real file: compression, promotion, reinsertion, cached absences, the synopsis.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CachePresence, CacheTier, Clock,
    ExtendedTtlPolicy, L1Admission, L2Compression, L2PromotionPolicy,
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(path: &Path, compression: L2Compression) -> BlobCache {
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path(path)
        .l2_engine(crate::engine::engine(0));
    let config = builder.l2_bytes_max(32 << 20).l2_segment_bytes(4 << 20);
    block_on(BlobCache::open(config.l2_compression(compression).build().unwrap())).unwrap()
}

/// Not admitted to memory.
fn on_disk(value: Vec<u8>) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::from(value).with_policy(policy)
}

fn of_type(value: Vec<u8>, content_type: &str) -> BlobCachePut {
    let metadata = [("Content-Type".to_owned(), content_type.to_owned())];
    on_disk(value).with_content_metadata(metadata)
}

fn text(bytes: usize) -> Vec<u8> {
    (0..).flat_map(|n: u32| format!("line {n}\n").into_bytes()).take(bytes).collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    noise
}

#[test]
fn values_round_trip_with_and_without_compression() {
    let folder = folder();
    let values = [text(0), text(1023), text(1024), text(300_000), text(3_000_000), noise(100_000)];
    let check = |cache: &BlobCache| {
        for (number, value) in values.iter().enumerate() {
            let hit = block_on(cache.get("space", number.to_le_bytes())).unwrap();
            assert_eq!(hit.tier(), CacheTier::L2);
            assert_eq!(hit.value(), value, "{} bytes", value.len());
        }
    };
    let cache = open(folder.path(), L2Compression::On);
    for (number, value) in values.iter().enumerate() {
        block_on(cache.put("space", number.to_le_bytes(), on_disk(value.clone()))).unwrap();
    }
    // From the write buffer, and from the file.
    check(&cache);
    block_on(cache.sync()).unwrap();
    check(&cache);
    let stats = cache.stats();
    assert_eq!(stats.l2_compression_skipped_total(), 3, "short ones and noise");
    assert_eq!(stats.l2_compressed_from(), 3_301_024);
    assert!(stats.l2_compression_ratio_observed() > 2.0);
    let saved = stats.l2_compressed_from() - stats.l2_compressed_to();
    assert_eq!(stats.l2_bytes_saved_total(), saved);
    assert!(stats.l2_write_bytes() < 2_000_000, "{}", stats.l2_write_bytes());
    block_on(cache.close()).unwrap();

    // A cache that does not compress reads compressed values.
    let cache = open(folder.path(), L2Compression::Off);
    check(&cache);
    block_on(cache.put("space", "more", on_disk(text(100_000)))).unwrap();
    let stats = cache.stats();
    assert_eq!((stats.l2_compressed_from(), stats.l2_compression_skipped_total()), (0, 0));
    assert_eq!(stats.l2_corruptions(), 0);
    block_on(cache.close()).unwrap();
}

#[test]
fn compressed_content_types_are_not_compressed_again() {
    let folder = folder();
    let cache = open(folder.path(), L2Compression::On);
    for content_type in ["image/png", "video/mp4; codecs=avc1", "APPLICATION/ZIP"] {
        block_on(cache.put("space", content_type, of_type(text(10_000), content_type))).unwrap();
    }
    assert_eq!(cache.stats().l2_compression_skipped_total(), 3);
    assert_eq!(cache.stats().l2_compressed_from(), 0);
    for content_type in ["image/svg+xml", "audio/wav", "text/html"] {
        block_on(cache.put("space", content_type, of_type(text(10_000), content_type))).unwrap();
    }
    assert_eq!(cache.stats().l2_compression_skipped_total(), 3);
    assert_eq!(cache.stats().l2_compressed_from(), 30_000);
    block_on(cache.close()).unwrap();
}

/// Waits until background tasks have reached a state.
fn eventually(done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(10), "it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn tier_of(cache: &BlobCache, key: &str) -> Option<CacheTier> {
    block_on(cache.get("space", key)).map(|hit| hit.tier())
}

#[test]
fn disk_hits_are_promoted_to_memory() {
    let folder = folder();
    let cache = open(folder.path(), L2Compression::On);
    let put = |key: &'static str, value: Vec<u8>, policy: BlobCachePolicy| {
        let put = BlobCachePut::from(value).with_policy(policy.version(7)).with_tags(["tag"]);
        block_on(cache.put("space", key, put)).unwrap();
    };
    let kept = BlobCachePolicy::default();
    put("text", text(4000), kept.clone());
    put("noise", noise(4000), kept.clone().priority(9));
    put("never", text(4000), kept.clone().l1_admission(L1Admission::Never));
    put("large", noise(20_000), kept.clone().l1_admission(L1Admission::Always));
    put("too large", noise(20_000), kept);
    block_on(cache.close()).unwrap();

    // Memory is empty after a restart.
    let cache = open(folder.path(), L2Compression::On);
    let reads = cache.stats().l2_reads();
    for (number, key) in (1..).zip(["text", "noise"]) {
        assert_eq!(tier_of(&cache, key), Some(CacheTier::L2), "{key}");
        eventually(|| cache.stats().promotion_completed() == number);
        let hit = block_on(cache.get("space", key)).unwrap();
        assert_eq!((hit.tier(), hit.version()), (CacheTier::L1, Some(7)), "{key}");
        assert_eq!(hit.value(), if key == "text" { text(4000) } else { noise(4000) });
    }
    for key in ["never", "too large"] {
        for _ in 0..3 {
            assert_eq!(tier_of(&cache, key), Some(CacheTier::L2), "{key}");
        }
    }
    let stats = cache.stats();
    assert_eq!((stats.promotion_queued(), stats.promotion_dropped()), (2, 0));
    assert_eq!(stats.promotion_queue_depth(), 0);
    assert_eq!(stats.l2_reads() - reads, 2 + 6, "nothing is read twice");
    assert_eq!(block_on(cache.invalidate_tags("space", &["tag"])), Ok(5));
    assert_eq!((cache.stats().entries(), tier_of(&cache, "text")), (0, None));
    assert_eq!(cache.stats().memory_labels_bytes(), 0);
    block_on(cache.close()).unwrap();
}

#[test]
fn promotion_can_wait_for_a_second_hit() {
    let folder = folder();
    let open = || {
        let builder = BlobCacheConfig::builder()
            .l2_path(folder.path())
            .l2_engine(crate::engine::engine(0))
            .l2_bytes_max(32 << 20);
        let builder = builder.l2_promotion_policy(L2PromotionPolicy::OnSecondHit);
        block_on(BlobCache::open(builder.build().unwrap())).unwrap()
    };
    let cache = open();
    block_on(cache.put("space", "key", text(4000))).unwrap();
    block_on(cache.close()).unwrap();
    let cache = open();
    assert_eq!(tier_of(&cache, "key"), Some(CacheTier::L2));
    assert_eq!(cache.stats().promotion_queued(), 0);
    assert_eq!(tier_of(&cache, "key"), Some(CacheTier::L2));
    eventually(|| cache.stats().promotion_completed() == 1);
    assert_eq!(tier_of(&cache, "key"), Some(CacheTier::L1));
    block_on(cache.close()).unwrap();
}

/// Records that exceed their idle ttl are not reinserted.
#[test]
fn idle_records_are_not_reinserted() {
    let folder = folder();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0));
    let builder = builder.l2_bytes_max(2 << 20).l2_segment_bytes(256 << 10).clock(clock.clone());
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let idle_ttl = Some(Duration::from_secs(10));
    let extended = ExtendedTtlPolicy { idle_ttl, ..Default::default() };
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).extended(extended);
    let keys = 0..20u32;
    for number in keys.clone() {
        let put = BlobCachePut::new(noise(1000)).with_policy(policy.clone());
        block_on(cache.put("space", number.to_le_bytes(), put)).unwrap();
    }
    let is_there = |number: &u32| block_on(cache.get("space", number.to_le_bytes())).is_some();
    clock.advance(Duration::from_secs(9));
    assert_eq!(keys.clone().filter(is_there).count(), 20);
    clock.advance(Duration::from_secs(9));
    // Half of them are read again.
    assert_eq!(keys.clone().filter(|number| number % 2 == 0).filter(is_there).count(), 10);
    clock.advance(Duration::from_secs(9));
    for number in 0..3000u32 {
        block_on(cache.put("cold", number.to_le_bytes(), on_disk(noise(1000)))).unwrap();
        if number % 50 == 0 {
            // Puts that fill the log as fast as it drains would leave no room for reinsertion.
            block_on(cache.sync()).unwrap();
        }
    }
    assert_eq!(cache.stats().l2_reinserted(), 10);
    assert_eq!(keys.filter(is_there).count(), 10);
    block_on(cache.close()).unwrap();
}

#[test]
fn read_records_outlive_unread_ones() {
    for second_chances in [true, false] {
        let folder = folder();
        let builder = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path(folder.path())
            .l2_engine(crate::engine::engine(0));
        let builder = builder.l2_bytes_max(2 << 20).l2_segment_bytes(256 << 10);
        let config = builder.l2_second_chances(second_chances).build().unwrap();
        let cache = block_on(BlobCache::open(config.clone())).unwrap();
        let hot = |number: u32| on_disk(noise(1000 + number as usize)).with_tags(["hot"]);
        let keys = 0..20u32;
        for number in keys.clone() {
            block_on(cache.put("space", number.to_le_bytes(), hot(number))).unwrap();
        }
        let written = |number: u32| {
            let hit = block_on(cache.get("space", number.to_le_bytes()))?;
            assert_eq!(hit.value(), noise(1000 + number as usize));
            Some(hit.written_at())
        };
        let first: Vec<_> = keys.clone().map(written).collect();
        // Four times the size of the disk tier.
        for number in 0..8000u32 {
            block_on(cache.put("cold", number.to_le_bytes(), on_disk(noise(1000)))).unwrap();
            if number % 50 == 0 {
                // Puts that fill the log as fast as it drains would leave no room for reinsertion.
                block_on(cache.sync()).unwrap();
                // Entries that are still there are compared.
                keys.clone().for_each(|number| _ = written(number));
            }
        }
        let last: Vec<_> = keys.clone().map(written).collect();
        let stats = cache.stats();
        assert!(stats.l2_reclaimed_segments() > 24, "{}", stats.l2_reclaimed_segments());
        if second_chances {
            assert_eq!(first, last);
            assert!(stats.l2_reinserted() >= 40, "{}", stats.l2_reinserted());
            assert!(stats.l2_reinserted_bytes() > 40_000);
            assert_eq!(block_on(cache.invalidate_tags("space", &["hot"])), Ok(20));
            block_on(cache.close()).unwrap();
            let cache = block_on(BlobCache::open(config)).unwrap();
            assert!(block_on(cache.get("space", 7u32.to_le_bytes())).is_none());
        } else {
            assert_eq!(last, [None; 20]);
            assert_eq!(stats.l2_reinserted(), 0);
        }
        assert_eq!(cache.stats().memory_labels_bytes(), 0);
    }
}

#[test]
fn cached_absences_survive_in_both_tiers_and_a_restart() {
    let folder = folder();
    let cache = open(folder.path(), L2Compression::On);
    let briefly = BlobCachePolicy::default().ttl(Duration::from_secs(3600));
    let absent = || BlobCachePut::absent().with_tags(["tag"]).with_policy(briefly.clone());
    let below = briefly.clone().l1_admission(L1Admission::Never);
    block_on(cache.put("space", "memory", absent())).unwrap();
    block_on(cache.put("space", "disk", absent().with_policy(below))).unwrap();
    block_on(cache.put("space", "empty", "")).unwrap();
    let check = |cache: &BlobCache, key: &str, is_absent: bool, tier: CacheTier| {
        let hit = block_on(cache.get("space", key)).unwrap();
        assert_eq!((hit.is_absent(), hit.tier(), hit.value()), (is_absent, tier, &[][..]), "{key}");
        assert_eq!(hit.expires_at().is_some(), is_absent);
    };
    check(&cache, "memory", true, CacheTier::L1);
    check(&cache, "disk", true, CacheTier::L2);
    check(&cache, "empty", false, CacheTier::L1);
    block_on(cache.close()).unwrap();
    let cache = open(folder.path(), L2Compression::On);
    check(&cache, "memory", true, CacheTier::L2);
    check(&cache, "disk", true, CacheTier::L2);
    check(&cache, "empty", false, CacheTier::L2);
    eventually(|| cache.stats().promotion_completed() == 2);
    check(&cache, "memory", true, CacheTier::L1);
    check(&cache, "empty", false, CacheTier::L1);
    assert_eq!(block_on(cache.invalidate_tags("space", &["tag"])), Ok(2));
    assert!(block_on(cache.get("space", "memory")).is_none());
    block_on(cache.put("space", "memory", "something")).unwrap();
    assert!(!block_on(cache.get("space", "memory")).unwrap().is_absent());
    block_on(cache.close()).unwrap();
}

#[test]
fn absent_keys_cost_no_index_lookup() {
    let folder = folder();
    let cache = open(folder.path(), L2Compression::Off);
    for number in 0..5000u32 {
        block_on(cache.put("space", number.to_le_bytes(), on_disk(noise(100)))).unwrap();
    }
    let none = |number: u32| block_on(cache.get("space", number.to_le_bytes())).is_none();
    assert!((0..5000).all(|number| !none(number)), "present keys are never denied");
    // A growing index has several filters, until a rebuild in the background.
    eventually(|| {
        let before = cache.stats();
        assert!((5000..15_000).all(none));
        let stats = cache.stats();
        assert_eq!(stats.l2_reads(), before.l2_reads());
        assert_eq!(stats.misses() - before.misses(), 10_000);
        stats.l2_negative_skips() - before.l2_negative_skips() >= 9_850
    });
    let stats = cache.stats();
    let exists = |number: u32| cache.exists("space", number.to_le_bytes());
    assert!((0..5000).all(|number| exists(number) == CachePresence::MaybePresent));
    assert!((5000..6000).all(|number| exists(number) == CachePresence::Absent));
    assert!(cache.stats().synopsis_metadata_reads() > stats.synopsis_metadata_reads() + 980);
    assert!((5_000..30_000).contains(&cache.stats().synopsis_bytes()));
    block_on(cache.close()).unwrap();

    // After a restart the synopsis is rebuilt from the index, in the background.
    let cache = open(folder.path(), L2Compression::Off);
    let none = |number: u32| block_on(cache.get("space", number.to_le_bytes())).is_none();
    eventually(|| {
        cache.stats().synopsis_bytes() > 0 && none(5000) && {
            let before = cache.stats().l2_negative_skips();
            assert!((5000..5100).all(none));
            cache.stats().l2_negative_skips() - before > 90
        }
    });
    assert!((0..5000).all(|number| !none(number)));
    block_on(cache.close()).unwrap();
}

/// A record is not damaged because another configuration wrote it.
#[test]
fn no_memory_is_allocated_for_a_length_beyond_every_limit() {
    let folder = folder();
    let open = |l1_bytes_max| {
        let builder = BlobCacheConfig::builder()
            .l1_bytes_max(l1_bytes_max)
            .l2_path(folder.path())
            .l2_engine(crate::engine::engine(0));
        let builder = builder.l2_bytes_max(8 << 20).l2_segment_bytes(1 << 20);
        block_on(BlobCache::open(builder.build().unwrap())).unwrap()
    };
    let cache = open(64 << 20);
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
    let put = BlobCachePut::new(vec![7; 8 << 20]).with_policy(policy);
    block_on(cache.put("space", "key", put)).unwrap();
    block_on(cache.close()).unwrap();
    let cache = open(4 << 20);
    assert!(block_on(cache.get("space", "key")).is_none(), "no put of this cache wrote it");
    assert_eq!(cache.stats().l2_corruptions(), 0);
    block_on(cache.close()).unwrap();
    let cache = open(64 << 20);
    assert_eq!(block_on(cache.get("space", "key")).unwrap().value(), vec![7; 8 << 20]);
    block_on(cache.close()).unwrap();
}
