//! What containers and old kernels withhold: system calls, by filters like theirs. Without rings
//! the disk tier works on threads, or says what to do; without anything else it works on rings.
//!
//! The filters hold for a thread and those that it starts, so each case has a thread of its own.

#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join_all;
use rustix::io::Errno;
use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_uid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, CacheError, L2Engine, L2State};

const CLONE: i64 = 56;
const CLONE3: i64 = 435;
const RINGS: RangeInclusive<i64> = 425..=427;

fn errno(errno: Errno) -> SeccompAction {
    SeccompAction::Errno(u32::try_from(errno.raw_os_error()).unwrap())
}

fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, otherwise: SeccompAction, then: SeccompAction) {
    let filter = SeccompFilter::new(rules, otherwise, then, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// An argument of a call, of which some bits are compared.
fn with_bits(argument: u8, mask: u64, value: u64) -> Vec<SeccompRule> {
    let compare = SeccompCmpOp::MaskedEq(mask);
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, compare, value);
    vec![SeccompRule::new(vec![condition.unwrap()]).unwrap()]
}

/// Calls up to Linux 5.17 that Docker's default profile (`profiles/seccomp/default.json` of moby)
/// refuses with EPERM to a container without further capabilities. Rings are refused since 25.0.
const REFUSED: [RangeInclusive<i64>; 30] = [
    103..=103,
    134..=134,
    136..=136,
    139..=139,
    153..=153,
    155..=156,
    161..=161,
    163..=185,
    212..=212,
    227..=227,
    236..=239,
    246..=246,
    248..=250,
    256..=256,
    272..=272,
    279..=279,
    298..=298,
    300..=300,
    304..=304,
    308..=308,
    312..=313,
    320..=321,
    323..=323,
    335..=423,
    RINGS,
    428..=433,
    438..=438,
    440..=440,
    442..=443,
    450..=450,
];

/// The last call that it knows; later ones it refuses.
const LAST: i64 = 450;

/// Applies that profile to this thread.
fn contain(allows_rings: bool) {
    // `clone3` does not exist there, so that the C library asks for threads by `clone`.
    apply(BTreeMap::from([(CLONE3, vec![])]), SeccompAction::Allow, errno(Errno::NOSYS));
    let is_refused = |call: &i64| REFUSED.iter().any(|refused| refused.contains(call));
    let is_allowed = |call: &i64| !is_refused(call) || (allows_rings && RINGS.contains(call));
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        (0..=LAST).filter(is_allowed).map(|call| (call, vec![])).collect();
    // None of the flags that make a new namespace.
    allowed.insert(CLONE, with_bits(0, 0x7E02_0000, 0));
    apply(allowed, errno(Errno::PERM), SeccompAction::Allow);
}

fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(run).join().unwrap()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn open(path: &Path) -> Result<BlobCache, CacheError> {
    open_on(L2Engine::Auto, path)
}

fn open_on(engine: L2Engine, path: &Path) -> Result<BlobCache, CacheError> {
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(path).l2_engine(engine);
    block_on(BlobCache::open(builder.l2_bytes_max(8 << 20).build().unwrap()))
}

fn value(number: u32) -> Vec<u8> {
    let bytes = number.to_le_bytes();
    bytes.iter().copied().cycle().take(4000).collect()
}

/// Calls of all kinds, from tasks of a runtime that has two threads.
fn works(cache: &BlobCache, count: u32) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let puts = (0..count).map(|number| {
            let put = BlobCachePut::new(value(number)).with_tags([format!("{}", number % 10)]);
            cache.put("space", number.to_le_bytes(), put.with_ttl(Duration::from_secs(3600)))
        });
        assert!(join_all(puts).await.into_iter().all(|put| put.is_ok()));
        let fetch = || async { Ok::<_, std::io::Error>(BlobCachePut::new("fetched")) };
        let hit = cache.get_or_fetch("space", "fetched", fetch).await.unwrap();
        assert_eq!(hit.value(), b"fetched");
        cache.sync().await.unwrap();
        let removed = cache.invalidate_tags("space", &["7"]).await.unwrap();
        assert!(removed > 0);
        assert_eq!(cache.invalidate_key("space", (count - 2).to_le_bytes()).await.unwrap(), 1);
        cache.put("other", "flushed", "value").await.unwrap();
        assert!(cache.invalidate_namespace("other").await.unwrap());
    });
    let gets = |numbers: std::ops::Range<u32>| {
        let cache = cache.clone();
        join_all(numbers.map(move |number| {
            let cache = cache.clone();
            async move { (number, cache.get("space", number.to_le_bytes()).await) }
        }))
    };
    let both = [runtime.block_on(gets(0..count)), block_on(gets(0..count))];
    for found in both {
        for (number, hit) in found {
            let is_removed = number % 10 == 7 || number == count - 2;
            assert!(!(is_removed && hit.is_some()), "{number} was removed");
            assert!(hit.is_none_or(|hit| hit.value() == value(number)), "{number}");
        }
    }
    let last = block_on(cache.get("space", (count - 1).to_le_bytes()));
    assert!(last.is_some_and(|hit| hit.value() == value(count - 1)));
}

fn memory_works() {
    let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    works(&cache, 1000);
    block_on(cache.close()).unwrap();
}

/// The workload with a disk tier on that engine, which is warm afterwards.
fn disk_works(engine: L2Engine, store: &Path) {
    let cache = open(store).unwrap();
    assert_eq!(cache.stats().l2_engine(), Some(engine));
    works(&cache, 1000);
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    assert!(cache.stats().l2_hits() > 0, "nothing was read from disk");
    block_on(cache.close()).unwrap();
    let cache = open(store).unwrap();
    for number in (0..1000_u32).rev() {
        let hit = block_on(cache.get("space", number.to_le_bytes()));
        let is_removed = number % 10 == 7 || number == 998;
        assert_eq!(hit.is_some(), !is_removed, "{number}");
        assert!(hit.is_none_or(|hit| hit.value() == value(number)), "{number}");
    }
    let first = block_on(cache.get("space", 0_u32.to_le_bytes())).unwrap();
    assert_eq!(first.value(), value(0));
    assert!(cache.stats().l2_hits() > 0, "it is not warm");
    block_on(cache.close()).unwrap();
}

#[test]
fn in_a_container_the_disk_tier_runs_on_threads() {
    on_a_thread(|| {
        contain(false);
        let folder = folder();
        disk_works(L2Engine::Threads, &folder.path().join("store"));
    });
}

#[test]
fn without_threads_it_says_what_to_do_and_memory_works() {
    on_a_thread(|| {
        contain(false);
        let folder = folder();
        let store = folder.path().join("store");
        let error = open_on(L2Engine::IoUring, &store).unwrap_err();
        let told = error.to_string();
        assert!(matches!(error, CacheError::L2Unavailable { .. }), "{error:?}");
        for word in [store.to_str().unwrap(), "seccomp", "io_uring_setup", "io_uring_enter"] {
            assert!(told.contains(word), "{told}");
        }
        assert!(!store.exists(), "a refused open has left something behind");
        memory_works();
    });
}

#[test]
fn a_user_without_privileges_may_have_a_store() {
    if !geteuid().is_root() {
        println!("this user has none");
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let store = folder.path().join("store");
    on_a_thread(move || {
        if geteuid().is_root() {
            set_thread_uid(Uid::from_raw(64_009)).unwrap();
        }
        disk_works(L2Engine::IoUring, &store);
    });
}

#[test]
fn in_a_container_that_allows_rings_all_works() {
    on_a_thread(|| {
        contain(true);
        let folder = folder();
        disk_works(L2Engine::IoUring, &folder.path().join("store"));
    });
}

/// A call that is refused, and an argument's bits if only some of its uses are.
struct Missing {
    what: &'static str,
    call: i64,
    bits: Option<(u8, u64, u64)>,
    errno: Errno,
}

impl Missing {
    const fn all(what: &'static str, call: i64, errno: Errno) -> Self {
        Self { what, call, bits: None, errno }
    }

    fn apply(&self) {
        let rules = self.bits.map(|(argument, mask, value)| with_bits(argument, mask, value));
        let rules = BTreeMap::from([(self.call, rules.unwrap_or_default())]);
        apply(rules, SeccompAction::Allow, errno(self.errno));
    }
}

/// Without any of these the disk tier works.
const OPTIONAL: [Missing; 10] = [
    Missing::all("registration of files and bells: no rings for callers", 427, Errno::INVAL),
    Missing::all("reserving space", 285, Errno::OPNOTSUPP),
    Missing::all("reserving space, since Linux does not know how", 285, Errno::NOSYS),
    Missing::all("alignment of direct transfers", 332, Errno::NOSYS),
    Missing::all("free space of a file system", 138, Errno::NOSYS),
    Missing::all("the cores of this process", 204, Errno::PERM),
    Missing::all("limits of this process", 302, Errno::PERM),
    Missing::all("random numbers", 318, Errno::NOSYS),
    Missing {
        what: "pages that a fork empties",
        call: 28,
        bits: Some((2, u64::MAX, 18)),
        errno: Errno::INVAL,
    },
    Missing {
        what: "direct transfers",
        call: 257,
        bits: Some((2, 0x4000, 0x4000)),
        errno: Errno::INVAL,
    },
];

#[test]
fn each_optional_feature_may_be_missing() {
    for missing in OPTIONAL {
        println!("without {}", missing.what);
        on_a_thread(move || {
            missing.apply();
            let folder = folder();
            disk_works(L2Engine::IoUring, &folder.path().join("store"));
        });
    }
}

/// Without any of these there is no ring: the disk tier works on threads. If it must not, the error
/// names what is missing, as it does for locks.
const NECESSARY: [(Missing, &str); 5] = [
    (Missing::all("rings", 425, Errno::NOSYS), "seccomp"),
    (Missing::all("entering rings", 426, Errno::PERM), "seccomp"),
    (Missing::all("event descriptors", 290, Errno::NOSYS), "ring"),
    (Missing::all("waiting for descriptors", 291, Errno::NOSYS), "ring"),
    (Missing::all("locks on files", 73, Errno::NOLCK), "lock"),
];

#[test]
fn a_necessary_feature_that_is_missing_is_named() {
    for (missing, word) in NECESSARY {
        println!("without {}", missing.what);
        on_a_thread(move || {
            missing.apply();
            let folder = folder();
            let store = folder.path().join("store");
            let error = open_on(L2Engine::IoUring, &store).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(word) && told.contains(store.to_str().unwrap()), "{told}");
            let is_typed =
                matches!(error, CacheError::L2Unavailable { .. } | CacheError::L2Io { .. });
            assert!(is_typed, "{error:?}");
            assert!(!store.join("data").exists(), "{told}");
            let opened = open(&store);
            if word == "lock" {
                return assert!(opened.is_err());
            }
            let cache = opened.unwrap();
            assert_eq!(cache.stats().l2_engine(), Some(L2Engine::Threads));
            block_on(cache.put("space", "key", value(1))).unwrap();
            block_on(cache.close()).unwrap();
            let cache = open(&store).unwrap();
            assert!(block_on(cache.get("space", "key")).is_some_and(|hit| hit.value() == value(1)));
            block_on(cache.close()).unwrap();
        });
    }
}
