//! `Fio`: what the device does without a cache in front of it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::Error;
use crate::metric::{Metric, Sample};

/// An installed `fio`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fio(());

/// Reads of blocks of the first `bytes` of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RandomReads {
    pub(crate) bytes: u64,
    pub(crate) block_bytes: u64,
    /// Of all jobs together.
    pub(crate) in_flight: usize,
    /// Threads, each with a ring of its own.
    pub(crate) jobs: usize,
}

/// The part of its output that is read.
#[derive(Deserialize)]
struct Output {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    read: Direction,
    write: Direction,
    /// Milliseconds.
    job_runtime: f64,
    /// CPU time in percent of that.
    usr_cpu: f64,
    sys_cpu: f64,
}

#[derive(Deserialize)]
struct Direction {
    total_ios: f64,
    iops: f64,
    bw_bytes: f64,
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(default)]
    percentile: Option<Percentiles>,
}

#[derive(Deserialize)]
struct Percentiles {
    #[serde(rename = "50.000000")]
    p50: f64,
    #[serde(rename = "99.000000")]
    p99: f64,
}

impl Fio {
    /// None if it is not installed.
    pub(crate) fn find() -> Option<Self> {
        let found = Command::new("fio").arg("--version").output();
        found.is_ok_and(|output| output.status.success()).then_some(Self(()))
    }

    /// Random reads of a file.
    pub(crate) fn random_reads(
        self,
        file: &Path,
        reads: RandomReads,
        span: Duration,
    ) -> Result<Sample, Error> {
        let RandomReads { bytes, block_bytes, in_flight, jobs } = reads;
        let mut command = Command::new("fio");
        command
            .args(["--readonly", "--rw=randread", "--norandommap", "--randrepeat=0"])
            .args(["--time_based", &format!("--runtime={}ms", span.as_millis())])
            .args([&format!("--bs={block_bytes}"), &format!("--iodepth={}", in_flight / jobs)])
            .args([&format!("--numjobs={jobs}"), "--group_reporting"]);
        let job = run(command, file, bytes)?;
        let read = &job.read;
        let mut sample = Sample::from([
            (Metric::CallsPerSecond, read.iops),
            (Metric::CpuPerCall, job.cpu_micros() / read.total_ios),
        ]);
        if let Some(percentiles) = &read.lat_ns.percentile {
            sample.insert(Metric::GetP50, percentiles.p50 / 1e3);
            sample.insert(Metric::GetP99, percentiles.p99 / 1e3);
        }
        Ok(sample)
    }

    /// Writes of one block each, one after the other, all over a file that is made for it.
    pub(crate) fn small_writes(self, file: &Path, span: Duration) -> Result<Sample, Error> {
        let mut command = Command::new("fio");
        command
            .args(["--rw=randwrite", "--bs=4096", "--iodepth=1", "--overwrite=1"])
            .args(["--time_based", &format!("--runtime={}ms", span.as_millis())]);
        let job = run(command, file, 32 << 20)?;
        let percentiles = job.write.lat_ns.percentile.ok_or("fio gave no percentiles")?;
        Ok(Sample::from([(Metric::Returned, percentiles.p50 / 1e3)]))
    }

    /// A sequential write of a new file of that size, and a sync.
    pub(crate) fn sequential_write(self, file: &Path, bytes: u64) -> Result<Sample, Error> {
        let mut command = Command::new("fio");
        command
            .args(["--rw=write", "--bs=1m", "--iodepth=1", "--fallocate=native"])
            .args(["--end_fsync=1"]);
        let job = run(command, file, bytes)?;
        Ok(Sample::from([(Metric::MegabytesPerSecond, job.write.bw_bytes / 1e6)]))
    }
}

impl Job {
    fn cpu_micros(&self) -> f64 {
        (self.usr_cpu + self.sys_cpu) / 100.0 * self.job_runtime * 1e3
    }
}

fn run(mut command: Command, file: &Path, bytes: u64) -> Result<Job, Error> {
    let output = command
        .args(["--name=device", "--ioengine=io_uring", "--direct=1"])
        .args(["--output-format=json", "--lat_percentiles=1"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={bytes}"))
        .output()?;
    let parsed: Result<Output, _> = serde_json::from_slice(&output.stdout);
    let job = parsed.ok().and_then(|output| output.jobs.into_iter().next());
    job.filter(|_| output.status.success()).ok_or_else(|| {
        let told = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("fio failed: {told}{complaint}").into()
    })
}
