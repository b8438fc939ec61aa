//! `Rates`: what a cache has done between two answers of its status socket.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::number::float;

/// When a cache was opened is the time an answer came less the uptime in it: the longer the answer
/// took, the later it seems. By so many seconds two answers of one cache may differ in that.
const OPENED_APART: f64 = 2.0;

/// One answer to `stats`.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) pid: Option<u64>,
    pub(super) uptime: f64,
    /// Seconds of the watcher's clock when it came.
    taken: f64,
    state: String,
    reason: Option<String>,
    figures: Map<String, Value>,
    /// Gets from disk by the upper bound of their time in nanoseconds; the last one has none.
    gets: BTreeMap<u64, u64>,
}

/// From one sample to the next. None: it did not happen, or the cache does not tell it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) interval: f64,
    pub(super) gets: Option<f64>,
    pub(super) l1_hit_pct: Option<f64>,
    pub(super) l2_hit_pct: Option<f64>,
    pub(super) puts: Option<f64>,
    pub(super) evictions: Option<f64>,
    pub(super) reads: Option<f64>,
    pub(super) read_bytes: Option<f64>,
    /// Infinite: longer than is measured.
    pub(super) get_p50: Option<f64>,
    pub(super) get_p99: Option<f64>,
    pub(super) write_bytes: Option<f64>,
    pub(super) amplification: Option<f64>,
    pub(super) l1_bytes: Option<f64>,
    pub(super) l2_bytes: Option<f64>,
    pub(super) errors: Option<f64>,
    pub(super) drops: Option<f64>,
    pub(super) state: String,
    pub(super) reason: Option<String>,
}

impl Sample {
    /// Of the object in an answer. What is missing there is not known.
    pub(super) fn new(stats: &Value, taken: f64) -> Self {
        let text = |member: &str| stats[member].as_str().map(str::to_owned);
        let buckets = stats["latencies"]["l2_get"]["buckets"].as_array();
        let bucket = |it: &Value| Some((it[0].as_u64().unwrap_or(u64::MAX), it[1].as_u64()?));
        Self {
            pid: stats["pid"].as_u64(),
            uptime: stats["uptime_seconds"].as_f64().unwrap_or_default(),
            taken,
            state: text("state").unwrap_or_default(),
            reason: text("reason"),
            figures: stats["figures"].as_object().cloned().unwrap_or_default(),
            gets: buckets.into_iter().flatten().filter_map(bucket).collect(),
        }
    }

    fn figure(&self, name: &str) -> Option<f64> {
        self.figures.get(name)?.as_f64()
    }

    /// Whether both are of one cache, and this is the later one. A process may have the number of
    /// the one before it, as the first of a container does: then its cache was opened later.
    pub(super) fn follows(&self, earlier: &Self) -> bool {
        let opened_later = (self.taken - self.uptime) - (earlier.taken - earlier.uptime);
        self.pid == earlier.pid && self.uptime > earlier.uptime && opened_later < OPENED_APART
    }

    /// The time in seconds that this share of the gets from disk since then has not exceeded.
    fn quantile(&self, earlier: &Self, share: f64) -> Option<f64> {
        let since = |(bound, count): (&u64, &u64)| {
            (*bound, count.saturating_sub(*earlier.gets.get(bound).unwrap_or(&0)))
        };
        let counts: Vec<_> = self.gets.iter().map(since).collect();
        let total: u64 = counts.iter().map(|(_, count)| count).sum();
        let mut below = 0;
        let found = counts.into_iter().find(|(_, count)| {
            below += count;
            *count > 0 && float(below) >= share * float(total)
        });
        found.map(|(bound, _)| match bound {
            u64::MAX => f64::INFINITY,
            nanos => float(nanos) / 1e9,
        })
    }

    /// What came since.
    pub(super) fn since(&self, earlier: &Self) -> Rates {
        let interval = self.uptime - earlier.uptime;
        let grown = |name: &str| Some((self.figure(name)? - earlier.figure(name)?).max(0.0));
        let rate = |name: &str| Some(grown(name)? / interval);
        let sum = |names: &[&str]| names.iter().map(|name| grown(name)).sum::<Option<f64>>();
        let gets = sum(&["tamis_hits_total", "tamis_misses_total"]);
        let (hits, on_disk) = (grown("tamis_hits_total"), grown("tamis_l2_hits_total"));
        let pct = |of: Option<f64>| Some(of? / gets.filter(|gets| *gets > 0.0)? * 100.0);
        let in_memory = hits.zip(on_disk).map(|(hits, on_disk)| (hits - on_disk).max(0.0));
        let written = grown("tamis_l2_write_bytes_total");
        let plain = written.zip(grown("tamis_l2_reinserted_bytes_total"));
        let plain = plain.map(|(written, again)| written - again).filter(|plain| *plain > 0.0);
        Rates {
            interval,
            gets: gets.map(|gets| gets / interval),
            l1_hit_pct: pct(in_memory),
            l2_hit_pct: pct(on_disk),
            puts: rate("tamis_insertions_total"),
            evictions: rate("tamis_evictions_total"),
            reads: rate("tamis_l2_reads_total"),
            read_bytes: rate("tamis_l2_read_bytes_total"),
            get_p50: self.quantile(earlier, 0.5),
            get_p99: self.quantile(earlier, 0.99),
            write_bytes: written.map(|written| written / interval),
            amplification: written.zip(plain).map(|(written, plain)| written / plain),
            l1_bytes: self.figure("tamis_bytes_in_use"),
            l2_bytes: self.figure("tamis_l2_bytes_in_use"),
            errors: sum(&[
                "tamis_l2_io_errors_total",
                "tamis_l2_corruptions_total",
                "tamis_fetch_errors_total",
            ]),
            drops: sum(&[
                "tamis_l2_full_rejections_total",
                "tamis_l2_not_admitted_total",
                "tamis_l2_write_rate_rejections_total",
            ]),
            state: self.state.clone(),
            reason: self.reason.clone(),
        }
    }

    /// The same as an object, with all figures.
    pub(super) fn object(&self, rates: &Rates) -> Value {
        json!({
            "pid": self.pid,
            "uptime_seconds": self.uptime,
            "interval_seconds": rates.interval,
            "gets_per_second": rates.gets,
            "l1_hit_pct": rates.l1_hit_pct,
            "l2_hit_pct": rates.l2_hit_pct,
            "puts_per_second": rates.puts,
            "evictions_per_second": rates.evictions,
            "l2_reads_per_second": rates.reads,
            "l2_read_bytes_per_second": rates.read_bytes,
            "l2_get_p50_seconds": rates.get_p50,
            "l2_get_p99_seconds": rates.get_p99,
            "l2_write_bytes_per_second": rates.write_bytes,
            "write_amplification": rates.amplification,
            "l1_bytes": rates.l1_bytes,
            "l2_bytes": rates.l2_bytes,
            "errors": rates.errors,
            "drops": rates.drops,
            "state": rates.state,
            "reason": rates.reason,
            "figures": self.figures,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(uptime: f64, figures: &Value, buckets: &Value) -> Sample {
        let stats = json!({
            "pid": 7,
            "uptime_seconds": uptime,
            "state": "healthy",
            "reason": null,
            "figures": figures,
            "latencies": { "l2_get": { "buckets": buckets } },
        });
        Sample::new(&stats, 1000.0 + uptime)
    }

    #[test]
    fn rates_are_those_of_the_interval() {
        let figures = |by: u64| {
            json!({
                "tamis_hits_total": 1000 + 80 * by,
                "tamis_misses_total": 500 + 20 * by,
                "tamis_l2_hits_total": 300 + 30 * by,
                "tamis_insertions_total": 40 * by,
                "tamis_l2_write_bytes_total": 1 + 1200 * by,
                "tamis_l2_reinserted_bytes_total": 200 * by,
                "tamis_bytes_in_use": 4096,
                "tamis_l2_io_errors_total": by,
                "tamis_l2_corruptions_total": 2,
                "tamis_fetch_errors_total": 3 * by,
            })
        };
        let earlier = sample(10.0, &figures(0), &json!([[1024, 5], [null, 1]]));
        let buckets = json!([[1024, 5], [2_000_000, 98], [8_000_000, 1], [null, 2]]);
        let later = sample(12.0, &figures(1), &buckets);
        assert!(later.follows(&earlier) && !earlier.follows(&later));
        let rates = later.since(&earlier);
        assert_eq!((rates.interval, rates.gets), (2.0, Some(50.0)));
        assert_eq!((rates.l1_hit_pct, rates.l2_hit_pct), (Some(50.0), Some(30.0)));
        assert_eq!((rates.puts, rates.evictions), (Some(20.0), None));
        assert_eq!((rates.write_bytes, rates.amplification), (Some(600.0), Some(1.2)));
        assert_eq!((rates.l1_bytes, rates.errors, rates.drops), (Some(4096.0), Some(4.0), None));
        assert_eq!((rates.get_p50, rates.get_p99), (Some(0.002), Some(0.008)));
        assert_eq!(later.quantile(&earlier, 1.0), Some(f64::INFINITY));
        let object = later.object(&rates);
        assert_eq!((&object["gets_per_second"], &object["drops"]), (&json!(50.0), &Value::Null));
        assert_eq!(object["figures"]["tamis_misses_total"], 520);
    }

    #[test]
    fn what_did_not_happen_is_not_told_as_zero() {
        let none =
            sample(1.0, &json!({ "tamis_hits_total": 3, "tamis_misses_total": 4 }), &json!([]));
        let later = Sample { uptime: 2.0, taken: none.taken + 1.0, ..none.clone() };
        assert!(later.follows(&none));
        let rates = later.since(&none);
        assert_eq!((rates.gets, rates.l1_hit_pct, rates.get_p50), (Some(0.0), None, None));
        assert_eq!((rates.amplification, rates.write_bytes), (None, None));
        // A cache that was opened since, by the same process or another one.
        assert!(!Sample { pid: Some(8), ..later.clone() }.follows(&none));
        assert!(!Sample { uptime: 0.5, ..later.clone() }.follows(&none));
        assert!(
            !Sample { taken: none.taken + 60.0, ..later }.follows(&none),
            "it has had a shorter life"
        );
        assert_eq!(Sample::new(&json!({ "figures": [] }), 0.0).since(&none).puts, None);
    }
}
