//! `Arguments` of the program.

use std::path::PathBuf;

use clap::Parser;

/// A long mixed load on a small store, with its figures over time.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// How long the load goes on.
    #[arg(long, default_value_t = 1800)]
    pub(crate) seconds: u64,

    /// How often a line is printed, in seconds.
    #[arg(long, default_value_t = 10)]
    pub(crate) every: u64,

    /// How often the store is closed and opened again, in seconds.
    #[arg(long, default_value_t = 300)]
    pub(crate) reopen_every: u64,

    /// Tasks that call the cache.
    #[arg(long, default_value_t = 16)]
    pub(crate) tasks: usize,

    /// Threads of the runtime that runs them.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,

    /// The budget of the memory tier, in MiB.
    #[arg(long, default_value_t = 32)]
    pub(crate) memory_mib: usize,

    /// The size of the disk tier, in MiB.
    #[arg(long, default_value_t = 512)]
    pub(crate) disk_mib: u64,

    /// Keys of each task.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(16..))]
    pub(crate) keys: u32,

    /// The antagonist begins after this part of the time; 1 for none.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) antagonist_from: f64,

    /// Where the store is made. [default: the system's temporary folder]
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,

    /// The path, without its ending, of the figures (`.json`) and of the plot (`.svg`).
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,

    /// The seed of the calls.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}
