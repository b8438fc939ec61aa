//! Counts instructions and allocations of a call, where clocks are of no use: on a machine that is
//! shared, and between two builds that differ by a few in a hundred.
//!
//! ```text
//! cargo run --profile bench --features rustix/use-libc-auxv --example cost
//! cargo run --profile bench --features rustix/use-libc-auxv --example cost -- evict hit
//! ```
//!
//! Each row runs in a process of its own under `valgrind --tool=cachegrind`, twice: with few calls
//! and with many. The difference, over the number of calls between them, is the cost of one call,
//! of all threads and of this program's loop, with the allocator of the C library. Instructions of
//! the kernel are not counted, to which `valgrind` leaves reads of clocks, too: the feature has
//! rustix know of that. Allocations are those of the calling thread.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, mem};

use allocation_counter::measure;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheConfigBuilder, BlobCachePolicy, BlobCachePut,
    L2Compression,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Any failure, for the message.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// The calls of both runs of a row.
const CALLS: [u64; 2] = [2_000, 22_000];

/// Keys of rows that read.
const KEYS: u64 = 10_000;

/// The argument of the process that is measured.
const MEASURED: &str = "--measured";

const NAMESPACE: &str = "pages";

/// What is measured: a setup, then calls.
struct Row {
    name: &'static str,
    title: &'static str,
    run: fn(&Runtime, u64) -> Result<u64, Error>,
}

const ROWS: [Row; 7] = [
    Row { name: "evict", title: "put in memory that evicts, 200 bytes", run: puts_that_evict },
    Row {
        name: "put-100",
        title: "put with a disk tier, 100 bytes, uncompressed",
        run: small_puts,
    },
    Row { name: "put-4096", title: "put with a disk tier, 4 KiB", run: puts_of_a_page },
    Row { name: "get-disk", title: "get from disk, 4 KiB, 32 in flight", run: gets_from_disk },
    Row { name: "hit", title: "hit in memory", run: hits },
    Row { name: "hit-ttl", title: "hit in memory, with a ttl", run: hits_with_a_ttl },
    Row { name: "tag", title: "invalidate_tags, for each entry in memory", run: tags },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match &arguments[..] {
        [measured, name, calls] if measured == MEASURED => run_measured(name, calls),
        names => compare(names),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A table of the rows with these names, or of all.
fn compare(names: &[String]) -> Result<String, Error> {
    if let Some(unknown) = names.iter().find(|name| ROWS.iter().all(|row| row.name != **name)) {
        let known: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no row {unknown}; there are {}", known.join(", ")).into());
    }
    let is_wanted = |row: &&Row| names.is_empty() || names.iter().any(|name| row.name == *name);
    let mut table = "| call | instructions | allocations |\n| --- | --- | --- |\n".to_owned();
    for row in ROWS.iter().filter(is_wanted) {
        let (few, many) = (count(row, CALLS[0])?, count(row, CALLS[1])?);
        let each = |few: u64, many: u64| (many as f64 - few as f64) / (CALLS[1] - CALLS[0]) as f64;
        let (instructions, allocations) = (each(few.0, many.0), each(few.1, many.1));
        writeln!(table, "| {} | {instructions:.0} | {allocations:.2} |", row.title)?;
    }
    Ok(table)
}

/// Instructions and allocations of one run.
fn count(row: &Row, calls: u64) -> Result<(u64, u64), Error> {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([MEASURED, row.name, &calls.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}: {told}", row.name).into());
    }
    let line = told.lines().find_map(|line| line.split_once(" refs:"));
    let (_, digits) = line.ok_or("valgrind tells no instructions")?;
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    Ok((digits.parse()?, String::from_utf8_lossy(&output.stdout).trim().parse()?))
}

/// The allocations of the calls.
fn run_measured(name: &str, calls: &str) -> Result<String, Error> {
    let row = ROWS.iter().find(|row| row.name == name).ok_or("no such row")?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok((row.run)(&runtime, calls.parse()?)?.to_string())
}

/// The allocations of a future.
fn allocations(
    runtime: &Runtime,
    calls: impl Future<Output = Result<(), Error>>,
) -> Result<u64, Error> {
    let mut result = Ok(());
    let counted = measure(|| result = runtime.block_on(calls));
    result.map(|()| counted.count_total)
}

/// Numbers below `most`, in no order.
fn shuffled(number: u64, most: u64) -> u64 {
    (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) % most
}

fn key(number: u64) -> String {
    format!("products/{number:08}/0")
}

fn in_memory(bytes: usize) -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder().l1_bytes_max(bytes)
}

fn puts_that_evict(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    let cache = runtime.block_on(BlobCache::open(in_memory(4 << 20).build()?))?;
    let mut keys = 0;
    while cache.stats().evictions() == 0 {
        runtime.block_on(cache.put(NAMESPACE, key(keys), BlobCachePut::new(vec![7; 200])))?;
        keys += 10;
    }
    allocations(runtime, async {
        for call in 0..calls {
            let put = BlobCachePut::copy_from_slice(&[7; 200]);
            cache.put(NAMESPACE, key(shuffled(call, keys)), put).await?;
        }
        Ok(())
    })
}

fn small_puts(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    puts_to_disk(runtime, calls, 100, L2Compression::Off)
}

fn puts_of_a_page(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    puts_to_disk(runtime, calls, 4096, L2Compression::On)
}

fn puts_to_disk(
    runtime: &Runtime,
    calls: u64,
    bytes: usize,
    compression: L2Compression,
) -> Result<u64, Error> {
    let directory = TempDir::new()?;
    let config = in_memory(1 << 20)
        .l2_path(directory.path().join("store"))
        .l2_bytes_max(1 << 30)
        .l2_compression(compression);
    let cache = runtime.block_on(BlobCache::open(config.build()?))?;
    let value = noise(bytes);
    let counted = allocations(runtime, async {
        for call in 0..calls {
            let put = BlobCachePut::copy_from_slice(&value);
            cache.put(NAMESPACE, key(call), put).await?;
        }
        Ok(cache.sync().await?)
    });
    // A close visits all entries.
    mem::forget(cache);
    counted
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

fn gets_from_disk(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    const TASKS: usize = 32;
    let directory = TempDir::new()?;
    let config = in_memory(1 << 20)
        .l2_path(directory.path().join("store"))
        .l2_bytes_max(1 << 30)
        .l2_compression(L2Compression::Off);
    let cache = runtime.block_on(BlobCache::open(config.build()?))?;
    let value = noise(4096);
    runtime.block_on(async {
        for number in 0..KEYS {
            cache.put(NAMESPACE, key(number), BlobCachePut::copy_from_slice(&value)).await?;
        }
        cache.sync().await
    })?;
    let counted = allocations(runtime, async {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let cache = cache.clone();
            tasks.spawn(async move {
                for call in (0..calls).skip(task).step_by(TASKS) {
                    let hit = cache.get(NAMESPACE, key(shuffled(call, KEYS))).await;
                    assert!(hit.is_some_and(|hit| hit.value().len() == 4096));
                }
            });
        }
        while let Some(joined) = tasks.join_next().await {
            joined?;
        }
        Ok(())
    });
    runtime.block_on(cache.close())?;
    counted
}

fn hits(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    hits_of(runtime, calls, &BlobCachePolicy::default())
}

fn hits_with_a_ttl(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    hits_of(runtime, calls, &BlobCachePolicy::default().ttl(Duration::from_secs(3600)))
}

fn hits_of(runtime: &Runtime, calls: u64, policy: &BlobCachePolicy) -> Result<u64, Error> {
    let cache = runtime.block_on(BlobCache::open(in_memory(64 << 20).build()?))?;
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    for key in &keys {
        let put = BlobCachePut::new(vec![7; 100]).with_policy(policy.clone());
        runtime.block_on(cache.put(NAMESPACE, key, put))?;
    }
    allocations(runtime, async {
        for (key, _) in keys.iter().cycle().zip(0..calls) {
            assert!(cache.get(NAMESPACE, key).await.is_some());
        }
        Ok(())
    })
}

fn tags(runtime: &Runtime, calls: u64) -> Result<u64, Error> {
    let cache = runtime.block_on(BlobCache::open(in_memory(64 << 20).build()?))?;
    for number in 0..CALLS[1] {
        let tag = if number < calls { "removed" } else { "others" };
        let put = BlobCachePut::new(vec![7; 100]).with_tags([tag]);
        runtime.block_on(cache.put(NAMESPACE, key(number), put))?;
    }
    allocations(runtime, async {
        let removed = cache.invalidate_tags(NAMESPACE, &["removed"]).await?;
        assert_eq!(u64::try_from(removed)?, calls);
        Ok(())
    })
}
