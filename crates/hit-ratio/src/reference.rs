//! `Reference`: misses of other policies, counted by a simulator, in percent of the requests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Failure;

/// Misses of each policy.
pub(crate) type Others = BTreeMap<String, f64>;

#[derive(Debug)]
pub(crate) struct Reference {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    trace: String,
    mode: String,
    part: f64,
    policy: String,
    misses: f64,
}

impl Reference {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)?;
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().ok_or("the reference is empty")?;
        let column = |name: &str| {
            header.iter().position(|it| *it == name).ok_or("a column of the reference is missing")
        };
        let (trace, mode, part) = (column("trace")?, column("mode")?, column("size_frac")?);
        let (policy, misses) = (column("algo")?, column("miss_ratio")?);
        let mut rows = Vec::new();
        for cells in lines.filter(|cells| cells.len() == header.len()) {
            // Some policies have no figure at some sizes.
            let Ok(ratio) = cells[misses].parse::<f64>() else { continue };
            rows.push(Row {
                trace: cells[trace].to_owned(),
                mode: cells[mode].to_owned(),
                part: cells[part].parse()?,
                policy: cells[policy].to_owned(),
                misses: 100.0 * ratio,
            });
        }
        Ok(Self { rows })
    }

    pub(crate) fn of(&self, trace: &str, mode: &str, part: f64) -> Others {
        let is_it = |row: &&Row| {
            row.trace == trace && row.mode == mode && (row.part - part).abs() < part / 1000.0
        };
        self.rows.iter().filter(is_it).map(|row| (row.policy.clone(), row.misses)).collect()
    }

    /// Sizes in percent of the working set, and misses, of one policy.
    pub(crate) fn curve(&self, trace: &str, mode: &str, policy: &str) -> Vec<(f64, f64)> {
        let is_it = |row: &&Row| row.trace == trace && row.mode == mode && row.policy == policy;
        let mut curve: Vec<_> =
            self.rows.iter().filter(is_it).map(|row| (100.0 * row.part, row.misses)).collect();
        curve.sort_by(|left, right| left.0.total_cmp(&right.0));
        curve
    }
}
