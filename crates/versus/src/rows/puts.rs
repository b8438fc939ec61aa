//! Puts to disk: fresh keys into a new store, and overwrites. A measurement ends when all is
//! written, for tamis and fio with a sync. fio writes a new file in blocks of 1 MiB, one in flight.

use std::fs;
use std::time::Instant;

use rand::RngExt;

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::{Request, drive, timed, two_workers};
use crate::metric::Metric::{CallsPerSecond, CpuPerCall, MegabytesPerSecond};
use crate::metric::Sample;
use crate::process::cpu_time;

use super::store::{put_all, remove};

const MEMORY_BYTES: usize = 64 << 20;

/// Puts of fresh keys.
#[derive(Clone, Copy)]
struct Fresh {
    title: &'static str,
    value_bytes: u64,
    entries: u64,
    tasks: u64,
    compresses: bool,
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let volume = bench.pick(1 << 30, 32 << 20);
    let one_task = Fresh {
        title: "fresh, 4 KiB, 1 task",
        value_bytes: 4 << 10,
        entries: volume / (4 << 10),
        tasks: 1,
        compresses: true,
    };
    let large = Fresh {
        title: "fresh, 64 KiB, 8 tasks",
        value_bytes: 64 << 10,
        entries: 2 * volume / (64 << 10),
        tasks: 8,
        compresses: true,
    };
    let largest = Fresh {
        title: "fresh, 1 MiB, 8 tasks",
        value_bytes: 1 << 20,
        entries: 2 * volume / (1 << 20),
        ..large
    };
    let small = Fresh {
        title: "fresh, 100 bytes, 8 tasks, no compression",
        value_bytes: 100,
        entries: bench.pick(1_000_000, 20_000),
        tasks: 8,
        compresses: false,
    };
    let rate = MegabytesPerSecond;
    let of_device = |share| Bar::at_least(share, rate).times("fio");
    let contest = |puts: Fresh| Contest::new(puts.title, rate, "fio");
    Ok(vec![
        fresh(
            bench,
            one_task,
            contest(one_task)
                .bar(of_device(0.8).or_at_least(900.0))
                .bar(Bar::at_least(3.0, rate).times("foyer"))
                .bar(Bar::at_most(5.0, CpuPerCall)),
        )?,
        fresh(bench, large, contest(large).bar(of_device(0.85)))?,
        fresh(bench, largest, contest(largest).bar(of_device(0.85)))?,
        fresh(
            bench,
            small,
            Contest::new(small.title, CallsPerSecond, "foyer")
                .bar(Bar::at_least(500_000.0, CallsPerSecond)),
        )?,
        overwrites(bench)?,
    ])
}

fn fresh(bench: &Bench, puts: Fresh, contest: Contest) -> Result<Outcome, Error> {
    let mut contestants = Vec::new();
    for &kind in Kind::ALL {
        contestants.push(Contestant::new(kind.name(), move || fill(bench, kind, puts)));
    }
    if let Some(fio) = bench.fio.filter(|_| puts.value_bytes >= 4096) {
        let path = bench.path("fio");
        contestants.push(Contestant::new("fio", move || {
            let sample = fio.sequential_write(&path, puts.entries * puts.value_bytes)?;
            fs::remove_file(&path)?;
            Ok(sample)
        }));
    }
    contest.run(bench, contestants)
}

/// Fills a new store, and removes it.
fn fill(bench: &Bench, kind: Kind, puts: Fresh) -> Result<Sample, Error> {
    let Fresh { value_bytes, entries, tasks, .. } = puts;
    let (path, blobs) = (bench.path("fresh"), Blobs::of(value_bytes));
    let mut setup = kind.roomy(MEMORY_BYTES, entries, value_bytes);
    setup.compresses = puts.compresses;
    let sample = two_workers()?.block_on(async {
        let cache = kind.open(&path, &setup).await?;
        let (started, cpu) = (Instant::now(), cpu_time()?);
        put_all(&cache, &blobs, entries, tasks).await?;
        cache.settle().await?;
        let (elapsed, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu));
        cache.close().await?;
        let calls = entries as f64 / elapsed.as_secs_f64();
        Ok::<_, Error>(Sample::from([
            (CallsPerSecond, calls),
            (MegabytesPerSecond, calls * value_bytes as f64 / 1e6),
            (CpuPerCall, cpu.as_secs_f64() * 1e6 / entries as f64),
        ]))
    })?;
    remove(&path)?;
    Ok(sample)
}

/// Values over values that are on disk, by many tasks.
fn overwrites(bench: &Bench) -> Result<Outcome, Error> {
    const TASKS: usize = 64;
    let mut contestants = Vec::new();
    for &kind in Kind::ALL {
        contestants.push(Contestant::new(kind.name(), move || overwrite(bench, kind, TASKS)));
    }
    Contest::new("overwrites, 1 KiB, 64 in flight", CallsPerSecond, "foyer")
        .bar(Bar::at_least(50_000.0, CallsPerSecond))
        .run(bench, contestants)
}

fn overwrite(bench: &Bench, kind: Kind, tasks: usize) -> Result<Sample, Error> {
    let (path, blobs) = (bench.path("overwritten"), Blobs::of(1 << 10));
    let entries = bench.pick(100_000, 5_000);
    // Ten times what is live: reclaim has little to do.
    let setup = kind.roomy(MEMORY_BYTES, 10 * entries, 1 << 10);
    let sample = two_workers()?.block_on(async {
        let cache = kind.open(&path, &setup).await?;
        put_all(&cache, &blobs, entries, 8).await?;
        cache.settle().await?;
        let target = cache.clone();
        let sample = drive(tasks, bench.span(), move |random| {
            let (cache, number) = (target.clone(), random.random_range(0..entries));
            let value = blobs.value(random.random_range(0..entries));
            async move {
                let (time, result) = timed(cache.put(Blobs::key(number), value)).await;
                result?;
                Ok(Request { get: None, put: Some(time) })
            }
        });
        let sample = sample.await?;
        cache.close().await?;
        Ok::<_, Error>(sample)
    })?;
    remove(&path)?;
    Ok(sample)
}
