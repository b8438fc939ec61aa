//! `BlobCacheStats::figures`: every figure once, with what an exporter has to know of it.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeMap;

use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCacheStats, FigureKind, FigureUnit};

fn values(stats: &BlobCacheStats) -> BTreeMap<&'static str, f64> {
    stats.figures().map(|figure| (figure.name(), figure.value())).collect()
}

#[test]
fn each_figure_is_there_once_under_the_name_of_its_getter() {
    let stats = BlobCacheStats::default();
    let shown = format!("{stats:?}");
    let fields = shown.trim_start_matches("BlobCacheStats { ").trim_end_matches(" }");
    let fields: Vec<_> =
        fields.split(", ").map(|field| field.split_once(": ").unwrap().0.to_owned()).collect();
    let names: Vec<_> = stats.figures().map(|figure| figure.name().to_owned()).collect();
    assert_eq!(names, fields);
    assert_eq!(stats.figures().len(), values(&stats).len(), "no name appears twice");
}

#[test]
fn each_figure_says_what_it_means() {
    for figure in BlobCacheStats::default().figures() {
        let (name, help) = (figure.name(), figure.help());
        assert!(help.ends_with('.') && !help.contains(['\n', '[', ']']), "{name}: {help}");
        assert!(!help.contains("  ") && !help.starts_with(' '), "{name}: {help}");
        // An exporter shows each alone.
        let others = ["Of those", "Of the ", "of those records", "from it.", "to it."];
        assert!(!others.iter().any(|other| help.contains(other)), "{name}: {help}");
        let is_in_bytes = figure.unit() == FigureUnit::Bytes;
        let says_so = name.contains("bytes") || name.starts_with("l2_compressed");
        assert_eq!(is_in_bytes, says_so, "{name}");
        // A budget or a size that is a counter would make rates of nothing.
        let is_size = name.ends_with("_max") || name.contains("in_use") || name.contains("memory");
        assert!(!is_size || figure.kind() == FigureKind::Gauge, "{name}");
    }
}

#[test]
fn counters_count_and_gauges_follow() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(folder.path());
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    for _ in 0..3 {
        block_on(cache.put("space", "key", "value")).unwrap();
        assert!(block_on(cache.get("space", "key")).is_some());
    }
    block_on(cache.sync()).unwrap();
    let stats = cache.stats();
    let values = values(&stats);
    assert_eq!(values["insertions"], 3.0);
    assert_eq!((values["hits"], values["misses"]), (3.0, 0.0));
    assert_eq!((values["entries"], values["l2_state"]), (1.0, 1.0));
    assert!([1.0, 2.0].contains(&values["l2_engine"]));
    assert_eq!(values["l1_bytes_max"], f64::from(1 << 20));
    assert_eq!(values["recovery_from_image"], 0.0);
    assert_eq!(values["recovery_duration"], stats.recovery_duration().as_secs_f64());
    for figure in cache.stats().figures() {
        let is_less = figure.value() < values[figure.name()];
        assert!(!is_less || figure.kind() == FigureKind::Gauge, "{}", figure.name());
    }
    block_on(cache.invalidate_all()).unwrap();
    assert_eq!(cache.stats().entries(), 0);
    block_on(cache.close()).unwrap();
}
