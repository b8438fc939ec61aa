//! A store that is looked at has no owner meanwhile, and what others must leave beside it they do.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use futures::executor::block_on;
use serde_json::json;
use tamis::{BlobCache, CacheError, KeysQuery, StoreAccess, StoreReader};
use xxhash_rust::xxh3::xxh3_64;

use super::stores::{self, PAGES, page};
use super::{folder, on};

#[test]
fn no_cache_opens_a_store_while_it_is_looked_at() {
    let folder = folder();
    stores::closed(folder.path());
    let readers = [(); 2].map(|()| StoreReader::open(folder.path(), StoreAccess::Alone).unwrap());
    let config = stores::builder(folder.path()).build().unwrap();
    let refused = block_on(BlobCache::open(config)).unwrap_err();
    assert!(matches!(refused, CacheError::L2Locked { .. }), "{refused}");
    let contents = readers[0].contents().unwrap();
    assert_eq!(contents.keys("pages", KeysQuery::default()).count(), PAGES);
    drop((readers, contents));
    let cache = stores::open(folder.path());
    assert!(block_on(cache.get("pages", page(0))).is_some());
    // One that is looked at as it is used disturbs nobody.
    let live = StoreReader::open(folder.path(), StoreAccess::Live).unwrap();
    stores::close(&cache);
    stores::close(&stores::open(folder.path()));
    assert!(live.facts().is_live);
}

/// A cache that goes on without its store must be able to say that this is out of date: a reader is
/// no owner, whose store would be current.
#[test]
fn a_cache_that_cannot_open_a_store_that_is_looked_at_leaves_its_mark() {
    let folder = folder();
    stores::closed(folder.path());
    let reader = StoreReader::open(folder.path(), StoreAccess::Alone).unwrap();
    let config = stores::builder(folder.path()).l2_required(false).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    block_on(cache.put("pages", page(0), "another")).unwrap();
    assert!(folder.path().join("void").exists(), "the put is not covered");
    stores::close(&cache);
    drop(reader);
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(shown["next_open"], "empty_marked");
    let cache = stores::open(folder.path());
    assert!(block_on(cache.get("pages", page(0))).is_none(), "it was replaced");
    stores::close(&cache);
}

/// Changes both copies of the superblock.
pub(crate) fn set(folder: &Path, change: impl Fn(&mut [u8])) {
    let file = File::options().read(true).write(true).open(folder.join("data")).unwrap();
    for offset in [0, 4096] {
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, offset).unwrap();
        change(&mut block[..4088]);
        let sum = xxh3_64(&block[..4088]).to_le_bytes();
        block[4088..].copy_from_slice(&sum);
        file.write_all_at(&block, offset).unwrap();
    }
}

#[test]
fn a_store_that_is_void_or_of_another_boot_is_said_to_be() {
    let folder = folder();
    stores::dropped(folder.path(), tamis::CrashSafety::Process);
    // The id of the machine's boot.
    set(folder.path(), |block| block[72] = !block[72]);
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(
        (&shown["state"], &shown["next_open"]),
        (&json!("unclean"), &json!("empty_other_boot"),)
    );
    assert_eq!(shown["entries"], PAGES + 2);
    // The mark of a store that was turned off.
    set(folder.path(), |block| block[69] = 2);
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!((&shown["state"], &shown["next_open"]), (&json!("void"), &json!("empty_void")));
    let text = on(folder.path(), "inspect", &[]).expect(0).stdout;
    assert!(text.contains("begins EMPTY: the store is void"), "{text}");
    assert_eq!(on(folder.path(), "dump", &[]).expect(0).stdout.lines().count(), PAGES + 2);
    on(folder.path(), "verify", &[]).expect(0);
}

/// The exit code of a command whose output nobody reads.
fn unread(folder: &Path, command: &str) -> i32 {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tamis"))
        .arg(command)
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(&*output.stderr, b"", "{command}");
    output.status.code().unwrap()
}

#[test]
fn a_reader_of_the_output_may_leave() {
    let folder = folder();
    stores::closed(folder.path());
    for command in ["inspect", "verify", "dump", "top"] {
        assert_eq!(unread(folder.path(), command), 0);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    // The header of the first segment: the exit code tells it all the same.
    let file = File::options().write(true).open(folder.path().join("data")).unwrap();
    file.write_all_at(b"damaged", 8192).unwrap();
    assert_eq!(unread(folder.path(), "verify"), 1);
}
