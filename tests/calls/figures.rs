//! `BlobCacheStats::figures`: every figure once, with what an exporter has to know of it.

use std::collections::{BTreeMap, BTreeSet};

use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, BlobCacheStats, CacheError, Figure,
    FigureKind, FigureUnit, L1Admission, NamespaceStats,
};

fn values(stats: &BlobCacheStats) -> BTreeMap<&'static str, f64> {
    stats.figures().map(|figure| (figure.name(), figure.value())).collect()
}

#[test]
fn each_figure_is_there_once_under_the_name_of_its_getter() {
    let stats = BlobCacheStats::default();
    let shown = format!("{stats:?}");
    // Histograms are no figures.
    let (shown, _) = shown.split_once(", latencies: ").unwrap();
    let fields = shown.trim_start_matches("BlobCacheStats { ");
    let fields: Vec<_> =
        fields.split(", ").map(|field| field.split_once(": ").unwrap().0.to_owned()).collect();
    let names: Vec<_> = stats.figures().map(|figure| figure.name().to_owned()).collect();
    assert_eq!(names, fields);
    assert_eq!(stats.figures().len(), values(&stats).len(), "no name appears twice");
}

fn all_figures() -> impl Iterator<Item = Figure> {
    BlobCacheStats::default().figures().chain(NamespaceStats::default().figures())
}

#[test]
fn names_for_exporters_are_each_other_s_and_say_kind_and_unit() {
    let mut names = BTreeSet::new();
    for figure in all_figures() {
        let name = figure.export_name();
        let is_counter = figure.kind() == FigureKind::Counter;
        assert_eq!(name.ends_with("_total"), is_counter, "{name}");
        assert!(figure.unit() != FigureUnit::Bytes || name.contains("bytes"), "{name}");
        assert!(figure.unit() != FigureUnit::Seconds || name.ends_with("_seconds"), "{name}");
        assert!(name.starts_with("tamis_") && !name.contains("_total_"), "{name}");
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
    for name in ["tamis_hits_total", "tamis_namespace_hits_total", "tamis_bytes_in_use"] {
        assert!(names.contains(name), "{name}");
    }
}

#[test]
fn each_figure_says_what_it_means() {
    for figure in all_figures() {
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
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0));
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

fn open_on_disk(folder: &tempfile::TempDir) -> BlobCache {
    let builder = BlobCacheConfig::builder()
        .l1_bytes_max(1 << 20)
        .l2_path(folder.path())
        .l2_engine(crate::engine::engine(0));
    let config = builder.l2_bytes_max(4 << 20).l2_segment_bytes(256 << 10).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

async fn fetched() -> Result<BlobCachePut, CacheError> {
    Ok(BlobCachePut::new("value"))
}

/// Hits and misses of two namespaces, and of the cache.
fn counts(cache: &BlobCache) -> [(u64, u64); 3] {
    let of = |name| cache.namespace_stats(name).map_or((0, 0), |it| (it.hits(), it.misses()));
    let all = cache.stats();
    [of("a"), of("b"), (all.hits(), all.misses())]
}

#[test]
fn each_namespace_counts_its_hits_and_misses_and_the_cache_counts_them_all() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = open_on_disk(&folder);
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    block_on(async {
        // No entry, no namespace.
        assert!(cache.get("a", "key").await.is_none());
        assert_eq!(counts(&cache), [(0, 0), (0, 0), (0, 1)]);
        cache.put("a", "key", "value").await.unwrap();
        let on_disk = BlobCachePut::new("value").with_policy(below);
        cache.put("b", "below", on_disk).await.unwrap();
        // In memory, on disk, by a handle; absent, too long, fetched, and found by a fetch.
        assert!(cache.get("a", "key").await.is_some());
        assert!(cache.get("b", "below").await.is_some());
        assert!(cache.namespace("a").get("key").await.is_some());
        assert!(cache.get("b", "none").await.is_none());
        assert!(cache.get("b", vec![0; 70_000]).await.is_none());
        cache.get_or_fetch("a", "fetched", fetched).await.unwrap();
        cache.get_or_fetch("a", "fetched", fetched).await.unwrap();
        assert_eq!(counts(&cache), [(3, 1), (1, 2), (4, 4)]);
        // A flush begins anew; the cache forgets nothing. Another name may take the place.
        cache.invalidate_namespace("a").await.unwrap();
        cache.put("c", "key", "value").await.unwrap();
        assert_eq!(cache.namespace_stats("c").unwrap().hits(), 0);
        cache.put("a", "key", "value").await.unwrap();
        assert!(cache.get("a", "key").await.is_some());
        assert_eq!(counts(&cache), [(1, 0), (1, 2), (5, 4)]);
        cache.invalidate_all().await.unwrap();
        cache.put("a", "key", "value").await.unwrap();
        assert_eq!(counts(&cache), [(0, 0), (0, 0), (5, 4)]);
        cache.close().await.unwrap();
        assert_eq!(counts(&cache)[2], (5, 4));
    });
    // After a restart counters begin at zero.
    let cache = open_on_disk(&folder);
    assert!(block_on(cache.get("a", "key")).is_some());
    assert_eq!(counts(&cache), [(1, 0), (0, 0), (1, 0)]);
    block_on(cache.close()).unwrap();
}

#[test]
fn latencies_count_what_was_not_answered_from_memory() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = open_on_disk(&folder);
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let count = |cache: &BlobCache| {
        let stats = cache.stats();
        let all = stats.latencies();
        [all.put().count(), all.l2_get().count(), all.fetch().count()]
    };
    block_on(async {
        let on_disk = BlobCachePut::new("value").with_policy(below);
        cache.put("a", "below", on_disk).await.unwrap();
        cache.put("a", "key", "value").await.unwrap();
        assert!(cache.put("a", vec![0; 70_000], "value").await.is_err());
        assert!(cache.get("a", "key").await.is_some());
        assert!(cache.get("a", "none").await.is_none());
        assert_eq!(count(&cache), [2, 0, 0], "memory answers");
        assert!(cache.get("a", "below").await.is_some());
        cache.get_or_fetch("a", "fetched", fetched).await.unwrap();
        let failing = || async { Err::<BlobCachePut, _>("down") };
        assert!(cache.get_or_fetch("a", "failed", failing).await.is_err());
        assert_eq!(count(&cache), [2, 1, 2]);
        cache.sync().await.unwrap();
    });
    let stats = cache.stats();
    let all = stats.latencies();
    assert!(all.l2_write().count() > 0 && all.l2_sync().count() > 0);
    assert!(all.l2_write().count() <= stats.l2_writes());
    assert!(all.put().sum() >= all.put().mean() && all.put().quantile(1.0) >= all.put().mean());
    block_on(cache.close()).unwrap();
}
