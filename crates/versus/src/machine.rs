//! `Machine`: what the figures belong to.

use std::fmt;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use rustix::fs::{major, minor, stat};
use rustix::system::{sysinfo, uname};
use serde::Serialize;

use crate::Error;

/// Kernel, processor, memory, and the device beneath the stores.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    processor: String,
    cores: usize,
    memory_mib: u64,
    device: String,
    /// Averages of the run queue, over 1, 5 and 15 minutes, before the run.
    load: String,
    compiler: String,
}

impl Machine {
    /// `directory` is on the device.
    pub(crate) fn describe(directory: &Path) -> Result<Self, Error> {
        let system = uname();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let memory = sysinfo();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            kernel: format!(
                "{} {} {}",
                system.sysname().to_string_lossy(),
                system.release().to_string_lossy(),
                system.machine().to_string_lossy()
            ),
            processor: model.unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: available_parallelism().map_or(1, usize::from),
            memory_mib: (memory.totalram * u64::from(memory.mem_unit)) >> 20,
            device: device_of(directory)?,
            load: load.split(' ').take(3).collect::<Vec<_>>().join(", "),
            compiler: env!("VERSUS_RUSTC").to_owned(),
        })
    }
}

/// The block device of a directory: its name, size, and scheduler.
fn device_of(directory: &Path) -> Result<String, Error> {
    let number = stat(directory)?.st_dev;
    let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
    let Ok(path) = fs::canonicalize(link) else {
        return Ok("no block device".to_owned());
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // The queue of a partition is that of the disk around it.
    let queue = path.ancestors().map(|folder| folder.join("queue")).find(|queue| queue.is_dir());
    let queue = queue.unwrap_or_default();
    let told = |path: &Path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let sectors: u64 = told(&path.join("size")).parse().unwrap_or(0);
    let model = queue.parent().map(|disk| told(&disk.join("device/model"))).unwrap_or_default();
    let words = [
        name,
        model,
        format!("{} GiB", sectors >> 21),
        format!("scheduler {}", told(&queue.join("scheduler"))),
    ];
    Ok(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "))
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "kernel     {}", self.kernel)?;
        writeln!(formatter, "processor  {} cores, {}", self.cores, self.processor)?;
        writeln!(formatter, "memory     {} MiB", self.memory_mib)?;
        writeln!(formatter, "device     {}", self.device)?;
        writeln!(formatter, "load       {}", self.load)?;
        write!(formatter, "compiler   {}", self.compiler)
    }
}
