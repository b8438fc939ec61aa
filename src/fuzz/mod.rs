//! Targets of fuzzers, for this project's own laboratories: each takes any bytes, and panics if
//! they break a promise. `fuzz/` runs them under libFuzzer, the tests under seeded mutations.

mod invalidations;
mod listing;
mod model;
mod operations;
mod source;
mod store;
#[cfg(test)]
mod tests;
mod typed;
mod value;
mod world;

use crate::l2::fuzz;

/// What takes any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    run: fn(&[u8]),
    /// Bytes that it may hold besides what follows from the input: a simulated disk, and buffers.
    memory: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "record", run: fuzz::record, memory: DECODER_BYTES },
    Target { name: "directory", run: fuzz::directory, memory: DECODER_BYTES },
    Target { name: "superblock", run: fuzz::superblock, memory: DECODER_BYTES },
    Target { name: "frame", run: fuzz::frame, memory: DECODER_BYTES },
    Target { name: "image", run: fuzz::image, memory: DECODER_BYTES },
    Target { name: "store", run: store::store, memory: CACHE_BYTES },
    Target { name: "operations", run: operations::operations, memory: CACHE_BYTES },
];

const DECODER_BYTES: usize = 1 << 20;

const CACHE_BYTES: usize = 16 << 20;

/// Copies of the input, and the structures that are made of it.
const MEMORY_FACTOR: usize = 64;

impl Target {
    /// The target of that name.
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }

    /// Runs it.
    ///
    /// # Panics
    /// If the bytes break a promise.
    pub fn run(&self, bytes: &[u8]) {
        (self.run)(bytes);
    }

    /// The most bytes that it may hold at one time for an input of so many.
    pub fn memory_max(&self, bytes: usize) -> u64 {
        (self.memory + MEMORY_FACTOR * bytes) as u64
    }
}
