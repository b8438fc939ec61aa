//! The mixed load: cache-aside with overwrites.
//!
//! A request overwrites its key, one time in ten; otherwise it gets it, and puts it if the get
//! misses. Keys follow Zipf's law, values have all sizes from 1 to 64 KiB. The working set is ten
//! times the memory tier and twice the file, so that there are misses, and segments are reclaimed.

use rand::RngExt;
use rand_distr::{Distribution, Zipf};

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind, Setup};
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::{Request, drive, timed, two_workers};
use crate::metric::Metric::{CallsPerSecond, GetP99, Hits, PutP99};
use crate::metric::Sample;

use super::store::{put_all, remove};

const TASKS: usize = 64;

const EXPONENT: f64 = 0.9;

/// Of all requests.
const OVERWRITES_PERCENT: u32 = 10;

/// In percent. What tamis reached when this was written.
const HITS_MIN: f64 = 81.5;

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let memory_bytes = bench.pick(128 << 20, 8 << 20);
    let blobs = Blobs::between(1 << 10, 64 << 10);
    let mut contestants = Vec::new();
    for &kind in Kind::ALL_WAYS {
        let blobs = &blobs;
        let requests = move || serve(bench, kind, blobs, memory_bytes);
        contestants.push(Contestant::new(kind.name(), requests));
    }
    let title = format!("depth {TASKS}, Zipf {EXPONENT}, {OVERWRITES_PERCENT} % overwrites");
    let outcome = Contest::new(title, CallsPerSecond, "foyer")
        .bar(Bar::at_least(1.5, CallsPerSecond).times("foyer"))
        .bar(Bar::at_least(1.5, CallsPerSecond).times("cache2"))
        .bar(Bar::at_least(HITS_MIN, Hits))
        .bar(Bar::at_most(1.0, GetP99).times("foyer"))
        .bar(Bar::at_most(1.0, PutP99).times("foyer"))
        .run(bench, contestants)?;
    Ok(vec![outcome])
}

/// Fills a new store with the working set, and measures requests.
fn serve(bench: &Bench, kind: Kind, blobs: &Blobs, memory_bytes: usize) -> Result<Sample, Error> {
    let entries = 10 * memory_bytes as u64 / blobs.mean_bytes();
    let file_bytes = (5 * memory_bytes as u64).next_multiple_of(32 << 20).max(192 << 20);
    let setup = Setup { file_bytes, ..kind.roomy(memory_bytes, entries, blobs.mean_bytes()) };
    let path = bench.path("mixed");
    let span = 2 * bench.span();
    let zipf = Zipf::new(entries as f64, EXPONENT)?;
    let sample = two_workers()?.block_on(async {
        let cache = kind.open(&path, &setup).await?;
        put_all(&cache, blobs, entries, 8).await?;
        cache.settle().await?;
        let (target, blobs) = (cache.clone(), blobs.clone());
        let sample = drive(TASKS, span, move |random| {
            let number = scattered(zipf.sample(random), entries);
            let overwrites = random.random_range(0..100) < OVERWRITES_PERCENT;
            request(target.clone(), blobs.clone(), number, overwrites)
        });
        let sample = sample.await?;
        cache.close().await?;
        Ok::<_, Error>(sample)
    })?;
    remove(&path)?;
    Ok(sample)
}

/// Places the ranks of Zipf's law, from 1 on, all over the numbers: neighbours are not put one
/// after the other.
fn scattered(rank: f64, entries: u64) -> u64 {
    /// More than there are entries, so that no two ranks get the same number.
    const PRIME: u64 = 2_654_435_761;
    // Ranks are whole numbers, far below 2^53.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = rank as u64;
    rank.wrapping_mul(PRIME) % entries
}

async fn request(
    cache: Cache,
    blobs: Blobs,
    number: u64,
    overwrites: bool,
) -> Result<Request, Error> {
    let mut request = Request::default();
    if !overwrites {
        let (time, hit) = timed(cache.get(&Blobs::key(number))).await;
        let hit = hit?;
        request.get = Some((time, hit.is_some()));
        if let Some(hit) = hit {
            blobs.check(number, hit.as_ref())?;
            return Ok(request);
        }
    }
    let (time, result) = timed(cache.put(Blobs::key(number), blobs.value(number))).await;
    result?;
    request.put = Some(time);
    Ok(request)
}
