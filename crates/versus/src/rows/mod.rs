//! The rows, in the order in which they run.

use crate::Error;
use crate::bench::Bench;
use crate::contest::Outcome;

mod absent;
mod device;
mod disk_gets;
mod executors;
mod growth;
mod hits;
mod idle;
mod large_gets;
mod mixed;
mod open;
mod probes;
mod puts;
mod redis;
mod scale;
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
    Row { name: "large-gets", about: "gets of 64 KiB and 1 MiB from disk", run: large_gets::run },
    Row {
        name: "executors",
        about: "gets from disk on each kind of executor",
        run: executors::run,
    },
    Row { name: "puts", about: "puts to disk", run: puts::run },
    Row { name: "hits", about: "hits in memory, and puts in memory that evict", run: hits::run },
    Row { name: "absent", about: "gets of keys that are nowhere", run: absent::run },
    Row {
        name: "mixed",
        about: "cache-aside with overwrites, working set ten times the memory tier",
        run: mixed::run,
    },
    Row { name: "redis", about: "hits, beside those of a server on loopback", run: redis::run },
    Row { name: "open", about: "opening a store of many records", run: open::run },
    Row {
        name: "scale",
        about: "index, tags and a flush, with many records on disk",
        run: scale::run,
    },
    Row {
        name: "growth",
        about: "each call with more and more records of 100 bytes on disk",
        run: growth::run,
    },
    Row {
        name: "verbs",
        about: "all verbs mixed, while a store fills up and begins to reclaim",
        run: growth::run_verbs,
    },
    Row { name: "idle", about: "CPU time without calls", run: idle::run },
];

/// What `--rows` takes.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|row| row.name)
}
