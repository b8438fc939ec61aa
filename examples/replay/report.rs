//! `Report`: what the runs have come to, as two tables: misses, and latencies.

use std::fmt;

use hdrhistogram::Histogram;

use crate::budget::Mode;
use crate::replay::Outcome;

/// Columns that name a run. They are in both tables, and the first is text.
const NAMES: [&str; 4] = ["trace", "mode", "cache size", "shards"];

const MISSES: [&str; 7] =
    ["objects", "requests", "misses", "miss ratio", "reference", "difference", "requests/s"];

const LATENCIES: [&str; 8] =
    ["hit p50", "hit p99", "hit p99.9", "hit max", "put p50", "put p99", "put p99.9", "put max"];

/// What a run was, beside its outcome.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) trace: &'a str,
    pub(crate) mode: Mode,
    pub(crate) cache_size: u64,
    pub(crate) requests: u64,
    /// The misses that a simulator counted.
    pub(crate) reference: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Report {
    misses: Table,
    latencies: Table,
}

impl Report {
    pub(crate) fn new() -> Self {
        let table = |columns: &[&str]| Table::new(NAMES.iter().chain(columns).copied());
        Self { misses: table(&MISSES), latencies: table(&LATENCIES) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.misses.rows.len() == 1
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
        self.misses.rows.push(misses);
        let mut latencies = names.to_vec();
        for histogram in [&tally.hit_latencies, &tally.put_latencies] {
            latencies.extend(quantiles(histogram));
        }
        self.latencies.rows.push(latencies);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}\n{}", self.misses, self.latencies)
    }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.3} %", 100.0 * part as f64 / whole as f64)
}

/// How far the miss ratio is from the reference, in points: hundredths of all requests.
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

/// A time with three digits or more.
fn time(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} us", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// Text in columns: the first to the left, the others to the right.
#[derive(Debug)]
struct Table {
    /// The header is the first.
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new<'a>(header: impl Iterator<Item = &'a str>) -> Self {
        Self { rows: vec![header.map(str::to_owned).collect()] }
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            for (column, cell) in row.iter().enumerate() {
                let width = self.width(column);
                match column {
                    0 => write!(formatter, "{cell:<width$}")?,
                    _ => write!(formatter, "  {cell:>width$}")?,
                }
            }
            writeln!(formatter)?;
        }
        Ok(())
    }
}
