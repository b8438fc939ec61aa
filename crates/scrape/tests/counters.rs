//! Counters in the recorder equal what the caches have counted, however often and from wherever
//! they are published.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::thread;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tamis::{BlobCache, BlobCacheConfig, BlobCacheMetrics};
use tokio::runtime::Builder;

fn block_on<T>(call: impl Future<Output = T>) -> T {
    Builder::new_current_thread().build().unwrap().block_on(call)
}

fn open() -> BlobCache {
    block_on(BlobCache::open(BlobCacheConfig::default())).unwrap()
}

fn hit(cache: &BlobCache, times: usize) {
    block_on(cache.put("pages", "k", "value")).unwrap();
    for _ in 0..times {
        assert!(block_on(cache.get("pages", "k")).is_some());
    }
}

/// The value of a series, by the beginning of its line.
fn value(handle: &PrometheusHandle, series: &str) -> u64 {
    let text = handle.render();
    let line = text.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

const HITS: &str = "tamis_hits_total{cache=\"main\"}";

const HITS_OF_PAGES: &str = "tamis_namespace_hits_total{cache=\"main\",namespace=\"pages\"}";

#[test]
fn a_cache_that_is_opened_again_counts_on() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    for (times, all) in [(7, 7), (3, 10)] {
        let cache = open();
        hit(&cache, times);
        let metrics = BlobCacheMetrics::new(&cache, "main").with_namespaces(["pages"]);
        metrics::with_local_recorder(&recorder, || assert!(metrics.publish()));
        assert_eq!((value(&handle, HITS), value(&handle, HITS_OF_PAGES)), (all, all));
    }
}

#[test]
fn what_is_published_at_one_time_counts_once() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let cache = open();
    let metrics = BlobCacheMetrics::new(&cache, "main").with_namespaces(["pages"]);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    hit(&cache, 5);
                    metrics::with_local_recorder(&recorder, || assert!(metrics.publish()));
                }
            });
        }
    });
    metrics::with_local_recorder(&recorder, || assert!(metrics.publish()));
    assert_eq!(value(&handle, HITS), 4 * 200 * 5);
    assert_eq!(value(&handle, HITS_OF_PAGES), 4 * 200 * 5);
    assert_eq!(value(&handle, "tamis_put_seconds_count{cache=\"main\"}"), 4 * 200);
}
