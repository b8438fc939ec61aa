//! Beside others that have the lock of the store for a while or for a moment.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::join;
use tamis::{CacheError, L2State};

use super::*;

/// Openers that fail have the lock for a moment each, and own nothing.
#[test]
fn openers_that_fail_are_no_owners_of_the_store() {
    let folder = folder();
    let path = folder.path().join("store");
    closed_store(&path);
    let image = fs::read(path.join("data")).unwrap();
    fs::write(path.join("data"), of_newer_format(image.clone())).unwrap();
    let cache = open_anyway(&path);
    let is_over = AtomicBool::new(false);
    let failed = thread::scope(|scope| {
        let opener = || {
            let mut failed = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert!(matches!(open(&path), Err(CacheError::L2Format { .. })));
                failed += 1;
            }
            failed
        };
        let openers = [scope.spawn(opener), scope.spawn(opener)];
        thread::sleep(Duration::from_millis(50));
        let covered = block_on(cache.invalidate_key("space", "old"));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(covered, Ok(0));
        openers.map(|opener| opener.join().unwrap())
    });
    assert!(failed.iter().sum::<u32>() > 0, "{failed:?}");
    block_on(cache.close()).unwrap();
    assert!(path.join("void").exists());
    fs::write(path.join("data"), image).unwrap();
    assert_eq!(get(&open(&path).unwrap(), "old"), None);
}

/// A reopening asks for the lock itself, and has it for a while.
#[test]
fn mutations_during_a_reopening_do_not_fail() {
    let folder = folder();
    let path = folder.path().join("store");
    let owner = open(&path).unwrap();
    let cache = open_anyway(&path);
    for _ in 0..2 {
        let (reopened, done) = block_on(join(cache.reopen_l2(), cache.put("space", "key", "a")));
        assert!(matches!(reopened, Err(CacheError::L2Locked { .. })), "{reopened:?}");
        assert_eq!(done, Ok(()));
    }
    block_on(owner.close()).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let putting = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                put(&cache, "key", "in memory").unwrap();
            }
        });
        // The outcome from beside the owner does not count any more.
        thread::sleep(Duration::from_millis(3100));
        block_on(cache.reopen_l2()).unwrap();
        is_over.store(true, Ordering::Relaxed);
        putting.join().unwrap();
    });
    assert_eq!(cache.stats().l2_state(), L2State::Healthy);
    put(&cache, "key", "on disk").unwrap();
    block_on(cache.close()).unwrap();
    assert!(!path.join("void").exists());
    assert_eq!(get(&open(&path).unwrap(), "key").unwrap(), b"on disk");
}

/// A cache that has worked beside the owner of the store marks it when it is closed later.
#[test]
fn what_was_put_beside_an_owner_that_is_gone_is_covered_by_a_close() {
    let folder = folder();
    let path = folder.path().join("store");
    closed_store(&path);
    let owner = open(&path).unwrap();
    let cache = open_anyway(&path);
    put(&cache, "old", "its own").unwrap();
    block_on(owner.close()).unwrap();
    assert!(!path.join("void").exists());
    block_on(cache.close()).unwrap();
    assert!(path.join("void").exists());
    assert_eq!(get(&open(&path).unwrap(), "old"), None);
}
