//! `Trace`: the requests of a trace, in order, and their working set.
//!
//! A trace file has one request per line, `key,size` or `time,key,size`, without a header; a key is
//! any text. Keys are numbered by first appearance; the replay uses only the numbers.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::budget::Mode;
use crate::lines::{InputError, Lines};

/// A request of an object, with its size if it must be put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) key: u64,
    pub(crate) size: u64,
}

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

    /// Reads a trace file, plain or `.zst`.
    pub(crate) fn read(path: &Path) -> Result<Self, InputError> {
        Self::parse(name_of(path), Lines::open(path)?)
    }

    pub(crate) fn parse(name: String, mut lines: Lines<'_>) -> Result<Self, InputError> {
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut requests = Vec::new();
        while let Some(line) = lines.advance()? {
            let (key, size) = match split(line) {
                Ok(request) => request,
                Err(reason) => return Err(lines.malformed(reason)),
            };
            let next = numbers.len() as u64;
            let key = match numbers.get(key) {
                Some(&number) => number,
                None => *numbers.entry(key.to_owned()).or_insert(next),
            };
            requests.push(Request { key, size });
        }
        if requests.is_empty() {
            return Err(lines.empty());
        }
        Ok(Self::new(name, requests))
    }

    /// The size of a cache that holds everything, in objects or in bytes.
    pub(crate) fn working_set(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Obj => self.objects,
            Mode::Byte => self.bytes,
        }
    }
}

/// The key and the size of a line, or the error.
fn split(line: &str) -> Result<(&str, u64), &'static str> {
    let columns: Vec<_> = line.split(',').map(str::trim).collect();
    let (key, size) = match *columns {
        [key, size] | [_, key, size] => (key, size),
        _ => return Err("not key,size nor time,key,size"),
    };
    if key.is_empty() {
        return Err("the key is empty");
    }
    let size = size.parse().map_err(|_| "the size is not a whole number of bytes")?;
    Ok((key, size))
}

/// The name of a trace: its file name without the extensions.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    name.strip_suffix(".csv").unwrap_or(name).to_owned()
}
