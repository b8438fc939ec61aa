//! `Latency`: how long calls of a kind took, as a histogram; `Stopwatches` count into them.
//!
//! Buckets are log-linear: four for each doubling, from a microsecond to two minutes, so a quantile
//! is at most a quarter too high. A count is two relaxed additions to a stripe that few threads
//! share. A hit in memory is not measured: to read the clock twice would double what it takes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use crate::thread_number::thread_number;

/// Shorter times are in the first bucket: 2^10 nanoseconds.
const LEAST_BITS: u32 = 10;

/// Longer times are in the last bucket: 2^37 nanoseconds.
const MOST_BITS: u32 = 37;

/// Buckets of a doubling, as a power of two.
const STEP_BITS: u32 = 2;

const BUCKETS: usize = (((MOST_BITS - LEAST_BITS) << STEP_BITS) + 2) as usize;

const STRIPES: usize = 4;

/// How long calls of a kind took. A snapshot, cheap to clone.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// cache.put("pages", "/index", "<h1>Tamis</h1>").await?;
/// let stats = cache.stats();
/// let puts = stats.latencies().put();
/// assert_eq!(puts.count(), 1);
/// assert!(puts.quantile(0.99) >= puts.mean() || puts.quantile(0.99) <= puts.sum() * 2);
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Latency {
    /// By bucket, up to the last one in use.
    counts: Box<[u64]>,
    sum: Duration,
}

impl Latency {
    /// The upper bound of the last bucket but one.
    #[cfg(feature = "metrics")]
    pub(crate) const LONGEST: Duration = Duration::from_nanos(1 << MOST_BITS);

    /// The number of calls.
    #[must_use]
    pub fn count(&self) -> u64 {
        // Bounded: by the buckets.
        self.counts.iter().sum()
    }

    /// The time of all calls together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The mean; zero without calls.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = self.sum.as_nanos().checked_div(self.count().into()).unwrap_or(0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The time that this share of the calls did not exceed, up to a quarter too high: `0.5` is the
    /// median, `0.99` the 99th percentile. Zero without calls. Times below a microsecond count as
    /// one, those over two minutes as [`Duration::MAX`].
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn quantile(&self, share: f64) -> Duration {
        let count = self.count();
        if count == 0 {
            return Duration::ZERO;
        }
        let wanted = share.clamp(0.0, 1.0) * count as f64;
        let mut below = 0;
        // Bounded: by the buckets.
        let found = self.counts.iter().position(|&count| {
            below += count;
            count > 0 && below as f64 >= wanted
        });
        bound(found.unwrap_or(BUCKETS - 1))
    }

    /// Each bucket with its upper bound and the number of calls in it, in ascending order, without
    /// empty ones at the end. The last bound is [`Duration::MAX`]. Bounds are the same in every
    /// snapshot.
    pub fn buckets(&self) -> impl ExactSizeIterator<Item = (Duration, u64)> + '_ {
        self.counts.iter().enumerate().map(|(bucket, &count)| (bound(bucket), count))
    }
}

/// As `count`, `sum`, and quantiles.
impl fmt::Debug for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Latency")
            .field("count", &self.count())
            .field("sum", &self.sum)
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("p999", &self.quantile(0.999))
            .finish()
    }
}

/// The same.
#[cfg(feature = "serde")]
impl serde::Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        let mut fields = serializer.serialize_struct("Latency", 5)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum", &self.sum)?;
        fields.serialize_field("p50", &self.quantile(0.5))?;
        fields.serialize_field("p99", &self.quantile(0.99))?;
        fields.serialize_field("p999", &self.quantile(0.999))?;
        fields.end()
    }
}

/// The upper bound of a bucket.
fn bound(bucket: usize) -> Duration {
    if bucket + 1 == BUCKETS {
        return Duration::MAX;
    }
    let (octave, step) = (bucket >> STEP_BITS, bucket & ((1 << STEP_BITS) - 1));
    let start = 1_u64 << (LEAST_BITS as usize + octave);
    Duration::from_nanos(start + ((start >> STEP_BITS) * step as u64))
}

/// The first bucket whose bound is not below.
fn bucket(nanos: u64) -> usize {
    if nanos <= 1 << LEAST_BITS {
        return 0;
    }
    let before = nanos - 1;
    let octave = before.ilog2();
    if octave >= MOST_BITS {
        return BUCKETS - 1;
    }
    let step = (before >> (octave - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    (((octave - LEAST_BITS) << STEP_BITS) as usize) + step as usize + 1
}

struct Stripe {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// Counts calls of a kind.
pub(crate) struct Histogram(Box<[CachePadded<Stripe>]>);

impl Default for Histogram {
    fn default() -> Self {
        let zeroes = || [const { AtomicU64::new(0) }; BUCKETS];
        let stripe = || CachePadded::new(Stripe { counts: zeroes(), nanos: 0.into() });
        // Bounded: by a constant.
        Self((0..STRIPES).map(|_| stripe()).collect())
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(formatter)
    }
}

impl Histogram {
    /// Counts a call that began at `begun` and ends now.
    pub(crate) fn count(&self, begun: Instant) {
        self.add(begun.elapsed());
    }

    fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let stripe = &self.0[thread_number() % STRIPES];
        stripe.counts[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        stripe.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Latency {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let of = |bucket: usize| {
            // Bounded: by a constant.
            self.0.iter().map(|stripe| load(&stripe.counts[bucket])).sum::<u64>()
        };
        // Bounded: by the buckets.
        let used = (0..BUCKETS).rev().find(|&bucket| of(bucket) > 0);
        // Bounded: by the buckets.
        let counts = (0..used.map_or(0, |last| last + 1)).map(of).collect();
        // Bounded: by a constant.
        let nanos = self.0.iter().fold(0_u64, |sum, it| sum.wrapping_add(load(&it.nanos)));
        Latency { counts, sum: Duration::from_nanos(nanos) }
    }
}

/// The histograms of a cache that its callers' calls count into.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) l2_get: Histogram,
    pub(crate) put: Histogram,
    pub(crate) fetch: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_in_the_first_bucket_that_bounds_it() {
        let mut bounds: Vec<_> = (0..BUCKETS).map(bound).collect();
        assert!(bounds.is_sorted_by(|left, right| left < right));
        let around = |time: Duration| [time.as_nanos() - 1, time.as_nanos(), time.as_nanos() + 1];
        bounds.pop();
        for nanos in bounds.iter().copied().flat_map(around) {
            let nanos = u64::try_from(nanos).unwrap();
            let (found, time) = (bucket(nanos), Duration::from_nanos(nanos));
            assert!(time <= bound(found), "{nanos}");
            assert!(found == 0 || time > bound(found - 1), "{nanos}");
            assert!(
                found == 0
                    || found + 1 == BUCKETS
                    || bound(found) <= time * 5 / 4 + Duration::from_nanos(2),
                "{nanos}"
            );
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn counts_sums_and_quantiles_are_of_what_was_added_by_all_threads() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot(), Latency::default());
        assert_eq!(histogram.snapshot().quantile(0.5), Duration::ZERO);
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| {
                    (0..90).for_each(|_| histogram.add(Duration::from_millis(1)));
                    (0..10).for_each(|_| histogram.add(Duration::from_secs(1)));
                });
            }
        });
        let found = histogram.snapshot();
        assert_eq!((found.count(), found.sum()), (1000, Duration::from_millis(100_900)));
        assert_eq!(found.mean(), Duration::from_nanos(100_900_000));
        let is_near = |found: Duration, wanted| found >= wanted && found <= wanted * 5 / 4;
        assert!(is_near(found.quantile(0.5), Duration::from_millis(1)));
        assert!(is_near(found.quantile(0.9), Duration::from_millis(1)));
        assert!(is_near(found.quantile(0.91), Duration::from_secs(1)));
        assert!(is_near(found.quantile(7.0), Duration::from_secs(1)));
        assert_eq!(found.buckets().map(|(_, count)| count).sum::<u64>(), 1000);
        histogram.add(Duration::from_secs(1000));
        assert_eq!(histogram.snapshot().quantile(1.0), Duration::MAX);
    }
}
