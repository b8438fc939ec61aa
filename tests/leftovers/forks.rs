//! A process that is forked with a cache open, and calls under way. The child has a copy of the
//! cache, but none of its threads: each call returns at once, and the parent goes on.

#![allow(unsafe_code)]

use std::future::Future;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use rustix::process::{Signal, set_parent_process_death_signal};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CachePresence,
    CrashSafety, FetchError, L1Admission, SweepLimit,
};

use super::census::{Census, step};

/// What the child tells with the exit of its first half.
const FIRST_FAILURE: i32 = 1000;

type Call = Pin<Box<dyn Future<Output = bool> + Send>>;

/// In the copy of a cache, in the child.
type Check = fn(&BlobCache) -> bool;

fn below(value: &'static str) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(1);
    BlobCachePut::new(value).with_tags(["label"]).with_dependencies(["label"]).with_policy(policy)
}

fn is_refused<T>(answer: Option<Result<T, CacheError>>) -> bool {
    let Some(Err(CacheError::L2Unavailable { reason })) = answer else { return false };
    reason.contains("fork")
}

async fn fetched() -> Result<BlobCachePut, &'static str> {
    Ok("fetched".into())
}

async fn failed() -> Result<BlobCachePut, &'static str> {
    Err("on purpose")
}

/// Every call must have its answer at the first poll.
const CHECKS: [(&str, Check); 33] = [
    ("a hit in memory", |cache| {
        let hit = cache.get("n", "both").now_or_never().flatten();
        hit.is_some_and(|hit| hit.value() == b"one")
    }),
    ("a miss below", |cache| cache.get("n", "below").now_or_never().unwrap().is_none()),
    ("a miss", |cache| cache.get("n", "none").now_or_never().unwrap().is_none()),
    ("exists", |cache| cache.exists("n", "both") == CachePresence::Present),
    ("exists below", |cache| cache.exists("n", "below").may_exist()),
    ("does not exist", |cache| cache.exists("n", "none") == CachePresence::Absent),
    ("a put", |cache| is_refused(cache.put("n", "fresh", "two").now_or_never())),
    ("a put over another", |cache| is_refused(cache.put("n", "both", "two").now_or_never())),
    ("a put beneath", |cache| is_refused(cache.put("n", "below", below("two")).now_or_never())),
    ("a put that must read a version", |cache| {
        let put = BlobCachePut::new("two").with_policy(BlobCachePolicy::default().version(2));
        is_refused(cache.put("n", "below", put).now_or_never())
    }),
    ("a put at a read point", |cache| {
        let put = BlobCachePut::new("two").read_at(cache.read_point());
        is_refused(cache.put("n", "both", put).now_or_never())
    }),
    ("an absence", |cache| is_refused(cache.put("n", "x", BlobCachePut::absent()).now_or_never())),
    ("a fetch of what is in memory", |cache| {
        let hit = cache.get_or_fetch("n", "both", fetched).now_or_never().unwrap();
        hit.is_ok_and(|hit| hit.value() == b"one")
    }),
    ("a fetch", |cache| {
        let hit = cache.get_or_fetch("n", "below", fetched).now_or_never().unwrap();
        let is_stored = cache.get("n", "below").now_or_never().unwrap().is_some();
        hit.is_ok_and(|hit| hit.value() == b"fetched") && !is_stored
    }),
    ("a fetch that fails", |cache| {
        let failed = cache.get_or_fetch("n", "none", failed).now_or_never().unwrap();
        matches!(failed, Err(FetchError::Fetch(_)))
    }),
    ("a refresh", |cache| {
        let hit = cache.get_or_refresh("n", "below", fetched).now_or_never().unwrap();
        hit.is_ok_and(|(hit, refresh)| hit.value() == b"fetched" && refresh.is_none())
    }),
    ("a key", |cache| is_refused(cache.invalidate_key("n", "both").now_or_never())),
    ("a prefix", |cache| is_refused(cache.invalidate_prefix("n", "b").now_or_never())),
    ("a tag", |cache| is_refused(cache.invalidate_tags("n", &["label"]).now_or_never())),
    ("a dependency", |cache| {
        is_refused(cache.invalidate_dependencies("n", &["label"]).now_or_never())
    }),
    ("a namespace", |cache| is_refused(cache.invalidate_namespace("n").now_or_never())),
    ("all", |cache| is_refused(cache.invalidate_all().now_or_never())),
    ("a touch", |cache| {
        let policy = BlobCachePolicy::default();
        is_refused(cache.touch("n", "below", &policy).now_or_never())
    }),
    ("an end of a key", |cache| is_refused(cache.expire_key("n", "both").now_or_never())),
    ("an end of a tag", |cache| is_refused(cache.expire_tags("n", &["label"]).now_or_never())),
    ("gets for many", |cache| {
        let hits = cache.get_many("n", &["both", "below"]).now_or_never().unwrap();
        hits.iter().map(Option::is_some).eq([true, false])
    }),
    ("puts for many", |cache| {
        let puts = [("fresh", BlobCachePut::new("two"))];
        let answers = cache.put_many("n", puts).now_or_never().unwrap();
        answers.into_iter().all(|answer| is_refused(Some(answer)))
    }),
    ("keys", |cache| is_refused(cache.invalidate_keys("n", &["both"]).now_or_never())),
    ("another size", |cache| is_refused(cache.set_l2_bytes_max(8 << 20).now_or_never())),
    ("a sync", |cache| is_refused(cache.sync().now_or_never())),
    ("a reopening", |cache| is_refused(cache.reopen_l2().now_or_never())),
    ("a backup", |cache| is_refused(cache.backup("copy").now_or_never())),
    ("a sweep", |cache| {
        let report = cache.sweep_expired(SweepLimit::Entries(1000)).now_or_never();
        cache.stats().entries() > 0 && report.is_some_and(|report| !report.truncated)
    }),
];

/// The child may open caches of its own.
fn its_own_caches_work(folder: &Path) -> bool {
    let in_memory = BlobCacheConfig::builder().l1_bytes_max(1 << 20).build().unwrap();
    [in_memory, config(&folder.join("child"))].into_iter().all(|config| {
        block_on(async {
            let cache = BlobCache::open(config).await?;
            cache.put("n", "key", "child").await?;
            cache.sync().await?;
            let is_there = cache.get("n", "key").await.is_some();
            cache.close().await.map(|()| is_there)
        }) == Ok(true)
    })
}

fn config(path: &Path) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(path);
    let builder = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10);
    let builder = builder.l2_engine(crate::engine::engine(0));
    builder.crash_safety(CrashSafety::Process).build().unwrap()
}

/// What the parent has when it forks; the child takes its copy apart.
struct Held {
    cache: BlobCache,
    calls: Vec<Call>,
}

fn in_child(held: &Mutex<Option<Held>>, folder: &Path) -> Result<(), i32> {
    let Held { cache, calls } = held.lock().unwrap().take().unwrap();
    for (number, (_, check)) in (FIRST_FAILURE..).zip(CHECKS) {
        if !check(&cache) {
            return Err(number);
        }
    }
    drop(calls);
    if !is_refused(cache.close().now_or_never()) {
        return Err(FIRST_FAILURE + 100);
    }
    drop(cache);
    its_own_caches_work(folder).then_some(()).ok_or(FIRST_FAILURE + 101)
}

/// Forks, and gives what the child has found wrong.
fn fork(held: Arc<Mutex<Option<Held>>>, folder: &Path) -> Result<(), String> {
    let folder = folder.to_owned();
    let mut command = Command::new("true");
    let child = move || {
        // A child that hangs ends with this process.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        in_child(&held, &folder).map_err(io::Error::from_raw_os_error)
    };
    // SAFETY: the child has one thread, whose locks no other thread held: the allocator of the
    // system is usable after a fork, and all other threads of the parent were asleep.
    let spawned = unsafe { command.pre_exec(child) }.spawn();
    match spawned {
        Ok(mut process) => {
            assert!(process.wait().unwrap().success());
            Ok(())
        }
        Err(error) => {
            let number = error.raw_os_error().unwrap_or(0) - FIRST_FAILURE;
            let check = usize::try_from(number).ok().and_then(|number| CHECKS.get(number));
            Err(check.map_or_else(|| error.to_string(), |(name, _)| (*name).to_owned()))
        }
    }
}

/// Calls of the parent that are under way when it forks.
fn begun(cache: &BlobCache) -> Vec<Call> {
    let (of_get, of_put) = (cache.clone(), cache.clone());
    let mut calls: Vec<Call> = vec![
        Box::pin(async move { of_get.get("n", "below").await.is_some() }),
        Box::pin(async move { of_put.put("n", "over", "one").await.is_ok() }),
    ];
    let mut context = Context::from_waker(Waker::noop());
    calls.retain_mut(|call| call.as_mut().poll(&mut context).is_pending());
    calls
}

pub(super) fn a_child_hangs_nowhere_and_the_parent_goes_on(forks: usize, rest: &Census) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for seed in 0..forks {
        step(&format!("fork {seed}"));
        let cache = block_on(BlobCache::open(config(folder.path()))).unwrap();
        // A thread sleeps for each of these as well.
        let listener = cache.events().unwrap();
        let an_hour = BlobCachePolicy::default().ttl(Duration::from_secs(3600));
        let expiring = BlobCachePut::new("one").with_policy(an_hour);
        block_on(cache.put("n", "expiring", expiring)).unwrap();
        block_on(cache.put("n", "below", below("one"))).unwrap();
        block_on(cache.put("n", "both", "one")).unwrap();
        block_on(cache.put("n", "over", below("zero"))).unwrap();
        block_on(cache.sync()).unwrap();
        let calls = begun(&cache);
        // What the threads do with them is over, and they are asleep.
        std::thread::sleep(Duration::from_millis(20));
        let held = Arc::new(Mutex::new(Some(Held { cache, calls })));
        if let Err(wrong) = fork(Arc::clone(&held), folder.path()) {
            panic!("fork {seed}: {wrong}");
        }
        let Held { cache, calls } = held.lock().unwrap().take().unwrap();
        for call in calls {
            assert!(block_on(call));
        }
        assert_eq!(block_on(cache.get("n", "below")).unwrap().value(), b"one");
        assert_eq!(block_on(cache.get("n", "over")).unwrap().value(), b"one");
        block_on(cache.put("n", "below", "two")).unwrap();
        assert_eq!(block_on(cache.get("n", "below")).unwrap().value(), b"two");
        assert_eq!(block_on(cache.invalidate_dependencies("n", &["label"])), Ok(0));
        assert_eq!(block_on(cache.close()), Ok(()));
        drop((cache, listener));
        rest.returns("a fork");
    }
}
