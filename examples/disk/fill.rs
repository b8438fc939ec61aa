//! `fill`: the throughput of puts of large blobs, compared with `fio` writing sequentially in the
//! same directory, in alternation.
//!
//! Each round fills a new store, then overwrites it, so that segments are reclaimed; `fio` writes a
//! new file, then the same one again. Both end with a sync.

use std::fs;
use std::process::ExitCode;
use std::time::Instant;

use crate::Error;
use crate::arguments::Fill;
use crate::fio::Fio;
use crate::process::processor_time;
use crate::report::progress;
use crate::spread::Spread;
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

const PASSES: [&str; 2] = ["new", "again"];

/// The results of one blob size, in one pass.
#[derive(Default)]
struct Outcome {
    puts: Spread,
    fio: Spread,
    ratios: Spread,
    /// Milliseconds of processor time per MB, this program's own included.
    processor: Spread,
}

/// One pass over a store.
#[derive(Default, Clone, Copy)]
struct Pass {
    /// MB of values a second.
    rate: f64,
    /// Milliseconds of processor time per MB.
    processor: f64,
}

pub(crate) async fn run(scratch: &Scratch, options: &Fill) -> Result<ExitCode, Error> {
    let fio = Fio::find()?;
    let mut outcomes: Vec<[Outcome; PASSES.len()]> = Vec::new();
    outcomes.resize_with(options.blob_kib.len(), Default::default);
    for _ in 0..options.rounds.get() {
        for (blob_kib, passes) in options.blob_kib.iter().zip(&mut outcomes) {
            let puts = fill(scratch, options, blob_kib.get() << 10).await?;
            let written = fio.map(|fio| write(scratch, options, fio)).transpose()?;
            for (number, outcome) in passes.iter_mut().enumerate() {
                outcome.puts.push(puts[number].rate);
                outcome.processor.push(puts[number].processor);
                if let Some(written) = &written {
                    outcome.fio.push(written[number]);
                    outcome.ratios.push(puts[number].rate / written[number]);
                }
            }
        }
    }
    let mut table =
        Table::new(&["blob", "file", "puts, MB/s", "fio, MB/s", "ratio", "CPU ms a MB"]);
    for (blob_kib, passes) in options.blob_kib.iter().zip(&outcomes) {
        for (pass, outcome) in PASSES.iter().zip(passes) {
            let Outcome { puts, fio, ratios, processor } = outcome;
            let (blob, pass) = (format!("{blob_kib} KiB"), (*pass).to_owned());
            let processor = processor.show(2);
            table.row([blob, pass, puts.show(0), fio.show(0), ratios.show(2), processor]);
        }
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

/// Fills a new store twice.
async fn fill(
    scratch: &Scratch,
    options: &Fill,
    value_bytes: u64,
) -> Result<[Pass; PASSES.len()], Error> {
    let path = scratch.path("fill");
    let blobs = Blobs::new("thumbnails", 32, value_bytes);
    let store = Store::sized(&path, blobs, options.bytes).await?;
    // The store's capacity without reclaiming: one segment of 64 is always kept free.
    let entries = options.bytes / 64 * 60 / value_bytes;
    let bar = progress(&format!("{} KiB", value_bytes >> 10), 2 * entries)?;
    let mut passes = [Pass::default(); PASSES.len()];
    for (pass, figures) in (0..).zip(&mut passes) {
        let (started, processor) = (Instant::now(), processor_time()?);
        let numbers = pass * entries..(pass + 1) * entries;
        store.put(numbers, options.putters.get(), &bar).await?;
        store.cache.sync().await?;
        let seconds = started.elapsed().as_secs_f64();
        let spent = processor_time()?.saturating_sub(processor);
        let megabytes = (entries * value_bytes) as f64 / 1e6;
        figures.rate = megabytes / seconds;
        figures.processor = spent.as_secs_f64() * 1e3 / megabytes;
    }
    bar.finish_and_clear();
    store.cache.close().await?;
    drop(store);
    fs::remove_dir_all(&path)?;
    Ok(passes)
}

/// Writes a new file twice, and returns the MB per second of each pass.
fn write(scratch: &Scratch, options: &Fill, fio: Fio) -> Result<[f64; PASSES.len()], Error> {
    let path = scratch.path("fio");
    let mut rates = [0.0; PASSES.len()];
    for rate in &mut rates {
        *rate = fio.sequential_write(&path, options.bytes / 64 * 60)?;
    }
    fs::remove_file(&path)?;
    Ok(rates)
}
