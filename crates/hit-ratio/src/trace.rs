//! `Trace`: the requests of a trace, in order.

use std::collections::HashSet;
use std::path::Path;

use crate::Failure;
use crate::traces::{Layout, Request, TraceReader};

/// The size of an object in a trace of keys alone.
const OBJECT_BYTES: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
    /// Of all objects, at their first size.
    pub(crate) working_set: u64,
    pub(crate) largest: u64,
    is_of_keys: bool,
}

impl Trace {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".csv.zst").to_owned();
        let mut reader = TraceReader::open(path, &Layout::default())?;
        let mut requests = Vec::new();
        while let Some(request) = reader.advance()? {
            requests.push(request);
        }
        let is_of_keys = requests.iter().all(|request| request.size == 1);
        if is_of_keys {
            requests.iter_mut().for_each(|request| request.size = OBJECT_BYTES);
        }
        let mut seen = HashSet::new();
        let first = requests.iter().filter(|request| seen.insert(request.key));
        let working_set = first.map(|request| request.size).sum();
        let largest = requests.iter().map(|request| request.size).max().unwrap_or(0);
        Ok(Self { name, requests, working_set, largest, is_of_keys })
    }

    /// How the reference counts objects.
    pub(crate) fn mode(&self) -> &'static str {
        if self.is_of_keys { "obj" } else { "byte" }
    }
}
