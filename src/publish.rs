//! `BlobCacheMetrics`: gives the statistics of a cache to the recorder of the `metrics` facade.
//!
//! Calls of the cache count nothing here. All is read from `stats()` when it is asked for, and a
//! recorder, which is the user's code, is called without a lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::{fmt, mem};

use metrics::{Key, Label, Level, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use crate::cache::BlobCache;
use crate::engine::Engine;
use crate::figures::{Figure, FigureKind, FigureUnit};
use crate::latency::Latency;
use crate::stats::{LatencyStats, NamespaceStats};

static METADATA: Metadata<'static> = Metadata::new("tamis", Level::INFO, Some(module_path!()));

/// The histograms: name, a further label, help, and where they are.
type Timed = (
    &'static str,
    Option<(&'static str, &'static str)>,
    &'static str,
    fn(&LatencyStats) -> &Latency,
);

const TIMED: [Timed; 5] = [
    (
        "tamis_get_seconds",
        Some(("tier", "l2")),
        "Hits on disk. Hits in memory are not measured.",
        |all| &all.l2_get,
    ),
    ("tamis_put_seconds", None, "Puts that stored an entry.", |all| &all.put),
    ("tamis_fetch_seconds", None, "Fetches, failed ones included.", |all| &all.fetch),
    ("tamis_flush_seconds", Some(("operation", "write")), "Writes and syncs of the log.", |all| {
        &all.l2_write
    }),
    ("tamis_flush_seconds", Some(("operation", "sync")), "Writes and syncs of the log.", |all| {
        &all.l2_sync
    }),
];

/// Publishes the statistics of a cache through the [`metrics`] facade, with the feature `metrics`.
///
/// [`publish`](Self::publish) reads [`stats`](BlobCache::stats) and gives every figure to the
/// recorder of the process, under its [`export_name`](Figure::export_name) and a label `cache`;
/// with [`with_namespaces`](Self::with_namespaces) the figures of those, too, with a label
/// `namespace`; and latencies as histograms in seconds: `tamis_get_seconds` of hits on disk,
/// `tamis_put_seconds`, `tamis_fetch_seconds`, and `tamis_flush_seconds` of the log's writes and
/// syncs. Call it when the recorder is scraped, or from a timer. The calls of the cache themselves
/// gain nothing by it.
///
/// It does not keep the cache open.
///
/// ```
/// # futures::executor::block_on(async {
/// use tamis::{BlobCache, BlobCacheConfig, BlobCacheMetrics};
///
/// // Once, at the start, after the recorder is installed:
/// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// let metrics = BlobCacheMetrics::new(&cache, "main").with_namespaces(["pages"]);
/// // At each scrape:
/// assert!(metrics.publish());
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
pub struct BlobCacheMetrics {
    engine: Weak<Engine>,
    cache: SharedString,
    namespaces: Vec<String>,
    published: Mutex<Published>,
}

/// What the recorder knows of what only grows there and may begin anew here, and of histograms.
#[derive(Default)]
struct Published {
    latencies: LatencyStats,
    /// Hits and misses by namespace.
    namespaces: BTreeMap<String, (u64, u64)>,
}

/// Something with labels, on its way to a recorder.
struct Publishing<'a> {
    recorder: &'a dyn Recorder,
    labels: Vec<Label>,
}

impl BlobCacheMetrics {
    /// Of a cache, under a name that tells it from others of the process.
    #[must_use]
    pub fn new(cache: &BlobCache, name: impl Into<String>) -> Self {
        let engine = Arc::downgrade(&cache.engine);
        let cache = SharedString::from(name.into());
        Self { engine, cache, namespaces: Vec::new(), published: Mutex::default() }
    }

    /// Publishes the figures of these namespaces as well. Each is a time series more for every
    /// figure, so they are chosen, and not all that there are. While one is not in use, its gauges
    /// are zero and its counters stay. Of a namespace that is flushed, the hits since the call
    /// before may be missing.
    #[must_use]
    pub fn with_namespaces<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        // Bounded: by the names of the caller.
        self.namespaces.extend(names.into_iter().map(Into::into));
        self
    }

    /// Gives the current statistics to the recorder that is installed, or to the local one of this
    /// thread. Returns false once the cache has been dropped. Works after a close.
    ///
    /// Takes a microsecond for each figure, and longer where many calls were measured since the
    /// last time: a recorder is told of each of them. Histograms that were measured while no
    /// recorder was installed are lost. A panic of the recorder is the caller's.
    pub fn publish(&self) -> bool {
        let Some(engine) = self.engine.upgrade() else { return false };
        let stats = engine.stats().all();
        // Bounded: by the names of the caller.
        let namespaces: Vec<_> = self
            .namespaces
            .iter()
            .map(|name| (name, engine.stats().of_namespace(name).unwrap_or_default()))
            .collect();
        let (before, grown) = {
            let mut published = self.published.lock();
            let before = mem::replace(&mut published.latencies, stats.latencies.clone());
            // Bounded: by the names of the caller.
            let grown: Vec<_> =
                namespaces.iter().map(|(name, now)| published.grown(name, now)).collect();
            (before, grown)
        };
        metrics::with_recorder(|recorder| {
            let of_cache = Publishing::new(recorder, &[("cache", self.cache.clone())]);
            // Bounded: by the figures.
            for figure in stats.figures() {
                of_cache.figure(figure, None);
            }
            // Bounded: by the names of the caller.
            for ((name, now), grown) in namespaces.iter().zip(grown) {
                let namespace = SharedString::from((*name).clone());
                let labels = [("cache", self.cache.clone()), ("namespace", namespace)];
                let of_namespace = Publishing::new(recorder, &labels);
                // Bounded: by the figures.
                for figure in now.figures() {
                    let is_hits = figure.name() == "hits";
                    let more = if is_hits { grown.0 } else { grown.1 };
                    of_namespace.figure(figure, Some(more));
                }
            }
            // Bounded: a constant.
            for (name, label, help, of) in TIMED {
                of_cache.latency((name, label, help), of(&before), of(&stats.latencies));
            }
        });
        true
    }
}

impl fmt::Debug for BlobCacheMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlobCacheMetrics")
            .field("cache", &self.cache)
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

/// A counter, which is a whole number below 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}

impl Published {
    /// How far the counters of a namespace have grown, which begin at zero when it is flushed.
    fn grown(&mut self, name: &str, now: &NamespaceStats) -> (u64, u64) {
        let now = (now.hits, now.misses);
        let before = self.namespaces.insert(name.to_owned(), now).unwrap_or_default();
        let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
        (grown(before.0, now.0), grown(before.1, now.1))
    }
}

impl<'a> Publishing<'a> {
    fn new(recorder: &'a dyn Recorder, labels: &[(&'static str, SharedString)]) -> Self {
        // Bounded: by two.
        let labels = labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
        Self { recorder, labels }
    }

    /// `grown`: of a counter that may begin anew.
    fn figure(&self, figure: Figure, grown: Option<u64>) {
        let name = figure.export_name();
        let unit = match figure.unit() {
            FigureUnit::Number => Unit::Count,
            FigureUnit::Bytes => Unit::Bytes,
            FigureUnit::Seconds => Unit::Seconds,
        };
        let (unit, help) = (Some(unit), SharedString::const_str(figure.help()));
        let key = Key::from_parts(name.clone(), self.labels.clone());
        match figure.kind() {
            FigureKind::Counter => {
                self.recorder.describe_counter(name.into(), unit, help);
                let counter = self.recorder.register_counter(&key, &METADATA);
                match grown {
                    Some(grown) => counter.increment(grown),
                    None => counter.absolute(whole(figure.value())),
                }
            }
            FigureKind::Gauge => {
                self.recorder.describe_gauge(name.into(), unit, help);
                self.recorder.register_gauge(&key, &METADATA).set(figure.value());
            }
        }
    }

    fn latency(
        &self,
        (name, label, help): (&'static str, Option<(&'static str, &'static str)>, &'static str),
        before: &Latency,
        now: &Latency,
    ) {
        let mut labels = self.labels.clone();
        // Bounded: by one.
        labels.extend(label.map(|(name, value)| Label::from_static_parts(name, value)));
        self.recorder.describe_histogram(name.into(), Some(Unit::Seconds), help.into());
        let key = Key::from_parts(name, labels);
        let histogram = self.recorder.register_histogram(&key, &METADATA);
        let mut known = before.buckets().map(|(_, count)| count);
        // Bounded: by the buckets.
        for (bound, count) in now.buckets() {
            let more = count.saturating_sub(known.next().unwrap_or(0));
            if more > 0 {
                let seconds = bound.min(Latency::LONGEST).as_secs_f64();
                histogram.record_many(seconds, usize::try_from(more).unwrap_or(usize::MAX));
            }
        }
    }
}
