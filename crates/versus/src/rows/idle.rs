//! CPU time of an open cache that nobody calls.

use std::thread;
use std::time::{Duration, Instant};

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::two_workers;
use crate::metric::Metric::CpuShare;
use crate::metric::Sample;
use crate::process::cpu_time;

use super::store::{put_all, remove};

const VALUE_BYTES: u64 = 1 << 10;

/// What still counts as none, in percent of one core.
const NONE: f64 = 0.01;

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let entries = bench.pick(100_000, 2_000);
    let mut contestants = Vec::new();
    for &kind in Kind::ALL {
        contestants.push(Contestant::new(kind.name(), move || rest(bench, kind, entries)));
    }
    let outcome = Contest::new(format!("{entries} entries, 1 KiB"), CpuShare, "foyer")
        .bar(Bar::at_most(NONE, CpuShare))
        .run(bench, contestants)?;
    Ok(vec![outcome])
}

fn rest(bench: &Bench, kind: Kind, entries: u64) -> Result<Sample, Error> {
    let (settling, span) =
        bench.pick((Duration::from_secs(2), Duration::from_secs(5)), (bench.span(), bench.span()));
    let (path, blobs) = (bench.path("idle"), Blobs::of(VALUE_BYTES));
    let setup = kind.roomy(64 << 20, entries, VALUE_BYTES);
    let runtime = two_workers()?;
    let cache = runtime.block_on(async {
        let cache = kind.open(&path, &setup).await?;
        put_all(&cache, &blobs, entries, 8).await?;
        cache.settle().await?;
        Ok::<_, Error>(cache)
    })?;
    // Timers set by the puts fire.
    thread::sleep(settling);
    let (started, cpu) = (Instant::now(), cpu_time()?);
    thread::sleep(span);
    let used = cpu_time()?.saturating_sub(cpu).as_secs_f64();
    let share = used / started.elapsed().as_secs_f64() * 100.0;
    runtime.block_on(cache.close())?;
    remove(&path)?;
    Ok(Sample::from([(CpuShare, share)]))
}
