//! `Report`: the results of the runs as tables: misses, misses of other policies, and latencies.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;

use crate::budget::Mode;
use crate::replay::Outcome;
use crate::table::Table;
use crate::tiers::{self, TwoTiers};

/// Columns that identify a run, in both tables. The first is text.
const NAMES: [&str; 4] = ["trace", "mode", "cache size", "shards"];

const MISSES: [&str; 7] =
    ["objects", "requests", "misses", "miss ratio", "reference", "difference", "requests/s"];

const LATENCIES: [&str; 8] =
    ["hit p50", "hit p99", "hit p99.9", "hit max", "put p50", "put p99", "put p99.9", "put max"];

const TIERS: [&str; 13] = [
    "trace",
    "L1",
    "L2",
    "reinsertion",
    "requests",
    "L1 hits",
    "L2 hits",
    "misses",
    "not admitted",
    "requests/s",
    "read",
    "written",
    "write ampl.",
];

const TIER_LATENCIES: [&str; 12] = [
    "trace",
    "L1",
    "L2",
    "reinsertion",
    "L1 hit p50",
    "p99",
    "L2 hit p50",
    "p99",
    "miss p50",
    "p99",
    "put p50",
    "p99",
];

/// Policies with one cache as large as both tiers, by their names in the reference.
const OTHERS: [(&str, &str); 5] = [
    ("sieve", "SIEVE"),
    ("s3fifo", "S3-FIFO"),
    ("arc", "ARC"),
    ("lru", "LRU"),
    ("belady", "Belady"),
];

/// The best of these is the one to reach.
const BEST_OF: [&str; 3] = ["sieve", "s3fifo", "arc"];

/// The parameters of a run.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) trace: &'a str,
    pub(crate) mode: Mode,
    pub(crate) cache_size: u64,
    pub(crate) requests: u64,
    /// The misses counted by a simulator.
    pub(crate) reference: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Report {
    misses: Table,
    latencies: Table,
    tiers: Table,
    beside: Table,
    tier_latencies: Table,
}

impl Report {
    pub(crate) fn new() -> Self {
        let table = |columns: &[&str]| Table::new(&[&NAMES, columns].concat());
        let (tiers, tier_latencies) = (Table::new(&TIERS), Table::new(&TIER_LATENCIES));
        let others = OTHERS.map(|(_, name)| name);
        let beside = ["trace", "L1", "L2", "reinsertion", "misses"];
        let beside = Table::new(&[&beside[..], &others, &["to the best"]].concat());
        Self { misses: table(&MISSES), latencies: table(&LATENCIES), tiers, beside, tier_latencies }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.misses.is_empty() && self.tiers.is_empty()
    }

    /// A run over two tiers.
    pub(crate) fn add_two_tiers(
        &mut self,
        trace: &str,
        run: &TwoTiers,
        tiers::Outcome { elapsed, tally, stats }: &tiers::Outcome,
        others: &BTreeMap<String, u64>,
    ) {
        let second_chances = if run.second_chances { "yes" } else { "no" };
        let names = [
            trace.to_owned(),
            mebibytes(run.l1_bytes),
            mebibytes(stats.l2_bytes_max()),
            second_chances.to_owned(),
        ];
        let requests = tally.l1.len() + tally.l2.len() + tally.misses.len();
        let per_second = requests as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let amplification = stats.l2_write_bytes() as f64 / tally.put_bytes.max(1) as f64;
        let mut row = names.to_vec();
        row.extend([
            requests.to_string(),
            percent(tally.l1.len(), requests),
            percent(tally.l2.len(), requests),
            percent(tally.misses.len(), requests),
            percent(stats.l2_not_admitted(), requests),
            format!("{per_second:.0}"),
            mebibytes(stats.l2_read_bytes()),
            mebibytes(stats.l2_write_bytes()),
            format!("{amplification:.3}"),
        ]);
        self.tiers.row(row);
        if !others.is_empty() {
            let misses = tally.misses.len();
            let best = BEST_OF.iter().filter_map(|policy| others.get(*policy)).min();
            let of_policy = |policy: &str| others.get(policy).map(|it| percent(*it, requests));
            let unknown = || "-".to_owned();
            let mut row = names.to_vec();
            row.push(percent(misses, requests));
            row.extend(OTHERS.map(|(policy, _)| of_policy(policy).unwrap_or_else(unknown)));
            row.push(best.map_or_else(unknown, |best| difference(misses, *best, requests)));
            self.beside.row(row);
        }
        let mut latencies = names.to_vec();
        for histogram in [&tally.l1, &tally.l2, &tally.misses, &tally.puts] {
            let [p50, p99, ..] = quantiles(histogram);
            latencies.extend([p50, p99]);
        }
        self.tier_latencies.row(latencies);
    }

    pub(crate) fn add(&mut self, subject: &Subject<'_>, outcome: &Outcome) {
        let names = [
            subject.trace.to_owned(),
            subject.mode.name().to_owned(),
            subject.cache_size.to_string(),
            outcome.shards.to_string(),
        ];
        let (requests, tally) = (subject.requests, &outcome.tally);
        let per_second = requests as f64 / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let mut misses = names.to_vec();
        misses.extend([
            outcome.objects.to_string(),
            requests.to_string(),
            tally.misses.to_string(),
            percent(tally.misses, requests),
            subject.reference.map_or("-".to_owned(), |misses| misses.to_string()),
            subject
                .reference
                .map_or("-".to_owned(), |reference| difference(tally.misses, reference, requests)),
            format!("{per_second:.0}"),
        ]);
        self.misses.row(misses);
        let mut latencies = names.to_vec();
        for histogram in [&tally.hit_latencies, &tally.put_latencies] {
            latencies.extend(quantiles(histogram));
        }
        self.latencies.row(latencies);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.misses.is_empty() {
            write!(formatter, "{}\n{}", self.misses, self.latencies)?;
        }
        if !self.tiers.is_empty() {
            writeln!(formatter, "{}", self.tiers)?;
            if !self.beside.is_empty() {
                writeln!(formatter, "One cache of the same size:\n{}", self.beside)?;
            }
            write!(formatter, "{}", self.tier_latencies)?;
        }
        Ok(())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.3} %", 100.0 * part as f64 / whole as f64)
}

/// The difference of the miss ratio from the reference, in percentage points.
fn difference(misses: u64, reference: u64, requests: u64) -> String {
    if misses == reference {
        return "none".to_owned();
    }
    format!("{:+.3}", 100.0 * (misses as f64 - reference as f64) / requests as f64)
}

fn quantiles(latencies: &Histogram<u64>) -> [String; 4] {
    if latencies.is_empty() {
        return ["-"; 4].map(str::to_owned);
    }
    let at = |quantile| time(latencies.value_at_quantile(quantile));
    [at(0.5), at(0.99), at(0.999), time(latencies.max())]
}

/// A time with at least three digits.
fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} us", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}
