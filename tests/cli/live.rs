//! `--live`: a store is looked at while its owner writes, reclaims and resizes it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use serde_json::Value;
use tamis::{BlobCache, BlobCachePolicy, BlobCachePut};

use super::stores::{self, SEGMENT_BYTES};
use super::{folder, tamis};

fn live(folder: &Path, command: &str) -> Vec<Value> {
    let outcome = tamis([command, folder.to_str().unwrap(), "--live", "--json"]).expect(0);
    assert_eq!(outcome.stderr, "");
    outcome.json_lines()
}

/// Puts entries one after the other, each with its number as its key, version and length, and
/// changes the size of the file now and then.
fn write(cache: &BlobCache, begun: &AtomicU64, is_over: &AtomicBool) {
    block_on(async {
        for number in 0_u64.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            begun.store(number, Ordering::SeqCst);
            let policy = BlobCachePolicy::default().version(number);
            let length = 500 + usize::try_from(number % 3000).unwrap();
            let put = BlobCachePut::new(vec![7; length]).with_policy(policy).with_tags(["tag"]);
            cache.put("space", number.to_string(), put).await.unwrap();
            if number % 3000 == 2999 {
                let segments = [16, 9, 20, 12][usize::try_from(number / 3000 % 4).unwrap()];
                cache.set_l2_bytes_max(segments * SEGMENT_BYTES).await.unwrap();
            }
        }
    });
}

/// Ends the writer whatever becomes of the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_store_that_is_written_meanwhile_is_never_taken_for_damaged() {
    let folder = folder();
    let cache = stores::open(folder.path());
    let (begun, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut listed, mut sealed, mut verified, mut overwritten) = (0, 0, 0, 0);
    thread::scope(|scope| {
        let _over = Over(&is_over);
        let writer = scope.spawn(|| write(&cache, &begun, &is_over));
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) && !writer.is_finished() {
            for line in live(folder.path(), "dump") {
                let key: u64 = line["key"].as_str().unwrap().parse().unwrap();
                assert!(key <= begun.load(Ordering::SeqCst), "{line} was never put");
                assert_eq!((&line["namespace"], &line["version"]), (&"space".into(), &key.into()));
                assert_eq!(line["tags"], serde_json::json!(["tag"]));
                listed += 1;
            }
            let report = live(folder.path(), "verify").pop().unwrap();
            verified += report["report"]["records"].as_u64().unwrap();
            overwritten += report["report"]["overwritten"].as_u64().unwrap();
            let shown = live(folder.path(), "inspect").pop().unwrap();
            assert_eq!((&shown["live"], &shown["state"]), (&true.into(), &"unclean".into()));
            let segments = shown["segments"].as_array().unwrap();
            sealed += segments.iter().filter(|segment| segment["sealed"] == true).count();
            live(folder.path(), "top");
        }
    });
    let put = begun.load(Ordering::SeqCst);
    let figures = format!("{put} put, {listed} listed, {verified} verified, {overwritten} gone");
    println!("{figures}");
    assert!(cache.stats().l2_reclaimed_segments() > 20 && put > 3000, "{figures}");
    assert!(listed > 100 && sealed > 20 && verified > 100, "{figures}");
    stores::close(&cache);
    // Nothing has come to harm.
    tamis(["verify", folder.path().to_str().unwrap()]).expect(0);
}

#[test]
fn what_is_not_sealed_yet_is_left_out() {
    let folder = folder();
    let cache = stores::open(folder.path());
    block_on(cache.put("space", "key", "value")).unwrap();
    assert_eq!(live(folder.path(), "dump"), Vec::<Value>::new());
    stores::fill(&cache);
    let found: BTreeMap<_, _> = live(folder.path(), "dump")
        .into_iter()
        .map(|line| (line["key"].to_string(), line))
        .collect();
    assert!(found.contains_key("\"key\"") && found.len() < stores::PAGES, "{}", found.len());
    stores::close(&cache);
}

#[test]
fn damage_of_a_live_store_is_found() {
    use std::os::unix::fs::FileExt;
    let folder = folder();
    let cache = stores::open(folder.path());
    stores::fill(&cache);
    let file = std::fs::File::options().write(true).open(folder.path().join("data")).unwrap();
    // Within the values of the first segment.
    file.write_all_at(b"not as it was", 8192 + 10_000).unwrap();
    file.sync_all().unwrap();
    let store = folder.path().to_str().unwrap();
    let lines = tamis(["verify", store, "--live", "--json"]).expect(1).json_lines();
    assert_eq!(lines[0]["damage"]["segment"], 0, "{lines:?}");
    assert_eq!(lines[0]["damage"]["namespace"], "pages");
    assert_eq!(lines.len(), 2);
    stores::close(&cache);
}
