//! `backup` and `restore`: the copy has what the store has, or there is none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use futures::executor::block_on;
use serde_json::{Value, json};
use tamis::{BlobCache, BlobCachePolicy, BlobCachePut, CacheError, CrashSafety};

use super::locks::set;
use super::stores::{self, PAGES, SEGMENT_BYTES, page};
use super::{Outcome, contents, folder, on, tamis};

/// A copy of one directory to another, of which the first must not change.
fn copy(command: &str, from: &Path, to: &Path, options: &[&str]) -> Outcome {
    let mut arguments = vec![to.to_str().unwrap()];
    arguments.extend(options);
    on(from, command, &arguments)
}

/// The entries of a store, in order.
fn entries(folder: &Path) -> Vec<String> {
    let dump = on(folder, "dump", &["--json"]);
    assert!(dump.code <= 1, "{dump:?}");
    let mut lines: Vec<_> = dump.stdout.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// A copy must have the entries of its source, and be a store that was closed.
fn assert_same(from: &Path, to: &Path) {
    assert_eq!(entries(from), entries(to));
    on(to, "verify", &[]).expect(0);
    let shown = on(to, "inspect", &["--json"]).expect(0).json();
    assert_eq!((&shown["state"], &shown["next_open"]), (&json!("clean"), &json!("warm")));
}

fn kind(outcome: &Outcome) -> Value {
    let lines = outcome.json_lines();
    lines.last().unwrap()["error"]["kind"].clone()
}

fn flip(folder: &Path, offset: u64) {
    let path = folder.join("data");
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
}

#[test]
fn a_closed_store_comes_back_from_its_backup() {
    let (folder, parent) = (folder(), folder());
    stores::closed(folder.path());
    let (kept, again) = (parent.path().join("a/kept"), parent.path().join("again"));
    let told = copy("backup", folder.path(), &kept, &["--json"]).expect(0).json();
    let bytes = fs::metadata(kept.join("data")).unwrap().len();
    assert_eq!(told["copy"]["bytes"], bytes);
    assert_eq!(told["copy"]["flush_after_open"], false);
    assert!(told["copy"]["segments"].as_u64().unwrap() >= 3, "{told}");
    assert_same(folder.path(), &kept);
    assert_eq!(entries(&kept).len(), PAGES + 2);

    let told = copy("restore", &kept, &again, &[]).expect(0).stdout;
    assert!(told.contains("OUT OF DATE") && told.contains("Flush what may have"), "{told}");
    assert_same(&kept, &again);
    // A cache with less room than the source had opens it, and goes on.
    let config = stores::builder(&again).l2_bytes_max(8 * SEGMENT_BYTES).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let hit = block_on(cache.get("pages", page(7))).unwrap();
    assert_eq!(hit.value(), vec![7; 4007]);
    assert!(block_on(cache.get("flushed", "gone")).is_none());
    for number in 0..PAGES {
        block_on(cache.put("later", page(number), vec![8; 4000])).unwrap();
    }
    stores::close(&cache);
    on(&again, "verify", &[]).expect(0);
    let told = copy("restore", &kept, &parent.path().join("third"), &["--json"]).expect(0).json();
    assert_eq!(
        (&told["copy"]["damaged"], &told["copy"]["flush_after_open"]),
        (&json!(0), &json!(true))
    );
}

#[test]
fn stores_without_entries_or_a_close_are_copied() {
    let parent = folder();
    let (from, to) = (parent.path().join("empty"), parent.path().join("copy of empty"));
    fs::create_dir(&from).unwrap();
    stores::close(&stores::open(&from));
    copy("backup", &from, &to, &[]).expect(0);
    assert_same(&from, &to);
    stores::close(&stores::open(&to));
    for mode in [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power] {
        let from = parent.path().join(format!("{mode:?}"));
        fs::create_dir(&from).unwrap();
        stores::dropped(&from, mode);
        let to = parent.path().join(format!("copy of {mode:?}"));
        copy("backup", &from, &to, &[]).expect(0);
        assert_eq!(entries(&to).len(), PAGES + 2);
        assert_same(&from, &to);
        let cache = stores::open(&to);
        assert!(block_on(cache.get("pages", page(0))).is_some(), "{mode:?}");
        stores::close(&cache);
    }
}

/// Whatever the log ends with: the beginning of a segment, its middle, or a seal; in a log that has
/// come round as well.
#[test]
fn a_log_is_copied_to_its_last_frame_wherever_it_ends() {
    let (source, parent) = (folder(), folder());
    let cache = stores::open(source.path());
    let mut counts = Vec::new();
    for number in 0..240_usize {
        block_on(async {
            let policy = BlobCachePolicy::default().version(number as u64);
            let value = vec![7; 300 + number * 7919 % 15_000];
            let put = BlobCachePut::new(value).with_policy(policy).with_tags(["tag"]);
            cache.put("space", (number % 50).to_string(), put).await.unwrap();
            if number % 40 == 39 {
                cache.invalidate_all().await.unwrap();
            }
            cache.sync().await.unwrap();
        });
        if number % 3 != 0 {
            continue;
        }
        thread::sleep(Duration::from_millis(2));
        let (from, to) = (parent.path().join("from"), parent.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::copy(source.path().join("data"), from.join("data")).unwrap();
        copy("backup", &from, &to, &[]).expect(0);
        assert_same(&from, &to);
        counts.push(entries(&to).len());
        // It goes on where it ends.
        let copied = stores::open(&to);
        block_on(copied.put("space", "more", "value")).unwrap();
        stores::close(&copied);
        assert_eq!(entries(&to).len(), counts[counts.len() - 1] + 1);
        [from, to].iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    }
    assert!(counts.iter().sum::<usize>() > 1000, "{counts:?}");
    assert!(cache.stats().l2_reclaimed_segments() > 5);
    stores::close(&cache);
}

#[test]
fn a_store_or_a_target_in_use_is_refused_with_its_owner() {
    let (used, closed, parent) = (folder(), folder(), folder());
    stores::closed(closed.path());
    let (cache, to) = (stores::open(used.path()), parent.path().join("to"));
    let [from, target] = [used.path(), &to].map(|path| path.to_str().unwrap());
    for command in ["backup", "restore"] {
        let refused = tamis([command, from, target, "--json"]).expect(4);
        let error = refused.json()["error"].clone();
        assert_eq!(
            (&error["kind"], &error["owner"]),
            (&json!("in_use"), &json!(std::process::id()))
        );
        assert_eq!(refused.stderr.contains("--live"), command == "backup", "{refused:?}");
        assert!(!to.exists());
        let refused = copy(command, closed.path(), used.path(), &["--json"]).expect(4);
        assert_eq!(kind(&refused), "target_in_use");
    }
    // Nothing is sealed yet.
    let refused = tamis(["backup", "--live", from, target, "--json"]).expect(3);
    assert_eq!(kind(&refused), "nothing_sealed");
    stores::fill(&cache);
    tamis(["backup", "--live", from, target]).expect(0);
    let found = entries(&to).len();
    assert!(found > 10 && found < PAGES, "{found}");
    stores::close(&cache);
}

#[test]
fn a_store_that_is_there_is_never_replaced() {
    let (one, other, parent) = (folder(), folder(), folder());
    stores::closed(one.path());
    stores::close(&stores::open(other.path()));
    let before = contents(other.path());
    for command in ["backup", "restore"] {
        let refused = copy(command, one.path(), other.path(), &["--json"]).expect(3);
        assert_eq!(kind(&refused), "target_exists");
        assert!(before == contents(other.path()));
        // Onto itself, while it is locked.
        let refused = copy(command, one.path(), one.path(), &["--json"]).expect(4);
        assert_eq!(kind(&refused), "target_in_use");
    }
    let refused = copy("backup", one.path(), one.path(), &["--live", "--json"]).expect(3);
    assert_eq!(kind(&refused), "target_exists");
    let marked = parent.path().join("marked");
    copy("backup", one.path(), &marked, &[]).expect(0);
    fs::remove_file(marked.join("data")).unwrap();
    fs::write(marked.join("void"), "").unwrap();
    let refused = copy("backup", one.path(), &marked, &["--json"]).expect(3);
    assert_eq!(kind(&refused), "target_exists");
    fs::write(parent.path().join("file"), "").unwrap();
    let refused = copy("backup", one.path(), &parent.path().join("file/deeper"), &["--json"]);
    assert_eq!(kind(&refused.expect(3)), "io");
}

/// A copy counts as closed: it must not bring back what its source would not serve.
#[test]
fn a_store_whose_next_open_begins_empty_is_not_copied() {
    let parent = folder();
    let to = parent.path().join("to");
    for mode in [CrashSafety::Cold, CrashSafety::Process] {
        let folder = folder();
        stores::dropped(folder.path(), mode);
        // The id of the machine's boot.
        set(folder.path(), |block| block[72] = !block[72]);
        for command in ["backup", "restore"] {
            let refused = copy(command, folder.path(), &to, &["--json"]).expect(3);
            assert_eq!(kind(&refused), "empty", "{mode:?}");
        }
        let refused = copy("backup", folder.path(), &to, &["--json", "--live"]).expect(3);
        assert_eq!(kind(&refused), "empty", "{mode:?}");
    }
    let folder = folder();
    stores::closed(folder.path());
    fs::write(folder.path().join("void"), "").unwrap();
    assert_eq!(kind(&copy("backup", folder.path(), &to, &["--json"]).expect(3)), "empty");
    fs::remove_file(folder.path().join("void")).unwrap();
    // The mark of a store that was turned off.
    set(folder.path(), |block| block[69] = 2);
    assert_eq!(kind(&copy("backup", folder.path(), &to, &["--json"]).expect(3)), "empty");
    assert!(!to.exists());
}

#[test]
fn a_damaged_backup_is_restored_only_if_that_is_asked_for() {
    // A value, a header, a directory, a superblock.
    let segment = 8192 + SEGMENT_BYTES;
    for (offset, is_kept) in [(20_000, true), (segment, false), (segment - 100, true), (50, false)]
    {
        let (folder, parent) = (folder(), folder());
        stores::closed(folder.path());
        flip(folder.path(), offset);
        let to = parent.path().join("to");
        let refused = copy("restore", folder.path(), &to, &["--json"]).expect(1);
        assert_eq!(kind(&refused), "damaged", "{offset}");
        assert!(refused.json_lines()[0]["damage"].is_object() && !to.exists(), "{offset}");
        let restored = copy("restore", folder.path(), &to, &["--json", "--damaged"]).expect(0);
        let told = restored.json_lines().pop().unwrap();
        assert_eq!(told["copy"]["damaged"], 1, "{offset}: {told}");
        assert_eq!(entries(folder.path()), entries(&to), "{offset}");
        on(&to, "verify", &[]).expect(i32::from(is_kept));
        stores::close(&stores::open(&to));
    }
    // A segment without its header cannot be copied, and what is before it would be dropped.
    let (folder, parent) = (folder(), folder());
    stores::closed(folder.path());
    flip(folder.path(), segment);
    let refused = copy("backup", folder.path(), &parent.path().join("to"), &["--json"]).expect(1);
    assert_eq!(kind(&refused), "damaged");
    // It is no copy that was not finished, either.
    let refused = copy("restore", &parent.path().join("none"), folder.path(), &["--json"]);
    assert_eq!(kind(&refused.expect(3)), "no_store");
}

#[test]
fn a_copy_that_was_not_finished_is_no_source() {
    let (folder, parent) = (folder(), folder());
    stores::closed(folder.path());
    let to = parent.path().join("to");
    copy("backup", folder.path(), &to, &[]).expect(0);
    let file = File::options().write(true).open(to.join("data")).unwrap();
    let unfinished = super::interrupted::mark();
    for offset in [0, 4096] {
        file.write_all_at(&unfinished, offset).unwrap();
    }
    let config = stores::builder(&to).build().unwrap();
    let refused = block_on(BlobCache::open(config)).unwrap_err();
    assert!(matches!(refused, CacheError::L2Damaged { .. }), "{refused}");
    let refused = copy("restore", &to, &parent.path().join("again"), &["--json"]).expect(1);
    assert_eq!(kind(&refused), "damaged");
    copy("backup", folder.path(), &to, &[]).expect(0);
    assert_same(folder.path(), &to);
}
