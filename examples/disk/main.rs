//! Measures the disk tier through the public interface.
//!
//! ```text
//! cargo run --release --example disk -- index
//! cargo run --release --example disk -- reads --gib 4 --directory /mnt/nvme
//! ```
//!
//! | command | measures |
//! | --- | --- |
//! | `index` | index memory per entry, and resident against reported memory |
//! | `density` | file bytes per payload byte; over the limit, the exit code is not zero |
//! | `share` | the part of the file in use, for several blob sizes, at default settings |
//! | `open` | the time to open a store after a kill and after a close |
//! | `reads` | random gets from disk, compared with `fio` on the same file |
//! | `many` | calls for many keys, compared with loops of single calls |
//! | `keys` | a listing of all keys of a namespace |
//! | `fill` | puts of large blobs, compared with `fio` in the same directory |
//!
//! Stores are in a temporary directory `tamis-disk-*`, which is removed at the end unless the
//! program is interrupted. If the file system supports direct I/O, the page cache is not used, but
//! a device's own cache may be.

mod arguments;
mod density;
mod fill;
mod fio;
mod index;
mod keys;
mod many;
mod open;
mod process;
mod reads;
mod report;
mod share;
#[path = "../../src/bin/tamis/spread.rs"]
mod spread;
mod store;
#[path = "../../src/bin/tamis/table.rs"]
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command};
use crate::store::Scratch;

/// Any failure, for the message.
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
        Command::Many(options) => many::run(&scratch, options).await,
        Command::Keys(options) => keys::run(&scratch, options).await,
        Command::Fill(options) => fill::run(&scratch, options).await,
        Command::Filler(_) => Ok(ExitCode::SUCCESS),
    };
    scratch.close()?;
    let code = code?;
    println!("{}", report::load());
    Ok(code)
}
