//! What a cache costs while nobody calls: the processor's time that its process takes, second after
//! second, of a cache in which nothing ends, and of one in which entries end one after the other.
//!
//! Nothing at all is what it should be in the first case, and next to nothing in the second:
//! whoever sweeps has to visit all entries to find those that have ended.
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

/// Processor time of a cache that nobody asks for anything.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many entries it holds.
    #[arg(long, default_value_t = 500_000)]
    entries: u32,
    /// The time within which they end, in seconds.
    #[arg(long, default_value_t = 3600)]
    span: u32,
    /// How long each cache is left alone, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// What the process has used of the processor so far, all threads together.
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
    println!("{entries} entries, left alone for {seconds:?}\n");
    println!("| they end | processor time | of a core | gone of the memory by then |");
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
