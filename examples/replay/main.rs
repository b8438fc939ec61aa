//! Replays request traces against the cache: those of its arguments, or of the folder
//! `TAMIS_TRACES`, or a generated workload.
//!
//! ```text
//! cargo run --release --example replay
//! cargo run --release --example replay -- trace.csv.zst --mode obj --cache-size 0.01,0.1,5000
//! cargo run --release --example replay -- --l2
//! ```
//!
//! One table shows misses, next to a reference if known; another shows latencies of hits and puts.
//! `--help` lists the options. With the default charge and one thread, misses equal those of a
//! SIEVE simulator exactly. With `--l2` there is a disk tier: the tables then show hits per tier,
//! device traffic, latencies, and, if known, misses of other policies whose one cache has the size
//! of both tiers.

mod arguments;
mod budget;
#[path = "../../src/bin/tamis/cache_size.rs"]
mod cache_size;
mod inputs;
mod reference;
mod replay;
mod report;
#[path = "../../src/bin/tamis/segments.rs"]
mod segments;
#[path = "../../src/bin/tamis/table.rs"]
mod table;
mod tiers;
mod trace;
#[path = "../../src/bin/tamis/traces/mod.rs"]
mod traces;
#[path = "../../src/bin/tamis/values.rs"]
mod values;
mod workload;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::arguments::{Arguments, Charge};
use crate::budget::{Budget, Mode};
use crate::inputs::traces_of;
use crate::reference::Reference;
use crate::replay::Run;
use crate::report::{Report, Subject};
use crate::tiers::TwoTiers;
use crate::trace::Trace;
use crate::traces::InputError;
use crate::workload::Workload;

fn main() -> ExitCode {
    let mut report = Report::new();
    let replayed = replay(&Arguments::parse(), &mut report);
    // Results before an error are printed too.
    let printed = if report.is_empty() { Ok(()) } else { write!(io::stdout(), "{report}") };
    match replayed.and_then(|()| Ok(printed?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn replay(arguments: &Arguments, report: &mut Report) -> Result<(), Box<dyn Error>> {
    if arguments.charge == Charge::Memory && arguments.mode == Mode::Obj {
        return Err("--charge memory requires --mode byte".into());
    }
    let traces = traces_of(&arguments.traces)?;
    if traces.is_empty() {
        let trace = Workload::of(arguments.requests()).generate(arguments.seed)?;
        let reference = reference_of(arguments, None)?;
        replay_one(arguments, &trace, &reference, report)?;
    }
    for path in &traces {
        let trace = Trace::read(path, &arguments.layout)?;
        let reference = reference_of(arguments, path.parent())?;
        replay_one(arguments, &trace, &reference, report)?;
    }
    Ok(())
}

fn replay_one(
    arguments: &Arguments,
    trace: &Trace,
    reference: &Reference,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    match &arguments.l2 {
        None => replay_trace(arguments, trace, reference, report),
        Some(directory) => {
            replay_two_tiers(arguments, trace, (reference, directory.as_deref()), report)
        }
    }
}

/// Replays a trace at every combination of sizes of two tiers.
fn replay_two_tiers(
    arguments: &Arguments,
    trace: &Trace,
    (reference, directory): (&Reference, Option<&Path>),
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let is_of_keys = trace.requests.iter().all(|request| request.size == 1);
    let object_bytes = is_of_keys.then_some(arguments.object_bytes);
    let unit = object_bytes.unwrap_or(1);
    let mode = if is_of_keys { Mode::Obj } else { Mode::Byte };
    let tiers = arguments.tiers(trace.working_set(Mode::Byte) * unit);
    let (mut run_number, runs) = (0, tiers.len() * arguments.second_chances.len());
    for (l1_bytes, l2_bytes) in tiers {
        let of_trace = (&*trace.name, trace.requests.len() as u64);
        let others = reference.policies(of_trace, mode, (l1_bytes + l2_bytes) / unit.max(1));
        for &second_chances in &arguments.second_chances {
            let threads = arguments.threads;
            let run = TwoTiers { l1_bytes, l2_bytes, second_chances, object_bytes, threads };
            // Each run creates its own store and removes it.
            let scratch = match directory {
                None => tempfile::tempdir()?,
                Some(directory) => tempfile::tempdir_in(directory)?,
            };
            run_number += 1;
            let progress = progress_bar(trace, run_number, runs)?;
            let outcome = run.replay(trace, scratch.path(), &progress);
            let outcome = outcome.map_err(|error| -> Box<dyn Error> { error })?;
            progress.finish_and_clear();
            report.add_two_tiers(&trace.name, &run, &outcome, &others);
        }
    }
    Ok(())
}

/// Replays a trace at every requested cache size and number of shards.
fn replay_trace(
    arguments: &Arguments,
    trace: &Trace,
    reference: &Reference,
    report: &mut Report,
) -> Result<(), Box<dyn Error>> {
    let (mode, requests) = (arguments.mode, trace.requests.len() as u64);
    let cache_sizes = arguments.cache_sizes();
    let shards: Vec<_> = match &*arguments.shards {
        [] => vec![None],
        shards => shards.iter().copied().map(Some).collect(),
    };
    let (mut run_number, runs) = (0, cache_sizes.len() * shards.len());
    for cache_size in &cache_sizes {
        let cache_size = cache_size.of(trace.working_set(mode));
        let budget =
            Budget::new(mode, cache_size).map_err(|error| format!("{}: {error}", trace.name))?;
        let subject = Subject {
            trace: &trace.name,
            mode,
            cache_size,
            requests,
            reference: reference.misses((&trace.name, requests), mode, cache_size),
        };
        for &shards in &shards {
            run_number += 1;
            let progress = progress_bar(trace, run_number, runs)?;
            let (charge, threads) = (arguments.charge, arguments.threads);
            let outcome = Run { budget, charge, shards, threads }.replay(trace, &progress)?;
            progress.finish_and_clear();
            report.add(&subject, &outcome);
        }
    }
    Ok(())
}

/// The reference: the given one, or else one beside the trace, or none.
fn reference_of(arguments: &Arguments, folder: Option<&Path>) -> Result<Reference, InputError> {
    if let Some(path) = &arguments.reference {
        return Reference::read(path);
    }
    let beside = folder.map(|folder| folder.join("reference.csv"));
    match beside.filter(|path| path.is_file()) {
        Some(path) => Reference::read(&path),
        None => Ok(Reference::default()),
    }
}

/// The progress of one run, with its rate and the time left. Drawn on stderr if that is a terminal.
fn progress_bar(trace: &Trace, run: usize, runs: usize) -> Result<ProgressBar, Box<dyn Error>> {
    let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{:.0} requests/s", state.per_sec());
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {percent} %, {rate}, {eta} left")?;
    let message = format!("{}, run {run} of {runs}", trace.name);
    let progress = ProgressBar::new(trace.requests.len() as u64);
    Ok(progress.with_style(style.with_key("rate", rate)).with_message(message))
}
