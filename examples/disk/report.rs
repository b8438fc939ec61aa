//! Output: tables, spreads, the machine's load, and progress.

use std::fmt;
use std::fs;
use std::thread::available_parallelism;

use indicatif::{ProgressBar, ProgressStyle};

use crate::Error;

/// A text table: the first column left-aligned, the others right-aligned.
#[derive(Debug)]
pub(crate) struct Table {
    /// The first row is the header.
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Self { rows: Vec::new() };
        table.row(header.iter().map(|&cell| cell.to_owned()));
        table
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
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

/// Repeated measurements of one quantity.
#[derive(Debug, Clone, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    pub(crate) fn push(&mut self, value: f64) {
        let place = self.0.partition_point(|other| *other < value);
        self.0.insert(place, value);
    }

    /// Median, minimum and maximum, with that many digits; empty without measurements.
    pub(crate) fn show(&self, digits: usize) -> String {
        let (Some(least), Some(most)) = (self.0.first(), self.0.last()) else {
            return "-".to_owned();
        };
        let median = self.median();
        format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
    }

    /// Ascending.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        let upper = self.0.get(middle).copied().unwrap_or(f64::NAN);
        match self.0.get(middle.wrapping_sub(1)) {
            Some(lower) if self.0.len() % 2 == 0 => f64::midpoint(*lower, upper),
            _ => upper,
        }
    }
}

/// Formats bytes as MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Cores and load of this machine, needed to interpret any figure.
pub(crate) fn load() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let told = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<_> = told.split_whitespace().take(3).collect();
    format!("{cores} cores, load averages {}", averages.join(", "))
}

/// Drawn on stderr if that is a terminal.
pub(crate) fn progress(message: &str, length: u64) -> Result<ProgressBar, Error> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} % {per_sec} {eta}")?;
    Ok(ProgressBar::new(length).with_style(style).with_message(message.to_owned()))
}
