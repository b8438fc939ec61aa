//! Measures the disk tier, through the public interface alone.
//!
//! ```text
//! cargo run --release --example disk -- index
//! cargo run --release --example disk -- reads --gib 4 --directory /mnt/nvme
//! ```
//!
//! | command | what it tells |
//! | --- | --- |
//! | `index` | memory of the index for each entry, and resident memory against what is reported |
//! | `density` | bytes of file for each byte of payload; over the limit, the exit code says so |
//! | `share` | how much of the file is in use with blobs of several sizes, at default settings |
//! | `open` | how long a store takes to open, after a kill and after a close |
//! | `reads` | random gets from disk, beside `fio` on the same file |
//! | `fill` | puts of large blobs, beside `fio` in the same directory |
//!
//! Stores are made in a temporary directory, which is removed at the end; where the program is
//! interrupted it stays, under the name `tamis-disk-*`. The page cache is not involved where the
//! file system takes direct I/O, but a device's own is.

mod arguments;
mod density;
mod fill;
mod fio;
mod index;
mod open;
mod process;
mod reads;
mod report;
mod share;
mod store;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::store::Scratch;

/// Whatever went wrong, to be told.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { directory, command }: Arguments) -> Result<ExitCode, Error> {
    if let Command::Filler(filler) = &command {
        open::fill(filler).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let scratch = Scratch::new(directory.as_deref())?;
    let code = match &command {
        Command::Index(options) => index::run(&scratch, options).await,
        Command::Density(options) => density::run(&scratch, options).await,
        Command::Share(options) => share::run(&scratch, options).await,
        Command::Open(options) => open::run(&scratch, options).await,
        Command::Reads(options) => reads::run(&scratch, options).await,
        Command::Fill(options) => fill::run(&scratch, options).await,
        Command::Filler(_) => Ok(ExitCode::SUCCESS),
    };
    scratch.close()?;
    let code = code?;
    println!("{}", report::load());
    Ok(code)
}
