//! Gets that read from disk, at several depths. The device reads two blocks of 4 KiB for each: a
//! value of 4096 bytes with its key does not fit into one.

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Contestant, Outcome};
use crate::fio::RandomReads;
use crate::metric::Metric::{CallsPerSecond, CpuPerCall, GetP50, GetP99};

use super::store::Store;

pub(super) const VALUE_BYTES: u64 = 4096;

/// What the device reads for a value.
pub(super) const READ_BYTES: u64 = 8192;

/// Small beside the file: nearly all gets read from disk.
pub(super) const MEMORY_BYTES: usize = 8 << 20;

const DEPTHS: [usize; 4] = [1, 8, 32, 128];

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let bytes = bench.pick(2 << 30, 16 << 20);
    let (blobs, entries) = (Blobs::of(VALUE_BYTES), bytes / VALUE_BYTES);
    let mut stores = Vec::new();
    for &kind in Kind::ALL {
        let setup = kind.roomy(MEMORY_BYTES, entries, VALUE_BYTES);
        stores.push(Store::filled(bench, kind, setup, &blobs, entries)?);
    }
    let mut outcomes = Vec::new();
    for depth in DEPTHS {
        let mut contestants = Vec::new();
        for store in &stores {
            let gets = move || store.gets(bench, depth);
            contestants.push(Contestant::new(store.kind.name(), gets));
        }
        if let Some(fio) = bench.fio {
            let file = stores[0].data_file()?;
            let span = bench.span();
            // Two threads with a ring each, as the caches' callers have, get less from the device.
            for (name, jobs) in [("fio", 1), ("fio, 2 jobs", 2)] {
                let (file, in_flight) = (file.clone(), depth);
                let reads = RandomReads { bytes, block_bytes: READ_BYTES, in_flight, jobs };
                if jobs <= depth {
                    let run = move || fio.random_reads(&file, reads, span);
                    contestants.push(Contestant::new(name, run));
                }
            }
        }
        outcomes.push(contest(depth).run(bench, contestants)?);
    }
    for store in stores {
        store.remove()?;
    }
    Ok(outcomes)
}

/// The bars of one depth.
fn contest(depth: usize) -> Contest {
    let (device, foyer) = match depth {
        1 | 8 => (0.85, 1.25),
        32 => (0.9, 1.05),
        _ => (0.95, 1.15),
    };
    let contest = Contest::new(format!("depth {depth}"), CallsPerSecond, "fio")
        .bar(Bar::at_least(device, CallsPerSecond).times("fio"))
        .bar(Bar::at_least(foyer, CallsPerSecond).times("foyer"))
        .bar(Bar::at_least(1.0, CallsPerSecond).times("cache2"))
        .bar(Bar::at_most(1.5, GetP99).times("fio"));
    match depth {
        1 => contest.bar(Bar::at_most(25.0, GetP50).above("fio")),
        32 => contest.bar(Bar::at_most(12.0, CpuPerCall)),
        128 => contest.bar(Bar::at_most(8.0, CpuPerCall)),
        _ => contest,
    }
}
