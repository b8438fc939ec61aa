//! `Table`: text in columns: the first left-aligned, the others right-aligned.
//!
//! Shared with `examples/disk`, `examples/replay` and `crates/versus`.

use std::fmt;
use std::iter;

#[derive(Debug)]
pub(crate) struct Table {
    /// Not shown if it is empty.
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        let header = header.iter().map(|&cell| cell.to_owned()).collect();
        Self { header, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    #[allow(dead_code, reason = "of those who have tables that may stay empty")]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn shown(&self) -> impl Iterator<Item = &Vec<String>> {
        iter::once(&self.header).filter(|header| !header.is_empty()).chain(&self.rows)
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.shown().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.shown() {
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
