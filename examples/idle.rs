//! The processor time of a cache without calls: of one whose entries never expire, and of one whose
//! entries expire one after the other.
//!
//! The first should use none, the second almost none: the sweeper has to visit all entries to find
//! the expired ones.
//!
//! ```text
//! cargo run --release --example idle
//! cargo run --release --example idle -- --entries 5000000 --span 600 --seconds 300
//! ```

use std::error::Error;
use std::thread;
use std::time::Duration;

use clap::Parser;
use futures::executor::block_on;
use rustix::time::{ClockId, clock_gettime};
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut};

/// Processor time of an idle cache.
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of entries.
    #[arg(long, default_value_t = 500_000)]
    entries: u32,
    /// The time within which they expire, in seconds.
    #[arg(long, default_value_t = 3600)]
    span: u32,
    /// How long each cache is idle, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// Processor time of all threads of the process so far.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Ok(Duration::new(u64::try_from(time.tv_sec)?, u32::try_from(time.tv_nsec)?))
}

fn fill(cache: &BlobCache, entries: u32, span: Option<Duration>) -> Result<(), Box<dyn Error>> {
    for number in 0..entries {
        let mut policy = BlobCachePolicy::default();
        if let Some(span) = span {
            policy = policy.ttl(span.mul_f64(f64::from(number) / f64::from(entries)));
        }
        let put = BlobCachePut::copy_from_slice(&[7; 100]).with_policy(policy);
        block_on(cache.put("space", number.to_le_bytes(), put))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { entries, span, seconds } = Arguments::parse();
    let span = Duration::from_secs(u64::from(span));
    let seconds = Duration::from_secs(u64::from(seconds));
    println!("{entries} entries, idle for {seconds:?}\n");
    println!("| they expire | processor time | of a core | memory freed by then |");
    println!("| --- | --- | --- | --- |");
    for (when, span) in [("never", None), ("one after the other", Some(span))] {
        let config = BlobCacheConfig::builder().l1_bytes_max(entries as usize * 1024).build()?;
        let cache = block_on(BlobCache::open(config))?;
        fill(&cache, entries, span)?;
        let (before, held) = (processor_time()?, cache.stats().bytes_in_use());
        thread::sleep(seconds);
        let used = processor_time()? - before;
        let share = 100.0 * used.as_secs_f64() / seconds.as_secs_f64();
        let left = cache.stats().bytes_in_use() as f64 / held as f64;
        println!("| {when} | {used:.3?} | {share:.3} % | {:.2} % |", 100.0 - 100.0 * left);
        block_on(cache.close())?;
    }
    Ok(())
}
