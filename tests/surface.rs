//! The public API: argument types for values, labels and metadata, policies set in part, grouped
//! settings and statistics, and `Display`.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCacheHit,
    BlobCachePolicy, BlobCachePut, CachePresence, CacheTier, Clock, CrashSafety, ExtendedTtlPolicy,
    L1Admission, L2Admission, L2Compression, L2Engine, L2PromotionPolicy, L2State, NamespaceQuota,
    WriteRate,
};

fn open() -> BlobCache {
    block_on(BlobCache::open(BlobCacheConfig::default())).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn fresh_for(hit: &BlobCacheHit) -> Option<Duration> {
    hit.expires_at().map(|end| end.duration_since(hit.written_at()).unwrap())
}

#[test]
fn every_bytes_type_is_a_value() {
    let cache = open();
    let puts: [BlobCachePut; 11] = [
        b"value".into(),
        b"value".as_slice().into(),
        "value".into(),
        String::from("value").into(),
        b"value".to_vec().into(),
        b"value".to_vec().into_boxed_slice().into(),
        Bytes::from("value").into(),
        BytesMut::from("value").into(),
        Cow::Borrowed(b"value".as_slice()).into(),
        Cow::<'static, [u8]>::Owned(b"value".to_vec()).into(),
        Cow::Borrowed("value").into(),
    ];
    for (number, put) in (0..).zip(puts) {
        let key = format!("{number}");
        block_on(cache.put("n", &key, put)).unwrap();
        assert_eq!(block_on(cache.get("n", &key)).unwrap().value(), b"value", "{number}");
    }
    block_on(cache.put("n", "as it is", b"value")).unwrap();
    block_on(cache.put("n", "owned text", Cow::<'static, str>::Owned("value".into()))).unwrap();
    assert_eq!(block_on(cache.get("n", "owned text")).unwrap().value(), b"value");
}

#[test]
fn metadata_is_any_collection_of_pairs() {
    let cache = open();
    let owned = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
    let puts = [
        BlobCachePut::new("v").with_content_metadata([("a", "1"), ("b", "2")]),
        BlobCachePut::new("v").with_content_metadata(BTreeMap::from(owned.clone())),
        BlobCachePut::new("v").with_content_metadata(HashMap::from(owned.clone())),
        BlobCachePut::new("v")
            .with_content_metadata(vec![("b", "2".to_owned()), ("a", "1".into())]),
        BlobCachePut::new("v").with_content_metadata([("a", "old"), ("b", "2"), ("a", "1")]),
    ];
    for put in puts {
        block_on(cache.put("n", "k", put)).unwrap();
        let hit = block_on(cache.get("n", "k")).unwrap();
        assert_eq!(hit.content_metadata(), &BTreeMap::from(owned.clone()));
    }
}

#[test]
fn labels_are_any_strings() {
    let cache = open();
    let pages = cache.namespace("n");
    let fill = || {
        for key in ["1", "2", "3"] {
            let put = BlobCachePut::new("v").with_tags([key]).with_dependencies([key]);
            block_on(cache.put("n", key, put)).unwrap();
        }
    };
    let owned: Vec<String> = vec!["1".into(), "2".into()];
    let shared: [Arc<str>; 2] = ["1".into(), "2".into()];
    let none: [&str; 0] = [];
    fill();
    assert_eq!(block_on(cache.invalidate_tags("n", &none)), Ok(0));
    assert_eq!(block_on(cache.invalidate_dependencies("n", &none)), Ok(0));
    assert_eq!(block_on(cache.invalidate_tags("n", &owned)), Ok(2));
    fill();
    assert_eq!(block_on(cache.invalidate_dependencies("n", &owned)), Ok(2));
    fill();
    assert_eq!(block_on(pages.invalidate_tags(&shared)), Ok(2));
    fill();
    assert_eq!(block_on(pages.invalidate_dependencies(&[Cow::Borrowed("1"), "3".into()])), Ok(2));
    fill();
    assert_eq!(block_on(pages.invalidate_tags(&["1", "2", "3"])), Ok(3));
}

/// Where a call takes namespaces: a name in several forms, a list of names, or all.
#[test]
fn namespaces_of_a_call_are_a_name_some_names_or_all() {
    let cache = open();
    let fill = || {
        for name in ["a", "b", "c"] {
            block_on(cache.put(name, "k", BlobCachePut::new("v").with_tags(["t"]))).unwrap();
        }
    };
    fill();
    let (owned, many) = (String::from("a"), vec!["b", "a"]);
    assert_eq!(block_on(cache.invalidate_tags(&owned, &["t"])), Ok(1));
    assert_eq!(block_on(cache.invalidate_tags(&many, &["t"])), Ok(1), "a is gone");
    fill();
    assert_eq!(block_on(cache.expire_tags(&["a", "c", "a"], &["t"])), Ok(2));
    assert_eq!(block_on(cache.invalidate_tags(&many[..1], &["t"])), Ok(1));
    assert_eq!(block_on(cache.invalidate_tags(tamis::NamespaceScope::Several(&[]), &["t"])), Ok(0));
    fill();
    assert_eq!(block_on(cache.invalidate_tags(tamis::NamespaceScope::One("b"), &["t"])), Ok(1));
    assert_eq!(block_on(cache.invalidate_dependencies(tamis::NamespaceScope::All, &["t"])), Ok(0));
    assert_eq!(block_on(cache.invalidate_tags(tamis::NamespaceScope::All, &["t"])), Ok(2));
    fn shared<T: Send + Sync + Copy + std::fmt::Debug>(_: T) {}
    shared(tamis::NamespaceScope::from("a"));
}

/// The ttl of a put overrides the ttl of any policy, in either order of calls.
#[test]
fn the_ttl_of_a_put_overrides_only_the_ttl_of_its_policy() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let config = BlobCacheConfig::builder().clock(clock.clone()).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let usual = BlobCachePolicy::default().ttl(seconds(60)).stale_serve(seconds(30));
    let pages = cache.namespace("n").with_policy(usual.clone());
    let short = || BlobCachePut::new("v").with_ttl(seconds(5));

    block_on(pages.put("default of the handle", short())).unwrap();
    block_on(cache.put("n", "before", short().with_policy(usual.clone()))).unwrap();
    let after = BlobCachePut::new("v").with_policy(usual.clone()).with_ttl(seconds(5));
    block_on(cache.put("n", "after", after)).unwrap();
    let fetch = || async { Ok::<_, std::io::Error>(short()) };
    block_on(pages.get_or_fetch("fetched", fetch)).unwrap();
    let keys = ["default of the handle", "before", "after", "fetched"];
    for key in keys {
        let hit = block_on(cache.get("n", key)).unwrap();
        assert_eq!(fresh_for(&hit), Some(seconds(5)), "{key}");
    }
    block_on(pages.put("other", "v")).unwrap();
    assert_eq!(fresh_for(&block_on(pages.get("other")).unwrap()), Some(seconds(60)));
    block_on(cache.put("n", "alone", short())).unwrap();
    clock.advance(seconds(6));
    for key in keys {
        let hit = block_on(cache.get("n", key)).unwrap();
        assert_eq!(hit.stale_window_remaining(), Some(seconds(29)), "{key}");
    }
    assert!(block_on(cache.get("n", "alone")).is_none(), "no policy, no stale window");
}

#[test]
fn setters_of_a_policy_are_the_fields_of_the_extended_one() {
    let extended = ExtendedTtlPolicy {
        idle_ttl: Some(seconds(1)),
        stale_serve: Some(seconds(2)),
        jitter_pct: 3,
    };
    let policy = BlobCachePolicy::default();
    let in_turn = policy.clone().idle_ttl(seconds(1)).stale_serve(seconds(2)).jitter_pct(3);
    assert_eq!(in_turn, policy.extended(extended));
}

/// The public methods of a type, from the sources.
fn methods(name: &str) -> Vec<String> {
    let mut folders = vec![PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut methods = Vec::new();
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let head = format!("\nimpl {name} {{\n");
            for block in text.split(&head).skip(1) {
                let block = block.split("\n}\n").next().unwrap();
                let public = block.split("    pub fn ").skip(1);
                methods.extend(public.map(|it| it.split(['(', '<']).next().unwrap().to_owned()));
            }
        }
    }
    methods
}

#[test]
fn every_setting_has_a_getter_and_is_shown() {
    let is_setting = |name: &&String| !["build", "l2"].contains(&name.as_str());
    let setters = methods("BlobCacheConfigBuilder");
    let getters = methods("BlobCacheConfig");
    let config = BlobCacheConfig::builder()
        .quota("rows", NamespaceQuota::default())
        .namespace("pages", |pages| pages.compression(L2Compression::Off));
    let shown = format!("{:?}", config.build().unwrap());
    assert!(setters.len() > 20, "{setters:?}");
    for setting in setters.iter().filter(is_setting) {
        assert!(getters.contains(setting), "{setting} has no getter");
        let field = match setting.as_str() {
            "quota" => "quotas",
            "namespace" => "namespaces",
            setting => setting,
        };
        assert!(shown.contains(&format!("{field}: ")), "{setting} is not in {shown}");
    }
    assert!(shown.contains("rows") && shown.contains("pages"), "{shown}");
}

#[test]
fn getters_return_the_settings() {
    fn charge(_: &[u8], value: &[u8]) -> usize {
        value.len()
    }
    let quota = NamespaceQuota { l1_bytes_max: Some(1 << 20), l2_bytes_max: None };
    let builder = BlobCacheConfigBuilder::default()
        .l2_segment_bytes(1 << 20)
        .l2_required(false)
        .l2_engine(L2Engine::Threads)
        .l2_compression(L2Compression::Off)
        .l2_admission(L2Admission::Always)
        .l2_promotion_policy(L2PromotionPolicy::OnSecondHit)
        .promotion_queue_max(7)
        .l2_second_chances(false)
        .l2_write_amplification_pct_max(150)
        .clock(Clock::manual(SystemTime::UNIX_EPOCH + seconds(9)))
        .l1_charge(charge)
        .quota("b", quota)
        .quota("a", NamespaceQuota::default());
    let config = builder.build().unwrap();
    assert_eq!(config.l2_segment_bytes(), 1 << 20);
    assert_eq!((config.l2_engine(), config.l2_required()), (L2Engine::Threads, false));
    assert_eq!(config.l2_compression(), L2Compression::Off);
    assert_eq!(config.l2_admission(), L2Admission::Always);
    assert_eq!(config.l2_promotion_policy(), L2PromotionPolicy::OnSecondHit);
    assert_eq!((config.promotion_queue_max(), config.l2_second_chances()), (7, false));
    assert_eq!(config.l2_write_amplification_pct_max(), 150);
    assert_eq!(config.clock().now(), SystemTime::UNIX_EPOCH + seconds(9));
    assert_eq!(config.l1_charge().map(|charge| charge(b"key", b"value")), Some(5));
    let quotas: Vec<_> = config.quotas().collect();
    assert_eq!(quotas, [("a", NamespaceQuota::default()), ("b", quota)]);
}

#[test]
fn grouped_and_flat_setters_of_the_disk_tier_are_equal() {
    let together = BlobCacheConfig::builder().l2("/somewhere", |l2| {
        l2.bytes_max(1 << 30)
            .required(false)
            .status_socket(true)
            .segment_bytes(8 << 20)
            .index_bytes_max(2 << 20)
            .read_bytes_max(3 << 20)
            .engine(L2Engine::Threads)
            .compression(L2Compression::Off)
            .admission(L2Admission::Always)
            .promotion_policy(L2PromotionPolicy::OnSecondHit)
            .promotion_queue_max(5)
            .second_chances(false)
            .write_amplification_pct_max(120)
            .write_rate_max(WriteRate::new(7))
            .crash_safety(CrashSafety::Power)
    });
    let in_turn = BlobCacheConfig::builder()
        .l2_path("/somewhere")
        .l2_bytes_max(1 << 30)
        .l2_required(false)
        .l2_status_socket(true)
        .l2_segment_bytes(8 << 20)
        .l2_index_bytes_max(2 << 20)
        .l2_read_bytes_max(3 << 20)
        .l2_engine(L2Engine::Threads)
        .l2_compression(L2Compression::Off)
        .l2_admission(L2Admission::Always)
        .l2_promotion_policy(L2PromotionPolicy::OnSecondHit)
        .promotion_queue_max(5)
        .l2_second_chances(false)
        .l2_write_amplification_pct_max(120)
        .l2_write_rate_max(WriteRate::new(7))
        .crash_safety(CrashSafety::Power);
    let shown = |builder: BlobCacheConfigBuilder| format!("{:?}", builder.build().unwrap());
    assert_eq!(shown(together), shown(in_turn));
    let flat = methods("BlobCacheConfigBuilder");
    let of_disk =
        flat.iter().filter_map(|name| name.strip_prefix("l2_")).filter(|it| *it != "path");
    let grouped = methods("L2ConfigBuilder");
    for setting in of_disk {
        assert!(grouped.iter().any(|name| name == setting), "{setting} is not in the group");
    }
}

#[test]
fn grouped_statistics_equal_the_flat_ones() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = BlobCacheConfig::builder().l2(folder.path(), |l2| l2.bytes_max(8 << 20));
    let cache = block_on(BlobCache::open(builder.build().unwrap())).unwrap();
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    block_on(async {
        for key in ["1", "2"] {
            let put = BlobCachePut::from(vec![7; 5000]).with_tags(["t"]);
            cache.put("n", key, put.with_policy(below.clone())).await.unwrap();
        }
        cache.put("n", "above", "value").await.unwrap();
        cache.sync().await.unwrap();
        for key in ["1", "2", "above", "missing"] {
            cache.get("n", key).await;
        }
        let fails = || async { Err::<BlobCachePut, _>("on purpose") };
        cache.get_or_fetch("n", "missing", fails).await.unwrap_err();
    });
    let stats = cache.stats();
    let (l1, l2, fetch, memory) = (stats.l1(), stats.l2(), stats.fetch(), stats.memory());
    assert_eq!((stats.hits(), l1.hits(), l2.hits()), (3, 1, 2));
    assert_eq!((l1.entries(), l1.bytes_in_use()), (stats.entries(), stats.bytes_in_use()));
    assert_eq!((l1.bytes_max(), l1.evictions()), (stats.l1_bytes_max(), stats.evictions()));
    assert_eq!(l2.state(), L2State::Healthy);
    assert_eq!((l2.entries(), stats.l2_entries()), (3, 3));
    assert_eq!(l2.bytes_in_use(), stats.l2_bytes_in_use());
    assert_eq!(l2.bytes_max(), stats.l2_bytes_max());
    assert_eq!((l2.writes(), l2.write_bytes()), (stats.l2_writes(), stats.l2_write_bytes()));
    assert_eq!((l2.reads(), l2.read_bytes()), (stats.l2_reads(), stats.l2_read_bytes()));
    assert!(l2.writes() > 0 && l2.syncs() > 0 && l2.io_errors() == 0);
    assert_eq!(l2.compressed_from(), 10_000);
    assert_eq!(l2.compressed_from() - l2.compressed_to(), stats.l2_bytes_saved_total());
    assert_eq!((fetch.begun(), fetch.errors(), fetch.under_way()), (1, 1, 0));
    let parts = memory.l1_bytes() + memory.labels_bytes() + memory.index_bytes();
    let total = parts + memory.synopsis_bytes() + memory.buffers_bytes();
    assert_eq!(memory.total_bytes(), total);
    assert_eq!(memory.labels_bytes(), stats.memory_labels_bytes());
    assert!(memory.labels_bytes() > 0 && memory.buffers_bytes() >= memory.reads_bytes());
    block_on(cache.close()).unwrap();
}

#[test]
fn choices_and_states_display_as_their_names() {
    let shown = [
        CachePresence::MaybePresent.to_string(),
        CacheTier::L2.to_string(),
        CrashSafety::Process.to_string(),
        L1Admission::Auto.to_string(),
        BackgroundSweep::On.to_string(),
        L2Compression::Off.to_string(),
        L2Engine::IoUring.to_string(),
        L2PromotionPolicy::OnSecondHit.to_string(),
        L2State::Healthy.to_string(),
        L2State::Degraded { reason: "no space".into() }.to_string(),
    ];
    let names = ["maybe present", "L2", "process", "auto", "on", "off", "io_uring"];
    assert_eq!(shown[..7], names);
    assert_eq!(shown[7..9], ["on second hit", "healthy"]);
    assert_eq!(shown[9], "degraded: no space");
    assert_eq!(format!("{:>8}|", CrashSafety::Cold), "    cold|", "padded to the width");
}

#[test]
fn a_key_may_exist_unless_it_is_absent() {
    use CachePresence::{Absent, MaybePresent, Present};
    let may = [Present, MaybePresent, Absent].map(CachePresence::may_exist);
    assert_eq!(may, [true, true, false]);
}

#[test]
fn a_hit_becomes_its_bytes() {
    let cache = open();
    block_on(cache.put("n", "k", "value")).unwrap();
    let hit = block_on(cache.get("n", "k")).unwrap();
    let place = hit.value().as_ptr();
    let bytes = Bytes::from(hit);
    assert_eq!((&bytes[..], bytes.as_ptr()), (&b"value"[..], place), "not copied");
}
