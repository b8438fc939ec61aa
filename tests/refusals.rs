//! Process limits that are too low for a store: each is named in the error, kills nothing and
//! leaves nothing behind. Limits hold for a whole process, so each test runs in a child of this
//! binary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use futures::executor::block_on;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tamis::{BlobCache, BlobCacheConfig, CacheError};

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
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(path);
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
