//! `tamis bench`: gets and puts at several sizes and depths, beside the raw device.

mod arguments;
mod load;
mod raw;
mod report;
mod store;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::runtime::{Builder, Runtime};

pub(super) use self::arguments::{BENCH, BENCH_MORE, Bench};
use self::load::End;
use self::raw::RawFile;
use self::report::{Gets, Puts, Report};
use self::store::{Shape, Store};
use super::failure::Failure;
use super::file_system::FileSystem;
use super::interrupt::Interrupt;
use super::output::size;
use super::plot_file::PlotFile;
use super::progress::step_bar;
use super::scratch::Scratch;

/// Calls before a measurement, which are not counted, last one of so many parts of it.
const WARM_UP_SHARE: u32 = 10;

/// Buffers of all threads of the raw device.
const BUFFER_BYTES_MAX: u64 = 1 << 30;

/// One size and depth at one time.
struct Course<'a> {
    asked: &'a Bench,
    runtime: &'a Runtime,
    scratch: &'a Scratch,
    end: End,
    bar: &'a ProgressBar,
}

pub(super) fn run(asked: &Bench, is_json: bool) -> Result<ExitCode, Failure> {
    let plot = asked.plot.as_deref().map(PlotFile::new).transpose()?;
    let shapes = asked.size.iter().map(|&bytes| Shape::new(bytes, asked.bytes));
    let shapes = shapes.collect::<Result<Vec<_>, _>>()?;
    let (largest, deepest) = (asked.size.iter().max(), asked.depth.iter().max());
    let buffers = largest.zip(deepest).map_or(0, |(size, depth)| size * u64::from(*depth));
    if buffers > BUFFER_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the largest size at the largest depth takes {} of buffers: more than {}",
            size(buffers),
            size(BUFFER_BYTES_MAX)
        )));
    }
    let file_system = FileSystem::of(&asked.directory)?;
    let store = shapes.iter().map(Shape::room).max().unwrap_or(0);
    let needed = store.saturating_add(RawFile::room(asked.bytes));
    file_system.check_room(needed)?;
    if !is_json {
        writeln!(io::stdout(), "{}; {} are needed", file_system.line(), size(needed))?;
    }
    if cfg!(debug_assertions) {
        eprintln!("tamis: built without optimization: the figures of the cache are far too low");
    }
    let runtime = Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::refused("io", error.to_string()))?;
    let interrupt = Interrupt::install()?;
    let end = End { span: Duration::from_secs_f64(asked.seconds), calls_max: u64::MAX, interrupt };
    let scratch = Scratch::new(&asked.directory, "bench")?;
    let measurements = 2 * asked.depth.len() as u64 * asked.rounds.get() + 1;
    let bar = step_bar(1 + shapes.len() as u64 * measurements);
    let course = Course { asked, runtime: &runtime, scratch: &scratch, end, bar: &bar };
    let mut report = Report::new(file_system);
    report.cores = available_parallelism().map_or(1, usize::from);
    let measured = course.measure(&shapes, &mut report);
    bar.finish_and_clear();
    measured?;
    scratch.remove()?;
    if is_json {
        report.write_json(asked)?
    } else {
        report.write()?
    }
    if let Some(plot) = plot {
        plot.write(&report.panels(asked))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Course<'_> {
    fn measure(&self, shapes: &[Shape], report: &mut Report) -> Result<(), Failure> {
        self.step("the file for raw writes");
        let written = self.scratch.path("raw");
        let written = RawFile::create(&written, self.asked.bytes, &self.end)?;
        for shape in shapes {
            self.step(&format!("a store of values of {}", size(shape.value_bytes)));
            let path = self.scratch.path("store");
            let store = Store::filled(self.runtime, &path, *shape, &self.end)?;
            report.engine = store.stats().l2_engine();
            let read = RawFile::open(&store.data_file(), store.stats().l2_bytes_in_use());
            let measured = read.and_then(|read| {
                report.is_direct = read.is_direct;
                report.gets.extend(self.gets(&store, *shape, &read)?);
                // After all gets, since new values push out those that are read.
                report.puts.extend(self.puts(&store, *shape, &written)?);
                Ok(())
            });
            let closed = store.close();
            measured.and(closed)?;
            fs::remove_dir_all(&path).map_err(|error| Failure::io("remove", &path, &error))?;
        }
        Ok(())
    }

    fn gets(&self, store: &Store<'_>, shape: Shape, raw: &RawFile) -> Result<Vec<Gets>, Failure> {
        let bytes = shape.value_bytes;
        let mut rows: Vec<_> =
            self.asked.depth.iter().map(|&depth| Gets::new(shape, depth)).collect();
        let warm_up = End { span: self.end.span / WARM_UP_SHARE, ..self.end.clone() };
        for round in 0..self.asked.rounds.get() {
            for row in &mut rows {
                self.step(&format!("gets of {}, depth {}", size(bytes), row.depth));
                let load = (row.depth, round + 1);
                store.gets((row.depth, 0), &warm_up)?;
                let (gets, read) = store.gets(load, &self.end)?;
                raw.read((row.depth, 0), bytes, &warm_up)?;
                row.add(&gets, read, &raw.read(load, bytes, &self.end)?);
            }
        }
        Ok(rows)
    }

    fn puts(&self, store: &Store<'_>, shape: Shape, raw: &RawFile) -> Result<Vec<Puts>, Failure> {
        let bytes = shape.value_bytes;
        let mut rows: Vec<_> =
            self.asked.depth.iter().map(|&depth| Puts::new(shape, depth)).collect();
        for round in 0..self.asked.rounds.get() {
            for row in &mut rows {
                self.step(&format!("puts of {}, depth {}", size(bytes), row.depth));
                let puts = store.puts((row.depth, round + 1), &self.end)?;
                row.add(&puts, &raw.write(&self.end)?);
            }
        }
        Ok(rows)
    }

    fn step(&self, message: &str) {
        self.bar.inc(1);
        self.bar.set_message(message.to_owned());
    }
}
