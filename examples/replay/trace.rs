//! `Trace`: the requests of a trace, in order, and their working set.
//!
//! Objects are numbered by first appearance; the replay uses only the numbers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::budget::Mode;
use crate::traces::{InputError, Layout, Request, TraceReader};

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
    /// Distinct keys.
    objects: u64,
    /// Their sizes at first sight.
    bytes: u64,
}

impl Trace {
    pub(crate) fn new(name: String, requests: Vec<Request>) -> Self {
        let mut seen = HashSet::new();
        let (mut objects, mut bytes) = (0, 0u64);
        for request in &requests {
            if seen.insert(request.key) {
                objects += 1;
                bytes = bytes.saturating_add(request.size);
            }
        }
        Self { name, requests, objects, bytes }
    }

    /// Reads a trace file, plain or zstd-compressed.
    pub(crate) fn read(path: &Path, layout: &Layout) -> Result<Self, InputError> {
        Self::parse(path, TraceReader::open(path, layout)?)
    }

    /// The rest of a trace, which is named like a file.
    pub(crate) fn parse(path: &Path, mut reader: TraceReader<'_>) -> Result<Self, InputError> {
        let mut numbers: HashMap<u64, u64> = HashMap::new();
        let mut requests = Vec::new();
        while let Some(request) = reader.advance()? {
            let next = numbers.len() as u64;
            let key = *numbers.entry(request.key).or_insert(next);
            requests.push(Request { key, ..request });
        }
        if requests.is_empty() {
            return Err(InputError::Empty { path: path.to_owned() });
        }
        Ok(Self::new(name_of(path), requests))
    }

    /// The size of a cache that holds everything, in objects or in bytes.
    pub(crate) fn working_set(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Obj => self.objects,
            Mode::Byte => self.bytes,
        }
    }
}

/// The name of a trace: its file name without the extensions.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    name.strip_suffix(".csv").unwrap_or(name).to_owned()
}
