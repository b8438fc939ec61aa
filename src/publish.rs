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
use crate::stats::LatencyStats;

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
        "Values read from disk. Hits in memory are not measured.",
        |all| &all.l2_get,
    ),
    ("tamis_put_seconds", None, "Puts that returned without an error.", |all| &all.put),
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
/// `namespace`; and latencies as histograms in seconds: `tamis_get_seconds` of reads from disk,
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

/// What was given to the recorder. What only grows there may begin anew here: a cache that is
/// opened again under the same name, and a namespace that is flushed.
#[derive(Default)]
struct Published {
    latencies: LatencyStats,
    counters: BTreeMap<&'static str, u64>,
    /// By namespace.
    namespaces: Vec<BTreeMap<&'static str, u64>>,
}

/// A figure, and how far it has grown if it is a counter.
type Grown = (Figure, u64);

/// What is given to the recorder now.
struct News {
    before: LatencyStats,
    latencies: LatencyStats,
    figures: Vec<Grown>,
    /// By namespace.
    namespaces: Vec<Vec<Grown>>,
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
    /// last time: a recorder is told of each of them. What has grown is told once: without a
    /// recorder it is lost, and a second recorder begins at zero. A panic of the recorder is the
    /// caller's.
    pub fn publish(&self) -> bool {
        let Some(engine) = self.engine.upgrade() else { return false };
        let news = self.news(&engine);
        metrics::with_recorder(|recorder| {
            let of_cache = Publishing::new(recorder, &[("cache", self.cache.clone())]);
            // Bounded: by the figures.
            for (figure, grown) in news.figures {
                of_cache.figure(figure, grown);
            }
            // Bounded: by the names of the caller.
            for (name, figures) in self.namespaces.iter().zip(news.namespaces) {
                let namespace = SharedString::from(name.clone());
                let labels = [("cache", self.cache.clone()), ("namespace", namespace)];
                let of_namespace = Publishing::new(recorder, &labels);
                // Bounded: by the figures.
                for (figure, grown) in figures {
                    of_namespace.figure(figure, grown);
                }
            }
            // Bounded: a constant.
            for (name, label, help, of) in TIMED {
                of_cache.latency((name, label, help), of(&news.before), of(&news.latencies));
            }
        });
        true
    }

    /// Reads the statistics, and remembers them as published. One caller after the other, or one
    /// would give again what another has given.
    fn news(&self, engine: &Engine) -> News {
        let mut published = self.published.lock();
        let published = &mut *published;
        let stats = engine.stats().all();
        published.namespaces.resize_with(self.namespaces.len(), BTreeMap::new);
        // Bounded: by the names of the caller.
        let namespaces = self.namespaces.iter().zip(&mut published.namespaces);
        let namespaces = namespaces.map(|(name, before)| {
            let now = engine.stats().of_namespace(name).unwrap_or_default();
            grown(now.figures(), before)
        });
        // Bounded: by the names of the caller.
        let namespaces = namespaces.collect();
        News {
            namespaces,
            figures: grown(stats.figures(), &mut published.counters),
            before: mem::replace(&mut published.latencies, stats.latencies.clone()),
            latencies: stats.latencies,
        }
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

/// Figures with how far the counters among them have grown since `before`, or since they began
/// anew.
fn grown(
    figures: impl Iterator<Item = Figure>,
    before: &mut BTreeMap<&'static str, u64>,
) -> Vec<Grown> {
    let grown = |figure: Figure| {
        let now = if figure.kind() == FigureKind::Counter { whole(figure.value()) } else { 0 };
        let before = before.insert(figure.name(), now).unwrap_or(0);
        (figure, now.checked_sub(before).unwrap_or(now))
    };
    // Bounded: by the figures.
    figures.map(grown).collect()
}

impl<'a> Publishing<'a> {
    fn new(recorder: &'a dyn Recorder, labels: &[(&'static str, SharedString)]) -> Self {
        // Bounded: by two.
        let labels = labels.iter().map(|(name, value)| Label::new(*name, value.clone())).collect();
        Self { recorder, labels }
    }

    /// `grown`: of a counter.
    fn figure(&self, figure: Figure, grown: u64) {
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
                self.recorder.register_counter(&key, &METADATA).increment(grown);
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
