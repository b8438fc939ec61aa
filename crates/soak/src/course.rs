//! `run`: the course of a soak. Legs of load with the store open, and between them it is closed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tamis::{BlobCache, BlobCacheConfig, L2State};
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::antagonist::Antagonist;
use crate::arguments::Arguments;
use crate::blobs::{Blobs, LONGEST};
use crate::load::{Caller, Totals};
use crate::report::{Bounds, Counts, Report, Sample};
use crate::resources::{Latencies, Resources, Spread, histogram};
use crate::verb::Verb;

const MIB: usize = 1 << 20;

/// How long threads and descriptors may take to go after a close.
const PATIENCE: Duration = Duration::from_secs(10);

/// What stays from leg to leg.
struct Course<'a> {
    arguments: &'a Arguments,
    config: BlobCacheConfig,
    folder: tempfile::TempDir,
    runtime: Runtime,
    totals: Arc<Totals>,
    latencies: Vec<Arc<Latencies>>,
    antagonist: Option<Antagonist>,
    begun: Instant,
    /// Resources before the first open.
    idle: Resources,
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Report, Failure> {
    let folder = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let runtime =
        Builder::new_multi_thread().worker_threads(arguments.threads).enable_all().build()?;
    let config = BlobCacheConfig::builder()
        .spawner(runtime.handle().clone())
        .l1_bytes_max(arguments.memory_mib * MIB)
        .l2_path(folder.path().join("store"))
        .l2_bytes_max(arguments.disk_mib << 20)
        .l2_index_bytes_max(16 * MIB)
        .l2_read_bytes_max(16 * MIB)
        .max_namespaces(64)
        .build()?;
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let blobs = Arc::new(Blobs::new(&mut random));
    let totals = Arc::<Totals>::default();
    let tasks = u32::try_from(arguments.tasks)?;
    let caller = |task| Caller::new((task, tasks), arguments.keys, arguments.seed, &blobs, &totals);
    let callers: Vec<_> = (0..tasks).map(caller).collect();
    let latencies = callers.iter().map(|caller| Arc::clone(&caller.latencies)).collect();
    // Once asked for, they stay.
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
    let idle = Resources::now()?;
    let bounds = bounds(&config, arguments, idle)?;
    println!(
        "{} s; bounds: {} MiB resident beside {} MiB before the open, {} descriptors, {} threads",
        arguments.seconds,
        bounds.resident >> 20,
        idle.resident >> 20,
        bounds.descriptors,
        bounds.threads
    );
    let report = Report::new(arguments, bounds, idle);
    let begun = Instant::now();
    let course = Course {
        arguments,
        config,
        folder,
        runtime,
        totals,
        latencies,
        antagonist: None,
        begun,
        idle,
        report,
    };
    course.run(callers)
}

/// Memory that the documents state for this cache, everything counted, and what callers hold: a
/// value to put and a hit each. Descriptors and threads as a store has them.
fn bounds(
    config: &BlobCacheConfig,
    arguments: &Arguments,
    idle: Resources,
) -> Result<Bounds, Failure> {
    let cores = thread::available_parallelism()?.get();
    let copies = config.l1_bytes_max() / 8 + 16 * MIB;
    let segments = 2 * (config.l2_index_bytes_max() / 8);
    let fixed = config.max_namespaces() * 1024 + 8 * MIB;
    let budgets = config.l1_bytes_max() + config.l2_index_bytes_max() + config.l2_read_bytes_max();
    let callers = arguments.tasks * 2 * LONGEST;
    let stated = budgets + copies + 20 * MIB + segments + 4 * cores * MIB + fixed;
    // A ring with its runtime has five, and the file is open three times; a ring for reads has two
    // and one for each of its reapers, in this runtime or on the cache's thread.
    let store = 2 * 5 + 3 + cores.min(16) * 4;
    Ok(Bounds {
        resident: (stated + callers) as u64,
        descriptors: idle.descriptors + store,
        // For appends, for reads, to sweep, and while tables are freed.
        threads: idle.threads + 4,
    })
}

impl Course<'_> {
    fn run(mut self, mut callers: Vec<Caller>) -> Result<Report, Failure> {
        let end = self.begun + Duration::from_secs(self.arguments.seconds);
        while Instant::now() < end {
            callers = self.leg(callers, end)?;
        }
        drop(self.antagonist.take());
        self.report.counts = Counts {
            hits: self.totals.hits.load(Ordering::Relaxed),
            checked: self.totals.checked.load(Ordering::Relaxed),
            wrong: self.totals.wrong.load(Ordering::Relaxed),
            stale: self.totals.stale.load(Ordering::Relaxed),
            failed: self.totals.failed.load(Ordering::Relaxed),
            ..self.report.counts
        };
        Ok(self.report)
    }

    /// Opens the store, lets the callers call for a while, until `last` at most, and closes it.
    fn leg(&mut self, callers: Vec<Caller>, last: Instant) -> Result<Vec<Caller>, Failure> {
        let cache = self.runtime.block_on(BlobCache::open(self.config.clone()))?;
        let found = cache.stats().recovery_records();
        let end = Instant::now() + Duration::from_secs(self.arguments.reopen_every);
        // A short last leg would tell nothing.
        let is_last = last.saturating_duration_since(end) < Duration::from_secs(5);
        let end = if is_last { last } else { end };
        let calling: Vec<_> = callers
            .into_iter()
            .map(|caller| self.runtime.spawn(caller.run(cache.clone(), end)))
            .collect();
        let every = Duration::from_secs(self.arguments.every);
        let mut since = Instant::now();
        while since < end {
            thread::sleep((since + every).min(end).saturating_duration_since(Instant::now()));
            self.sample(&cache, since.elapsed())?;
            since = Instant::now();
        }
        let mut callers = Vec::new();
        for calling in calling {
            callers.push(self.runtime.block_on(calling)?);
        }
        let stats = cache.stats();
        let counts = &mut self.report.counts;
        counts.opens += 1;
        counts.found += found;
        counts.written_bytes += stats.l2_write_bytes();
        counts.reclaimed += stats.l2_reclaimed_segments();
        counts.corruptions += stats.l2_corruptions();
        counts.io_errors += stats.l2_io_errors();
        self.runtime.block_on(cache.close())?;
        drop(cache);
        self.report.closed.push(self.rest()?);
        Ok(callers)
    }

    /// Waits until the store has no threads and descriptors. Returns what is there then, without
    /// the antagonist.
    fn rest(&self) -> Result<Resources, Failure> {
        let begun = Instant::now();
        loop {
            let now = self.own()?;
            let is_over =
                (now.threads, now.descriptors) == (self.idle.threads, self.idle.descriptors);
            if is_over || begun.elapsed() > PATIENCE {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What this process has without the antagonist.
    fn own(&self) -> Result<Resources, Failure> {
        let mut now = Resources::now()?;
        if let Some((threads, descriptors)) = self.antagonist.as_ref().map(Antagonist::resources) {
            now.threads -= threads;
            now.descriptors -= descriptors;
        }
        Ok(now)
    }

    /// Takes the figures of the time that has gone by since the last ones.
    fn sample(&mut self, cache: &BlobCache, span: Duration) -> Result<(), Failure> {
        let mut sums = std::array::from_fn(|_| histogram());
        for latencies in &self.latencies {
            latencies.take(&mut sums)?;
        }
        let calls: u64 = sums.iter().map(hdrhistogram::Histogram::len).sum();
        let stats = cache.stats();
        let sample = Sample {
            seconds: self.begun.elapsed().as_secs_f64(),
            antagonist: self.antagonist.is_some(),
            resources: self.own()?,
            calls_per_second: calls as f64 / span.as_secs_f64(),
            l1_bytes: stats.bytes_in_use() as u64,
            index_bytes: stats.memory_index_bytes() as u64,
            buffer_bytes: stats.memory_buffers_bytes() as u64,
            is_on: matches!(stats.l2_state(), L2State::Healthy),
            verbs: sums.each_ref().map(Spread::of),
        };
        println!("{}", self.report.line(&sample));
        self.report.add(sample, &sums)?;
        let part = self.begun.elapsed().as_secs_f64() / self.arguments.seconds as f64;
        if self.antagonist.is_none() && part >= self.arguments.antagonist_from {
            self.antagonist = Some(Antagonist::start(self.folder.path())?);
            println!("the antagonist begins");
        }
        Ok(())
    }
}

/// The verbs of a line, in groups.
pub(crate) const GROUPS: [(&str, &[Verb]); 6] = [
    ("get", &[Verb::Get]),
    ("fetch", &[Verb::Fetch, Verb::Refresh, Verb::Spawned]),
    ("put", &[Verb::Put]),
    ("inval", &[Verb::Key, Verb::Prefix, Verb::Labels, Verb::Namespace, Verb::All]),
    ("expire", &[Verb::Expire, Verb::ExpireMany, Verb::ExpireNamespace]),
    ("many", &[Verb::GetMany, Verb::PutMany, Verb::Keys]),
];
