//! Gets of large values from disk, beside the device's bandwidth in blocks of their size.

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Contestant, Outcome};
use crate::fio::RandomReads;
use crate::metric::Metric::{CallsPerSecond, MegabytesPerSecond};
use crate::metric::Sample;

use super::store::Store;

const DEPTH: usize = 8;

/// Small beside the file, and large enough to promote any of the values.
const MEMORY_BYTES: usize = 32 << 20;

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let bytes = bench.pick(2 << 30, 64 << 20);
    let sizes = [("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];
    sizes.into_iter().map(|(title, size)| of_size(bench, title, size, bytes)).collect()
}

fn of_size(bench: &Bench, title: &str, value_bytes: u64, bytes: u64) -> Result<Outcome, Error> {
    let (blobs, entries) = (Blobs::of(value_bytes), bytes / value_bytes);
    let with_bandwidth = move |sample: Result<Sample, Error>| {
        sample.map(|mut sample| {
            let calls = sample.get(&CallsPerSecond).copied().unwrap_or(0.0);
            sample.insert(MegabytesPerSecond, calls * value_bytes as f64 / 1e6);
            sample
        })
    };
    let mut stores = Vec::new();
    for &kind in Kind::ALL {
        let setup = kind.roomy(MEMORY_BYTES, entries, value_bytes);
        stores.push(Store::filled(bench, kind, setup, &blobs, entries)?);
    }
    let mut contestants = Vec::new();
    for store in &stores {
        let gets = move || with_bandwidth(store.gets(bench, DEPTH));
        contestants.push(Contestant::new(store.kind.name(), gets));
    }
    if let Some(fio) = bench.fio {
        let (file, span) = (stores[0].data_file()?, bench.span());
        let reads = RandomReads { bytes, block_bytes: value_bytes, in_flight: DEPTH, jobs: 1 };
        let run = move || with_bandwidth(fio.random_reads(&file, reads, span));
        contestants.push(Contestant::new("fio", run));
    }
    let outcome = Contest::new(format!("{title}, depth {DEPTH}"), MegabytesPerSecond, "fio")
        .bar(Bar::at_least(0.9, MegabytesPerSecond).times("fio"))
        .run(bench, contestants)?;
    for store in stores {
        store.remove()?;
    }
    Ok(outcome)
}
