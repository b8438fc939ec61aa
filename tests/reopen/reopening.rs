//! Whatever prevents the open: memory serves, and the tier comes back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{join, join_all};
use tamis::{
    BlobCache, BlobCachePolicy, BlobCachePut, CacheError, CachePresence, CacheTier, CrashSafety,
    L1Admission, L2State,
};

use super::*;

fn reason(cache: &BlobCache) -> Option<String> {
    match cache.stats().l2_state() {
        L2State::Degraded { reason } => Some(reason),
        _ => None,
    }
}

/// The cache is as good as one in memory, and its store was not opened for this reason.
fn runs_in_memory(cache: &BlobCache, error: &CacheError) {
    assert_eq!(reason(cache).as_deref(), Some(error.to_string().as_str()));
    let stats = cache.stats();
    assert_eq!((stats.l2_bytes_max(), stats.l2_bytes_in_use(), stats.l2_entries()), (0, 0, 0));
    assert_eq!((stats.l2_reads(), stats.l2_writes(), stats.l2_engine()), (0, 0, None));
    assert_eq!(cache.config().l2_bytes_max(), BYTES, "the configuration stays");
    assert_eq!(get(cache, "old"), None);
    assert_eq!(cache.exists("space", "old"), CachePresence::Absent);
    let _ = put(cache, "key", "in memory");
    assert_eq!(get(cache, "key").unwrap(), b"in memory");
    assert_eq!(cache.exists("space", "key"), CachePresence::Present);
    let tagged = BlobCachePut::new("tagged").with_tags(["tag"]);
    let _ = block_on(cache.put("space", "tagged", tagged));
    let _ = block_on(cache.invalidate_tags("space", &["tag"]));
    assert_eq!(get(cache, "tagged"), None);
    for number in 0..300 {
        // A prefix of each: none waits for a search of the disk.
        let key = format!("{number}/key");
        let _ = put(cache, &key, "prefixed");
        let _ = block_on(cache.invalidate_prefix("space", format!("{number}/")));
        assert_eq!(get(cache, &key), None);
    }
    let _ = block_on(cache.invalidate_namespace("other"));
    // Not everything acknowledged is on the device.
    match block_on(cache.sync()) {
        Err(CacheError::L2Io { source, .. }) => assert_eq!(source.to_string(), error.to_string()),
        other => panic!("{other:?}"),
    }
}

/// The tier works, and has nothing that was there before.
fn works(cache: &BlobCache) {
    let stats = cache.stats();
    assert_eq!((stats.l2_state(), stats.l2_bytes_max()), (L2State::Healthy, BYTES + 8192));
    assert!(stats.l2_engine().is_some());
    assert_eq!(get(cache, "old"), None, "it begins empty");
    assert_eq!(get(cache, "key").unwrap(), b"in memory", "memory keeps what it has");
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let below = BlobCachePut::new(vec![7; 2000]).with_tags(["tag"]).with_policy(policy);
    block_on(cache.put("space", "below", below)).unwrap();
    block_on(cache.sync()).unwrap();
    let hit = block_on(cache.get("space", "below")).unwrap();
    assert_eq!((hit.value(), hit.tier()), (&[7; 2000][..], CacheTier::L2));
    // The entry of before gets a record as soon as it is put.
    put(cache, "key", "on disk").unwrap();
    block_on(cache.reopen_l2()).unwrap();
}

/// What a later process finds after a close.
fn comes_back(path: &Path) {
    let cache = open(path).unwrap();
    assert_eq!(get(&cache, "old"), None);
    assert_eq!(get(&cache, "below").unwrap(), vec![7; 2000]);
    assert_eq!(get(&cache, "key").unwrap(), b"on disk");
    assert_eq!(block_on(cache.invalidate_tags("space", &["tag"])), Ok(1));
    block_on(cache.close()).unwrap();
}

/// Breaks a store, and gives what mends it.
type Fault = (&'static str, fn(&Path) -> Box<dyn FnOnce()>);

const FAULTS: &[Fault] = &[
    ("locked", |path| {
        let owner = open(path).unwrap();
        Box::new(move || block_on(owner.close()).unwrap())
    }),
    ("a file in place of the directory", |path| {
        let (path, aside) = (path.to_owned(), path.with_extension("aside"));
        fs::rename(&path, &aside).unwrap();
        fs::write(&path, "no directory").unwrap();
        Box::new(move || {
            fs::remove_file(&path).unwrap();
            fs::rename(aside, path).unwrap();
        })
    }),
    ("a file of another kind", |path| {
        let (data, aside) = (path.join("data"), path.join("aside"));
        fs::rename(&data, &aside).unwrap();
        let diary: Vec<u8> = b"dear diary, ".iter().copied().cycle().take(9 << 20).collect();
        fs::write(&data, diary).unwrap();
        Box::new(move || fs::rename(aside, data).unwrap())
    }),
    ("a newer format", |path| {
        let data = path.join("data");
        let image = fs::read(&data).unwrap();
        fs::write(&data, of_newer_format(image.clone())).unwrap();
        Box::new(move || fs::write(data, image).unwrap())
    }),
    ("cut off", |path| {
        let data = path.join("data");
        let image = fs::read(&data).unwrap();
        fs::write(&data, &image[..4 << 20]).unwrap();
        Box::new(move || fs::write(data, image).unwrap())
    }),
    ("damaged superblocks", |path| {
        let data = path.join("data");
        let image = fs::read(&data).unwrap();
        let mut damaged = image.clone();
        damaged[..8192].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(&data, damaged).unwrap();
        Box::new(move || fs::write(data, image).unwrap())
    }),
    ("a directory in place of the data file, then a store of another size", |path| {
        let other = path.with_extension("other");
        let config = builder(&other).l2_bytes_max(4 << 20).build().unwrap();
        block_on(block_on(BlobCache::open(config)).unwrap().close()).unwrap();
        let (mend, data) = (without_data(path), path.join("data"));
        Box::new(move || {
            mend();
            fs::rename(other.join("data"), data).unwrap();
        })
    }),
    ("a directory in place of the data file", without_data),
];

#[test]
fn whatever_the_reason_memory_serves_and_the_tier_comes_back() {
    for (name, broken) in FAULTS {
        println!("{name}");
        let folder = folder();
        let path = folder.path().join("store");
        closed_store(&path);
        let mend = broken(&path);
        let error = open(&path).unwrap_err();
        let cache = open_anyway(&path);
        runs_in_memory(&cache, &error);
        assert_eq!(block_on(cache.reopen_l2()).unwrap_err(), error, "{name}");
        runs_in_memory(&cache, &error);
        mend();
        block_on(cache.reopen_l2()).unwrap();
        works(&cache);
        block_on(cache.close()).unwrap();
        assert!(!path.join("void").exists(), "{name}: the mark is gone");
        comes_back(&path);
    }
}

/// The process that replaced the entry never opened the store.
#[test]
fn a_later_process_does_not_serve_what_was_replaced() {
    for (name, broken) in FAULTS {
        let folder = folder();
        let path = folder.path().join("store");
        closed_store(&path);
        let mend = broken(&path);
        let cache = open_anyway(&path);
        let invalidated = block_on(cache.invalidate_key("space", "old"));
        let is_told = match *name {
            // Of a store that another owner has, it says nothing.
            "locked" => false,
            "a file in place of the directory" => {
                let error = invalidated.unwrap_err();
                let CacheError::L2Io { context, .. } = &error else { panic!("{error:?}") };
                assert!(context.contains("void") && context.contains("store"), "{context}");
                false
            }
            _ => invalidated == Ok(0),
        };
        block_on(cache.close()).unwrap();
        drop(cache);
        mend();
        let later = open(&path).unwrap();
        let left = get(&later, "old");
        assert_eq!(left.is_none(), is_told, "{name}: {left:?}");
        put(&later, "old", "new").unwrap();
        block_on(later.close()).unwrap();
        let last = open(&path).unwrap();
        assert_eq!(get(&last, "old").unwrap(), b"new", "{name}: void once");
    }
}

/// Without a mutation the store stays what it was.
#[test]
fn a_process_that_changes_nothing_leaves_the_store_warm() {
    let folder = folder();
    let path = folder.path().join("store");
    closed_store(&path);
    let owner = open(&path).unwrap();
    let cache = open_anyway(&path);
    assert_eq!(get(&cache, "old"), None);
    block_on(cache.sweep_expired(tamis::SweepLimit::Entries(10)));
    block_on(cache.close()).unwrap();
    assert_eq!(get(&owner, "old").unwrap(), b"of the store", "the owner goes on");
    block_on(owner.close()).unwrap();
    let cache = open(&path).unwrap();
    assert_eq!(get(&cache, "old").unwrap(), b"of the store");
    assert!(!path.join("void").exists());
}

/// A mark is left once the owner has let go, for mutations from then on.
#[test]
fn a_store_that_was_in_use_is_marked_later() {
    let folder = folder();
    let path = folder.path().join("store");
    closed_store(&path);
    let owner = open(&path).unwrap();
    let cache = open_anyway(&path);
    put(&cache, "old", "its own").unwrap();
    assert_eq!(get(&owner, "old").unwrap(), b"of the store");
    assert!(!path.join("void").exists());
    block_on(owner.close()).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while !path.join("void").exists() && Instant::now() < limit {
        put(&cache, "old", "newer").unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    block_on(cache.close()).unwrap();
    let later = open(&path).unwrap();
    assert_eq!(get(&later, "old"), None);
    assert!(!path.join("void").exists());
}

#[test]
fn a_directory_without_permissions_is_mended_and_reopened() {
    let folder = folder();
    let path = folder.path().join("store");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let (told, sender) = std::sync::mpsc::channel::<()>();
    let (opened, cache) = std::sync::mpsc::channel();
    let parent: PathBuf = folder.path().to_owned();
    let run = move || {
        // Root may do everything, so this thread and those it starts change to another user.
        if rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65_534)).unwrap();
        }
        let cache = open_anyway(&path);
        let error = put(&cache, "key", "in memory").unwrap_err();
        assert!(matches!(error, CacheError::L2Io { .. }), "{error:?}");
        assert_eq!(get(&cache, "key").unwrap(), b"in memory");
        assert!(matches!(block_on(cache.reopen_l2()), Err(CacheError::L2Io { .. })));
        opened.send(reason(&cache).unwrap()).unwrap();
        sender.recv().unwrap();
        block_on(cache.reopen_l2()).unwrap();
        put(&cache, "key", "in memory").unwrap();
        works(&cache);
        block_on(cache.close()).unwrap();
        comes_back(&path);
    };
    let running = thread::spawn(run);
    let reason = cache.recv().unwrap();
    assert!(reason.contains("store"), "{reason}");
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
    told.send(()).unwrap();
    running.join().unwrap();
}

#[test]
fn each_mode_comes_back_empty_and_keeps_what_is_put_then() {
    for mode in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
        let folder = folder();
        let path = folder.path().join("store");
        let config = || builder(&path).crash_safety(mode).l2_required(false).build().unwrap();
        closed_store(&path);
        let owner = open(&path).unwrap();
        let cache = block_on(BlobCache::open(config())).unwrap();
        put(&cache, "key", "in memory").unwrap();
        block_on(owner.close()).unwrap();
        block_on(cache.reopen_l2()).unwrap();
        works(&cache);
        block_on(cache.close()).unwrap();
        let cache = block_on(BlobCache::open(config())).unwrap();
        assert_eq!(cache.stats().l2_state(), L2State::Healthy);
        assert_eq!(get(&cache, "key").is_some(), mode != CrashSafety::Cold, "{mode:?}");
        assert_eq!(get(&cache, "old"), None);
    }
}

#[test]
fn a_required_tier_and_one_that_works_need_no_reopening() {
    let folder = folder();
    let path = folder.path().join("store");
    assert!(BlobCacheConfig::default().l2_required());
    let cache = open_anyway(&path);
    put(&cache, "key", "value").unwrap();
    block_on(cache.reopen_l2()).unwrap();
    assert_eq!(cache.stats().l2_restarts(), 0, "nothing is done");
    assert!(matches!(open(&path), Err(CacheError::L2Locked { .. })), "by default it is");
    block_on(cache.close()).unwrap();
    assert_eq!(block_on(cache.reopen_l2()), Err(CacheError::Closed));
    let in_memory = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    match block_on(in_memory.reopen_l2()) {
        Err(CacheError::InvalidConfig { field: "l2_path", .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn concurrent_calls_share_an_attempt() {
    let folder = folder();
    let path = folder.path().join("store");
    let owner = open(&path).unwrap();
    let cache = open_anyway(&path);
    put(&cache, "key", "in memory").unwrap();
    let begun = Instant::now();
    let refused = block_on(join_all((0..8).map(|_| cache.reopen_l2())));
    assert!(refused.iter().all(|it| matches!(it, Err(CacheError::L2Locked { .. }))));
    assert!(begun.elapsed() < Duration::from_secs(6), "one patience for all");
    block_on(owner.close()).unwrap();
    // One of them is polled once and sleeps.
    let mut asleep = Box::pin(cache.reopen_l2());
    assert!((&mut asleep).now_or_never().is_none());
    let done = block_on(join_all((0..8).map(|_| cache.reopen_l2())));
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    block_on(asleep).unwrap();
    works(&cache);
}

#[test]
fn a_dropped_call_leaves_the_store_unlocked_or_the_tier_healthy() {
    let mut given_up = 0;
    for step in 0..20u64 {
        let (_folder, path, cache, mend) = without_store();
        put(&cache, "key", "in memory").unwrap();
        mend();
        let mut call = Box::pin(cache.reopen_l2());
        assert!((&mut call).now_or_never().is_none());
        thread::sleep(Duration::from_micros(500 * step));
        drop(call);
        thread::sleep(Duration::from_millis(100));
        // Not while the tier is on its way.
        let is_off = reason(&cache).is_some() && cache.stats().l2_engine().is_none();
        given_up += u32::from(is_off);
        if is_off {
            let other = open(&path).expect("unlocked");
            block_on(other.close()).unwrap();
        }
        block_on(cache.reopen_l2()).unwrap();
        works(&cache);
        block_on(cache.close()).unwrap();
        comes_back(&path);
    }
    assert!(given_up > 0);
}

#[test]
fn a_close_meanwhile_ends_with_the_store_unlocked() {
    for step in 0..20u64 {
        let (_folder, path, cache, mend) = without_store();
        put(&cache, "key", "in memory").unwrap();
        mend();
        let (reopened, closed) = block_on(join(cache.reopen_l2(), async {
            thread::sleep(Duration::from_micros(500 * step));
            cache.close().await
        }));
        assert!(matches!(reopened, Ok(()) | Err(CacheError::Closed)), "{reopened:?}");
        // A tier that was about to begin has failed, as far as a close can tell.
        assert!(matches!(closed, Ok(()) | Err(CacheError::L2Io { .. })), "{closed:?}");
        let later = open(&path).expect("unlocked");
        assert_eq!(get(&later, "old"), None, "never stale");
        block_on(later.close()).unwrap();
        assert_eq!(block_on(cache.reopen_l2()), Err(CacheError::Closed));
    }
}

#[test]
fn the_last_handle_may_go_meanwhile() {
    for step in 0..20u64 {
        let (_folder, path, cache, mend) = without_store();
        put(&cache, "old", "newer").unwrap();
        mend();
        let mut call = Box::pin(async move { cache.reopen_l2().await });
        assert!((&mut call).now_or_never().is_none());
        thread::sleep(Duration::from_micros(500 * step));
        drop(call);
        let later = open(&path).expect("unlocked soon");
        assert_eq!(get(&later, "old"), None, "never stale");
    }
}
