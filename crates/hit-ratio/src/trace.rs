//! `Trace`: the requests of a trace, in order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::Failure;

/// The size of an object in a trace of keys alone.
const OBJECT_BYTES: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    /// Numbers of keys, and sizes.
    pub(crate) requests: Vec<(u64, u64)>,
    /// Of all objects, at their first size.
    pub(crate) working_set: u64,
    pub(crate) largest: u64,
    is_of_keys: bool,
}

impl Trace {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".csv.zst").to_owned();
        let lines = BufReader::new(zstd::Decoder::new(File::open(path)?)?).lines();
        let (mut numbers, mut requests) = (HashMap::new(), Vec::new());
        for line in lines {
            let line = line?;
            let (key, size) = line.split_once(',').ok_or("a line is not key,size")?;
            let next = numbers.len() as u64;
            let number = *numbers.entry(key.to_owned()).or_insert(next);
            requests.push((number, size.trim().parse::<u64>()?));
        }
        let is_of_keys = requests.iter().all(|&(_, size)| size == 1);
        if is_of_keys {
            requests.iter_mut().for_each(|(_, size)| *size = OBJECT_BYTES);
        }
        let (mut next, mut working_set) = (0, 0);
        for &(key, size) in &requests {
            if key == next {
                (next, working_set) = (next + 1, working_set + size);
            }
        }
        let largest = requests.iter().map(|&(_, size)| size).max().unwrap_or(0);
        Ok(Self { name, requests, working_set, largest, is_of_keys })
    }

    /// How the reference counts objects.
    pub(crate) fn mode(&self) -> &'static str {
        if self.is_of_keys { "obj" } else { "byte" }
    }
}
