//! Events of a cache: what they say, that they count as `stats()` does, and that a listener that is
//! slow, panics, blocks or calls the cache harms nobody.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use futures::executor::block_on;
use futures::{FutureExt, Stream, StreamExt};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCacheEvent, BlobCacheEvents, BlobCachePolicy,
    BlobCachePut, CacheTier, Clock, EntryChange, EntryEvent, L1Admission,
};

const PATIENCE: Duration = Duration::from_secs(20);

const fn goes_anywhere<T: std::fmt::Debug + Send + Sync + 'static>() {}

const _: () = {
    goes_anywhere::<BlobCacheEvents>();
    goes_anywhere::<BlobCacheEvent>();
    goes_anywhere::<EntryEvent>();
    goes_anywhere::<EntryChange>();
};

fn in_memory(bytes: usize, clock: &Clock) -> BlobCache {
    let config = BlobCacheConfig::builder().l1_bytes_max(bytes).clock(clock.clone());
    let config = config.background_sweep(BackgroundSweep::Off).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

fn cache() -> BlobCache {
    in_memory(1 << 20, &Clock::system())
}

fn on_disk(folder: &tempfile::TempDir) -> BlobCache {
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0));
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

/// Those that are there already.
fn told(events: &mut BlobCacheEvents) -> Vec<BlobCacheEvent> {
    let mut told = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        told.push(event);
    }
    told
}

/// The change, the key and the tier of an event of an entry.
fn entry(event: &BlobCacheEvent) -> (EntryChange, Option<&str>, CacheTier) {
    let BlobCacheEvent::Entry(event) = event else { panic!("{event:?}") };
    assert_eq!(event.namespace(), "a");
    (event.change(), event.key().map(|key| std::str::from_utf8(key).unwrap()), event.tier())
}

#[test]
fn what_becomes_of_entries_in_memory_is_told_with_key_size_and_cause() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let cache = in_memory(1 << 20, &clock);
    let mut events = cache.events().unwrap();
    block_on(async {
        let mortal = || BlobCachePut::new("value").with_ttl(Duration::from_secs(1));
        cache.put("a", "replaced", "value").await.unwrap();
        cache.put("a", "replaced", "other").await.unwrap();
        cache.put("a", "key", "value").await.unwrap();
        cache.invalidate_key("a", "key").await.unwrap();
        cache.invalidate_key("a", "none").await.unwrap();
        cache.put("a", "prefix/1", "value").await.unwrap();
        cache.invalidate_prefix("a", "prefix/").await.unwrap();
        cache.put("a", "tagged", BlobCachePut::new("value").with_tags(["t"])).await.unwrap();
        cache.invalidate_tags("a", &["t"]).await.unwrap();
        cache.put("a", "mortal", mortal()).await.unwrap();
        clock.advance(Duration::from_secs(2));
        assert!(cache.get("a", "mortal").await.is_none());
        let idle = BlobCachePolicy::default().idle_ttl(Duration::from_secs(1));
        cache.put("a", "idle", BlobCachePut::new("value").with_policy(idle)).await.unwrap();
        clock.advance(Duration::from_secs(3));
        assert!(cache.get("a", "idle").await.is_none());
        cache.invalidate_namespace("a").await.unwrap();
        cache.invalidate_all().await.unwrap();
    });
    let told = told(&mut events);
    let of = |change, key| (change, Some(key), CacheTier::L1);
    assert_eq!(told.len(), 8, "{told:#?}");
    let found: Vec<_> = told[..6].iter().map(entry).collect();
    let wanted = [
        of(EntryChange::Replaced, "replaced"),
        of(EntryChange::Invalidated, "key"),
        of(EntryChange::Invalidated, "prefix/1"),
        of(EntryChange::Invalidated, "tagged"),
        of(EntryChange::Expired { idle: false }, "mortal"),
        of(EntryChange::Expired { idle: true }, "idle"),
    ];
    assert_eq!(found, wanted);
    let BlobCacheEvent::Entry(first) = &told[0] else { panic!("{told:?}") };
    assert!(first.bytes().unwrap() > "value".len());
    let flushed = |namespace: Option<&str>, entries| BlobCacheEvent::Flushed {
        namespace: namespace.map(Into::into),
        entries,
    };
    assert_eq!(told[6..], [flushed(Some("a"), 1), flushed(None, 0)]);
    assert_eq!(cache.stats().events_lost(), 0);
}

#[test]
fn evictions_promotions_and_what_an_open_found_are_told() {
    let cache = in_memory(64 << 10, &Clock::system());
    let mut events = cache.events().unwrap();
    for number in 0..100_u32 {
        block_on(cache.put("a", number.to_string(), vec![7; 1000])).unwrap();
    }
    let told_of_memory = told(&mut events);
    let evicted = EntryChange::Evicted { on_disk: false };
    assert!(told_of_memory.iter().all(|event| entry(event).0 == evicted));
    assert_eq!(told_of_memory.len() as u64, cache.stats().evictions());
    assert!(told_of_memory.len() > 40);

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = on_disk(&folder);
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put = BlobCachePut::new("value").with_policy(below);
    block_on(cache.put("a", "below", put)).unwrap();
    block_on(cache.close()).unwrap();
    let cache = on_disk(&folder);
    let mut events = cache.events().unwrap();
    let found = BlobCacheEvent::Recovered { records: 1, segments_dropped: 0 };
    assert_eq!(block_on(events.next()), Some(found));
    // The second read promotes, if memory may hold it at all.
    block_on(cache.put("a", "both", "value")).unwrap();
    block_on(cache.invalidate_key("a", "both")).unwrap();
    block_on(cache.invalidate_key("a", "below")).unwrap();
    let told: Vec<_> = told(&mut events).iter().map(|event| entry(event).0).collect();
    assert_eq!(told, [EntryChange::Invalidated; 2]);
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(events.next()), None);
    assert_eq!(block_on(events.next()), None);
}

#[test]
fn a_listener_that_is_not_polled_holds_bounded_memory_and_is_told_how_much_it_lost() {
    let cache = in_memory(64 << 20, &Clock::system());
    let mut events = cache.events().unwrap();
    let queue = cache.stats().memory().buffers_bytes();
    assert!(queue > 100_000, "the queue counts from the start: {queue}");
    let keys = 6000_u32;
    for round in 0..2 {
        // The second time each key is replaced.
        for number in 0..keys {
            block_on(cache.put("a", number.to_string(), "value")).unwrap();
        }
        let waiting = cache.stats().memory().buffers_bytes();
        assert!(waiting <= 1 << 20 && (waiting > queue) == (round == 1), "{waiting}");
    }
    let lost = cache.stats().events_lost();
    assert!(lost > 1000 && lost < u64::from(keys), "{lost}");
    let first = told(&mut events);
    assert_eq!(first.last(), Some(&BlobCacheEvent::Lost(lost)));
    assert_eq!(first.len() as u64 - 1 + lost, u64::from(keys), "each is told or lost");
    assert_eq!(cache.stats().memory().buffers_bytes(), queue);
    // Lost in the middle: told at its place.
    let long = "k".repeat(4000);
    for number in 0..400 {
        block_on(cache.put("a", format!("{number}{long}"), "value")).unwrap();
        block_on(cache.put("a", format!("{number}{long}"), "value")).unwrap();
    }
    let before = told(&mut events).len() as u64;
    assert!(before < 300, "the bytes of keys are bounded: {before}");
    assert_eq!(before - 1 + cache.stats().events_lost() - lost, 400);
    assert!(cache.stats().memory().buffers_bytes() == queue && told(&mut events).is_empty());
    drop(events);
    assert_eq!(cache.stats().memory().buffers_bytes(), 0);
    block_on(cache.put("a", "1", "value")).unwrap();
    assert_eq!(cache.stats().events_lost() - lost, 401 - before, "nobody listens");
}

#[test]
fn a_later_listener_ends_the_earlier_one_and_a_hit_tells_nothing() {
    let cache = cache();
    let mut first = cache.events().unwrap();
    block_on(cache.put("a", "key", "value")).unwrap();
    block_on(cache.put("a", "key", "value")).unwrap();
    let mut second = cache.events().unwrap();
    assert_eq!(block_on(first.next()), None);
    for _ in 0..10 {
        assert!(block_on(cache.get("a", "key")).is_some());
    }
    assert!(block_on(cache.get("a", "none")).is_none());
    assert!(told(&mut second).is_empty());
    drop(first);
    block_on(cache.put("a", "key", "value")).unwrap();
    assert_eq!(told(&mut second).len(), 1, "the earlier one ends nothing of the later one's");
    drop(cache);
    assert_eq!(block_on(second.next()), None, "the last handle is gone");
}

#[test]
fn a_waiting_listener_is_woken() {
    let cache = cache();
    let mut events = cache.events().unwrap();
    let (sender, receiver) = channel();
    let listener = std::thread::spawn(move || {
        while let Some(event) = block_on(events.next()) {
            sender.send(event).unwrap();
        }
    });
    block_on(cache.put("a", "key", "value")).unwrap();
    for _ in 0..100 {
        block_on(cache.put("a", "key", "value")).unwrap();
        let event = receiver.recv_timeout(PATIENCE).unwrap();
        assert_eq!(entry(&event).0, EntryChange::Replaced);
    }
    block_on(cache.close()).unwrap();
    listener.join().unwrap();
}

/// Calls the cache, or blocks, or panics, when it is woken.
struct Hostile {
    react: Box<dyn Fn() + Send + Sync>,
    woken: AtomicUsize,
    told: Mutex<Sender<()>>,
}

impl Wake for Hostile {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Relaxed);
        self.told.lock().unwrap().send(()).unwrap();
        (self.react)();
    }
}

#[test]
fn a_waker_that_panics_blocks_or_calls_the_cache_holds_up_nobody() {
    let cache = cache();
    let (block, blocked) = channel::<()>();
    let blocked = Mutex::new(blocked);
    let inner = cache.clone();
    let reactions: [Box<dyn Fn() + Send + Sync>; 3] = [
        Box::new(|| panic!("in a waker")),
        Box::new(move || {
            block_on(inner.put("a", "of the waker", "value")).unwrap();
            block_on(inner.invalidate_prefix("a", "of")).unwrap();
        }),
        Box::new(move || blocked.lock().unwrap().recv().unwrap()),
    ];
    for react in reactions {
        let (told, woken) = channel();
        let told = Mutex::new(told);
        let hostile = Arc::new(Hostile { react, woken: 0.into(), told });
        let waker = Waker::from(Arc::clone(&hostile));
        let mut events = cache.events().unwrap();
        for _ in 0..3 {
            let polled = pin!(&mut events).poll_next(&mut Context::from_waker(&waker));
            let Poll::Pending = polled else { continue };
            block_on(cache.put("a", "key", "value")).unwrap();
            block_on(cache.put("a", "key", "value")).unwrap();
            woken.recv_timeout(PATIENCE).unwrap();
            // No call waits for the waker.
            for _ in 0..100 {
                block_on(cache.put("a", "key", "value")).unwrap();
            }
        }
        assert!(hostile.woken.load(Ordering::Relaxed) > 0);
        drop(events);
    }
    block.send(()).unwrap();
    block_on(cache.close()).unwrap();
}

#[test]
fn a_future_of_the_next_event_that_is_dropped_loses_none() {
    let cache = cache();
    let mut events = cache.events().unwrap();
    assert!(events.next().now_or_never().is_none());
    drop(Box::pin(events.next()));
    block_on(cache.put("a", "key", "value")).unwrap();
    block_on(cache.put("a", "key", "value")).unwrap();
    {
        let mut next = Box::pin(events.next());
        let mut context = Context::from_waker(Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_ready());
    }
    assert!(events.next().now_or_never().is_none());
    let rest = async { events.collect::<Vec<_>>().await };
    drop(cache);
    assert_eq!(block_on(rest).len(), 0);
}
