//! `Arguments`: the command line.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures the disk tier.
#[derive(Debug, Parser)]
pub(crate) struct Arguments {
    /// Parent of the temporary directory of the stores. [default: beside this program]
    #[arg(long, global = true)]
    pub(crate) directory: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Memory of the index for each entry, and of the process.
    Index(Index),
    /// Bytes of file for each byte of payload.
    Density(Density),
    /// How much of the file holds live blobs, at default settings.
    Share(Share),
    /// How long a store takes to open.
    Open(Open),
    /// Random gets from disk.
    Reads(Reads),
    /// Calls for many keys.
    Many(Many),
    /// A listing of keys.
    Keys(Keys),
    /// Puts of large blobs.
    Fill(Fill),
    /// The process that `open` kills.
    #[command(hide = true)]
    Filler(Filler),
}

#[derive(Debug, Args)]
pub(crate) struct Index {
    /// Entries to put; samples start at a quarter of them, or at 5,000,000.
    #[arg(long, default_value = "20000000")]
    pub(crate) entries: NonZeroU64,

    /// Concurrent tasks that put.
    #[arg(long, default_value = "8")]
    pub(crate) putters: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Density {
    /// GiB of values to put.
    #[arg(long = "gib", default_value = "4", value_parser = gibibytes)]
    pub(crate) bytes: u64,

    /// Concurrent tasks that put.
    #[arg(long, default_value = "8")]
    pub(crate) putters: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Share {
    /// GiB of the file.
    #[arg(long = "gib", default_value = "0.25", value_parser = gibibytes)]
    pub(crate) bytes: u64,

    /// Bytes of the index budget, if not the default.
    #[arg(long)]
    pub(crate) index_bytes: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct Open {
    /// Records of the store.
    #[arg(long, default_value = "10000000")]
    pub(crate) records: NonZeroU64,

    /// Concurrent tasks that put.
    #[arg(long, default_value = "8")]
    pub(crate) putters: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Reads {
    /// GiB of values to put, and then to read at random.
    #[arg(long = "gib", default_value = "4", value_parser = gibibytes)]
    pub(crate) bytes: u64,

    /// Bytes of a value.
    #[arg(long, default_value = "4000")]
    pub(crate) value_bytes: NonZeroU64,

    /// Concurrent gets.
    #[arg(long, value_delimiter = ',', default_value = "32,128")]
    pub(crate) in_flight: Vec<NonZeroU64>,

    /// Rounds of each measurement, alternating.
    #[arg(long, default_value = "5")]
    pub(crate) rounds: NonZeroU64,

    /// Seconds of each measurement.
    #[arg(long, default_value = "5")]
    pub(crate) seconds: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Many {
    /// GiB of values to put at first.
    #[arg(long = "gib", default_value = "1", value_parser = gibibytes)]
    pub(crate) bytes: u64,

    /// Bytes of a value.
    #[arg(long, default_value = "4000")]
    pub(crate) value_bytes: NonZeroU64,

    /// Keys of a call.
    #[arg(long, value_delimiter = ',', default_value = "16,256")]
    pub(crate) keys: Vec<NonZeroU64>,

    /// Rounds of each measurement, alternating.
    #[arg(long, default_value = "5")]
    pub(crate) rounds: NonZeroU64,

    /// Milliseconds of each measurement.
    #[arg(long, default_value = "500")]
    pub(crate) millis: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Entries to put, and to list.
    #[arg(long, default_value = "1000000")]
    pub(crate) entries: NonZeroU64,

    /// Bytes of a value.
    #[arg(long, default_value = "1000")]
    pub(crate) value_bytes: NonZeroU64,

    /// Rounds of each measurement, alternating.
    #[arg(long, default_value = "5")]
    pub(crate) rounds: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Fill {
    /// GiB of the store, filled twice.
    #[arg(long = "gib", default_value = "4", value_parser = gibibytes)]
    pub(crate) bytes: u64,

    /// KiB of a blob.
    #[arg(long, value_delimiter = ',', default_value = "64,1024")]
    pub(crate) blob_kib: Vec<NonZeroU64>,

    /// Concurrent tasks that put.
    #[arg(long, default_value = "8")]
    pub(crate) putters: NonZeroU64,

    /// Rounds of each measurement, alternating.
    #[arg(long, default_value = "3")]
    pub(crate) rounds: NonZeroU64,
}

#[derive(Debug, Args)]
pub(crate) struct Filler {
    /// The directory of the store.
    #[arg(long)]
    pub(crate) store: PathBuf,

    #[command(flatten)]
    pub(crate) open: Open,
}

/// At least 64 MiB, so that a store has several segments.
fn gibibytes(text: &str) -> Result<u64, String> {
    let gib: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if !(0.0625..=65_536.0).contains(&gib) {
        return Err("not within 0.0625 to 65536".to_owned());
    }
    // In the range checked above, MiB are exact.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let mib = (gib * 1024.0) as u64;
    Ok(mib << 20)
}
