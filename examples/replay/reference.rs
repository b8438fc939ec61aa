//! `Reference`: misses counted by a simulator, by trace, cache size and policy.
//!
//! A reference file is a CSV with a header; the columns `trace`, `mode`, `cache_size`, `algo`,
//! `n_req` and `n_miss` are found by name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::budget::Mode;
use crate::traces::{InputError, Lines};

/// One cache is as large as both tiers if it differs by no more than one part of so many.
const SIZES_DIFFER: u64 = 1000;

/// A policy's result for one trace and cache.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) trace: String,
    mode: String,
    pub(crate) cache_size: u64,
    pub(crate) requests: u64,
    pub(crate) misses: u64,
    policy: String,
}

impl Row {
    pub(crate) fn is_of_sieve(&self) -> bool {
        self.policy == "sieve"
    }

    pub(crate) fn is_of(&self, mode: Mode) -> bool {
        self.mode == mode.name()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) rows: Vec<Row>,
}

impl Reference {
    pub(crate) fn read(path: &Path) -> Result<Self, InputError> {
        let mut lines = Lines::open(path)?;
        let Some(header) = lines.advance()? else { return Err(lines.empty()) };
        let header: Vec<_> = header.split(',').map(str::to_owned).collect();
        let mut rows = Vec::new();
        while let Some(line) = lines.advance()? {
            match row(&header, line) {
                Ok(row) => rows.extend(row),
                Err(reason) => return Err(lines.malformed(reason)),
            }
        }
        Ok(Self { rows })
    }

    /// SIEVE's misses, if known for exactly this trace and cache size.
    pub(crate) fn misses(
        &self,
        (trace, requests): (&str, u64),
        mode: Mode,
        cache_size: u64,
    ) -> Option<u64> {
        let is_it = |row: &&Row| {
            row.is_of_sieve()
                && row.trace == trace
                && row.requests == requests
                && row.is_of(mode)
                && row.cache_size == cache_size
        };
        self.rows.iter().find(is_it).map(|row| row.misses)
    }

    /// Misses by policy, where they are known for a cache of this size, but for rounding.
    pub(crate) fn policies(
        &self,
        (trace, requests): (&str, u64),
        mode: Mode,
        cache_size: u64,
    ) -> BTreeMap<String, u64> {
        let is_it = |row: &&Row| {
            row.trace == trace
                && row.requests == requests
                && row.is_of(mode)
                && row.cache_size.abs_diff(cache_size) <= 1 + cache_size / SIZES_DIFFER
        };
        self.rows.iter().filter(is_it).map(|row| (row.policy.clone(), row.misses)).collect()
    }
}

/// The row of a line; None if the policy has no figure at that size.
fn row(header: &[String], line: &str) -> Result<Option<Row>, &'static str> {
    let cells: Vec<_> = line.split(',').collect();
    let cell = |name: &str| {
        let column = header.iter().position(|column| column == name);
        column.and_then(|column| cells.get(column)).copied().ok_or("a column is missing")
    };
    let number = |name| cell(name)?.parse().map_err(|_| "a number is not a whole number");
    if cell("n_miss")?.is_empty() {
        return Ok(None);
    }
    Ok(Some(Row {
        trace: cell("trace")?.to_owned(),
        mode: cell("mode")?.to_owned(),
        cache_size: number("cache_size")?,
        requests: number("n_req")?,
        misses: number("n_miss")?,
        policy: cell("algo")?.to_owned(),
    }))
}
