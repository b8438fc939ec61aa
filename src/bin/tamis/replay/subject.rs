//! `Subject`: a trace, read once to know what it is.

use std::fs::File;
use std::path::Path;

use indicatif::ProgressBar;

use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::progress::bar;
use super::super::traces::{InputError, Request, TraceFormat, TraceReader};
use super::arguments::Replay;
use super::scan::Scan;

/// Between two looks at whether it is to stop.
pub(super) const REQUESTS_BETWEEN: u64 = 1024;

/// A trace, and what is known of it.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) asked: &'a Replay,
    pub(super) format: TraceFormat,
    pub(super) scan: Scan,
    pub(super) interrupt: Interrupt,
}

impl<'a> Subject<'a> {
    /// Reads all of the trace once.
    pub(super) fn read(asked: &'a Replay, interrupt: Interrupt) -> Result<Self, Failure> {
        let path = &*asked.trace;
        let metadata = path.metadata().map_err(|error| InputError::unopened(path, error))?;
        if !metadata.is_file() {
            let message = format!("{} is no file; a trace is read more than once", path.display());
            return Err(Failure::refused("trace", message));
        }
        let bar = bar();
        bar.set_length(metadata.len());
        let scanned = scan(asked, path, &bar, &interrupt);
        bar.finish_and_clear();
        let (format, scan) = scanned?;
        if scan.requests == 0 {
            return Err(InputError::Empty { path: path.to_owned() }.into());
        }
        Ok(Self { asked, format, scan, interrupt })
    }

    /// The trace from its beginning.
    pub(super) fn reader(&self) -> Result<TraceReader<'static>, Failure> {
        Ok(TraceReader::open(&self.asked.trace, &self.asked.layout)?)
    }

    /// A request as the caches see it.
    pub(super) fn sized(&self, Request { key, size }: Request) -> Request {
        let size = if self.scan.is_of_keys { self.asked.object_bytes.get() } else { size };
        // An object without bytes takes room, too.
        Request { key, size: size.max(1) }
    }

    /// Bytes of all objects.
    pub(super) fn working_set(&self) -> u64 {
        let of_keys = self.scan.objects().saturating_mul(self.asked.object_bytes.get());
        if self.scan.is_of_keys { of_keys } else { self.scan.bytes() }
    }

    /// Of one object, in bytes.
    pub(super) fn largest(&self) -> u64 {
        self.sized(Request { key: 0, size: self.scan.largest }).size
    }
}

fn scan(
    asked: &Replay,
    path: &Path,
    bar: &ProgressBar,
    interrupt: &Interrupt,
) -> Result<(TraceFormat, Scan), Failure> {
    let file = File::open(path).map_err(|error| InputError::unopened(path, error))?;
    let mut reader = TraceReader::new(path, bar.wrap_read(file), &asked.layout)?;
    let mut scan = Scan::new();
    while let Some(request) = reader.advance()? {
        scan.add(request);
        if scan.requests % REQUESTS_BETWEEN == 0 {
            interrupt.check()?;
        }
    }
    Ok((reader.format(), scan))
}
