//! tamis beside its peers and the device: one row for each kind of work, each with the bars that
//! tamis is to reach.
//!
//! A row runs one or more contests. In a contest all contestants do the same work in alternation,
//! each round starting with another one, so that a slow phase of the machine affects all. Shown
//! are medians with their spread, and for ratios the median of the ratios of single rounds.
//!
//! `cargo run --release -p tamis-versus -- --help` lists the rows. Peers that are not installed
//! are left out, with a note.

use std::error::Error as StdError;
use std::fs;
use std::process::ExitCode;

use clap::Parser;

mod arguments;
mod bar;
mod bench;
mod blobs;
mod caches;
mod child;
mod contest;
mod fio;
mod load;
mod machine;
mod metric;
mod plot;
mod process;
mod report;
mod rounds;
mod rows;
mod spread;
#[path = "../../../src/bin/tamis/table.rs"]
mod table;

use arguments::Arguments;
use bench::Bench;
use report::Report;

/// All contestants share it.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever stops a measurement.
type Error = Box<dyn StdError + Send + Sync>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.child {
        Some(order) => child::obey(order),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    let bench = Bench::new(arguments.quick, arguments.rounds, arguments.dir.as_deref())?;
    let mut report = Report::new(&bench)?;
    println!("{}", report.machine());
    for row in rows::ALL.iter().filter(|row| arguments.includes(row.name)) {
        println!("\n## {}: {}", row.name, row.about);
        for outcome in (row.run)(&bench)? {
            print!("\n{outcome}");
            report.add(row.name, outcome);
        }
    }
    report.finish(bench.close()?);
    println!("\n{}", report.summary());
    if let Some(path) = &arguments.json {
        fs::write(path, report.json()?)?;
    }
    if let Some(path) = &arguments.svg {
        plot::draw(&report, path)?;
    }
    Ok(())
}
