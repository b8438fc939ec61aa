//! `top` and `size`.

use std::path::Path;

use futures::executor::block_on;
use serde_json::{Value, json};
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, L2Admission, L2Compression};

use super::stores::{self, PAGES, page};
use super::{folder, on, tamis};

#[test]
fn what_takes_most_comes_first() {
    let folder = folder();
    stores::closed(folder.path());
    let cache = stores::open(folder.path());
    block_on(async {
        for number in 0..3 * PAGES {
            cache.put("many", number.to_string(), "x").await.unwrap();
        }
        cache.put("one", "large", vec![7; 30_000]).await.unwrap();
    });
    stores::close(&cache);
    let found = on(folder.path(), "top", &["--json", "-n", "3"]).expect(0).json();
    let names = |order: &str| {
        let rows = found[order].as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("by_bytes"), ["pages", "one", "many"]);
    assert_eq!(names("by_entries"), ["many", "pages", "other"]);
    let largest = found["largest"].as_array().unwrap();
    let keys: Vec<_> = largest.iter().map(|it| it["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["large", &page(PAGES - 1), &page(PAGES - 2)]);
    assert_eq!(largest[0]["namespace"], "one");
    assert!(largest[0]["bytes"].as_u64().unwrap() > 30_000);
    let text = on(folder.path(), "top", &["-n", "1"]).expect(0).stdout;
    assert!(text.contains("pages") && text.contains("large") && !text.contains("other"), "{text}");
    let none = on(folder.path(), "top", &["--json", "-n", "0"]).expect(0).json();
    assert_eq!((&none["largest"], &none["by_bytes"]), (&json!([]), &json!([])));
}

const ENTRIES: usize = 20_000;
const VALUE_BYTES: usize = 600;
const LABELS: usize = 2;

fn estimate() -> Value {
    let figures = [ENTRIES, 24, VALUE_BYTES, LABELS, 11, 50].map(|figure| figure.to_string());
    let [entries, key, value, labels, label, share] = &figures;
    let size = ["size", "--json", "--entries", entries, "--key", key, "--value", value];
    let rest = ["--labels", labels, "--label", label, "--l1-share", share];
    tamis(size.into_iter().chain(rest)).expect(0).json()
}

fn open(folder: &Path, estimate: &Value) -> BlobCache {
    let bytes = |name: &str| estimate[name].as_u64().unwrap();
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(usize::try_from(bytes("l1_bytes_max")).unwrap())
        .l2_path(folder)
        .l2_bytes_max(bytes("l2_bytes_max"))
        .l2_segment_bytes(u32::try_from(bytes("l2_segment_bytes")).unwrap())
        .l2_index_bytes_max(usize::try_from(bytes("l2_index_bytes_max")).unwrap())
        .l2_admission(L2Admission::Always)
        .l2_compression(L2Compression::Off);
    block_on(BlobCache::open(config.build().unwrap())).unwrap()
}

#[test]
fn a_cache_of_the_estimated_size_holds_what_it_was_estimated_for() {
    let (folder, estimate) = (folder(), estimate());
    let cache = open(folder.path(), &estimate);
    let key = |number: usize| format!("{number:0>24}");
    let put = |number: usize| {
        let value = vec![u8::try_from(number % 251).unwrap(); VALUE_BYTES];
        let ttl = std::time::Duration::from_secs(3600 + number as u64 % 60);
        BlobCachePut::new(value).with_tags(["first label", "other label"]).with_ttl(ttl)
    };
    block_on(async {
        for number in 0..ENTRIES {
            cache.put("space", key(number), put(number)).await.unwrap();
        }
        cache.sync().await.unwrap();
    });
    let stats = cache.stats();
    assert_eq!(stats.l2_reclaimed_segments(), 0, "the file was too small: {estimate}");
    let held = stats.l1().entries();
    assert!((ENTRIES as u64 * 49 / 100..=ENTRIES as u64 * 52 / 100).contains(&(held as u64)));
    stores::close(&cache);
    let shown = on(folder.path(), "inspect", &["--json"]).expect(0).json();
    assert_eq!(shown["entries"], ENTRIES);
    // Not twice as large as it has to be.
    let segments = estimate["l2_segments"].as_u64().unwrap();
    let used = shown["segments"].as_array().unwrap().len() as u64;
    assert!(used + 2 >= segments * 9 / 10, "{used} of {segments} segments are used");
}

#[test]
fn an_estimate_is_told_as_text_and_impossible_entries_are_refused() {
    let size = ["size", "--entries", "1000000", "--key", "40", "--value", "2000"];
    let text = tamis(size).expect(0).stdout;
    for part in ["l1_bytes_max", "l2_bytes_max", "l2_index_bytes_max", "10 % of the entries"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    for bad in [
        ["--entries", "1", "--key", "40", "--value", "268435456"],
        ["--entries", "1", "--key", "99999", "--value", "1"],
        ["--entries", "-1", "--key", "9", "--value", "1"],
    ] {
        tamis(["size"].into_iter().chain(bad)).expect(2);
    }
}
