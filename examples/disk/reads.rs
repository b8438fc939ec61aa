//! `reads`: random gets of blobs that are on disk only, compared with `fio` on the same file, in
//! alternation.
//!
//! A record is read as whole blocks. At the default size it is a little smaller than a block, at
//! any offset, so most gets read two blocks, 8 KiB, at once. So there are two reference figures of
//! `fio`, with blocks of 4 KiB and of 8 KiB.
//!
//! Every other blob is offered for promotion when it is read, which must not delay the get: the
//! latencies of both kinds, in random order, are shown side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::Error;
use crate::arguments::Reads;
use crate::fio::Fio;
use crate::process::processor_time;
use crate::report::progress;
use crate::spread::Spread;
use crate::store::{Blobs, Scratch, Store, is_odd};
use crate::table::Table;

const PUTTERS: u64 = 8;

/// Block sizes of `fio`.
const BLOCKS: [&str; 2] = ["4k", "8k"];

/// The results for one number of gets in flight.
struct Outcome {
    in_flight: u64,
    gets: Spread,
    fio: [Spread; BLOCKS.len()],
    ratios: [Spread; BLOCKS.len()],
    /// For blobs that are not offered for promotion, and for those that are.
    latencies: [Histogram<u64>; 2],
    /// Microseconds of processor time per get, this program's own included.
    processor: Spread,
}

pub(crate) async fn run(scratch: &Scratch, options: &Reads) -> Result<ExitCode, Error> {
    let value_bytes = options.value_bytes.get();
    let entries = (options.bytes / value_bytes).max(1);
    let path = scratch.path("reads");
    let mut blobs = Blobs::new("thumbnails", 16, value_bytes);
    blobs.promotes_odd = true;
    let store = Store::roomy(&path, blobs, entries).await?;
    let bar = progress("put", entries)?;
    store.put(0..entries, PUTTERS, &bar).await?;
    bar.finish_and_clear();
    store.check_complete()?;
    store.cache.sync().await?;
    let (file, fio) = (data_file(&path)?, Fio::find()?);
    let mut outcomes = Vec::new();
    for in_flight in &options.in_flight {
        outcomes.push(Outcome {
            in_flight: in_flight.get(),
            gets: Spread::default(),
            fio: Default::default(),
            ratios: Default::default(),
            latencies: [Histogram::new(3)?, Histogram::new(3)?],
            processor: Spread::default(),
        });
    }
    let before = store.cache.stats();
    let bar = progress("get", options.rounds.get() * outcomes.len() as u64)?;
    for round in 0..options.rounds.get() {
        for outcome in &mut outcomes {
            measure(&store, options, (entries, round), outcome, (fio, &file)).await?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let after = store.cache.stats();
    let reads = after.l2_reads() - before.l2_reads();
    let bytes = (after.l2_read_bytes() - before.l2_read_bytes()) as f64 / reads.max(1) as f64;
    let promoted = after.promotion_completed() - before.promotion_completed();
    println!("{entries} values of {value_bytes} bytes; {bytes:.0} bytes a read");
    println!("{promoted} values promoted to memory\n");
    store.cache.close().await?;
    println!("{}", table(&outcomes));
    Ok(ExitCode::SUCCESS)
}

/// One round at one number of gets in flight.
async fn measure(
    store: &Store,
    options: &Reads,
    (entries, round): (u64, u64),
    outcome: &mut Outcome,
    (fio, file): (Option<Fio>, &Path),
) -> Result<(), Error> {
    let (seconds, processor) = (options.seconds.get(), processor_time()?);
    let started = Instant::now();
    let deadline = started + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for number in 0..outcome.in_flight {
        let store = store.clone();
        let random = StdRng::seed_from_u64(round << 32 | number);
        tasks.spawn(async move { get_until(&store, entries, random, deadline).await });
    }
    let mut done = 0;
    while let Some(joined) = tasks.join_next().await {
        for (all, part) in outcome.latencies.iter_mut().zip(joined??) {
            done += part.len();
            all.add(part)?;
        }
    }
    let gets = done as f64 / started.elapsed().as_secs_f64();
    outcome.gets.push(gets);
    let spent = processor_time()?.saturating_sub(processor);
    outcome.processor.push(spent.as_secs_f64() * 1e6 / done.max(1) as f64);
    let Some(fio) = fio else { return Ok(()) };
    // Reading beyond the used part would not reach the device.
    let in_use = store.cache.stats().l2_bytes_in_use();
    let columns = outcome.fio.iter_mut().zip(&mut outcome.ratios);
    for (block, (iops, ratios)) in BLOCKS.iter().zip(columns) {
        let figure = fio.random_reads(file, in_use, block, outcome.in_flight, seconds)?;
        iops.push(figure);
        ratios.push(gets / figure);
    }
    Ok(())
}

/// Gets random blobs and checks each. Returns the latencies of even and of odd numbers.
async fn get_until(
    store: &Store,
    entries: u64,
    mut random: StdRng,
    deadline: Instant,
) -> Result<[Histogram<u64>; 2], Error> {
    let mut latencies = [Histogram::new(3)?, Histogram::new(3)?];
    loop {
        let number = random.random_range(0..entries);
        let started = Instant::now();
        if started >= deadline {
            return Ok(latencies);
        }
        if !store.holds(number).await? {
            return Err(format!("blob {number} is missing").into());
        }
        latencies[usize::from(is_odd(number))]
            .record(u64::try_from(started.elapsed().as_nanos())?)?;
    }
}

/// The largest file of a store.
fn data_file(store: &Path) -> Result<PathBuf, Error> {
    let mut largest = None;
    for entry in fs::read_dir(store)? {
        let entry = entry?;
        largest = largest.max(Some((entry.metadata()?.len(), entry.path())));
    }
    Ok(largest.ok_or("the store has no file")?.1)
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(&[
        "in flight",
        "gets/s",
        "fio 4k IOPS",
        "ratio",
        "fio 8k IOPS",
        "ratio",
        "p50",
        "p99",
        "offered: p50",
        "p99",
        "CPU us a get",
    ]);
    for outcome in outcomes {
        let Outcome { in_flight, gets, fio, ratios, latencies, processor } = outcome;
        let mut row = vec![in_flight.to_string(), gets.show(0)];
        for (fio, ratio) in fio.iter().zip(ratios) {
            row.extend([fio.show(0), ratio.show(2)]);
        }
        for latencies in latencies {
            let at = |quantile| format!("{} us", latencies.value_at_quantile(quantile) / 1000);
            row.extend([at(0.5), at(0.99)]);
        }
        row.push(processor.show(1));
        table.row(row);
    }
    table
}
