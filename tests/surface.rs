//! What the public surface takes: values, labels and metadata of the types that callers have, and
//! policies set in part.

#![allow(clippy::unwrap_used, reason = "whatever fails, fails the test")]

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePolicy, BlobCachePut, Clock,
    ExtendedTtlPolicy,
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
fn every_kind_of_bytes_is_a_value() {
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
fn labels_are_any_texts() {
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

/// The ttl of a put is laid over whichever policy it has, in either order.
#[test]
fn the_ttl_of_a_put_leaves_the_rest_of_its_policy() {
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
