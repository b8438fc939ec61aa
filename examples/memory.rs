//! Compares the budget with the resident memory of a process.
//!
//! A cache counts memory with a model of a typical allocator; this checks the model. A process
//! fills a cache and replaces its contents three times, with gets in between, to fragment the
//! memory; then the growth of its resident memory since before the open is divided by the budget.
//! The ratio must not exceed 1.15 at any budget: lookup tables take most per entry just after they
//! have grown, and the budget determines the number of entries.
//!
//! The limit is for one thread that puts. With more threads, allocator arenas add overhead
//! (`--threads 4`; `MALLOC_ARENA_MAX=1` avoids it).
//!
//! It is also for one mix of sizes. After a change of sizes, the allocator keeps fragments that it
//! cannot return (`--shape shifted --blob-bytes 65536`).
//!
//! Without arguments, every shape of entry runs at every budget, each in its own process, and the
//! exit code tells whether all stayed within the limit:
//!
//! ```text
//! cargo run --release --example memory
//! cargo run --release --example memory -- --shape plain --blob-bytes 100 --budget-mib 256
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, BlobCacheStats, CacheError, L2Compression};

/// The limit of resident memory as a multiple of the budget.
const RATIO_MAX: f64 = 1.15;

const TURNOVERS: u64 = 3;

/// The limit of a disk tier's buffers: values being copied, and pending records with the directory
/// of their segment. In addition, an eighth of the memory tier for copies, and another for values
/// waiting for promotion.
const BUFFERS_BYTES: usize = (16 + 16 + 16) << 20;

/// Budgets in MiB. Steps of a few percent and a doubling from first to last cover every fill of the
/// tables.
const BUDGETS_MIB: [usize; 13] = [160, 176, 192, 208, 224, 240, 256, 272, 288, 304, 320, 336, 352];

const SHAPES: [(Shape, usize); 8] = [
    (Shape::Plain, 100),
    (Shape::Plain, 1 << 10),
    (Shape::Plain, 64 << 10),
    (Shape::Labels, 100),
    (Shape::Labels, 1 << 10),
    (Shape::Metadata, 100),
    (Shape::Metadata, 1 << 10),
    (Shape::Mixed, 64 << 10),
];

/// Resident memory of a cache against its budget.
#[derive(Parser)]
struct Arguments {
    /// The kind of entries. Without it, all kinds run
    #[arg(long)]
    shape: Option<Shape>,
    /// Bytes of a value; of the largest one if they are mixed
    #[arg(long, default_value_t = 100)]
    blob_bytes: usize,
    /// The budget of the cache
    #[arg(long, default_value_t = 256)]
    budget_mib: usize,
    /// The size of a disk tier beneath it. Without it, there is none
    #[arg(long)]
    l2_mib: Option<u64>,
    /// Concurrent threads that put
    #[arg(long, default_value_t = 1)]
    threads: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Only a value.
    Plain,
    /// Three tags: one shared by ten thousand entries, one by a hundred, one unique.
    Labels,
    /// Two content metadata keys.
    Metadata,
    /// Values of any size from 100 bytes up.
    Mixed,
    /// Values of one size, after as many replacements with values of 100 bytes and a flush.
    Shifted,
}

/// The result of a process.
struct Found {
    entries: usize,
    budget: usize,
    resident: usize,
    bytes_in_use: usize,
}

impl Found {
    fn ratio(&self) -> f64 {
        as_f64(self.resident) / as_f64(self.budget)
    }

    /// The output line of a child process.
    fn to_line(&self) -> String {
        let Self { entries, budget, resident, bytes_in_use } = self;
        format!("{entries} {budget} {resident} {bytes_in_use}")
    }

    fn from_line(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        let (entries, budget) = (numbers.next()?, numbers.next()?);
        let (resident, bytes_in_use) = (numbers.next()?, numbers.next()?);
        Some(Self { entries, budget, resident, bytes_in_use })
    }
}

/// All byte counts here are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn as_f64(number: usize) -> f64 {
    number as f64
}

/// The resident memory of this process, in bytes.
fn resident() -> Result<usize, Box<dyn Error>> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: usize = line.ok_or("no Rss")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}

fn put_of(shape: Shape, blob_bytes: usize, number: u64, random: &mut StdRng) -> BlobCachePut {
    let bytes = match shape {
        Shape::Mixed => random.random_range(100..=blob_bytes.max(100)),
        _ => blob_bytes,
    };
    let put = BlobCachePut::from(vec![7; bytes]);
    match shape {
        Shape::Plain | Shape::Mixed | Shape::Shifted => put,
        Shape::Labels => put.with_tags([
            format!("site:{}", number % 20),
            format!("category:{}", number / 100),
            format!("product:{number}"),
        ]),
        Shape::Metadata => put.with_content_metadata(BTreeMap::from([
            ("content-type".to_owned(), "text/html; charset=utf-8".to_owned()),
            ("etag".to_owned(), format!("{:016x}", random.random::<u64>())),
        ])),
    }
}

/// Puts until three times the cache's contents were evicted, with a get of a possibly present entry
/// after each put. `thread` separates the keys of threads.
fn turn_over(cache: &BlobCache, arguments: &Arguments, thread: u64) -> Result<(), CacheError> {
    let shape = arguments.shape.unwrap_or(Shape::Plain);
    if shape == Shape::Shifted {
        turn_over_once(cache, shape, 100, thread)?;
        block_on(cache.invalidate_all())?;
    }
    turn_over_once(cache, shape, arguments.blob_bytes, thread)
}

fn turn_over_once(
    cache: &BlobCache,
    shape: Shape,
    blob_bytes: usize,
    thread: u64,
) -> Result<(), CacheError> {
    let key = |number: u64| format!("products/{thread:02}/{blob_bytes}/{number:010}");
    let mut random = StdRng::seed_from_u64(thread);
    let before = cache.stats().evictions();
    let l2_bytes = cache.stats().l2_bytes_max();
    let is_turned_over = |stats: BlobCacheStats| {
        let evictions = stats.evictions() - before;
        evictions > 0
            && evictions >= TURNOVERS * (stats.entries() as u64)
            && stats.l2_write_bytes() >= TURNOVERS * l2_bytes
    };
    for number in 0.. {
        let put = put_of(shape, blob_bytes, number, &mut random);
        block_on(cache.put("pages", key(number), put))?;
        let before = number.saturating_sub(random.random_range(0..1_000_000));
        drop(block_on(cache.get("pages", key(before))));
        if number % 64 == 0 && is_turned_over(cache.stats()) {
            break;
        }
    }
    Ok(())
}

/// Measures this process.
fn measure(arguments: &Arguments) -> Result<Found, Box<dyn Error>> {
    let mut budget = arguments.budget_mib << 20;
    let mut builder = BlobCacheConfig::builder().l1_bytes_max(budget);
    let folder = tempfile::tempdir()?;
    if let Some(l2_mib) = arguments.l2_mib {
        let l2_bytes = l2_mib << 20;
        // An eighth of the file, as small values need.
        let index_bytes = usize::try_from(l2_bytes / 8)?;
        builder = builder.l2_path(folder.path()).l2_bytes_max(l2_bytes);
        builder = builder.l2_index_bytes_max(index_bytes).l2_compression(L2Compression::Off);
        budget += index_bytes + BUFFERS_BYTES + (arguments.budget_mib << 20) / 4;
    }
    let config = builder.build()?;
    let baseline = resident()?;
    let cache = block_on(BlobCache::open(config))?;
    std::thread::scope(|scope| {
        let cache = &cache;
        let threads: Vec<_> = (0..arguments.threads)
            .map(|thread| scope.spawn(move || turn_over(cache, arguments, thread)))
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err::<(), Box<dyn Error>>("a thread panicked".into()),
        })
    })?;
    let stats = cache.stats();
    let (entries, bytes_in_use) = (stats.entries(), stats.bytes_in_use());
    Ok(Found { entries, budget, resident: resident()?.saturating_sub(baseline), bytes_in_use })
}

/// Measures in a child process.
fn measure_apart(
    shape: Shape,
    blob_bytes: usize,
    budget_mib: usize,
    threads: u64,
) -> Result<Found, Box<dyn Error>> {
    let named = shape.to_possible_value().ok_or("a shape without a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--shape", named.get_name()])
        .args(["--blob-bytes", &blob_bytes.to_string()])
        .args(["--budget-mib", &budget_mib.to_string()])
        .args(["--threads", &threads.to_string()])
        .output()?;
    let told = String::from_utf8_lossy(&output.stdout);
    Found::from_line(&told).ok_or_else(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("a process did not measure itself: {complaint}").into()
    })
}

/// Runs one shape at every budget, and returns the worst ratio.
fn try_budgets(shape: Shape, blob_bytes: usize, threads: u64) -> Result<f64, Box<dyn Error>> {
    let mut worst: f64 = 0.0;
    for budget_mib in BUDGETS_MIB {
        let found = measure_apart(shape, blob_bytes, budget_mib, threads)?;
        println!(
            "{:<10}{blob_bytes:>7}{:>10}{budget_mib:>9}{:>14.1}{:>14.1}{:>8.3}",
            format!("{shape:?}"),
            found.entries,
            as_f64(found.bytes_in_use) / as_f64(1 << 20),
            as_f64(found.resident) / as_f64(1 << 20),
            found.ratio()
        );
        worst = worst.max(found.ratio());
    }
    println!("{:<10}{blob_bytes:>7}{:>55.3}\n", format!("{shape:?}"), worst);
    Ok(worst)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let worst = if arguments.shape.is_some() {
        let found = measure(&arguments)?;
        println!("{}", found.to_line());
        found.ratio()
    } else {
        println!("shape       bytes   entries      MiB    in use, MiB resident, MiB   ratio");
        let mut worst: f64 = 0.0;
        for (shape, blob_bytes) in SHAPES {
            worst = worst.max(try_budgets(shape, blob_bytes, arguments.threads)?);
        }
        worst
    };
    println!("worst {worst:.3}, limit {RATIO_MAX}");
    Ok(if worst > RATIO_MAX { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
