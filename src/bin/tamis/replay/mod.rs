//! `tamis replay`: misses of a trace at several sizes, beside other policies.

mod arguments;
mod budget;
mod report;
mod run;
mod scan;
mod simulated;
mod subject;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;

pub(super) use self::arguments::{REPLAY, REPLAY_MORE, Replay};
use self::budget::Budget;
use self::run::Runs;
use self::subject::Subject;
use super::failure::Failure;
use super::file_system::FileSystem;
use super::interrupt::Interrupt;
use super::output::size;
use super::plot_file::PlotFile;
use super::progress::request_bar;
use super::scratch::Scratch;
use super::values::Values;

pub(super) fn run(asked: &Replay, is_json: bool) -> Result<ExitCode, Failure> {
    let plot = asked.plot.as_deref().map(PlotFile::new).transpose()?;
    let file_system = asked.l2.as_deref().map(FileSystem::of).transpose()?;
    let interrupt = Interrupt::install()?;
    let subject = Subject::read(asked, interrupt)?;
    let budgets = Budget::all(asked, subject.working_set())?;
    let jobs = asked.jobs.or_else(|| available_parallelism().ok()).map_or(1, usize::from);
    let mut scratch = None;
    if let (Some(directory), Some(file_system)) = (&asked.l2, &file_system) {
        file_system.check_room(Budget::room(&budgets, jobs))?;
        if !is_json {
            let needed = size(Budget::room(&budgets, jobs));
            writeln!(io::stdout(), "{}; {needed} are needed", file_system.line())?;
        }
        scratch = Some(Scratch::new(directory, "replay")?);
    }
    let bar = request_bar(subject.scan.requests.saturating_mul(budgets.len() as u64));
    // Of all runs: they may have many MiB.
    let largest = budgets.last().map_or(0, |budget| subject.largest().min(budget.bytes));
    let disk = scratch.as_ref().map(|scratch| (scratch, Values::new(largest)));
    let outcomes = Runs { subject: &subject, budgets: &budgets, disk }.all(jobs, &bar);
    bar.finish_and_clear();
    let outcomes = outcomes?;
    scratch.map(Scratch::remove).transpose()?;
    if is_json {
        report::write_json(&subject, &outcomes)?
    } else {
        report::write(&subject, &outcomes)?
    }
    if let Some(plot) = plot {
        plot.write(&[report::panel(&subject, &outcomes)])?;
    }
    Ok(ExitCode::SUCCESS)
}
