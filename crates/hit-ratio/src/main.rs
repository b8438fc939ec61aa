//! Misses of tamis with both tiers on request traces, beside policies of one cache of that size.
//!
//! ```text
//! cargo run --release -p tamis-hit-ratio -- TRACES
//! ```
//!
//! `TRACES` is a folder with traces (`.csv.zst`, in any format of the tool `tamis`: a line
//! `key,size` for each request, size 1 if it is not known) and `reference.csv`, the misses of other
//! policies. Writes `docs/hit-ratio.md` and the plot beside it. `--puts` prints what a put costs,
//! `--endurance` what sparing the flash does.

#[path = "../../../src/bin/tamis/chart.rs"]
#[allow(dead_code, reason = "the tool has other curves")]
mod chart;
#[path = "../../../src/bin/tamis/driven.rs"]
#[allow(dead_code, reason = "the tool counts more")]
mod driven;
mod endurance;
mod plot;
mod puts;
mod reference;
mod report;
mod run;
#[path = "../../../src/bin/tamis/segments.rs"]
mod segments;
#[path = "../../../src/bin/tamis/spread.rs"]
#[allow(dead_code, reason = "the tool shows each value")]
mod spread;
mod trace;
#[path = "../../../src/bin/tamis/traces/mod.rs"]
#[allow(dead_code, reason = "the tool reads other lists")]
mod traces;
#[path = "../../../src/bin/tamis/values.rs"]
#[allow(dead_code, reason = "the tool has other uses of noise")]
mod values;

use std::error::Error;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use clap::Parser;
use indicatif::ProgressBar;

use crate::reference::Reference;
use crate::report::{Point, Report};
use crate::run::Tiers;
use crate::trace::Trace;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Debug, Parser)]
struct Arguments {
    /// The folder of traces.
    #[arg(required_unless_present = "puts")]
    traces: Option<PathBuf>,

    /// Instead: processor time of a put, with and without what decides on disk.
    #[arg(long)]
    puts: bool,

    /// Instead: writes saved, and hits lost, by admission on second sight and by a write rate.
    #[arg(long, conflicts_with = "puts")]
    endurance: bool,

    /// The page to write. The plot has the same name.
    #[arg(long, default_value = "docs/hit-ratio.md")]
    page: PathBuf,

    /// Sizes of both tiers together, as parts of the working set.
    #[arg(long, value_delimiter = ',', default_value = "0.01,0.1,0.4")]
    sizes: Vec<String>,

    /// How many times as large as memory the disk is.
    #[arg(long, value_delimiter = ',', default_value = "10,100")]
    ratios: Vec<u64>,

    /// Replays at one time.
    #[arg(long, default_value = "2")]
    jobs: NonZeroUsize,

    /// Where stores are made. [default: the system's temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let Some(folder) = arguments.traces.as_deref().filter(|_| !arguments.puts) else {
        print!("{}", puts::measure(arguments.folder.as_deref())?);
        return Ok(());
    };
    let traces = read_traces(folder)?;
    if arguments.endurance {
        print!("{}", endurance::measure(&traces, arguments.folder.as_deref())?);
        return Ok(());
    }
    let reference = Reference::read(&folder.join("reference.csv"))?;
    let mut runs = Vec::new();
    for trace in &traces {
        for size in &arguments.sizes {
            let part: f64 = size.parse()?;
            runs.extend(arguments.ratios.iter().map(|&ratio| (trace, part, ratio)));
        }
    }
    let progress = ProgressBar::new(runs.len() as u64);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> Result<(), Failure> {
        while let Some(&(trace, part, ratio)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome =
                Tiers::new(trace, part, ratio).replay(trace, arguments.folder.as_deref())?;
            let others = reference.of(&trace.name, trace.mode(), part);
            let (trace, mode) = (trace.name.clone(), trace.mode());
            let point = Point { trace, mode, part, ratio, outcome, others };
            progress.println(point.line());
            progress.inc(1);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(point);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.get()).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<(), Failure>>| {
            worker.join().unwrap_or_else(|_| Err("a replay has panicked".into()))
        };
        workers.into_iter().try_for_each(join)
    })?;
    let points = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut report = Report { points };
    report.sort();
    progress.finish_and_clear();
    let svg = arguments.page.with_extension("svg");
    fs::write(&svg, plot::draw(&report, &reference)?)?;
    fs::write(&arguments.page, report.page(&svg))?;
    Ok(())
}

fn read_traces(folder: &Path) -> Result<Vec<Trace>, Failure> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|item| item.map(|item| item.path())).collect::<Result<_, _>>()?;
    paths.retain(|path| path.to_string_lossy().ends_with(".csv.zst"));
    paths.sort();
    paths.iter().map(|path| Trace::read(path)).collect()
}
