//! Every limit at its boundary and one over it, and the memory tier at its budget: errors without
//! side effects, a closed cache, priorities, admission, large blobs, freed memory.

use std::collections::BTreeMap;

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut,
    BlobCacheStats, BlobLimit, CacheError, CachePresence, L1Admission,
};

const MIB: usize = 1 << 20;
const NAMESPACE_BYTES_MAX: usize = 255;

fn open_with(set: impl FnOnce(BlobCacheConfigBuilder) -> BlobCacheConfigBuilder) -> BlobCache {
    let config = set(BlobCacheConfig::builder()).build().expect("in its range");
    block_on(BlobCache::open(config)).expect("a cache in memory opens")
}

fn put(cache: &BlobCache, key: &str, put: impl Into<BlobCachePut>) -> Result<(), CacheError> {
    block_on(cache.put("n", key, put))
}

/// Does not count as an access.
fn holds(cache: &BlobCache, key: &str) -> bool {
    cache.exists("n", key) == CachePresence::Present
}

fn value_of(cache: &BlobCache, key: &str) -> Option<Vec<u8>> {
    block_on(cache.get("n", key)).map(|hit| hit.value().to_vec())
}

fn admitted(value: impl Into<BlobCachePut>, admission: L1Admission) -> BlobCachePut {
    value.into().with_policy(BlobCachePolicy::default().l1_admission(admission))
}

/// Figures that an error must not change.
fn figures(stats: &BlobCacheStats) -> [u64; 14] {
    [
        stats.hits(),
        stats.misses(),
        stats.insertions(),
        stats.evictions(),
        stats.expirations(),
        stats.invalidations(),
        stats.namespace_flushes(),
        stats.stale_sets_refused(),
        stats.entries() as u64,
        stats.bytes_in_use() as u64,
        stats.namespaces() as u64,
        stats.l1_idle_evicts_total(),
        stats.memory_labels_bytes() as u64,
        stats.memory_buffers_bytes() as u64,
    ]
}

/// The error of a call that has changed nothing, except a counter of version mismatches.
fn error_of<T: std::fmt::Debug>(
    cache: &BlobCache,
    call: impl Future<Output = Result<T, CacheError>>,
) -> CacheError {
    let old = block_on(cache.get("n", "old")).map(|hit| hit.bytes());
    let before = cache.stats();
    let error = block_on(call).expect_err("it is over a limit");
    let after = cache.stats();
    assert_eq!(figures(&before), figures(&after), "after {error}");
    let mismatches = after.version_mismatches() - before.version_mismatches();
    assert_eq!(mismatches, u64::from(matches!(error, CacheError::VersionMismatch { .. })));
    assert_eq!(block_on(cache.get("n", "old")).map(|hit| hit.bytes()), old, "after {error}");
    error
}

#[test]
fn keys_up_to_their_limit() {
    let cache = open_with(|builder| builder.key_bytes_max(10));
    put(&cache, "old", "value").expect("it fits");
    let (at, over) = ("k".repeat(10), "k".repeat(11));
    put(&cache, &at, "value").expect("at the limit");
    assert_eq!(block_on(cache.invalidate_prefix("n", &at)), Ok(1));
    assert_eq!(block_on(cache.invalidate_key("n", &at)), Ok(0));
    put(&cache, "", "an empty key").expect("a key may be empty");
    let expected = CacheError::KeyTooLarge { size: 11, max: 10 };
    assert_eq!(error_of(&cache, cache.put("n", &over, "value")), expected);
    assert_eq!(error_of(&cache, cache.invalidate_key("n", &over)), expected);
    assert_eq!(error_of(&cache, cache.invalidate_prefix("n", &over)), expected);
    assert!(value_of(&cache, &over).is_none() && !holds(&cache, &over));
}

#[test]
fn namespace_names_up_to_their_limit() {
    let cache = open_with(|builder| builder);
    put(&cache, "old", "value").expect("it fits");
    let (at, over) = ("n".repeat(NAMESPACE_BYTES_MAX), "n".repeat(NAMESPACE_BYTES_MAX + 1));
    block_on(cache.put(&at, "key", "value")).expect("at the limit");
    assert_eq!(block_on(cache.invalidate_namespace(&at)), Ok(true));
    let (size, max) = (NAMESPACE_BYTES_MAX + 1, NAMESPACE_BYTES_MAX);
    let expected = CacheError::NamespaceTooLarge { size, max };
    assert_eq!(error_of(&cache, cache.put(&over, "key", "value")), expected);
    assert_eq!(error_of(&cache, cache.invalidate_key(&over, "key")), expected);
    assert_eq!(error_of(&cache, cache.invalidate_prefix(&over, "")), expected);
    assert_eq!(error_of(&cache, cache.invalidate_tags(&over, &["t"])), expected);
    assert_eq!(error_of(&cache, cache.invalidate_dependencies(&over, &["t"])), expected);
    assert_eq!(error_of(&cache, cache.invalidate_namespace(&over)), expected);
    assert_eq!(cache.exists(&over, "key"), CachePresence::Absent);
    assert!(block_on(cache.get(&over, "key")).is_none());
    assert!(cache.namespace_stats(&over).is_none());
}

#[test]
fn metadata_up_to_its_limits() {
    let cache =
        open_with(|builder| builder.content_metadata_keys_max(2).content_metadata_bytes_max(10));
    put(&cache, "old", "value").expect("it fits");
    let with = |pairs: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| (key.to_string(), value.to_string());
        let metadata: BTreeMap<_, _> = pairs.iter().map(owned).collect();
        BlobCachePut::new("new").with_content_metadata(metadata)
    };
    put(&cache, "at", with(&[("a", "1234"), ("b", "5678")])).expect("at both limits");
    let error = error_of(&cache, cache.put("n", "old", with(&[("a", ""), ("b", ""), ("c", "")])));
    let (max_keys, max_bytes) = (2, 10);
    assert_eq!(error, CacheError::MetadataTooLarge { keys: 3, bytes: 3, max_keys, max_bytes });
    let error = error_of(&cache, cache.put("n", "old", with(&[("a", "1234"), ("b", "56789")])));
    assert_eq!(error, CacheError::MetadataTooLarge { keys: 2, bytes: 11, max_keys, max_bytes });
}

#[test]
fn labels_up_to_their_limits() {
    let cache = open_with(|builder| builder.labels_max(3).label_bytes_max(10));
    put(&cache, "old", "value").expect("it fits");
    let with = |tags: &[&'static str], dependencies: &[&'static str]| {
        let put = BlobCachePut::new("new").with_tags(tags.to_vec());
        put.with_dependencies(dependencies.to_vec())
    };
    put(&cache, "at", with(&["1234", "567"], &["890"])).expect("at both limits");
    let (max_labels, max_bytes) = (3, 10);
    let many = CacheError::LabelsTooLarge { labels: 4, bytes: 4, max_labels, max_bytes };
    let long = CacheError::LabelsTooLarge { labels: 2, bytes: 11, max_labels, max_bytes };
    assert_eq!(error_of(&cache, cache.put("n", "old", with(&["a", "b"], &["c", "d"]))), many);
    assert_eq!(error_of(&cache, cache.put("n", "old", with(&["123456"], &["78901"]))), long);
    assert_eq!(block_on(cache.invalidate_tags("n", &["1234", "567", "x"])), Ok(1));
    assert_eq!(error_of(&cache, cache.invalidate_tags("n", &["a", "b", "c", "d"])), many);
    let dependencies = ["123456", "78901"];
    assert_eq!(error_of(&cache, cache.invalidate_dependencies("n", &dependencies)), long);
}

#[test]
fn namespaces_up_to_their_limit_and_freed_slots() {
    let cache = open_with(|builder| builder.max_namespaces(2));
    put(&cache, "old", "value").expect("it fits");
    block_on(cache.put("second", "key", "value")).expect("at the limit");
    let expected = CacheError::TooManyNamespaces { max: 2 };
    assert_eq!(error_of(&cache, cache.put("third", "key", "value")), expected);
    assert_eq!(block_on(cache.invalidate_key("third", "key")), Ok(0), "needs no slot");

    assert_eq!(block_on(cache.invalidate_namespace("second")), Ok(true));
    block_on(cache.put("third", "key", "value")).expect("a flush gives the slot back");
    assert_eq!(error_of(&cache, cache.put("second", "key", "value")), expected);

    assert_eq!(block_on(cache.invalidate_key("third", "key")), Ok(1));
    assert_eq!(cache.stats().namespaces(), 2, "empty, but its slot is not needed yet");
    block_on(cache.put("second", "key", "value")).expect("an empty namespace gives up its slot");
    assert!(cache.namespace_stats("third").is_none());
    assert_eq!(block_on(cache.invalidate_namespace("third")), Ok(false));
    assert_eq!(value_of(&cache, "old").as_deref(), Some(b"value".as_slice()));
}

#[test]
fn versions_must_increase() {
    let cache = open_with(|builder| builder);
    let versioned =
        |version| BlobCachePut::new("new").with_policy(BlobCachePolicy::default().version(version));
    put(&cache, "old", versioned(5)).expect("nothing is there");
    for attempted in [0, 4, 5] {
        let error = error_of(&cache, cache.put("n", "old", versioned(attempted)));
        assert_eq!(error, CacheError::VersionMismatch { existing: 5, attempted });
    }
    put(&cache, "old", versioned(6)).expect("one above");
    put(&cache, "old", "none").expect("a put without version wins");
    put(&cache, "old", versioned(0)).expect("over an entry without version");
    assert_eq!(block_on(cache.invalidate_namespace("n")), Ok(true));
    put(&cache, "old", versioned(0)).expect("a flush forgets versions");
}

#[test]
fn blobs_up_to_the_limit_of_their_policy() {
    let cache = open_with(|builder| builder);
    put(&cache, "old", "value").expect("it fits");
    for admission in [L1Admission::Auto, L1Admission::Always, L1Admission::Never] {
        let policy = BlobCachePolicy::default().max_blob_bytes(100).l1_admission(admission);
        let of = |bytes| BlobCachePut::from(vec![7; bytes]).with_policy(policy.clone());
        put(&cache, "at", of(100)).expect("at the limit");
        let error = error_of(&cache, cache.put("n", "old", of(101)));
        let limit = BlobLimit::Policy;
        assert_eq!(error, CacheError::BlobTooLarge { size: 101, max: 100, limit });
    }
}

#[test]
fn blobs_up_to_the_limit_of_their_admission() {
    let max = MIB;
    let cache = open_with(|builder| builder.l1_bytes_max(max).l1_charge(|_, value| value.len()));
    put(&cache, "old", "value").expect("it fits");
    for (admission, limit, named) in [
        (L1Admission::Auto, max / 8, BlobLimit::ShareOfMemory),
        (L1Admission::Always, max, BlobLimit::Memory),
    ] {
        let of = |bytes| admitted(vec![7; bytes], admission);
        let error = error_of(&cache, cache.put("n", "old", of(limit + 1)));
        let expected = CacheError::BlobTooLarge { size: limit + 1, max: limit, limit: named };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("l1_bytes_max"), "{error}");
        put(&cache, "at", of(limit)).expect("at the limit");
        assert!(holds(&cache, "at"), "{admission:?}");
        assert!(cache.stats().bytes_in_use() <= max);
    }
    assert_eq!(cache.stats().bytes_in_use(), max, "the largest has the whole of it");
    assert!(!holds(&cache, "old"));
}

/// The same with real memory: the limit applies to the whole entry.
#[test]
fn the_limit_applies_to_the_whole_entry() {
    let max = MIB;
    let cache = open_with(|builder| builder.l1_bytes_max(max));
    for (admission, limit) in [(L1Admission::Auto, max / 8), (L1Admission::Always, max)] {
        let of = |bytes| admitted(vec![7; bytes], admission);
        let largest = (limit - 10_000..=limit).rev().find(|bytes| {
            let result = put(&cache, "key", of(*bytes));
            if let Err(error) = &result {
                let is_over = |size, max| size > limit && max == limit;
                assert!(matches!(error, CacheError::BlobTooLarge { size, max, .. }
                    if is_over(*size, *max)));
            }
            result.is_ok()
        });
        assert!(largest.is_some_and(|bytes| bytes < limit), "the entry itself takes something");
        let stats = cache.stats();
        assert!((limit - 10_000..=limit).contains(&stats.bytes_in_use()), "{stats:?}");
    }
}

#[test]
fn a_put_that_is_not_admitted_removes_the_older_entry() {
    let cache = open_with(|builder| builder.l1_bytes_max(8 * MIB));
    let tagged = || BlobCachePut::new("old").with_tags(["t"]);
    put(&cache, "key", tagged()).expect("it fits");
    put(&cache, "key", admitted("new", L1Admission::Never)).expect("accepted, not stored");
    assert!(value_of(&cache, "key").is_none() && !holds(&cache, "key"));
    let stats = cache.stats();
    assert_eq!((stats.entries(), stats.bytes_in_use(), stats.insertions()), (0, 0, 1));
    assert_eq!(block_on(cache.invalidate_tags("n", &["t"])), Ok(0));
    put(&cache, "key", admitted(vec![7; 16 * MIB], L1Admission::Never)).expect("of any size");
    put(&cache, "key", admitted(vec![7; 5 * MIB], L1Admission::Always)).expect("it fits");
    let error = block_on(cache.put("n", "key", vec![7; MIB + 1]));
    assert!(matches!(error, Err(CacheError::BlobTooLarge { .. })), "{error:?}");
    assert!(holds(&cache, "key"), "an error changes nothing");
}

#[test]
fn a_closed_cache_is_empty_and_reports_it() {
    let cache = open_with(|builder| builder);
    let (clone, handle) = (cache.clone(), cache.namespace("n"));
    for key in 0..2000 {
        put(&cache, &key.to_string(), BlobCachePut::new("v").with_tags(["t"])).expect("it fits");
    }
    assert_eq!(block_on(cache.close()), Ok(()));
    for cache in [&cache, &clone, &handle.cache()] {
        let closed = CacheError::Closed;
        assert!(value_of(cache, "1").is_none() && !holds(cache, "1"));
        assert_eq!(error_of(cache, cache.put("n", "1", "new")), closed);
        assert_eq!(error_of(cache, cache.invalidate_key("n", "1")), closed);
        assert_eq!(error_of(cache, cache.invalidate_prefix("n", "1")), closed);
        assert_eq!(error_of(cache, cache.invalidate_tags("n", &["t"])), closed);
        assert_eq!(error_of(cache, cache.invalidate_dependencies("n", &["t"])), closed);
        assert_eq!(error_of(cache, cache.invalidate_namespace("n")), closed);
        assert_eq!(error_of(cache, cache.invalidate_all()), closed);
        assert_eq!(error_of(cache, cache.sync()), closed);
        assert_eq!(error_of(cache, cache.close()), closed);
    }
    assert_eq!(block_on(handle.put("1", "new")), Err(CacheError::Closed));
    assert!(handle.stats().is_none());
    let stats = cache.stats();
    assert_eq!((stats.entries(), stats.bytes_in_use(), stats.namespaces()), (0, 0, 0));
    assert_eq!((stats.memory_l1_bytes(), stats.memory_labels_bytes()), (0, 0));
}

/// Victims come from the lowest priority in use, whether or not they were read.
#[test]
fn the_lowest_priority_is_evicted_first() {
    let of = |priority| {
        BlobCachePut::from(vec![7; 900]).with_policy(BlobCachePolicy::default().priority(priority))
    };
    for shards in [1, 4] {
        let cache = open_with(|builder| {
            builder.l1_bytes_max(1000 * 1000).l1_charge(|_, _| 1000).shard_count(shards)
        });
        for key in 0..250 {
            for priority in [0, 127, 128, 255] {
                put(&cache, &format!("{priority}/{key}"), of(priority)).expect("it fits");
                assert!(value_of(&cache, &format!("0/{key}")).is_some());
            }
        }
        let left = |priority: u8| {
            (0..250).filter(|key| holds(&cache, &format!("{priority}/{key}"))).count()
        };
        for number in 0..750 {
            put(&cache, &format!("more/{number}"), of(200)).expect("evictions make room");
            let gone = number + 1;
            let of_128 = 750usize.saturating_sub(gone).min(250);
            let expected = (250usize.saturating_sub(gone), 500usize.saturating_sub(gone).min(250));
            assert_eq!((left(0), left(127), left(128)), (expected.0, expected.1, of_128));
        }
        assert_eq!((left(255), cache.stats().evictions()), (250, 750));

        // A flood of the lowest priority evicts only itself.
        for number in 0..1000 {
            put(&cache, &format!("flood/{number}"), of(1)).expect("evictions make room");
        }
        assert_eq!(left(255), 250);
        let more = (0..750).filter(|number| holds(&cache, &format!("more/{number}"))).count();
        assert!(more >= 749, "{more}");
    }
}

/// A blob of a quarter of the budget that is read all the time stays while all others turn over.
#[test]
fn a_blob_of_a_quarter_survives_for_any_shard_count() {
    let max = 4 * MIB;
    for shards in [1, 2, 4, 16, 64, 1024] {
        let cache = open_with(|builder| builder.l1_bytes_max(max).shard_count(shards));
        for number in 0..3000 {
            put(&cache, &format!("before/{number}"), vec![7; 1000]).expect("it fits");
        }
        put(&cache, "large", admitted(vec![8; max / 4], L1Admission::Always)).expect("it fits");
        assert!(value_of(&cache, "large").is_some(), "{shards} shards");
        for number in 0..8000 {
            assert!(
                block_on(cache.get("n", "large")).is_some(),
                "evicted after {number} small ones, with {shards} shards"
            );
            put(&cache, &format!("after/{number}"), vec![7; 1000]).expect("evictions make room");
            assert!(cache.stats().bytes_in_use() <= max, "{shards} shards");
        }
    }
}

#[test]
fn later_mutations_free_the_memory_of_flushed_entries() {
    const ENTRIES: usize = 5000;
    for is_of_all in [false, true] {
        let cache = open_with(|builder| builder);
        for key in 0..ENTRIES {
            let priority = u8::try_from(key % 256).expect("below 256");
            let policy = BlobCachePolicy::default().priority(priority);
            let value = BlobCachePut::new("v").with_tags(["t"]).with_policy(policy);
            put(&cache, &key.to_string(), value).expect("it fits");
        }
        let flushed = block_on(async {
            match is_of_all {
                false => cache.invalidate_namespace("n").await,
                true => cache.invalidate_all().await.map(|()| true),
            }
        });
        assert_eq!(flushed, Ok(true));
        assert_eq!((cache.stats().entries(), cache.stats().invalidations()), (0, 0));
        let mut mutations = 0;
        while cache.stats().bytes_in_use() > 0 {
            assert_eq!(block_on(cache.invalidate_key("elsewhere", "nothing")), Ok(0));
            mutations += 1;
            assert!(mutations <= ENTRIES / 8, "{:?} after {mutations}", cache.stats());
        }
        assert!(mutations > 1, "not all at once");
        assert_eq!(cache.stats().memory_labels_bytes(), 0);
        assert_eq!(cache.stats().evictions(), 0);
    }
}

#[test]
fn the_budget_holds_after_every_call() {
    for shards in [1, 3, 64] {
        let max = 2 * MIB;
        let cache = open_with(|builder| builder.l1_bytes_max(max).shard_count(shards));
        let mut bytes = 1;
        for number in 0..2000 {
            bytes = bytes * 7 % 262_139;
            let key = (number * number % 97).to_string();
            let policy = BlobCachePolicy::default()
                .l1_admission(L1Admission::Always)
                .priority(u8::try_from(number % 3).expect("below 3"));
            let value = BlobCachePut::from(vec![7; bytes]).with_policy(policy);
            put(&cache, &key, value.with_tags(["t"])).expect("evictions make room");
            let stats = cache.stats();
            assert!(stats.bytes_in_use() <= max, "{stats:?}");
            let parts = stats.memory_l1_bytes() + stats.memory_labels_bytes();
            assert_eq!((parts, stats.memory_buffers_bytes()), (stats.bytes_in_use(), 0));
            let held = cache.namespace_stats("n").expect("it has a slot");
            assert_eq!((held.entries(), held.bytes_in_use()), (stats.entries(), parts));
        }
        assert!(cache.stats().evictions() > 1000);
        assert!(cache.stats().bytes_in_use() > max / 2, "no more is evicted than needed");
    }
}
