//! `open`: the time to open a store of many records, after its process was killed and after a
//! close.
//!
//! A child process fills the store, reports that, and is killed while it sleeps. Records not
//! written by then, at most those of about the last second, may be missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Error;
use crate::arguments::{Filler, Open};
use crate::report::progress;
use crate::store::{Blobs, Scratch, Store};
use crate::table::Table;

/// The child's report.
const FILLED: &str = "filled";

/// Blobs looked up after each open.
const SAMPLES: u64 = 1000;

/// The child process, killed at the latest in this drop.
struct Victim(Child);

impl Victim {
    fn start(store: &Path, options: &Open) -> Result<Self, Error> {
        let child = Command::new(std::env::current_exe()?)
            .args(["filler", "--store"])
            .arg(store)
            .args(["--records", &options.records.to_string()])
            .args(["--putters", &options.putters.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits until it has filled the store.
    fn wait(&mut self) -> Result<(), Error> {
        let mut line = String::new();
        if let Some(told) = &mut self.0.stdout {
            BufReader::new(told).read_line(&mut line)?;
        }
        if line.trim_end() == FILLED { Ok(()) } else { Err("the store was not filled".into()) }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The code of the child process.
pub(crate) async fn fill(Filler { store, open }: &Filler) -> Result<(), Error> {
    let records = open.records.get();
    let store = Store::roomy(store, Blobs::tiny(), records).await?;
    let bar = progress("put", records)?;
    store.put(0..records, open.putters.get(), &bar).await?;
    bar.finish_and_clear();
    store.check_complete()?;
    // Records that no caller waits for are written within about a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut out = std::io::stdout();
    writeln!(out, "{FILLED}")?;
    out.flush()?;
    // Normally killed here. If the input ends, the parent is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

pub(crate) async fn run(scratch: &Scratch, options: &Open) -> Result<ExitCode, Error> {
    let path = scratch.path("open");
    let started = Instant::now();
    let mut victim = Victim::start(&path, options)?;
    victim.wait()?;
    println!("filled by another process in {:.1} s\n", started.elapsed().as_secs_f64());
    drop(victim);
    let mut table = Table::new(&[
        "opened after",
        "seconds",
        "recovery_duration",
        "recovery_records",
        "recovery_dropped",
        "records/s",
        "read",
        "found",
    ]);
    for after in ["a kill", "a close", "a close"] {
        measure(&path, options, after, &mut table).await?;
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

async fn measure(path: &Path, options: &Open, after: &str, table: &mut Table) -> Result<(), Error> {
    let records = options.records.get();
    let blobs = Blobs::tiny();
    let started = Instant::now();
    let store = Store::roomy(path, blobs, records).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let stats = store.cache.stats();
    let mut random = StdRng::seed_from_u64(11);
    let mut found = 0;
    for _ in 0..SAMPLES {
        found += u64::from(store.holds(random.random_range(0..records)).await?);
    }
    store.cache.close().await?;
    table.row([
        after.to_owned(),
        format!("{elapsed:.3}"),
        format!("{:.3} s", stats.recovery_duration().as_secs_f64()),
        stats.recovery_records().to_string(),
        stats.recovery_dropped().to_string(),
        format!("{:.0}", stats.recovery_records() as f64 / elapsed),
        crate::report::mib(stats.l2_read_bytes()),
        format!("{found} of {SAMPLES}"),
    ]);
    Ok(())
}
