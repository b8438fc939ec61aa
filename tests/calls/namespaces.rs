//! Namespaces that are configured once: the policy of their puts, admission, quota, compression.

use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePolicy, BlobCachePut, CacheError, CacheTier,
    Clock, L1Admission, L2Compression, NamespaceQuota,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ttl(of: u64) -> BlobCachePolicy {
    BlobCachePolicy::default().ttl(seconds(of))
}

fn fresh_for(hit: &BlobCacheHit) -> Option<Duration> {
    hit.expires_at().map(|end| end.duration_since(hit.written_at()).unwrap())
}

fn found(cache: &BlobCache, namespace: &str, key: &str) -> BlobCacheHit {
    block_on(cache.get(namespace, key)).unwrap()
}

/// The put's own, then the handle's, then the namespace's, then the default.
#[test]
fn policies_apply_in_their_order() {
    let config = BlobCacheConfig::builder()
        .namespace("pages", |pages| pages.policy(ttl(60).stale_serve(seconds(7))))
        .namespace("without", |it| it);
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let (pages, own) = (cache.namespace("pages"), cache.namespace("pages").with_policy(ttl(30)));
    let none = cache.namespace("pages").with_policy(BlobCachePolicy::default());
    let put = || BlobCachePut::new("v");
    block_on(async {
        cache.put("pages", "by name", put()).await?;
        pages.put("by handle", put()).await?;
        own.put("with_policy", put()).await?;
        none.put("with_policy, none", put()).await?;
        own.put("own", put().with_policy(ttl(5))).await?;
        cache.put("pages", "own, by name", put().with_policy(ttl(5))).await?;
        cache.put("pages", "with_ttl", put().with_ttl(seconds(9))).await?;
        Ok::<_, CacheError>(())
    })
    .unwrap();
    for name in ["other", "", "without", "page", "pages2"] {
        block_on(cache.put(name, "k", put())).unwrap();
        assert_eq!(fresh_for(&found(&cache, name, "k")), None, "{name}");
    }
    let expected = [
        ("by name", Some(60)),
        ("by handle", Some(60)),
        ("with_policy", Some(30)),
        ("with_policy, none", None),
        ("own", Some(5)),
        ("own, by name", Some(5)),
        ("with_ttl", Some(9)),
    ];
    for (key, fresh) in expected {
        assert_eq!(fresh_for(&found(&cache, "pages", key)), fresh.map(seconds), "{key}");
    }
}

#[test]
fn fetched_values_have_the_policy_of_their_namespace() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + seconds(1000));
    let config = BlobCacheConfig::builder()
        .clock(clock.clone())
        .namespace("pages", |pages| pages.policy(ttl(60).stale_serve(seconds(100))));
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    let fetch = || async { Ok::<_, std::io::Error>(BlobCachePut::new("v")) };
    let pages = cache.namespace("pages");
    let fetched = block_on(cache.get_or_fetch("pages", "name", fetch)).unwrap();
    assert_eq!(fresh_for(&fetched), Some(seconds(60)));
    let fetched = block_on(pages.get_or_fetch("handle", fetch)).unwrap();
    assert_eq!(fresh_for(&fetched), Some(seconds(60)));
    clock.advance(seconds(70));
    let (stale, refresh) = block_on(cache.get_or_refresh("pages", "name", fetch)).unwrap();
    assert!(stale.is_stale());
    let renewed = block_on(refresh.unwrap()).unwrap();
    assert_eq!(fresh_for(&renewed), Some(seconds(60)));
    assert_eq!(fresh_for(&found(&cache, "pages", "name")), Some(seconds(60)));
    let (_, refresh) = block_on(pages.get_or_refresh("handle", fetch)).unwrap();
    assert_eq!(fresh_for(&block_on(refresh.unwrap()).unwrap()), Some(seconds(60)));
}

fn disk(path: &Path, clock: &Clock) -> BlobCache {
    let config = BlobCacheConfig::builder()
        .clock(clock.clone())
        .l1_bytes_max(1 << 20)
        .l2_path(path)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(32 << 20)
        .namespace("pages", |pages| {
            pages.l1_admission(L1Admission::Never).policy(ttl(60)).compression(L2Compression::Off)
        });
    block_on(BlobCache::open(config.build().unwrap())).unwrap()
}

#[test]
fn compression_admission_and_deadlines_hold_over_a_restart() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + seconds(1000));
    let value = "a line\n".repeat(10_000);
    let cache = disk(folder.path(), &clock);
    let put = || BlobCachePut::from(value.clone());
    block_on(cache.put("pages", "short", put())).unwrap();
    assert_eq!(cache.stats().l2_compressed_from(), 0, "not in this namespace");
    assert_eq!(cache.stats().l2_compression_skipped_total(), 0);
    block_on(cache.put("rows", "short", put())).unwrap();
    assert_eq!(cache.stats().l2_compressed_from(), 70_000);
    // Over 256 KiB it goes another way.
    let long = || BlobCachePut::from(value.repeat(10));
    block_on(cache.put("pages", "long", long())).unwrap();
    assert_eq!(cache.stats().l2_compressed_from(), 70_000);
    let fetch = || async { Ok::<_, std::io::Error>(long()) };
    block_on(cache.get_or_fetch("pages", "fetched", fetch)).unwrap();
    assert_eq!(cache.stats().l2_compressed_from(), 70_000);
    assert_eq!(cache.namespace_stats("pages").unwrap().entries(), 0, "not in memory");
    block_on(cache.close()).unwrap();

    clock.advance(seconds(30));
    let cache = disk(folder.path(), &clock);
    for (key, repeated) in [("short", 1), ("long", 10), ("fetched", 10)] {
        let hit = found(&cache, "pages", key);
        assert_eq!((hit.tier(), fresh_for(&hit)), (CacheTier::L2, Some(seconds(60))), "{key}");
        assert_eq!(hit.value(), value.repeat(repeated).as_bytes(), "{key}");
    }
    assert_eq!(found(&cache, "rows", "short").value(), value.as_bytes());
    clock.advance(seconds(31));
    assert!(block_on(cache.get("pages", "short")).is_none());
    assert!(block_on(cache.get("rows", "short")).is_some());
    block_on(cache.close()).unwrap();

    // Without the settings, or with others, what is on disk is read as it is.
    let path = folder.path().to_owned();
    let other = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2(path, |l2| l2.bytes_max(32 << 20).compression(L2Compression::Off))
        .l2_engine(crate::engine::engine(0))
        .namespace("rows", |rows| rows.compression(L2Compression::On));
    let cache = block_on(BlobCache::open(other.build().unwrap())).unwrap();
    assert_eq!(found(&cache, "rows", "short").value(), value.as_bytes());
    block_on(cache.put("rows", "again", put())).unwrap();
    block_on(cache.put("pages", "again", put())).unwrap();
    assert_eq!(cache.stats().l2_compressed_from(), 70_000, "of rows alone");
    block_on(cache.close()).unwrap();
}

#[test]
fn a_configuration_tells_what_applies_in_a_namespace() {
    let quota = |l1| NamespaceQuota { l1_bytes_max: Some(l1), ..Default::default() };
    let config = BlobCacheConfig::builder()
        .l2_compression(L2Compression::Off)
        .quota("b", quota(1 << 16))
        .quota("a", quota(1 << 17))
        .namespace("b", |b| b.compression(L2Compression::On).quota(quota(1 << 18)))
        .namespace("a", |a| a.l1_admission(L1Admission::Always))
        .quota("c", quota(1 << 19))
        .build()
        .unwrap();
    assert_eq!(config.namespaces().collect::<Vec<_>>(), ["a", "b"]);
    let (a, b, c) = (config.namespace("a"), config.namespace("b"), config.namespace("c"));
    assert_eq!(a.policy(), &BlobCachePolicy::default().l1_admission(L1Admission::Always));
    assert_eq!((a.compression(), a.quota()), (L2Compression::Off, quota(1 << 17)));
    assert_eq!((b.compression(), b.quota()), (L2Compression::On, quota(1 << 18)), "the last one");
    assert_eq!((b.policy(), c.quota()), (&BlobCachePolicy::default(), quota(1 << 19)));
    let none = BlobCacheConfig::builder().l2_compression(L2Compression::Off).build().unwrap();
    assert_eq!(config.namespace("none"), none.namespace("a"));
}

#[test]
fn what_cannot_be_is_refused_with_its_reason() {
    let twice = BlobCacheConfig::builder().namespace("pages", |it| it).namespace("a", |it| it);
    let twice = twice.namespace("pages", |it| it.policy(ttl(1)));
    match twice.build() {
        Err(CacheError::InvalidConfig { field: "namespace", reason }) => {
            assert_eq!(reason, "\"pages\" is configured twice");
        }
        other => panic!("{other:?}"),
    }
    let longest = "n".repeat(255);
    let config = BlobCacheConfig::builder().namespace(&longest, |it| it.policy(ttl(1)));
    let cache = block_on(BlobCache::open(config.build().unwrap())).unwrap();
    block_on(cache.put(&longest, "k", "v")).unwrap();
    assert_eq!(fresh_for(&found(&cache, &longest, "k")), Some(seconds(1)));
    let names = (0..4096).map(|number| number.to_string());
    let most = names.fold(BlobCacheConfig::builder(), |builder, name| {
        builder.namespace(&name, |it| it.policy(ttl(1)))
    });
    let cache = block_on(BlobCache::open(most.clone().build().unwrap())).unwrap();
    block_on(cache.put("4095", "k", "v")).unwrap();
    block_on(cache.put("4096", "k", "v")).unwrap();
    assert_eq!(fresh_for(&found(&cache, "4095", "k")), Some(seconds(1)));
    assert_eq!(fresh_for(&found(&cache, "4096", "k")), None);
    let quotas = (0..257).map(|number| number.to_string());
    let too_many = quotas.fold(BlobCacheConfig::builder(), |builder, name| {
        builder.namespace(&name, |it| it.quota(NamespaceQuota::default()))
    });
    assert!(matches!(too_many.build(), Err(CacheError::InvalidConfig { field: "quota", .. })));
}
