//! Gets from disk by one caller, on each kind of executor: whoever polls, reads go on.

use futures::executor::block_on;
use tokio::runtime::Builder;

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Contestant, Outcome};
use crate::fio::RandomReads;
use crate::metric::Metric::CallsPerSecond;

use super::disk_gets::{MEMORY_BYTES, READ_BYTES, VALUE_BYTES};
use super::store::Store;

const BLOCK_ON: &str = "block_on";
const CURRENT_THREAD: &str = "tokio, current thread";
const TOKIO_URING: &str = "tokio-uring";

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let bytes = bench.pick(2 << 30, 16 << 20);
    let (blobs, entries) = (Blobs::of(VALUE_BYTES), bytes / VALUE_BYTES);
    let setup = Kind::Tamis.roomy(MEMORY_BYTES, entries, VALUE_BYTES);
    let store = Store::filled(bench, Kind::Tamis, setup, &blobs, entries)?;
    let span = bench.span();
    let mut contestants = vec![
        Contestant::new(BLOCK_ON, || block_on(store.gets_alone(span))),
        Contestant::new(CURRENT_THREAD, || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(store.gets_alone(span))
        }),
        Contestant::new(TOKIO_URING, || tokio_uring::start(store.gets_alone(span))),
        Contestant::new("tokio, 2 workers", || store.gets(bench, 1)),
    ];
    if let Some(fio) = bench.fio {
        let file = store.data_file()?;
        let reads = RandomReads { bytes, block_bytes: READ_BYTES, in_flight: 1, jobs: 1 };
        let run = move || fio.random_reads(&file, reads, span);
        contestants.push(Contestant::new("fio", run));
    }
    let of_device = |who| Bar::at_least(0.7, CallsPerSecond).times("fio").by(who);
    let outcome = Contest::new("4096-byte values, depth 1", CallsPerSecond, "fio")
        .bar(of_device(BLOCK_ON))
        .bar(of_device(CURRENT_THREAD))
        .bar(of_device(TOKIO_URING))
        .run(bench, contestants)?;
    store.remove()?;
    Ok(vec![outcome])
}
