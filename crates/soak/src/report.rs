//! `Report`: figures over time and in sum, as a line each, as a table, and as JSON.

use std::fmt::Write;
use std::fs;
use std::thread;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::Failure;
use crate::arguments::Arguments;
use crate::course::GROUPS;
use crate::resources::{Resources, Spread, histogram};
use crate::verb::Verb;

const VERBS: usize = Verb::ALL.len();

/// The most that the cache may take.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bounds {
    /// Beside what was resident before the open.
    pub(crate) resident: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// A stretch of time.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    /// At its end, since the beginning.
    pub(crate) seconds: f64,
    pub(crate) antagonist: bool,
    pub(crate) resources: Resources,
    pub(crate) calls_per_second: f64,
    pub(crate) l1_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) buffer_bytes: u64,
    /// Whether the disk tier works.
    pub(crate) is_on: bool,
    /// In the order of `Verb::ALL`.
    pub(crate) verbs: [Spread; VERBS],
}

impl Sample {
    /// All calls of these verbs: the largest of each figure, of p50 and p99 too.
    pub(crate) fn group(&self, verbs: &[Verb]) -> Spread {
        verbs.iter().map(|verb| self.verbs[verb.place()]).fold(Spread::default(), |sum, one| {
            Spread {
                calls: sum.calls + one.calls,
                p50: sum.p50.max(one.p50),
                p99: sum.p99.max(one.p99),
                worst: sum.worst.max(one.worst),
            }
        })
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    /// Hits and fetched values that were compared.
    pub(crate) checked: u64,
    pub(crate) wrong: u64,
    pub(crate) stale: u64,
    pub(crate) failed: u64,
    pub(crate) opens: u64,
    /// Records found by all opens.
    pub(crate) found: u64,
    pub(crate) written_bytes: u64,
    pub(crate) reclaimed: u64,
    pub(crate) corruptions: u64,
    pub(crate) io_errors: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) seconds: u64,
    pub(crate) tasks: usize,
    pub(crate) bounds: Bounds,
    /// Before the first open.
    pub(crate) idle: Resources,
    /// After each close.
    pub(crate) closed: Vec<Resources>,
    pub(crate) counts: Counts,
    pub(crate) samples: Vec<Sample>,
    /// Without the antagonist, and with it.
    #[serde(skip)]
    sums: [[Histogram<u64>; VERBS]; 2],
}

impl Report {
    pub(crate) fn new(arguments: &Arguments, bounds: Bounds, idle: Resources) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            kernel: kernel.trim().to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            seconds: arguments.seconds,
            tasks: arguments.tasks,
            bounds,
            idle,
            closed: Vec::new(),
            counts: Counts::default(),
            samples: Vec::new(),
            sums: std::array::from_fn(|_| std::array::from_fn(|_| histogram())),
        }
    }

    pub(crate) fn add(
        &mut self,
        sample: Sample,
        histograms: &[Histogram<u64>; VERBS],
    ) -> Result<(), Failure> {
        let sums = &mut self.sums[usize::from(sample.antagonist)];
        for (sum, histogram) in sums.iter_mut().zip(histograms) {
            sum.add(histogram)?;
        }
        self.samples.push(sample);
        Ok(())
    }

    /// Resident memory of the cache as a part of its bound.
    pub(crate) fn share(&self, resident: u64) -> f64 {
        resident.saturating_sub(self.idle.resident) as f64 / self.bounds.resident as f64
    }

    pub(crate) fn line(&self, sample: &Sample) -> String {
        let Resources { resident, descriptors, threads, .. } = sample.resources;
        let mut line = format!(
            "{:6.0} s {} {:4} MiB ({:.2} of the bound) {descriptors} fds {threads} threads {:7.0} \
             calls/s",
            sample.seconds,
            if sample.antagonist { "*" } else { " " },
            resident >> 20,
            self.share(resident),
            sample.calls_per_second
        );
        for (name, verbs) in GROUPS {
            let Spread { p50, p99, worst, .. } = sample.group(verbs);
            let (p99, worst) = (p99 as f64 / 1e3, worst as f64 / 1e3);
            // Into a string nothing fails.
            let _ = write!(line, " | {name} {p50} us, {p99:.1}, {worst:.1} ms");
        }
        line
    }

    /// All verbs, without the antagonist and with it; then throughput and latency over time.
    pub(crate) fn table(&self) -> String {
        let mut table =
            "| call | calls | p50, us | p99, ms | worst, ms | calls, antagonist | p50, us \
                         | p99, ms | worst, ms |\n| --- |"
                .to_owned();
        table += &" --- |".repeat(8);
        for verb in Verb::ALL {
            table += &format!("\n| {} |", verb.name());
            for sums in &self.sums {
                let Spread { calls, p50, p99, worst } = Spread::of(&sums[verb.place()]);
                let (p99, worst) = (p99 as f64 / 1e3, worst as f64 / 1e3);
                let _ = write!(table, " {calls} | {p50} | {p99:.1} | {worst:.0} |");
            }
        }
        table += "\n\n| time, s | resident, MiB | of the bound | descriptors | threads | calls/s | \
                  get p99, ms | worst | put p99, ms | worst |\n| --- |";
        table += &" --- |".repeat(9);
        for part in self.parts() {
            table += &format!("\n{}", self.part_line(part));
        }
        table + &format!("\n\n{:?}", self.counts)
    }

    /// Stretches of the samples: three without the antagonist and three with it.
    fn parts(&self) -> impl Iterator<Item = &[Sample]> {
        let quiet = self.samples.partition_point(|sample| !sample.antagonist);
        let (quiet, busy) = self.samples.split_at(quiet);
        let thirds = |half: &'_ [Sample]| half.len().div_ceil(3).max(1);
        quiet.chunks(thirds(quiet)).chain(busy.chunks(thirds(busy)))
    }

    fn part_line(&self, part: &[Sample]) -> String {
        let figures = |figure: fn(&Sample) -> u64| part.iter().map(figure);
        let least_most = |figure: fn(&Sample) -> u64| {
            let (least, most) = (figures(figure).min(), figures(figure).max());
            let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
            if least == most { format!("{least}") } else { format!("{least}–{most}") }
        };
        let resident = figures(|sample| sample.resources.resident).max().unwrap_or(0);
        let seconds = |sample: Option<&Sample>| sample.map_or(0.0, |sample| sample.seconds);
        let calls = part.iter().map(|sample| sample.calls_per_second).sum::<f64>();
        let mut line = format!(
            "| {:.0}–{:.0}{} | {} | {:.2} | {} | {} | {:.0} |",
            seconds(part.first()),
            seconds(part.last()),
            if part.iter().any(|sample| sample.antagonist) { ", antagonist" } else { "" },
            resident >> 20,
            self.share(resident),
            least_most(|sample| sample.resources.descriptors as u64),
            least_most(|sample| sample.resources.threads as u64),
            calls / part.len() as f64
        );
        for verb in [Verb::Get, Verb::Put] {
            let p99 = middle(part.iter().map(|sample| sample.verbs[verb.place()].p99));
            let worst = part.iter().map(|sample| sample.verbs[verb.place()].worst).max();
            let worst = worst.unwrap_or(0) as f64 / 1e3;
            let _ = write!(line, " {:.1} | {worst:.0} |", p99 as f64 / 1e3);
        }
        line
    }
}

/// The median, or 0 of none.
pub(crate) fn middle(figures: impl Iterator<Item = u64>) -> u64 {
    let mut figures: Vec<_> = figures.collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or(0)
}
