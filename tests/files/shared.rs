//! Backups on file systems that share blocks between files.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCachePut, CacheError};

use crate::systems::{entries, fill, may_mount, mounted};
use crate::{folder, open};

const BYTES: u64 = 32 << 20;
const VALUES: u32 = 200;

/// Of the kinds that share, those whose tools are installed.
fn kinds() -> Vec<&'static str> {
    let is_there = |kind: &&str| Command::new(format!("mkfs.{kind}")).arg("-V").output().is_ok();
    let kinds: Vec<&str> = ["xfs", "btrfs"].into_iter().filter(is_there).collect();
    println!("file systems that share blocks and can be made here: {kinds:?}");
    kinds
}

fn value(number: u32, round: u32) -> Vec<u8> {
    // Nothing that compresses, so that segments are full.
    let words =
        (0..15_000u32).map(|at| (at ^ (number << 16) ^ (round << 24)).wrapping_mul(0x9e37_79b1));
    words.flat_map(u32::to_le_bytes).collect()
}

fn put_all(cache: &BlobCache, round: u32) {
    for number in 0..VALUES {
        let put = BlobCachePut::new(value(number, round));
        block_on(cache.put("space", number.to_le_bytes(), put)).unwrap();
    }
}

/// How many of that round it has; of another one it has none.
fn count(cache: &BlobCache, round: u32) -> usize {
    let is_there = |number: &u32| {
        let hit = block_on(cache.get("space", number.to_le_bytes()));
        hit.is_some_and(|hit| hit.value() == value(*number, round) || panic!("{number}"))
    };
    (0..VALUES).filter(is_there).count()
}

fn used_bytes(place: &Path) -> u64 {
    let facts = rustix::fs::statvfs(place).unwrap();
    (facts.f_blocks - facts.f_bfree) * facts.f_frsize
}

#[test]
fn a_backup_shares_the_blocks_of_the_store() {
    if !may_mount("shared::a_backup_shares_the_blocks_of_the_store") {
        return;
    }
    let folder = folder();
    for kind in kinds() {
        let place = mounted(folder.path(), kind, 400);
        let (store, copy) = (place.join("store"), place.join("copy"));
        let cache = open(&store, BYTES).unwrap();
        put_all(&cache, 1);
        let before = used_bytes(&place);
        let report = block_on(cache.backup(&copy)).unwrap();
        let taken = used_bytes(&place).saturating_sub(before);
        assert!(report.shared_bytes() > report.bytes() / 2, "{kind}: {report:?}");
        assert!(taken < report.bytes() / 2, "{kind}: {taken} of {report:?}");
        // The store goes on, and the copy stays as it was.
        put_all(&cache, 2);
        put_all(&cache, 3);
        assert!(count(&cache, 3) > 0);
        block_on(cache.close()).unwrap();
        let restored = open(&copy, BYTES).unwrap();
        assert_eq!(count(&restored, 1), VALUES as usize, "{kind}");
        // So does the store, as the copy goes on.
        put_all(&restored, 4);
        block_on(restored.close()).unwrap();
        let cache = open(&store, BYTES).unwrap();
        assert!(count(&cache, 3) > 0);
        block_on(cache.close()).unwrap();
    }
}

/// Each shared block takes room of its own once the store overwrites it.
#[test]
fn a_backup_is_refused_where_only_shared_blocks_have_room() {
    if !may_mount("shared::a_backup_is_refused_where_only_shared_blocks_have_room") {
        return;
    }
    let folder = folder();
    for kind in kinds() {
        let place = mounted(folder.path(), kind, 400);
        let cache = open(&place.join("store"), BYTES).unwrap();
        put_all(&cache, 1);
        let filler = fill(&place);
        let full = fs::OpenOptions::new().write(true).open(&filler).unwrap();
        full.set_len(full.metadata().unwrap().len() - (4 << 20)).unwrap();
        drop(full);
        let copy = place.join("copy");
        let refused = block_on(cache.backup(&copy)).unwrap_err();
        assert!(matches!(refused, CacheError::L2Full { size, max, .. } if size > max), "{refused}");
        // Room of a file that is removed comes back a moment later.
        File::create(&filler).unwrap().sync_all().unwrap();
        block_on(cache.backup(&copy)).unwrap();
        assert_eq!(entries(&copy), ["data"]);
        block_on(cache.close()).unwrap();
    }
}
