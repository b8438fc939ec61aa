//! Calls that are begun in a runtime that ends, and come to their end in another one.

use std::future::{Future, poll_fn};
use std::ops::AddAssign;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tamis::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError,
    CachePresence, CrashSafety, ExtendedTtlPolicy, L1Admission, SweepLimit,
};
use tokio::runtime::Builder;

use super::census::{Census, step};

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Clone, Copy, Debug)]
enum Place {
    BlockOn,
    CurrentThread,
    Threads,
    /// The same, whose end is not awaited.
    ShutDown,
    Uring,
}

const PLACES: [Place; 5] =
    [Place::BlockOn, Place::CurrentThread, Place::Threads, Place::ShutDown, Place::Uring];

#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    moved: usize,
    moved_twice: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.cases += other.cases;
        self.moved += other.moved;
        self.moved_twice += other.moved_twice;
    }
}

/// Runs `work` in a runtime of its own, which ends.
fn run<T: Send + 'static>(place: Place, work: impl Future<Output = T> + Send + 'static) -> T {
    match place {
        Place::BlockOn => block_on(work),
        Place::CurrentThread => {
            Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
        }
        Place::Threads | Place::ShutDown => {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.unwrap();
            let done = runtime.block_on(async { tokio::spawn(work).await.unwrap() });
            if matches!(place, Place::ShutDown) {
                runtime.shutdown_background();
            }
            done
        }
        Place::Uring => match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => runtime.block_on(work),
            Err(error) => {
                println!("block_on instead: no io_uring here: {error}");
                block_on(work)
            }
        },
    }
}

/// None if it has come to its end.
async fn polled(mut call: Call, polls: usize) -> Option<Call> {
    for _ in 0..polls {
        if poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await {
            return None;
        }
        // What the call has spawned begins.
        tokio::task::yield_now().await;
    }
    Some(call)
}

fn value(number: u32) -> Vec<u8> {
    let mut bytes = vec![0; 20_000];
    StdRng::seed_from_u64(number.into()).fill_bytes(&mut bytes);
    bytes
}

fn key(number: u32) -> String {
    format!("{number}/key")
}

fn label(number: u32) -> String {
    format!("label {number}")
}

fn below(number: u32) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(1);
    let labels = [label(number)];
    let put = BlobCachePut::new(value(number)).with_tags(labels.clone());
    put.with_dependencies(labels).with_policy(policy)
}

fn config(path: &Path) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(8 << 20).l2_path(path);
    let builder = builder.l2_bytes_max(32 << 20).l2_segment_bytes(1 << 20);
    let builder = builder.background_sweep(BackgroundSweep::Off);
    let builder = builder.l2_engine(crate::engine::engine(0));
    builder.crash_safety(CrashSafety::Process).build().unwrap()
}

async fn is_gone(cache: &BlobCache, number: u32) {
    assert!(cache.get("n", key(number)).await.is_none());
}

async fn fetched() -> Result<BlobCachePut, &'static str> {
    for _ in 0..2 {
        tokio::task::yield_now().await;
    }
    Ok("fetched".into())
}

async fn get(cache: BlobCache, number: u32) {
    assert!(cache.get("n", key(number)).await.unwrap().value() == value(number));
}

async fn put(cache: BlobCache, number: u32) {
    cache.put("n", key(number), "new").await.unwrap();
    assert_eq!(cache.get("n", key(number)).await.unwrap().value(), b"new");
}

async fn put_beneath(cache: BlobCache, number: u32) {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put = BlobCachePut::new("new").with_policy(policy);
    cache.put("n", key(number), put).await.unwrap();
    assert_eq!(cache.get("n", key(number)).await.unwrap().value(), b"new");
}

async fn put_versioned(cache: BlobCache, number: u32) {
    let versioned =
        |version| BlobCachePut::new("new").with_policy(BlobCachePolicy::default().version(version));
    let refused = cache.put("n", key(number), versioned(1)).await;
    assert_eq!(refused, Err(CacheError::VersionMismatch { existing: 1, attempted: 1 }));
    cache.put("n", key(number), versioned(2)).await.unwrap();
    assert_eq!(cache.get("n", key(number)).await.unwrap().version(), Some(2));
}

async fn put_long(cache: BlobCache, number: u32) {
    let long = [value(number), vec![0; 700_000]].concat();
    cache.put("n", key(number), long.clone()).await.unwrap();
    assert!(cache.get("n", key(number)).await.unwrap().value() == long);
}

async fn fetch(cache: BlobCache, number: u32) {
    assert_eq!(cache.get_or_fetch("n", "none", fetched).await.unwrap().value(), b"fetched");
    let hit = cache.get_or_fetch("n", key(number), fetched).await.unwrap();
    assert!(hit.value() == value(number));
    cache.invalidate_key("n", "none").await.unwrap();
}

async fn refresh(cache: BlobCache, number: u32) {
    let stale_serve = Some(Duration::from_secs(600));
    let extended = ExtendedTtlPolicy { stale_serve, ..Default::default() };
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).extended(extended);
    let put = BlobCachePut::new("old").with_policy(policy.ttl(Duration::ZERO));
    cache.put("n", key(number), put).await.unwrap();
    cache.sync().await.unwrap();
    let (hit, refresh) = cache.get_or_refresh("n", key(number), fetched).await.unwrap();
    assert!(hit.is_stale() && hit.value() == b"old");
    assert_eq!(refresh.unwrap().await.unwrap().value(), b"fetched");
    assert_eq!(cache.get("n", key(number)).await.unwrap().value(), b"fetched");
}

async fn invalidate_key(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_key("n", key(number)).await, Ok(1));
    is_gone(&cache, number).await;
}

async fn invalidate_prefix(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_prefix("n", format!("{number}/")).await, Ok(1));
    is_gone(&cache, number).await;
}

async fn invalidate_tags(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_tags("n", &[label(number)]).await, Ok(1));
    is_gone(&cache, number).await;
}

async fn invalidate_dependencies(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_dependencies("n", &[label(number)]).await, Ok(1));
    is_gone(&cache, number).await;
}

async fn invalidate_namespace(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_namespace("n").await, Ok(true));
    is_gone(&cache, number).await;
}

async fn invalidate_all(cache: BlobCache, number: u32) {
    assert_eq!(cache.invalidate_all().await, Ok(()));
    is_gone(&cache, number).await;
}

async fn sync(cache: BlobCache, number: u32) {
    cache.put("n", format!("{number}/other"), value(number)).await.unwrap();
    assert_eq!(cache.sync().await, Ok(()));
    assert_eq!(cache.exists("n", format!("{number}/other")), CachePresence::Present);
}

async fn sweep(cache: BlobCache, number: u32) {
    for entry in 0..600 {
        let put = BlobCachePut::new("expired").with_ttl(Duration::ZERO);
        cache.put("swept", format!("{number}/{entry}"), put).await.unwrap();
    }
    let report = cache.sweep_expired(SweepLimit::Entries(usize::MAX)).await;
    assert_eq!((report.entries_removed(), report.truncated), (600, false));
}

async fn open_and_close(cache: BlobCache, number: u32) {
    let path = cache.config().l2_path().unwrap().join("other");
    let open = || BlobCache::open(config(&path));
    let other = open().await.unwrap();
    other.put("n", key(number), below(number)).await.unwrap();
    assert_eq!(other.close().await, Ok(()));
    let other = open().await.unwrap();
    assert!(other.get("n", key(number)).await.unwrap().value() == value(number));
    assert_eq!(other.close().await, Ok(()));
}

macro_rules! verbs {
    ($($verb:ident)*) => {
        [$((stringify!($verb), |cache, number| Box::pin($verb(cache, number)))),*]
    };
}

type Verb = (&'static str, fn(BlobCache, u32) -> Call);

const VERBS: [Verb; 16] = verbs![
    get put put_beneath put_versioned put_long fetch refresh invalidate_key invalidate_prefix
    invalidate_tags invalidate_dependencies invalidate_namespace invalidate_all sync sweep
    open_and_close
];

/// Polls in one place, perhaps in a second one, and then to its end in the last.
fn journey(call: Call, (first, polls): (Place, usize), random: &mut StdRng) -> Tally {
    let mut tally = Tally { cases: 1, ..Tally::default() };
    let Some(mut call) = run(first, polled(call, polls)) else { return tally };
    tally.moved = 1;
    if random.random_bool(0.3) {
        let second = PLACES[random.random_range(0..PLACES.len())];
        match run(second, polled(call, 1)) {
            Some(left) => call = left,
            None => return tally,
        }
        tally.moved_twice = 1;
    }
    run(PLACES[random.random_range(0..PLACES.len())], call);
    tally
}

pub(super) fn calls_outlive_their_runtimes(rounds: usize, rest: &Census) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut all = Tally::default();
    let mut random = StdRng::seed_from_u64(3);
    let mut number = 0;
    for (name, verb) in VERBS {
        let cache = block_on(BlobCache::open(config(folder.path()))).unwrap();
        let mut of_verb = Tally::default();
        for _ in 0..rounds {
            for first in PLACES {
                let polls = [1, 1, 2, 3, 5, 9][random.random_range(0..6)];
                number += 1;
                step(&format!("{name}, case {number}, {polls} polls in {first:?}"));
                block_on(cache.put("n", key(number), below(number))).unwrap();
                block_on(cache.sync()).unwrap();
                of_verb += journey(verb(cache.clone(), number), (first, polls), &mut random);
            }
        }
        println!("{name}: {of_verb:?}");
        all += of_verb;
        block_on(cache.close()).unwrap();
        drop(cache);
        rest.returns(name);
    }
    println!("{all:?}");
    assert!(all.moved > all.cases / 2, "{all:?}");
}
