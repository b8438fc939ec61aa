//! `index`: index memory per entry at every fill of its tables, and whether resident memory equals
//! the reported memory.

use std::process::ExitCode;
use std::time::Instant;

use tamis::BlobCacheStats;

use crate::Error;
use crate::arguments::Index;
use crate::process::resident;
use crate::report::{mib, progress};
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

/// The limit of the mean over all samples, in bytes.
const MEAN_MAX: f64 = 24.0;

const SAMPLES: u64 = 200;

/// The number of entries at which samples start, at the latest.
const FIRST: u64 = 5_000_000;

/// The number of entries at which resident memory is measured.
const RESIDENT_AT: u64 = 10_000_000;

/// Resident and reported memory at one time.
struct Memory {
    entries: usize,
    grown: u64,
    stats: BlobCacheStats,
}

pub(crate) async fn run(scratch: &Scratch, options: &Index) -> Result<ExitCode, Error> {
    let (entries, putters) = (options.entries.get(), options.putters.get());
    let blobs = Blobs::tiny();
    let baseline = resident()?;
    let store = Store::roomy(&scratch.path("index"), blobs, entries).await?;
    let bar = progress("put", entries)?;
    let started = Instant::now();
    let first = FIRST.min(entries / 4);
    let (mut done, mut samples, mut memory) = (0, Vec::new(), None);
    for sample in 0..SAMPLES {
        let end = first + (entries - first) * sample / (SAMPLES - 1);
        store.put(done..end, putters, &bar).await?;
        done = end;
        let stats = store.cache.stats();
        let per_entry = stats.memory_index_bytes() as f64 / stats.l2_entries().max(1) as f64;
        samples.push((stats.l2_entries(), per_entry));
        if memory.is_none() && end >= RESIDENT_AT.min(entries) {
            let grown = resident()?.saturating_sub(baseline);
            memory = Some(Memory { entries: stats.l2_entries(), grown, stats });
        }
    }
    bar.finish_and_clear();
    let rate = entries as f64 / started.elapsed().as_secs_f64();
    println!("{entries} puts of 16-byte keys and 8-byte values, {rate:.0} a second\n");
    store.check_complete()?;
    store.cache.close().await?;
    if let Some(memory) = &memory {
        println!("{}", table(memory));
    }
    Ok(judge(&samples))
}

fn table(Memory { entries, grown, stats }: &Memory) -> Table {
    let parts = [
        ("memory_l1_bytes", stats.memory_l1_bytes()),
        ("memory_index_bytes", stats.memory_index_bytes()),
        ("memory_labels_bytes", stats.memory_labels_bytes()),
        ("memory_buffers_bytes", stats.memory_buffers_bytes()),
    ];
    let sum: u64 = parts.iter().map(|(_, bytes)| *bytes as u64).sum();
    let mut table = Table::new(&[&format!("memory at {entries} entries"), "", "bytes an entry"]);
    let mut row = |name: &str, bytes: u64| {
        let each = bytes as f64 / (*entries).max(1) as f64;
        table.row([name.to_owned(), mib(bytes), format!("{each:.2}")]);
    };
    for (name, bytes) in parts {
        row(name, bytes as u64);
    }
    row("total", sum);
    row("resident, minus before the open", *grown);
    let ratio = *grown as f64 / sum.max(1) as f64;
    table.row(["resident / reported".to_owned(), String::new(), format!("{ratio:.3}")]);
    table
}

/// Prints the bytes per entry, and returns whether they are within the limit.
fn judge(samples: &[(usize, f64)]) -> ExitCode {
    let by_size = |one: &&(usize, f64), other: &&(usize, f64)| one.1.total_cmp(&other.1);
    let mean = samples.iter().map(|(_, each)| each).sum::<f64>() / samples.len().max(1) as f64;
    let mut table = Table::new(&["bytes of index an entry", "", "at entries"]);
    if let Some((entries, least)) = samples.iter().min_by(by_size) {
        table.row(["least".to_owned(), format!("{least:.2}"), entries.to_string()]);
    }
    table.row(["mean".to_owned(), format!("{mean:.2}"), String::new()]);
    if let Some((entries, most)) = samples.iter().max_by(by_size) {
        table.row(["most".to_owned(), format!("{most:.2}"), entries.to_string()]);
    }
    println!("{table}");
    println!("mean over {} samples {mean:.2}, limit {MEAN_MAX}", samples.len());
    if mean > MEAN_MAX { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
