//! `inspect` and `dump` on stores that they can read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use futures::executor::block_on;
use serde_json::{Value, json};
use tamis::{BlobCache, CrashSafety};

use super::stores::{self, PAGES, SEGMENT_BYTES, page};
use super::{folder, on};

fn keys(lines: &[Value]) -> BTreeSet<String> {
    let key = |line: &Value| line["key"].as_str().map(str::to_owned);
    lines.iter().map(|line| key(line).unwrap_or_else(|| line["key_hex"].to_string())).collect()
}

#[test]
fn a_closed_store_is_shown_as_its_cache_had_it() {
    let folder = folder();
    stores::closed(folder.path());
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(shown["format_version"], 1);
    assert_eq!(shown["crash_safety"], "process");
    assert_eq!((&shown["state"], &shown["next_open"]), (&json!("clean"), &json!("warm")));
    assert_eq!((&shown["opens"], &shown["live"]), (&json!(1), &json!(false)));
    assert_eq!((&shown["segment_bytes"], &shown["segment_count"]), (&json!(65536), &json!(16)));
    assert_eq!(shown["store_bytes"], 8192 + 16 * SEGMENT_BYTES);
    assert_eq!((&shown["segments_dropped"], &shown["entries"]), (&json!(0), &json!(PAGES + 2)));
    let names: Vec<_> = shown["namespaces"].as_array().unwrap().iter().collect();
    assert_eq!(names.len(), 2);
    let (other, pages) = (names[0], names[1]);
    assert_eq!((&other["name"], &other["entries"]), (&json!("other"), &json!(2)));
    assert_eq!((&pages["name"], &pages["entries"]), (&json!("pages"), &json!(PAGES)));
    assert_eq!((&pages["labels"], &pages["postings"]), (&json!(3), &json!(2 * PAGES)));
    let segments = shown["segments"].as_array().unwrap();
    let sum = |member: &str| segments.iter().map(|it| it[member].as_u64().unwrap()).sum::<u64>();
    assert!(segments.len() >= 4 && sum("live_entries") == PAGES as u64 + 2, "{segments:?}");
    // With a tombstone, a flush, and what these have removed.
    assert!((PAGES as u64 + 5..PAGES as u64 + 9).contains(&sum("records")), "{segments:?}");
    assert_eq!(sum("live_bytes"), shown["entry_bytes"].as_u64().unwrap());
    assert!(sum("dead_bytes") < 2 * 4096, "frame headers, and little that is dead: {segments:?}");
    for (number, segment) in segments.iter().enumerate() {
        assert_eq!((&segment["number"], &segment["place"]), (&json!(number), &json!(number)));
        assert_eq!(segment["offset"], 8192 + number as u64 * SEGMENT_BYTES);
        assert_eq!(segment["sealed"], json!(number + 2 < segments.len()), "{segment}");
    }
    let text = on(folder.path(), "inspect", &[]).expect(0).stdout;
    for part in ["clean: it was closed", "finds the entries", "pages", "(all)"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

#[test]
fn entries_are_listed_with_all_that_is_known_of_them() {
    let folder = folder();
    stores::closed(folder.path());
    let lines = on(folder.path(), "dump", &["--json"]).expect(0).json_lines();
    let mut expected: BTreeSet<String> = (0..PAGES).map(page).collect();
    expected.extend(["plain\tkey".to_owned(), "\"ff00\"".to_owned()]);
    assert_eq!((keys(&lines), lines.len()), (expected, PAGES + 2));
    for line in &lines {
        let written = line["written_unix_ms"].as_u64().unwrap();
        assert_eq!((&line["stale"], &line["absent"]), (&json!(false), &json!(false)));
        if line["namespace"] == "pages" {
            let number: usize = line["key"].as_str().unwrap()[6..].parse().unwrap();
            let bytes = line["bytes"].as_u64().unwrap();
            assert!((4000..4200).contains(&(bytes - number as u64)), "{line}");
            assert_eq!(line["expires_unix_ms"], written + 3_600_000, "{line}");
            assert_eq!(line["gone_unix_ms"], line["expires_unix_ms"], "{line}");
            assert_eq!(line["version"], 7);
            assert_eq!(line["tags"], json!([format!("parity:{}", number % 2)]));
            assert_eq!(line["dependencies"], json!(["all"]));
        } else {
            assert_eq!(line["namespace"], "other");
            assert_eq!((&line["expires_unix_ms"], &line["version"]), (&Value::Null, &Value::Null));
            assert_eq!((&line["tags"], &line["dependencies"]), (&json!([]), &json!([])));
        }
    }
    let text = on(folder.path(), "dump", &["--namespace", "other"]).expect(0).stdout;
    let lines: BTreeSet<_> =
        text.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    assert!(lines.iter().all(|columns| columns.len() == 9), "{text}");
    let keys: Vec<_> = lines.iter().map(|columns| columns[1]).collect();
    assert_eq!(keys, ["\\xff\\x00", "plain\\tkey"]);
}

#[test]
fn entries_are_filtered() {
    let folder = folder();
    stores::closed(folder.path());
    let found = |options: &[&str]| {
        let lines = on(folder.path(), "dump", &[options, &["--json"]].concat()).expect(0);
        keys(&lines.json_lines())
    };
    let pages = |wanted: fn(&usize) -> bool| (0..PAGES).filter(wanted).map(page).collect();
    assert_eq!(found(&["--namespace", "pages"]), pages(|_| true));
    assert_eq!(found(&["--prefix", "/page/01"]), pages(|it| (10..20).contains(it)));
    assert_eq!(found(&["--tag", "parity:1"]), pages(|it| it % 2 == 1));
    assert_eq!(found(&["--dependency", "all"]), pages(|_| true));
    assert_eq!(found(&["--tag", "parity:1", "--tag", "parity:0"]), pages(|_| true));
    let both = found(&["--tag", "parity:1", "--prefix", "/page/01", "--namespace", "pages"]);
    assert_eq!(both, pages(|it| (10..20).contains(it) && it % 2 == 1));
    // The kinds of labels are two.
    for nothing in [["--tag", "all"], ["--dependency", "parity:1"], ["--namespace", "flushed"]] {
        assert_eq!(found(&nothing), BTreeSet::new());
    }
    let brief = on(folder.path(), "dump", &["--json", "--brief"]).expect(0).json_lines();
    assert_eq!(brief.len(), PAGES + 2);
    let of_page = brief.iter().find(|line| line["namespace"] == "pages").unwrap();
    assert!(of_page["gone_unix_ms"].is_u64() && of_page["tags"].is_null(), "{of_page}");
}

#[test]
fn an_empty_store_has_nothing() {
    let folder = folder();
    stores::close(&stores::open(folder.path()));
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!((&shown["entries"], &shown["namespaces"]), (&json!(0), &json!([])));
    assert_eq!(on(folder.path(), "dump", &[]).expect(0).stdout, "");
    on(folder.path(), "inspect", &[]).expect(0);
}

#[test]
fn a_store_whose_creation_was_interrupted_has_nothing() {
    let folder = folder();
    fs::write(folder.path().join("data"), vec![0; 1 << 20]).unwrap();
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(shown["state"], "unfinished");
    assert_eq!(shown["next_open"], "empty_unfinished");
    assert_eq!((&shown["created_unix_ms"], &shown["segments"]), (&Value::Null, &json!([])));
    assert_eq!(on(folder.path(), "dump", &[]).expect(0).stdout, "");
}

fn listed(folder: &Path) -> usize {
    on(folder, "dump", &["--json"]).expect(0).json_lines().len()
}

#[test]
fn what_the_next_open_would_not_find_is_shown_and_said() {
    for (mode, next) in [
        (CrashSafety::Cold, "empty_cold"),
        (CrashSafety::Process, "warm"),
        (CrashSafety::Power, "warm"),
    ] {
        let folder = folder();
        stores::dropped(folder.path(), mode);
        let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
        assert_eq!((&shown["state"], &shown["next_open"]), (&json!("unclean"), &json!(next)));
        assert_eq!(listed(folder.path()), PAGES + 2, "{mode:?}");
        let text = on(folder.path(), "inspect", &[]).expect(0).stdout;
        assert_eq!(text.contains("begins EMPTY"), next != "warm", "{text}");
        // It is right.
        let config = stores::builder(folder.path()).build().unwrap();
        let cache = block_on(BlobCache::open(config)).unwrap();
        let is_there = block_on(cache.get("pages", page(0))).is_some();
        assert_eq!(is_there, next == "warm");
        stores::close(&cache);
    }
    let folder = folder();
    stores::closed(folder.path());
    fs::write(folder.path().join("void"), "").unwrap();
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(shown["next_open"], "empty_marked");
    assert_eq!(listed(folder.path()), PAGES + 2);
}

#[test]
fn what_has_expired_or_was_touched_is_shown_as_a_get_would_find_it() {
    use std::time::Duration;

    use tamis::{BlobCachePolicy, BlobCachePut};
    let folder = folder();
    let cache = stores::open(folder.path());
    block_on(async {
        let short = BlobCachePolicy::default().ttl(Duration::from_millis(1));
        cache
            .put("space", "short", BlobCachePut::new("x").with_policy(short.clone()))
            .await
            .unwrap();
        let stale = short.stale_serve(Duration::from_secs(3600));
        cache.put("space", "stale", BlobCachePut::new("x").with_policy(stale)).await.unwrap();
        cache.put("space", "touched", "x").await.unwrap();
        let longer = BlobCachePolicy::default().ttl(Duration::from_secs(7200));
        cache.touch("space", "touched", &longer).await.unwrap();
        cache.put("space", "absent", BlobCachePut::absent()).await.unwrap();
    });
    stores::close(&cache);
    std::thread::sleep(Duration::from_millis(5));
    let lines = on(folder.path(), "dump", &["--json"]).expect(0).json_lines();
    let of = |key: &str| lines.iter().find(|line| line["key"] == key);
    assert!(lines.len() == 3 && of("short").is_none(), "{lines:?}");
    assert_eq!(of("stale").unwrap()["stale"], true);
    assert_eq!(of("absent").unwrap()["absent"], true);
    assert!(of("touched").unwrap()["expires_unix_ms"].is_u64(), "{lines:?}");
}

#[test]
fn a_backup_is_a_store_like_any_other_and_one_that_was_interrupted_is_told() {
    let [folder, copies] = [(); 2].map(|()| folder());
    let copy = copies.path().join("copy");
    let cache = stores::open(folder.path());
    stores::fill(&cache);
    block_on(cache.backup(&copy)).unwrap();
    block_on(cache.put("pages", "later", "x")).unwrap();
    stores::close(&cache);
    let shown = on(&copy, "inspect", &["--json"]).expect(0).json();
    assert_eq!((&shown["state"], &shown["next_open"]), (&json!("clean"), &json!("warm")));
    assert_eq!(listed(&copy), PAGES + 2);
    on(&copy, "verify", &[]).expect(0);
    // As it begins.
    let mut bytes = fs::read(copy.join("data")).unwrap();
    bytes[..8192].fill(0);
    bytes[..8].copy_from_slice(b"tamisCPY");
    fs::write(copy.join("data"), bytes).unwrap();
    let outcome = on(&copy, "verify", &[]).expect(1);
    assert!(outcome.stderr.contains("a backup into it was not finished"), "{outcome:?}");
}
