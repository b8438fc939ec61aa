//! `keys`: what is listed of entries in memory and on disk, over closes, with damage, and by
//! streams that are never polled again.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::executor::block_on;
use futures::{FutureExt, Stream, StreamExt};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCacheKeys, BlobCachePolicy,
    BlobCachePut, CacheTier, Clock, KeyEntry, KeysQuery, L1Admission, L2Compression, L2State,
    Plain,
};

const MIB: usize = 1 << 20;

/// Far longer than any undelayed call takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder(directory: &Path) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(MIB)
        .l2_path(directory)
        .l2_engine(crate::engine::engine(0))
        .l2_bytes_max(4 << 20)
        .l2_segment_bytes(256 << 10)
        .l2_compression(L2Compression::Off)
}

fn open(builder: BlobCacheConfigBuilder) -> BlobCache {
    block_on(BlobCache::open(builder.build().unwrap())).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn on_disk(value: impl Into<BlobCachePut>) -> BlobCachePut {
    value.into().with_policy(BlobCachePolicy::default().l1_admission(L1Admission::Never))
}

fn list(cache: &BlobCache, query: impl Into<KeysQuery>) -> Vec<KeyEntry> {
    let mut listed: Vec<KeyEntry> = block_on(cache.keys("n", query).collect());
    listed.sort_by(|one, other| one.key().cmp(other.key()));
    listed
}

fn names(listed: &[KeyEntry]) -> Vec<&str> {
    listed.iter().map(|entry| std::str::from_utf8(entry.key()).unwrap()).collect()
}

/// The result of a call that must not hang.
fn ends<T>(what: &str, call: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let call = runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await });
    call.unwrap_or_else(|_| panic!("{what} does not end"))
}

#[test]
fn an_entry_says_what_its_put_said_in_either_tier_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Clock::manual(at(0));
    let cache = open(builder(directory.path()).clock(clock.clone()));
    let life = BlobCachePolicy::default().ttl(Duration::from_secs(60)).version(7);
    let life = life.stale_serve(Duration::from_secs(600));
    let put = |value: &'static str| BlobCachePut::new(value).with_tags(["b", "a"]);
    let both = put("v").with_dependencies(["d"]).with_policy(life.clone());
    block_on(async {
        cache.put("n", "in both", both).await.unwrap();
        let below = life.l1_admission(L1Admission::Never);
        cache.put("n", "on disk", put("w").with_policy(below)).await.unwrap();
        let absent = BlobCachePut::absent().with_tags(["b"]);
        cache.put("n", "plain", absent).await.unwrap();
        cache.sync().await.unwrap();
    });
    let listed = list(&cache, "");
    assert_eq!(names(&listed), ["in both", "on disk", "plain"]);
    assert_eq!(names(&list(&cache, "in")), ["in both"]);
    assert_eq!(names(&list(&cache, KeysQuery::default().tags(["a"]))), ["in both", "on disk"]);
    assert_eq!(names(&list(&cache, KeysQuery::default().dependencies(["d"]))), ["in both"]);
    assert_eq!(names(&list(&cache, KeysQuery::default().tags(["d"]))), [""; 0]);
    let none: [&str; 0] = [];
    assert_eq!(names(&list(&cache, KeysQuery::default().tags(none))), [""; 0]);
    let [in_both, below, plain] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((in_both.tier(), below.tier()), (CacheTier::L1, CacheTier::L2));
    assert!(in_both.has_details() && !below.has_details());
    assert_eq!((below.tags().count(), below.is_stale(), below.written_at()), (0, None, None));
    assert_eq!((plain.is_absent(), plain.version(), plain.gone_at()), (true, None, None));
    assert!(plain.bytes() > 0 && below.bytes() > 0);
    clock.advance(Duration::from_secs(60));
    let check = |listed: &[KeyEntry], tier| {
        assert_eq!(names(listed), ["in both", "on disk", "plain"]);
        for entry in &listed[..2] {
            assert_eq!(entry.version(), Some(7));
            assert_eq!(entry.written_at(), Some(at(0)));
            assert_eq!(entry.expires_at(), Some(at(60)));
            assert_eq!(entry.gone_at(), Some(at(660)));
            assert_eq!(entry.is_stale(), Some(true));
            assert_eq!(entry.stale_window_remaining(), Some(Duration::from_secs(600)));
            assert!(entry.tags().eq(["b", "a"]));
        }
        assert!(listed[0].dependencies().eq(["d"]) && listed[1].dependencies().eq([""; 0]));
        assert_eq!((listed[0].tier(), listed[1].tier()), (tier, CacheTier::L2));
        assert_eq!(listed[2].is_stale(), Some(false));
    };
    check(&list(&cache, KeysQuery::default().details()), CacheTier::L1);
    let typed = cache.namespace("n").typed::<String, _>(Plain);
    assert_eq!(block_on(typed.keys("in").count()), 1);
    assert_eq!(block_on(cache.namespace("n").keys("").count()), 3);
    block_on(cache.close()).unwrap();
    let cache = open(builder(directory.path()).clock(clock.clone()));
    check(&list(&cache, KeysQuery::default().details()), CacheTier::L2);
    assert!(list(&cache, "").iter().all(|entry| entry.tier() == CacheTier::L2));
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.misses()), (0, 0));
    clock.advance(Duration::from_secs(600));
    assert_eq!(names(&list(&cache, "")), ["plain"]);
}

#[test]
fn prefixes_are_any_bytes_and_namespaces_are_apart() {
    let cache = open(BlobCacheConfig::builder());
    for (space, key) in [("n", "a"), ("n", "ab"), ("n", "b"), ("", "ab"), ("n2", "abc")] {
        block_on(cache.put(space, key, "v")).unwrap();
    }
    let (owned, bytes) = (String::from("a"), vec![b'a']);
    assert_eq!(names(&list(&cache, "a")), ["a", "ab"]);
    assert_eq!(names(&list(&cache, &owned)), ["a", "ab"]);
    assert_eq!(names(&list(&cache, owned)), ["a", "ab"]);
    assert_eq!(names(&list(&cache, b"ab")), ["ab"]);
    assert_eq!(names(&list(&cache, &bytes[..])), ["a", "ab"]);
    assert_eq!(names(&list(&cache, bytes)), ["a", "ab"]);
    assert_eq!(names(&list(&cache, KeysQuery::default())), ["a", "ab", "b"]);
    assert_eq!(block_on(cache.keys("", "").count()), 1);
    assert_eq!(block_on(cache.keys("unknown", "").count()), 0);
}

/// Of a directory that cannot be read, memory still has what it has, and other segments are listed.
#[test]
fn damage_leaves_out_what_only_the_damaged_directory_lists() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()));
    for number in 0..400 {
        let put = match number % 2 {
            0 => on_disk(vec![7; 4000]),
            _ => BlobCachePut::new(vec![7; 100]),
        };
        block_on(cache.put("n", format!("{number}"), put)).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let whole = list(&cache, "");
    assert_eq!(whole.len(), 400);
    let file = std::fs::read_dir(directory.path()).unwrap().map(|it| it.unwrap().path());
    let file = file.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let file = OpenOptions::new().write(true).open(file).unwrap();
    // The directory of the first segment: its pages and its table, not all of its records.
    file.write_all_at(&[0xee; 32 << 10], 8192 + (256 << 10) - (32 << 10)).unwrap();
    let damaged = list(&cache, "");
    let (whole, left): (BTreeSet<_>, BTreeSet<_>) =
        (names(&whole).into_iter().collect(), names(&damaged).into_iter().collect());
    assert_eq!(left.len(), damaged.len(), "none twice");
    assert!(left.is_subset(&whole));
    let missing: Vec<_> = whole.difference(&left).collect();
    assert!((10..100).contains(&missing.len()), "{missing:?}");
    let is_on_disk = |key: &str| key.parse::<u32>().unwrap() % 2 == 0;
    assert!(missing.iter().all(|key| is_on_disk(key)), "{missing:?}");
    assert!(cache.stats().l2_corruptions() > 0);
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
}

fn poll(keys: &mut BlobCacheKeys) -> Poll<Option<KeyEntry>> {
    Pin::new(keys).poll_next(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn listings_asleep_in_every_stage_delay_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()).l2_read_bytes_max(MIB));
    let fill = |count: usize, bytes: usize| {
        for number in 0..count {
            let put = on_disk(vec![7; bytes]).with_tags(["t"]);
            ends("a put", cache.put("n", format!("{number}"), put)).unwrap();
        }
    };
    fill(600, 2000);
    ends("a sync", cache.sync()).unwrap();
    let mut sleepers = Vec::new();
    for polls in 0..60 {
        let all = KeysQuery::default();
        for query in [all.clone(), all.clone().details(), all.tags(["t"])] {
            let mut keys = cache.keys("n", query);
            for _ in 0..polls {
                if poll(&mut keys).is_pending() {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            sleepers.push(keys);
        }
    }
    assert_eq!(ends("a listing", cache.keys("n", "").count()), 600);
    assert!(cache.stats().memory_reads_bytes() <= MIB / 4);
    assert!(ends("a get", cache.get("n", "1")).is_some());
    // Several times the size of the store.
    fill(6000, 4000);
    assert!(cache.stats().l2_reclaimed_segments() > 16);
    ends("an invalidation", cache.invalidate_prefix("n", "1")).unwrap();
    ends("a flush", cache.invalidate_namespace("n")).unwrap();
    ends("a sync", cache.sync()).unwrap();
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    assert!(poll(&mut sleepers[0]).is_pending() || poll(&mut sleepers[0]) == Poll::Ready(None));
    ends("a close", cache.close()).unwrap();
    let again = ends("an open", BlobCache::open(builder(directory.path()).build().unwrap()));
    let again = again.unwrap();
    for mut sleeper in sleepers {
        assert_eq!(ends("a sleeper", sleeper.next()), None);
    }
    assert_eq!(again.stats().memory_reads_bytes(), 0);
}

#[test]
fn a_stream_does_not_keep_the_cache_open_and_ends_once() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()));
    for number in 0..100 {
        block_on(cache.put("n", format!("{number}"), on_disk("v"))).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let mut keys = cache.keys("n", "");
    assert!(block_on(keys.next()).is_some());
    drop(cache);
    // It waits until the store is free.
    let cache = ends("an open", BlobCache::open(builder(directory.path()).build().unwrap()));
    let cache = cache.unwrap();
    assert_eq!(block_on(keys.next()), None);
    assert_eq!(keys.next().now_or_never(), Some(None), "again");
    assert_eq!(block_on(cache.keys("n", "").count()), 100);
    let mut done = cache.keys("n", "none such");
    assert_eq!(block_on(done.next()), None);
    assert_eq!(block_on(done.next()), None);
}

#[test]
fn a_dropped_next_loses_no_entry() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(builder(directory.path()));
    for number in 0..1000 {
        block_on(cache.put("n", format!("{number}"), on_disk(vec![7; 500]))).unwrap();
    }
    block_on(cache.sync()).unwrap();
    let (mut keys, mut listed, mut dropped) = (cache.keys("n", ""), BTreeSet::new(), 0);
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        match keys.next().now_or_never() {
            Some(Some(entry)) => assert!(listed.insert(entry.into_key())),
            Some(None) => break,
            None => dropped += 1,
        }
    }
    assert_eq!(listed.len(), 1000);
    assert!(dropped > 3, "{dropped}");
}

#[test]
fn the_stream_and_its_entries_go_to_other_threads() {
    const fn sends<T: Send + std::fmt::Debug + 'static>() {}
    const fn shares<T: Send + Sync + Clone + std::fmt::Debug + 'static>() {}
    sends::<BlobCacheKeys>();
    shares::<KeyEntry>();
    shares::<KeysQuery>();
    let cache = open(BlobCacheConfig::builder());
    block_on(cache.put("n", "k", "v")).unwrap();
    let mut keys = cache.keys("n", "");
    let listing = std::thread::spawn(move || block_on(async move { keys.next().await }));
    assert_eq!(listing.join().unwrap().unwrap().into_key(), b"k");
}
