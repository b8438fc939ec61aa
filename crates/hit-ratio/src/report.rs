//! `Report`: the page, with one line for each trace, size and ratio.

use std::fmt::Write;
use std::path::Path;

use crate::reference::Others;
use crate::run::Outcome;

/// The policies of the table, by their names in the reference.
const POLICIES: [(&str, &str); 5] = [
    ("sieve", "SIEVE"),
    ("s3fifo", "S3-FIFO"),
    ("arc", "ARC"),
    ("lru", "LRU"),
    ("belady", "Belady"),
];

/// The best of these is the goal.
const GOAL: [&str; 3] = ["sieve", "s3fifo", "arc"];

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) points: Vec<Point>,
}

#[derive(Debug)]
pub(crate) struct Point {
    /// Of the reference.
    pub(crate) mode: &'static str,
    pub(crate) trace: String,
    pub(crate) part: f64,
    pub(crate) ratio: u64,
    pub(crate) outcome: Outcome,
    pub(crate) others: Others,
}

impl Point {
    fn best(&self) -> Option<f64> {
        GOAL.iter().filter_map(|policy| self.others.get(*policy)).copied().reduce(f64::min)
    }

    /// How many points more than the best of the others.
    fn distance(&self) -> Option<f64> {
        self.best().map(|best| self.outcome.misses - best)
    }

    pub(crate) fn line(&self) -> String {
        let Self { trace, part, ratio, outcome, others, .. } = self;
        let Outcome { misses, l1_hits, written, not_admitted, .. } = outcome;
        let mut line = format!("| {trace} | {} % | 1:{ratio} | {misses:.1} | ", 100.0 * part);
        let distance = self.distance().map_or("-".to_owned(), |it| format!("{it:+.1}"));
        line += &format!("{distance} | ");
        for (policy, _) in POLICIES {
            let cell = others.get(policy).map_or("-".to_owned(), |it| format!("{it:.1}"));
            line += &format!("{cell} | ");
        }
        line + &format!("{l1_hits:.1} | {not_admitted:.1} | {written:.2} |")
    }
}

impl Report {
    pub(crate) fn sort(&mut self) {
        self.points.sort_by(|left, right| {
            let order = left.trace.cmp(&right.trace);
            order.then(left.part.total_cmp(&right.part)).then(left.ratio.cmp(&right.ratio))
        });
    }

    pub(crate) fn page(&self, plot: &Path) -> String {
        let mut page = String::from(HEAD);
        let plot = plot.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(page, "![misses over size]({plot})\n");
        let mut head = "| trace | size | L1:L2 | tamis | to the best | ".to_owned();
        for (_, name) in POLICIES {
            head += &format!("{name} | ");
        }
        let _ = writeln!(page, "{head}hits in memory | not admitted | written |");
        let _ = writeln!(page, "|{}", " --- |".repeat(POLICIES.len() + 8));
        for point in &self.points {
            let _ = writeln!(page, "{}", point.line());
        }
        let distances: Vec<_> = self.points.iter().filter_map(Point::distance).collect();
        let near = distances.iter().filter(|it| **it <= 0.5).count();
        let sum: f64 = distances.iter().sum();
        #[allow(clippy::cast_precision_loss, reason = "some dozens")]
        let mean = sum / distances.len().max(1) as f64;
        let worst = distances.iter().copied().fold(0.0, f64::max);
        let written = self.points.iter().map(|point| point.outcome.written).fold(0.0, f64::max);
        let _ = writeln!(
            page,
            "\nOf {} points, {near} are within half a point of the best of SIEVE, S3-FIFO and \
             ARC, or below it.\nThe mean distance is {mean:.1} points, the longest {worst:.1}. At \
             most {written:.2} bytes are written for a byte\nmissed.",
            distances.len()
        );
        page + TAIL
    }
}

const HEAD: &str = include_str!("head.md");

const TAIL: &str = include_str!("tail.md");
