//! Typed values: both tiers, restarts, values that do not decode, codecs that fail or panic.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

#[path = "../engine/mod.rs"]
mod engine;

mod codecs;
#[cfg(any(feature = "json", feature = "postcard"))]
mod features;
mod fetch;
mod model;
mod spawned;

use std::error::Error;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CachePresence,
    CacheTier, Clock, L1Admission, Plain, TypedError, TypedHit, TypedNamespace, TypedPut,
};

use crate::codecs::{Manner, Numbers, Refused};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn open(clock: &Clock) -> BlobCache {
    let config = BlobCacheConfig::builder().l1_bytes_max(4 << 20).clock(clock.clone());
    block_on(BlobCache::open(config.build().unwrap())).unwrap()
}

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + seconds(1000))
}

/// A cache, and its handle for numbers.
fn numbers() -> (BlobCache, TypedNamespace<u64, Numbers>) {
    let cache = open(&clock());
    let numbers = cache.namespace("n").typed(Numbers::default());
    (cache, numbers)
}

fn value(hit: Option<TypedHit<u64>>) -> Option<u64> {
    hit.and_then(TypedHit::into_value)
}

fn disk(path: &Path) -> BlobCache {
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2(path, |l2| l2.bytes_max(32 << 20))
        .l2_engine(crate::engine::engine(0))
        .namespace("below", |below| below.l1_admission(L1Admission::Never));
    block_on(BlobCache::open(config.build().unwrap())).unwrap()
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn values_and_metadata_hold_in_both_tiers_and_over_a_restart() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    let put = |number| {
        TypedPut::new(number)
            .with_content_metadata([("kind", "number")])
            .with_tags(["even"])
            .with_dependencies(["row:7"])
            .with_policy(BlobCachePolicy::default().version(3).l1_admission(L1Admission::Never))
            .with_ttl(seconds(600))
    };
    let check = |hit: TypedHit<u64>, tier| {
        assert_eq!((hit.value(), hit.tier(), hit.version()), (Some(&8), tier, Some(3)));
        assert_eq!(hit.content_metadata().get("kind").map(String::as_str), Some("number"));
        let fresh_for = hit.expires_at().unwrap().duration_since(hit.written_at()).unwrap();
        assert_eq!((fresh_for, hit.is_stale(), hit.is_absent()), (seconds(600), false, false));
        assert_eq!((hit.stale_window_remaining(), hit.hit().value().len()), (None, 9));
    };
    let memory = cache.namespace("above").typed::<u64, _>(Numbers::default());
    let above = put(8).with_policy(BlobCachePolicy::default().version(3));
    block_on(memory.put("k", above)).unwrap();
    check(block_on(memory.get("k")).unwrap(), CacheTier::L1);
    let numbers = cache.namespace("n").typed::<u64, _>(Numbers::default());
    block_on(numbers.put("k", put(8))).unwrap();
    check(block_on(numbers.get("k")).unwrap(), CacheTier::L2);
    assert!(block_on(numbers.get("none")).is_none());
    assert_eq!((cache.stats().hits(), cache.stats().l2_hits(), cache.stats().misses()), (2, 1, 1));
    block_on(cache.close()).unwrap();

    let cache = disk(folder.path());
    let numbers = cache.namespace("n").typed::<u64, _>(Numbers::default());
    check(block_on(numbers.get("k")).unwrap(), CacheTier::L2);
    assert_eq!(numbers.exists("k"), CachePresence::MaybePresent);
    assert_eq!(block_on(numbers.invalidate_tags(&["even"])), Ok(1));
    assert!(block_on(numbers.get("k")).is_none());
    block_on(cache.close()).unwrap();
}

#[test]
fn every_invalidation_is_the_namespaces() {
    let (cache, numbers) = numbers();
    let fill = || {
        let put = TypedPut::from(1).with_tags(["t"]).with_dependencies(["d"]);
        block_on(numbers.put("key", put)).unwrap();
        assert_eq!(numbers.exists("key"), CachePresence::Present);
    };
    fill();
    assert_eq!(block_on(numbers.invalidate_key("key")), Ok(1));
    fill();
    assert_eq!(block_on(numbers.invalidate_keys(&["key", "other"])), Ok(1));
    fill();
    assert_eq!(block_on(numbers.invalidate_prefix("ke")), Ok(1));
    fill();
    assert_eq!(block_on(numbers.invalidate_tags(&["t"])), Ok(1));
    fill();
    assert_eq!(block_on(numbers.invalidate_dependencies(&["d"])), Ok(1));
    fill();
    assert_eq!(block_on(numbers.invalidate()), Ok(true));
    let point = numbers.read_point();
    fill();
    block_on(numbers.put("key", TypedPut::new(2).read_at(point))).unwrap();
    assert_eq!(value(block_on(numbers.get("key"))), Some(1), "read before");
    assert_eq!(cache.stats().stale_sets_refused(), 1);
    assert_eq!(numbers.namespace().name(), "n");
}

#[test]
fn an_absence_is_a_hit_without_a_value() {
    let (cache, numbers) = numbers();
    block_on(numbers.put("none", TypedPut::absent().with_tags(["t"]))).unwrap();
    block_on(numbers.put("option", None)).unwrap();
    for key in ["none", "option"] {
        let hit = block_on(numbers.get(key)).unwrap();
        assert!(hit.is_absent() && hit.value().is_none() && hit.hit().is_absent());
        assert!(block_on(cache.get("n", key)).unwrap().is_absent());
    }
    block_on(numbers.put("option", Some(4))).unwrap();
    assert_eq!(value(block_on(numbers.get("option"))), Some(4));
    assert_eq!(cache.stats().values_undecoded(), 0);
}

/// A codec that can borrow shares the memory of the cache.
#[test]
fn bytes_are_not_copied() {
    let cache = open(&clock());
    let plain = cache.namespace("n").typed::<Bytes, _>(Plain);
    let bytes = Bytes::from(vec![7; 10_000]);
    let address = bytes.as_ptr();
    block_on(plain.put("k", bytes)).unwrap();
    let hit = block_on(plain.get("k")).unwrap();
    assert_eq!(hit.value().unwrap().as_ptr(), address);
    assert_eq!(hit.hit().value().as_ptr(), address);
    let text = cache.namespace("n").typed::<String, _>(Plain);
    block_on(text.put("text", String::from("a text"))).unwrap();
    assert_eq!(block_on(text.get("text")).unwrap().value().unwrap(), "a text");
    let owned = cache.namespace("n").typed::<Vec<u8>, _>(Plain);
    assert_eq!(block_on(owned.get("text")).unwrap().into_value().unwrap(), b"a text");
    block_on(owned.put("text", vec![0xff])).unwrap();
    assert!(block_on(text.get("text")).is_none(), "no UTF-8");
}

/// What was read from disk is read once: a value that keeps its bytes has the buffer of the read.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn bytes_from_disk_are_not_copied() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    let plain = cache.namespace("below").typed::<Bytes, _>(Plain);
    let bytes: Bytes = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let put = TypedPut::new(bytes.clone()).with_content_metadata([("content-type", "image/png")]);
    block_on(plain.put("k", put)).unwrap();
    block_on(cache.sync()).unwrap();
    for hit in [
        block_on(plain.get("k")).unwrap(),
        block_on(plain.get_many(&["k"])).remove(0).unwrap(),
        block_on(plain.get_or_fetch("k", || async { Err::<Bytes, _>("not needed") })).unwrap(),
    ] {
        let value = hit.value().unwrap();
        assert_eq!((hit.tier(), value), (CacheTier::L2, &bytes));
        assert_eq!(value.as_ptr(), hit.hit().value().as_ptr());
        assert_ne!(value.as_ptr(), bytes.as_ptr(), "read, and not what was put");
    }
    block_on(cache.close()).unwrap();
}

/// In memory, and on disk.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn what_does_not_decode_is_a_miss_and_is_counted() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    for (count, name) in (1..).zip(["above", "below"]) {
        block_on(cache.put(name, "k", "no number")).unwrap();
        let before = cache.stats();
        let numbers = cache.namespace(name).typed::<u64, _>(Numbers::default());
        assert!(block_on(numbers.get("k")).is_none());
        let after = cache.stats();
        assert_eq!(after.values_undecoded(), count);
        assert_eq!((after.hits(), after.misses()), (before.hits(), before.misses() + 1));
        assert!(block_on(cache.get(name, "k")).is_some(), "it stays for others");
    }
    let figure = cache.stats().figures().find(|figure| figure.name() == "values_undecoded");
    assert_eq!(figure.unwrap().value(), 2.0);
    block_on(cache.close()).unwrap();
}

/// In memory, and on disk.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn many_keys_are_answered_in_order_and_counted_as_one_by_one() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    let keys: Vec<String> = (0..300).map(|number| format!("{number}")).collect();
    for name in ["above", "below"] {
        let numbers = cache.namespace(name).typed::<u64, _>(Numbers::default());
        let absent = |number: u64| (number % 7 != 0).then_some(number);
        let items = keys.iter().zip(0..).map(|(key, number)| (key, absent(number)));
        let stored = block_on(numbers.put_many(items.filter(|(key, _)| !key.ends_with('3'))));
        assert!(stored.len() == 270 && stored.iter().all(Result::is_ok));
        for number in (0..300).filter(|number| number % 10 == 4) {
            block_on(cache.put(name, format!("{number}"), "no number")).unwrap();
        }
        let before = cache.stats();
        let found = block_on(numbers.get_many(&keys));
        let expected = |number: u64| match number % 10 {
            3 | 4 => None,
            _ => Some(absent(number)),
        };
        let found: Vec<_> = found.into_iter().map(|hit| hit.map(TypedHit::into_value)).collect();
        assert_eq!(found, (0..300).map(expected).collect::<Vec<_>>());
        let after = cache.stats();
        assert_eq!(after.values_undecoded(), before.values_undecoded() + 30);
        assert_eq!((after.hits(), after.misses()), (before.hits() + 240, before.misses() + 60));
    }
    block_on(cache.close()).unwrap();
}

#[test]
fn one_of_many_that_cannot_be_encoded_keeps_no_other_from_being_put() {
    let cache = open(&clock());
    for (manner, kind) in [(Manner::Fails, "encoded"), (Manner::Panics, "panicked")] {
        let numbers = cache.namespace("n").typed::<u64, _>(Numbers::encoding(manner));
        let items = [("a", Some(1)), ("absent", None), ("b", Some(2))];
        let stored = block_on(numbers.put_many(items));
        let told: Vec<_> =
            stored.iter().map(|it| it.as_ref().map_err(|it| it.to_string())).collect();
        assert!(told[0].as_ref().unwrap_err().contains(kind), "{told:?}");
        assert!(told[1].is_ok() && told[2].is_err(), "{told:?}");
        assert!(block_on(numbers.get("absent")).unwrap().is_absent());
        assert!(block_on(numbers.get("a")).is_none() && block_on(numbers.get("b")).is_none());
    }
}

#[test]
fn a_codec_that_panics_is_contained() {
    let cache = open(&clock());
    block_on(cache.put("n", "k", "no number")).unwrap();
    for manner in [Manner::Panics, Manner::FailsBadly] {
        let numbers = cache.namespace("n").typed::<u64, _>(Numbers::decoding(manner));
        assert!(block_on(numbers.get("k")).is_none());
        assert_eq!(
            value(Some(block_on(numbers.get_or_fetch("own", fetched(5))).unwrap())),
            Some(5)
        );
        assert_eq!(
            value(Some(block_on(numbers.get_or_fetch("own", fetched(6))).unwrap())),
            Some(6)
        );
    }
    assert_eq!(cache.stats().values_undecoded(), 5);
}

fn fetched(number: u64) -> impl FnOnce() -> std::future::Ready<Result<u64, std::io::Error>> {
    move || std::future::ready(Ok(number))
}

#[test]
fn a_value_that_cannot_be_encoded_changes_nothing() {
    let (cache, numbers) = numbers();
    block_on(numbers.put("k", 1)).unwrap();
    let failing = cache.namespace("n").typed::<u64, _>(Numbers::encoding(Manner::Fails));
    let error = block_on(failing.put("k", 2)).unwrap_err();
    assert_eq!(error.to_string(), "the value could not be encoded: refused");
    assert!(error.source().is_some_and(|source| source.is::<Refused>()));
    assert!(matches!(error, TypedError::Encode(Refused { .. })));
    for manner in [Manner::Panics, Manner::FailsBadly] {
        let bad = cache.namespace("n").typed::<u64, _>(Numbers::encoding(manner));
        let error = block_on(bad.put("k", 2)).unwrap_err();
        assert_eq!(matches!(error, TypedError::CodecPanicked), manner == Manner::Panics);
        // Its drop panics.
        std::mem::forget(error);
    }
    assert_eq!(value(block_on(numbers.get("k"))), Some(1));
    assert_eq!(cache.stats().insertions(), 1);
    let long = "k".repeat(5000);
    match block_on(numbers.put(&long, 1)) {
        Err(TypedError::Cache(error @ CacheError::KeyTooLarge { .. })) => {
            assert_eq!(TypedError::<Refused>::from(error.clone()).to_string(), error.to_string());
        }
        other => panic!("{other:?}"),
    }
    block_on(cache.close()).unwrap();
    assert!(matches!(block_on(numbers.put("k", 1)), Err(TypedError::Cache(CacheError::Closed))));
    assert!(block_on(numbers.get("k")).is_none());
    let fetched = block_on(numbers.get_or_fetch("k", fetched(3))).unwrap();
    assert_eq!(fetched.into_value(), Some(3), "given, not stored");
}

#[test]
fn handles_have_the_policy_of_their_namespace_or_their_own() {
    let cache = open(&clock());
    let minute = BlobCachePolicy::default().ttl(seconds(60));
    let numbers = cache.namespace("n").with_policy(minute).typed::<u64, _>(Numbers::default());
    block_on(numbers.clone().put("put", 1)).unwrap();
    block_on(numbers.get_or_fetch("fetched", fetched(2))).unwrap();
    for key in ["put", "fetched"] {
        let hit = block_on(cache.get("n", key)).unwrap();
        let fresh_for = hit.expires_at().unwrap().duration_since(hit.written_at()).unwrap();
        assert_eq!(fresh_for, seconds(60), "{key}");
    }
    block_on(cache.put("n", "bytes", BlobCachePut::new(Numbers::bytes(9)))).unwrap();
    assert_eq!(value(block_on(numbers.get("bytes"))), Some(9));
    assert_eq!(format!("{numbers:?}"), "TypedNamespace { name: \"n\", .. }");
}
