//! Futures dropped between any two polls: an invalidation polled once stays in force, and later
//! mutations finish its work; a put has either taken effect or not, and returns its reservations.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use futures::executor::block_on;
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError,
    CachePresence,
};

/// Enough that an invalidation of all of them takes several batches.
const COVERED: u32 = 1500;
const OTHERS: u32 = 300;
const VERSION: u64 = 9;

/// Enough mutations to finish the work of a dropped call.
const MUTATIONS: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Prefix,
    Tags,
    Dependencies,
}

const WAYS: [Way; 3] = [Way::Prefix, Way::Tags, Way::Dependencies];

async fn invalidate(cache: &BlobCache, way: Way) -> Result<usize, CacheError> {
    match way {
        Way::Prefix => cache.invalidate_prefix("n", "old/").await,
        Way::Tags => cache.invalidate_tags("n", &["unused", "old", "rare"]).await,
        Way::Dependencies => cache.invalidate_dependencies("n", &["old", "rare"]).await,
    }
}

/// Polls up to `polls` times, then drops the future. None if it was not done by then.
fn poll_times<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    (0..polls).find_map(|_| match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    })
}

fn roomy() -> BlobCache {
    // No background task may finish dropped work.
    let config = BlobCacheConfig::builder().background_sweep(BackgroundSweep::Off);
    let config = config.build().expect("in its range");
    block_on(BlobCache::open(config)).expect("a cache in memory opens")
}

fn old(number: u32) -> String {
    format!("old/{number}")
}

fn keep(number: u32) -> String {
    format!("keep/{number}")
}

/// Some versioned entries that all three kinds cover, and some that none covers.
fn filled() -> BlobCache {
    let cache = roomy();
    for number in 0..COVERED {
        let rare = (number % 7 == 0).then_some("rare");
        let put = BlobCachePut::copy_from_slice(&number.to_le_bytes())
            .with_tags(["old"].into_iter().chain(rare))
            .with_dependencies(["old"].into_iter().chain(rare))
            .with_policy(BlobCachePolicy::default().version(VERSION));
        block_on(cache.put("n", old(number), put)).expect("there is room");
    }
    for number in 0..OTHERS {
        let put = BlobCachePut::copy_from_slice(&number.to_le_bytes()).with_tags(["keep"]);
        block_on(cache.put("n", keep(number), put)).expect("there is room");
    }
    cache
}

fn value_of(cache: &BlobCache, key: &str) -> Option<Vec<u8>> {
    let hit = block_on(cache.get("n", key));
    let presence = if hit.is_some() { CachePresence::Present } else { CachePresence::Absent };
    assert_eq!(cache.exists("n", key), presence);
    hit.map(|hit| hit.value().to_vec())
}

/// No covered entry is found, and all others are.
fn assert_in_force(cache: &BlobCache) {
    assert!((0..COVERED).all(|number| value_of(cache, &old(number)).is_none()));
    let is_kept =
        |number: u32| value_of(cache, &keep(number)) == Some(number.to_le_bytes().to_vec());
    assert!((0..OTHERS).all(is_kept));
}

fn mutate(cache: &BlobCache, times: usize) {
    for _ in 0..times {
        assert_eq!(block_on(cache.invalidate_key("elsewhere", "nothing")), Ok(0));
    }
}

#[test]
fn a_future_that_was_never_polled_has_done_nothing() {
    let cache = filled();
    let before = cache.stats();
    for way in WAYS {
        drop(invalidate(&cache, way));
    }
    drop(cache.put("n", "old/1", "new"));
    drop(cache.invalidate_key("n", "old/1"));
    drop(cache.invalidate_namespace("n"));
    drop(cache.invalidate_all());
    drop(cache.get("n", "old/1"));
    drop(cache.close());
    assert_eq!(cache.stats(), before);
}

#[test]
fn an_invalidation_dropped_after_any_poll_stays_in_force_and_is_finished() {
    for way in WAYS {
        for polls in [1, 2, 3, 5] {
            let cache = filled();
            let before = cache.stats();
            let dropped = poll_times(invalidate(&cache, way), polls);
            assert_eq!(dropped, None, "{way:?} is done after {polls} polls");
            assert_in_force(&cache);
            assert!(cache.stats().entries() > OTHERS as usize, "{way:?} left no work");

            mutate(&cache, MUTATIONS);
            assert_in_force(&cache);
            let after = cache.stats();
            assert_eq!(after.entries(), OTHERS as usize, "{way:?} after {polls} polls");
            assert_eq!(after.invalidations(), u64::from(COVERED));
            let of_one = before.bytes_in_use() / (COVERED + OTHERS) as usize;
            assert!(after.bytes_in_use() <= OTHERS as usize * of_one);
            let postings = before.memory_labels_bytes() - after.memory_labels_bytes();
            assert!(postings > after.memory_labels_bytes(), "their postings were removed");
        }
    }
}

#[test]
fn entries_of_a_dropped_invalidation_neither_block_puts_nor_return() {
    for way in WAYS {
        let cache = filled();
        assert_eq!(poll_times(invalidate(&cache, way), 1), None);
        // Versions of covered entries no longer block, whether or not they are still in memory.
        for number in 0..COVERED {
            let policy = BlobCachePolicy::default().version(1);
            let put = BlobCachePut::new("new").with_tags(["old"]).with_policy(policy);
            assert_eq!(block_on(cache.put("n", old(number), put)), Ok(()), "{way:?} {number}");
        }
        mutate(&cache, MUTATIONS);
        let is_new = |number: u32| value_of(&cache, &old(number)).as_deref() == Some(b"new");
        assert!((0..COVERED).all(is_new), "{way:?} removed a later put");
        assert_eq!(cache.stats().invalidations(), u64::from(COVERED));
        assert_eq!(cache.stats().version_mismatches(), 0);
        assert_eq!(block_on(cache.invalidate_tags("n", &["old"])), Ok(COVERED as usize));
    }
}

#[test]
fn an_invalidation_does_not_count_entries_of_a_dropped_one() {
    for first in WAYS {
        for second in WAYS {
            let cache = filled();
            assert_eq!(poll_times(invalidate(&cache, first), 1), None);
            assert_eq!(block_on(invalidate(&cache, second)), Ok(0), "{first:?}, {second:?}");
            let all_others = Ok(OTHERS as usize);
            assert_eq!(block_on(cache.invalidate_prefix("n", "")), all_others);
            assert_eq!(cache.stats().invalidations(), u64::from(COVERED + OTHERS));
            mutate(&cache, MUTATIONS);
            assert_eq!((cache.stats().entries(), cache.stats().bytes_in_use()), (0, 0));
            assert_eq!(cache.stats().memory_labels_bytes(), 0);
        }
    }
}

#[test]
fn an_unfinished_invalidation_does_not_block_flushes_or_close() {
    for way in WAYS {
        let cache = filled();
        assert_eq!(poll_times(invalidate(&cache, way), 1), None);
        assert_eq!(block_on(cache.invalidate_namespace("n")), Ok(true));
        assert_eq!(cache.stats().entries(), 0);
        block_on(cache.put("n", "old/1", "new")).expect("there is room");
        mutate(&cache, MUTATIONS);
        assert_eq!(value_of(&cache, "old/1").as_deref(), Some(b"new".as_slice()));
        assert_eq!(cache.stats().entries(), 1);

        let cache = filled();
        assert_eq!(poll_times(invalidate(&cache, way), 1), None);
        assert_eq!(block_on(cache.close()), Ok(()));
        let stats = cache.stats();
        assert_eq!((stats.bytes_in_use(), stats.memory_labels_bytes(), stats.entries()), (0, 0, 0));
    }
}

#[test]
fn a_close_dropped_after_its_first_poll_is_in_force() {
    let cache = filled();
    assert_eq!(poll_times(cache.close(), 1), None);
    assert!((0..COVERED).all(|number| value_of(&cache, &old(number)).is_none()));
    assert_eq!(block_on(cache.put("n", "key", "value")), Err(CacheError::Closed));
    assert_eq!(block_on(cache.close()), Err(CacheError::Closed));
    assert_eq!(cache.stats().entries(), 0);
}

/// With too many unfinished ones, some must flush the namespace instead: that removes too much, but
/// nothing is stale.
#[test]
fn any_number_of_dropped_invalidations_stays_in_force() {
    const ENTRIES: u32 = 66_000;
    const DROPPED: u32 = 300;
    let cache = roomy();
    for number in 0..ENTRIES {
        let key = format!("{}/{number}", number % 1000);
        block_on(cache.put("n", key, Bytes::new())).expect("there is room");
    }
    let mut flushed = None;
    for prefix in 0..DROPPED {
        let found = poll_times(cache.invalidate_prefix("n", format!("{prefix}/")), 1);
        if found.is_some() {
            flushed.get_or_insert(prefix);
        }
    }
    assert!(flushed.is_some_and(|first| first >= 256), "the limit was reached: {flushed:?}");
    let is_covered = |number: &u32| number % 1000 < DROPPED;
    for number in (0..ENTRIES).filter(is_covered) {
        let key = format!("{}/{number}", number % 1000);
        assert_eq!(cache.exists("n", key), CachePresence::Absent);
    }
    mutate(&cache, ENTRIES as usize / 16);
    assert_eq!((cache.stats().entries(), cache.stats().bytes_in_use()), (0, 0));
}

#[test]
fn a_put_dropped_at_any_poll_has_taken_effect_or_not_and_leaks_nothing() {
    let value = Bytes::from(vec![7; 5 << 20]);
    let policy = BlobCachePolicy::default().version(2);
    let put = || BlobCachePut::new(value.clone()).with_tags(["large"]).with_policy(policy.clone());
    let mut polls = 0;
    loop {
        let cache = filled();
        block_on(cache.put("n", "key", "old")).expect("there is room");
        let before = cache.stats();
        let mut under_way = Box::pin(cache.put("n", "key", put()));
        let result = poll_times(under_way.as_mut(), polls);
        if result.is_none() && polls > 0 {
            assert!(cache.stats().memory_buffers_bytes() >= value.len(), "{polls} polls");
        }
        drop(under_way);
        assert_eq!(cache.stats().memory_buffers_bytes(), 0, "{polls} polls");
        if result == Some(Ok(())) {
            assert_eq!(value_of(&cache, "key"), Some(value.to_vec()));
            break;
        }
        assert_eq!(result, None);
        assert_eq!(cache.stats(), before, "{polls} polls");
        assert_eq!(value_of(&cache, "key").as_deref(), Some(b"old".as_slice()));
        assert_eq!(block_on(cache.invalidate_tags("n", &["large"])), Ok(0));
        polls += 1;
    }
    assert!(polls >= 20, "5 MiB were copied in {polls} polls");
}

#[test]
fn a_dropped_put_has_not_evicted_more_than_it_needed() {
    let config = BlobCacheConfig::builder().l1_bytes_max(16 << 20).build();
    let cache = block_on(BlobCache::open(config.expect("in its range"))).expect("it opens");
    for number in 0..20_000u32 {
        block_on(cache.put("n", old(number), vec![7; 1000])).expect("evictions make room");
    }
    assert!(cache.stats().evictions() > 0, "it is full");
    let policy = BlobCachePolicy::default().l1_admission(tamis::L1Admission::Always);
    let value = Bytes::from(vec![7; 4 << 20]);
    let put = BlobCachePut::new(value).with_policy(policy);
    for polls in 1..30 {
        poll_times(cache.put("n", "large", put.clone()), polls);
        let stats = cache.stats();
        assert_eq!(stats.memory_buffers_bytes(), 0);
        assert!(stats.bytes_in_use() <= stats.l1_bytes_max());
        assert!(stats.bytes_in_use() >= 11 << 20, "the room is made once");
    }
}

/// Its namespace is flushed while the value is copied: the entry is stored in the next generation
/// or refused; if it is not found, nothing of it is in memory.
#[test]
fn a_put_flushed_halfway_leaves_nothing_hidden() {
    let value = Bytes::from(vec![7; 2 << 20]);
    let meet = |meanwhile: fn(&BlobCache)| {
        let config = BlobCacheConfig::builder().max_namespaces(1).build();
        let cache = block_on(BlobCache::open(config.expect("in its range"))).expect("it opens");
        let mut under_way = Box::pin(cache.put("n", "key", value.clone()));
        assert_eq!(poll_times(under_way.as_mut(), 2), None);
        meanwhile(&cache);
        mutate(&cache, MUTATIONS);
        let result = block_on(under_way);
        let stats = cache.stats();
        assert_eq!(stats.memory_buffers_bytes(), 0);
        if value_of(&cache, "key").is_some() {
            assert_eq!((result.clone(), stats.entries()), (Ok(()), 1));
        } else if stats.entries() == 0 {
            assert_eq!(stats.bytes_in_use(), 0, "{result:?}");
        }
        result
    };
    let flush: fn(&BlobCache) = |cache| {
        assert_eq!(block_on(cache.invalidate_namespace("n")), Ok(true));
    };
    assert_eq!(meet(flush), Ok(()));
    assert_eq!(meet(|cache| block_on(cache.invalidate_all()).expect("it is open")), Ok(()));
    let result = meet(|cache| {
        assert_eq!(block_on(cache.invalidate_namespace("n")), Ok(true));
        block_on(cache.put("m", "key", "value")).expect("the slot is free");
    });
    assert_eq!(result, Err(CacheError::TooManyNamespaces { max: 1 }));
}

#[test]
fn a_put_closed_halfway_is_refused() {
    let cache = roomy();
    let mut under_way = Box::pin(cache.put("n", "key", Bytes::from(vec![7; 2 << 20])));
    assert_eq!(poll_times(under_way.as_mut(), 2), None);
    assert_eq!(block_on(cache.close()), Ok(()));
    assert_eq!(block_on(under_way), Err(CacheError::Closed));
    let stats = cache.stats();
    assert_eq!((stats.entries(), stats.bytes_in_use(), stats.memory_buffers_bytes()), (0, 0, 0));
}
