//! Process limits that are too low for a store: each is named in the error, kills nothing and
//! leaves nothing behind. Limits hold for a whole process, so each test runs in a child of this
//! binary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use rustix::process::{Resource, Rlimit, Uid, geteuid, getrlimit, setrlimit};
use rustix::thread::set_thread_uid;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError, CacheTier, L2Engine, L2State};

const CHILD: &str = "TAMIS_REFUSED_CHILD";

/// True in the child; in the parent, runs the test in a child.
fn is_child(test: &str) -> bool {
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    let passed = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(passed, "the child has no test {test}");
    false
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(path: &Path) -> Result<BlobCache, CacheError> {
    open_on(L2Engine::Auto, path)
}

fn open_on(engine: L2Engine, path: &Path) -> Result<BlobCache, CacheError> {
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(path).l2_engine(engine);
    block_on(BlobCache::open(builder.l2_bytes_max(4 << 20).build().unwrap()))
}

fn descriptors() -> Vec<u64> {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    let mut numbers: Vec<u64> =
        open.map(|one| one.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    numbers.sort_unstable();
    // The last one belongs to the listing itself.
    numbers.pop();
    numbers
}

fn with_limit<T>(resource: Resource, limit: u64, run: impl FnOnce() -> T) -> T {
    let before = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(limit), ..before }).unwrap();
    let done = run();
    setrlimit(resource, before).unwrap();
    done
}

#[test]
fn too_few_descriptors_are_reported_and_none_leaks() {
    if !is_child("too_few_descriptors_are_reported_and_none_leaks") {
        return;
    }
    let folder = folder();
    let store = folder.path().join("store");
    // The limit is on descriptor numbers, so all lower ones are taken first.
    let mut fillers = Vec::new();
    while descriptors().iter().zip(0..).any(|(&descriptor, number)| descriptor != number) {
        fillers.push(fs::File::open("/dev/null").unwrap());
    }
    let before = descriptors();
    let next = before.last().unwrap() + 1;
    let mut refused = 0;
    for spare in 0..40 {
        match with_limit(Resource::Nofile, next + spare, || open(&store)) {
            Ok(cache) => {
                block_on(cache.close()).unwrap();
                break;
            }
            Err(error) => {
                refused += 1;
                let told = error.to_string();
                assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
                assert!(told.contains("nofile"), "{told}");
                assert!(told.contains(store.to_str().unwrap()), "{told}");
                assert_eq!(descriptors(), before, "with {spare} to spare");
                assert!(!store.join("data").exists(), "with {spare} to spare");
            }
        }
    }
    assert!((8..30).contains(&refused), "{refused} limits were too low");
    assert_eq!(descriptors(), before);
}

#[test]
fn a_file_size_limit_is_reported_and_does_not_kill() {
    if !is_child("a_file_size_limit_is_reported_and_does_not_kill") {
        return;
    }
    let folder = folder();
    let refused = |error: CacheError| {
        let told = error.to_string();
        assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
        assert!(told.contains("fsize") && told.contains("1048576"), "{told}");
        assert!(told.contains(folder.path().to_str().unwrap()), "{told}");
    };
    refused(with_limit(Resource::Fsize, 1 << 20, || open(folder.path())).unwrap_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    let cache = open(folder.path()).unwrap();
    block_on(cache.put("space", "key", "value")).unwrap();
    block_on(cache.close()).unwrap();
    refused(with_limit(Resource::Fsize, 1 << 20, || open(folder.path())).unwrap_err());
    // A limit lowered later: writes beyond it fail, and the rest goes on.
    let cache = open(folder.path()).unwrap();
    with_limit(Resource::Fsize, 4096, || {
        let error = block_on(cache.put("space", "key", "other")).unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
    });
    assert_eq!(block_on(cache.get("space", "key")).unwrap().value(), b"other");
    assert!(block_on(cache.close()).is_err());
}

/// A user without any other thread on this machine.
const STRANGER: u32 = 64_007;

/// Threads that this process has by name; none of the kernel's.
fn threads(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..4000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain");
}

/// What a service does with a cache; deadlines, flushes and large tables would like threads.
fn works(cache: &BlobCache) {
    block_on(async {
        for number in 0..3000_u32 {
            let put = BlobCachePut::new(vec![7; 100]).with_ttl(Duration::from_secs(3600));
            let put = put.with_tags([format!("{}", number % 10)]);
            cache.put("space", number.to_le_bytes(), put).await.unwrap();
        }
        let brief = BlobCachePut::new("brief").with_ttl(Duration::from_millis(1));
        cache.put("space", "brief", brief).await.unwrap();
        let fetch = || async { Ok::<_, std::io::Error>(BlobCachePut::new("fetched")) };
        let hit = cache.get_or_fetch("space", "fetched", fetch).await.unwrap();
        assert_eq!(hit.value(), b"fetched");
        let hit = cache.get("space", 2997_u32.to_le_bytes()).await;
        assert!(hit.is_some_and(|hit| hit.value() == [7; 100]));
        assert!(cache.invalidate_tags("space", &["7"]).await.unwrap() > 0);
        assert!(cache.get("space", 2997_u32.to_le_bytes()).await.is_none());
        thread::sleep(Duration::from_millis(10));
        assert!(cache.get("space", "brief").await.is_none());
        assert!(cache.invalidate_namespace("space").await.unwrap());
        assert!(cache.get("space", 2998_u32.to_le_bytes()).await.is_none());
        cache.put("space", "last", "value").await.unwrap();
        assert!(cache.get("space", "last").await.is_some());
    });
}

#[test]
fn refused_threads_are_named_and_memory_goes_on() {
    if !is_child("refused_threads_are_named_and_memory_goes_on") {
        return;
    }
    if !geteuid().is_root() {
        println!("skipped: only root can become a user who has no other threads");
        return;
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let store = folder.path().join("store");
    let before = descriptors();
    let stranger = move || {
        set_thread_uid(Uid::from_raw(STRANGER)).unwrap();
        let memory = || {
            let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).build().unwrap();
            let cache = block_on(BlobCache::open(config)).unwrap();
            works(&cache);
            block_on(cache.close()).unwrap();
        };
        let mut refused = 0;
        for spare in 0..12 {
            wait_until(|| ["tamis-append", "tamis-read", "tamis-sweeper"].map(threads) == [0; 3]);
            let opened = with_limit(Resource::Nproc, 1 + spare, || {
                if spare == 0 {
                    memory();
                    assert_eq!(threads("tamis-sweeper"), 0, "it was refused");
                }
                let cache = open(&store)?;
                // The kernel has no thread for syncs, nor for writes to new parts of the file.
                works(&cache);
                block_on(cache.sync()).unwrap();
                assert_eq!(cache.stats().l2_state(), L2State::Healthy);
                block_on(cache.close())
            });
            let Err(error) = opened else { continue };
            refused += 1;
            let told = error.to_string();
            assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
            assert!(told.contains("nproc") && told.contains(store.to_str().unwrap()), "{told}");
            assert!(!store.exists(), "with {spare} to spare");
        }
        assert_eq!(refused, 2, "a store has two threads");
        let names = ["tamis-append", "tamis-read", "tamis-point", "tamis-write", "tamis-sweeper"];
        for spare in [0, 1, 8, 9, 20, 25] {
            wait_until(|| names.map(threads) == [0; 5]);
            let on_threads = || open_on(L2Engine::Threads, &store.join("threads"));
            let error = with_limit(Resource::Nproc, 1 + spare, on_threads).unwrap_err();
            assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
            assert!(error.to_string().contains("nproc"), "{error}");
            assert!(!store.join("threads").exists(), "with {spare} to spare");
        }
        wait_until(|| names.map(threads) == [0; 5]);
        with_limit(Resource::Nproc, 1 + 26, || {
            let cache = open_on(L2Engine::Threads, &store.join("threads")).unwrap();
            let started = ["tamis-append", "tamis-read", "tamis-point", "tamis-write"].map(threads);
            assert_eq!(started, [1, 1, 16, 8]);
            works(&cache);
            block_on(cache.close()).unwrap();
        });
        let cache = open(&store).unwrap();
        let hit = block_on(cache.get("space", "last"));
        assert!(hit.is_some_and(|hit| hit.value() == b"value" && hit.tier() == CacheTier::L2));
        block_on(cache.close()).unwrap();
    };
    thread::spawn(stranger).join().unwrap();
    assert_eq!(descriptors(), before);
}

#[test]
fn a_size_above_the_limit_of_file_sizes_is_refused_and_the_store_goes_on() {
    if !is_child("a_size_above_the_limit_of_file_sizes_is_refused_and_the_store_goes_on") {
        return;
    }
    let folder = folder();
    for engine in [L2Engine::Auto, L2Engine::Threads] {
        let cache = open_on(engine, &folder.path().join(format!("{engine:?}"))).unwrap();
        let put = || BlobCachePut::new(vec![7; 100_000]);
        (0..10_u8).for_each(|key| block_on(cache.put("space", [key], put())).unwrap());
        block_on(cache.sync()).unwrap();
        let before = cache.stats().l2_bytes_max();
        let larger = || block_on(cache.set_l2_bytes_max(64 << 20));
        let error = with_limit(Resource::Fsize, 32 << 20, larger).unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert!(error.to_string().contains("longer"), "{error}");
        let stats = cache.stats();
        assert_eq!((stats.l2_state(), stats.l2_restarts()), (L2State::Healthy, 0));
        assert_eq!(stats.l2_bytes_max(), before);
        for key in 0..10_u8 {
            assert!(block_on(cache.get("space", [key])).is_some(), "{key}");
        }
        assert_eq!(larger(), Ok(()), "without the limit");
        block_on(cache.close()).unwrap();
    }
}
