//! The rows, in the order in which they run.

use crate::Error;
use crate::bench::Bench;
use crate::contest::Outcome;

mod disk_gets;
mod hits;
mod mixed;
mod probes;
mod puts;
mod store;

/// One kind of work.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Bench) -> Result<Vec<Outcome>, Error>,
}

pub(crate) const ALL: &[Row] = &[
    Row {
        name: "disk-gets",
        about: "gets of 4096-byte values from disk, uniform keys, promotion on",
        run: disk_gets::run,
    },
    Row { name: "puts", about: "puts to disk", run: puts::run },
    Row { name: "hits", about: "hits in memory, and puts in memory that evict", run: hits::run },
    Row {
        name: "mixed",
        about: "cache-aside with overwrites, working set ten times the memory tier",
        run: mixed::run,
    },
];

/// What `--rows` takes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|row| row.name)
}
