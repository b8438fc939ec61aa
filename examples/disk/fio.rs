//! `Fio`: reference measurements of the device by `fio`.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::Error;

/// Fields of `fio`'s terse output, version 3.
const READ_IOPS: usize = 7;
const WRITE_KIB_PER_SECOND: usize = 47;

/// An installed `fio`.
#[derive(Clone, Copy)]
pub(crate) struct Fio(());

impl Fio {
    /// None, with a message on stderr, if it is not installed.
    pub(crate) fn find() -> Result<Option<Self>, Error> {
        match Command::new("fio").arg("--version").output() {
            Ok(_) => Ok(Some(Self(()))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                eprintln!("fio is not installed (package fio): no comparison");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Random reads per second of the first `bytes` of a file.
    pub(crate) fn random_reads(
        self,
        file: &Path,
        bytes: u64,
        block: &str,
        in_flight: u64,
        seconds: u64,
    ) -> Result<f64, Error> {
        let mut command = Command::new("fio");
        command
            .args(["--readonly", "--rw=randread", "--norandommap", "--randrepeat=0"])
            .args(["--time_based", &format!("--runtime={seconds}")])
            .args([&format!("--bs={block}"), &format!("--iodepth={in_flight}")]);
        run(command, file, bytes, READ_IOPS)
    }

    /// MB per second of a sequential write of a file, which is created if missing.
    pub(crate) fn sequential_write(self, file: &Path, bytes: u64) -> Result<f64, Error> {
        let mut command = Command::new("fio");
        command
            .args(["--rw=write", "--bs=1m", "--iodepth=1", "--fallocate=native"])
            .args(["--end_fsync=1"]);
        Ok(run(command, file, bytes, WRITE_KIB_PER_SECOND)? * 1024.0 / 1e6)
    }
}

fn run(mut command: Command, file: &Path, bytes: u64, field: usize) -> Result<f64, Error> {
    let output = command
        .args(["--name=disk", "--ioengine=io_uring", "--direct=1"])
        .args(["--output-format=terse", "--terse-version=3"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={bytes}"))
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    let line = told.lines().find(|line| line.starts_with("3;"));
    let figure = line.and_then(|line| line.split(';').nth(field)?.parse().ok());
    figure.filter(|_| output.status.success()).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("fio failed: {told}{complaint}").into()
    })
}
