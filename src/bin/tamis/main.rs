//! `tamis`: looks at the stores of caches, copies them and watches their caches, from outside. It
//! never writes to a store that there is. And it measures what a cache would do on a device, or
//! with a trace of requests.

#[cfg(target_os = "linux")]
mod arguments;
#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod cache_size;
#[cfg(target_os = "linux")]
mod chart;
#[cfg(target_os = "linux")]
mod copy;
#[cfg(target_os = "linux")]
mod driven;
#[cfg(target_os = "linux")]
mod dump;
#[cfg(target_os = "linux")]
mod failure;
#[cfg(target_os = "linux")]
mod file_system;
#[cfg(target_os = "linux")]
mod inspect;
#[cfg(target_os = "linux")]
mod interrupt;
#[cfg(target_os = "linux")]
mod number;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod plot_file;
#[cfg(target_os = "linux")]
mod progress;
#[cfg(target_os = "linux")]
mod rates;
#[cfg(target_os = "linux")]
mod replay;
#[cfg(target_os = "linux")]
mod scratch;
#[cfg(target_os = "linux")]
mod segments;
#[cfg(target_os = "linux")]
mod size;
#[cfg(target_os = "linux")]
mod spread;
#[cfg(target_os = "linux")]
mod stat;
#[cfg(target_os = "linux")]
mod table;
#[cfg(target_os = "linux")]
mod top;
#[cfg(target_os = "linux")]
mod traces;
#[cfg(target_os = "linux")]
mod values;
#[cfg(target_os = "linux")]
mod verify;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use clap::Parser;

    use self::arguments::{Arguments, Command};

    let Arguments { json, command } = Arguments::parse();
    let done = match &command {
        Command::Inspect(store) => inspect::run(store, json),
        Command::Verify(store) => verify::run(store, json),
        Command::Dump(dump) => dump::run(dump, json),
        Command::Top(top) => top::run(top, json),
        Command::Size(size) => size::run(size, json),
        Command::Stat(stat) => stat::run(stat, json),
        Command::Backup(backup) => copy::back_up(backup, json),
        Command::Restore(restore) => copy::restore(restore, json),
        Command::Bench(bench) => bench::run(bench, json),
        Command::Replay(replay) => replay::run(replay, json),
    };
    done.unwrap_or_else(|failure| failure.tell(json))
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("tamis: disk tiers are on Linux only");
    ExitCode::from(3)
}
