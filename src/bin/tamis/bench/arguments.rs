//! The arguments of `tamis bench`, and its page of help.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::Args;

use super::super::number::within;

#[derive(Debug, Args)]
pub(in super::super) struct Bench {
    /// The directory to measure, in which a folder is made for the time
    #[arg(value_name = "DIR")]
    pub(super) directory: PathBuf,
    /// Sizes of values, in bytes
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_value = "4096,65536")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=64 << 20))]
    pub(super) size: Vec<u64>,
    /// How many calls are under way at one time
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "1,8,32")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) depth: Vec<u32>,
    /// Values of a store, in GiB, but no more than 4194304 of them; as much again for the file of
    /// the raw device
    #[arg(long = "gib", value_name = "GIB", default_value = "1", value_parser = gibibytes)]
    pub(super) bytes: u64,
    /// How long each measurement takes at the most
    #[arg(long, value_name = "SECONDS", default_value = "2")]
    #[arg(value_parser = within(0.01..=3600.0))]
    pub(super) seconds: f64,
    /// How often all of them are made, the cache and the raw device in turn
    #[arg(long, value_name = "NUMBER", default_value = "3")]
    pub(super) rounds: NonZeroU64,
    /// Draw the figures over the depth into this file, which is replaced if it is there
    #[arg(long, value_name = "FILE.svg")]
    pub(super) plot: Option<PathBuf>,
}

/// A decimal number of GiB, as bytes.
fn gibibytes(text: &str) -> Result<u64, String> {
    let gib = within(0.015_625..=65_536.0)(text)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within a range")]
    Ok((gib * f64::from(1 << 30)) as u64)
}

pub(in super::super) const BENCH: &str = "\
Measures what the device below a directory can do for a cache: gets of random values that are
on disk only, and puts of new ones, at several sizes and depths, beside the raw device.

For each size a store is made in a new folder of the directory, filled, measured and removed; at
the end, or by Ctrl-C, the folder is gone (a kill leaves `tamis-bench-PROCESS`). No other file is
touched. Nothing is written if the directory has less room than it takes: once --gib for the
store, with a tenth for heads and free segments, and once for the raw writes. Each round of puts
writes up to --gib for each size and depth, and so does the raw device.

Gets, beside random reads of the same file, of the value's size in whole blocks of 4096 bytes. A
record with its head and key is longer than its value, so the cache reads more: the column `read`
has it. Depth is the number of tasks, each of which waits for one get at a time; for the raw
device of threads, with one read each. Puts, beside writes of a mebibyte one after the other to a
file that was written before; both end with a sync. Values do not compress, all are admitted to
the disk and none to memory, and reads do not make them worth writing again.

Transfers bypass the page cache where the file system has direct I/O; where it has not, or where
it is memory, as a tmpfs, the figures are no device's, and it is said. Ratios compare measurements
of one round; each figure is the median of the rounds, with the lowest and the highest.";

pub(in super::super) const BENCH_MORE: &str = "\
JSON members: directory, file_system, device, free_bytes, direct_io, engine (io_uring, threads),
cores, rounds, seconds, gets: [size, store_bytes (of all values of its store), depth,
gets_per_second, raw_reads_per_second, ratio, p50_us, p99_us, raw_p50_us, raw_p99_us,
read_bytes_per_get], puts: [size, store_bytes, depth, puts_per_second, bytes_per_second,
raw_bytes_per_second, ratio, p50_us, p99_us]. Each figure behind the depth is {median, min, max}.
An error has one of these kinds, besides those of all commands: usage, no_directory, no_room,
cache, io, plot, interrupted.

Examples:
  tamis bench /var/cache
  tamis bench /mnt/nvme --size 1024,16384,1048576 --depth 1,4,16,64 --gib 8 --plot nvme.svg
  tamis bench /mnt/nvme --seconds 0.5 --json | jq '.gets[] | [.size, .depth, .ratio.median]'

Exit codes: 0 measured; 3 the directory cannot be used, or has too little room; 130 interrupted;
others: tamis --help.";
