//! A long mixed load on a small store: every verb, from many tasks at once, while memory,
//! descriptors, threads, throughput and latencies are traced.
//!
//! ```text
//! cargo run --release -p tamis-soak -- --seconds 1800
//! ```
//!
//! In the second half an antagonist burns all cores and writes and syncs a file beside the store.
//! The store is closed and opened again a few times. Every hit is checked: its value must be one
//! that was put under this key, and for the task that alone puts the key, the newest. The exit code
//! tells whether that held, what was made stale was marked as such, no call failed, and memory,
//! descriptors and threads stayed within their bounds. Times are reported, not judged.

mod antagonist;
mod arguments;
mod blobs;
mod course;
mod ledger;
mod load;
mod plot;
mod report;
mod resources;
mod verb;
mod verdict;

use std::error::Error;
use std::fs;
use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let arguments = Arguments::parse();
    let report = course::run(&arguments)?;
    if let Some(out) = &arguments.out {
        fs::write(out.with_extension("json"), serde_json::to_string_pretty(&report)?)?;
        plot::draw(&report, &out.with_extension("svg"))?;
    }
    println!("\n{}", report.table());
    let complaints = verdict::complaints(&report);
    for complaint in &complaints {
        println!("FAILED: {complaint}");
    }
    Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
