//! All verbs mixed, while a store fills up with small records and begins to reclaim. Prefixes among
//! them should not slow the others down, however full the store is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::RngExt;
use tamis::BlobCache;

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::Kind;
use crate::contest::{Contest, Outcome};
use crate::load::{Request, drive, timed, two_workers};
use crate::metric::Metric::{CallsPerSecond, Worst};
use crate::metric::Sample;
use crate::rounds::Rounds;
use crate::rows::store::remove;

use super::store::{REST, VALUE_BYTES, open, prefix, put, tag};

const TASKS: usize = 16;

/// Parts of the time, one after the other.
const PARTS: [&str; 4] = ["first quarter", "second quarter", "third quarter", "last quarter"];

const FILE_BYTES: u64 = 256 << 20;

/// More than fit.
const KEYS: u64 = 4_000_000;

/// Of the calls, one for so many is an invalidation of a prefix.
const CALLS_PER_PREFIX: u32 = 1_000;

pub(super) fn run(bench: &Bench) -> Result<Outcome, Error> {
    let mut contestants = fill(bench, false)?;
    contestants.extend(fill(bench, true)?);
    let title = format!("all verbs, {TASKS} tasks, a prefix in {CALLS_PER_PREFIX} calls");
    let contest = Contest::new(title, CallsPerSecond, PARTS[0]);
    let contest = PARTS.iter().fold(contest, |contest, part| {
        contest
            .bar(Bar::at_least(0.8, CallsPerSecond).times(&without_prefixes(part)).by(part))
            .bar(Bar::at_most(50_000.0, Worst).by(part))
    });
    Ok(contest.judge(contestants))
}

fn without_prefixes(part: &str) -> String {
    format!("{part}, without prefixes")
}

/// All parts, in a new store.
fn fill(bench: &Bench, has_prefixes: bool) -> Result<Vec<Rounds>, Error> {
    let span = bench.pick(Duration::from_secs(15), bench.span());
    let (path, blobs) = (bench.path("verbs"), Blobs::of(VALUE_BYTES));
    let mut setup = Kind::Tamis.roomy(8 << 20, FILE_BYTES / VALUE_BYTES, VALUE_BYTES);
    setup.file_bytes = FILE_BYTES;
    setup.labels_each = 1;
    let mut contestants = Vec::new();
    two_workers()?.block_on(async {
        let cache = open(&path, &setup).await?;
        for part in PARTS {
            let name = if has_prefixes { part.to_owned() } else { without_prefixes(part) };
            bench.tell(&format!("all verbs, {name}"));
            let samples = vec![calls(&cache, &blobs, span, has_prefixes).await?];
            contestants.push(Rounds { name, samples });
        }
        Ok::<_, Error>(cache.close().await?)
    })?;
    remove(&path)?;
    Ok(contestants)
}

/// Calls of all verbs for that time.
async fn calls(
    cache: &BlobCache,
    blobs: &Blobs,
    span: Duration,
    has_prefixes: bool,
) -> Result<Sample, Error> {
    let worst = Arc::new(AtomicU64::new(0));
    let (cache, blobs, seen) = (cache.clone(), blobs.clone(), worst.clone());
    let sample = drive(TASKS, span, move |random| {
        let (cache, blobs, worst) = (cache.clone(), blobs.clone(), seen.clone());
        let first = u32::from(!has_prefixes);
        let verb = random.random_range(first..CALLS_PER_PREFIX);
        let number = random.random_range(0..KEYS);
        async move {
            let (time, result) = timed(call(&cache, &blobs, verb, number)).await;
            result?;
            let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            worst.fetch_max(micros, Ordering::Relaxed);
            Ok(Request::default())
        }
    });
    let mut sample = sample.await?;
    sample.insert(Worst, worst.load(Ordering::Relaxed) as f64);
    Ok(sample)
}

/// One call; `verb` is uniform.
async fn call(cache: &BlobCache, blobs: &Blobs, verb: u32, number: u64) -> Result<(), Error> {
    let key = Blobs::key(number);
    match verb {
        0 => drop(cache.invalidate_prefix(REST, prefix(number)).await?),
        1..10 => drop(cache.invalidate_tags(REST, &[tag(number)]).await?),
        10..50 => drop(cache.invalidate_key(REST, key).await?),
        50..100 => drop(cache.exists(REST, key)),
        100..500 => cache.put(REST, key, put(blobs, number)).await?,
        500..600 => {
            let fetch = || async { Ok::<_, std::io::Error>(put(blobs, number)) };
            drop(cache.get_or_fetch(REST, key, fetch).await?);
        }
        _ => drop(cache.get(REST, key).await),
    }
    Ok(())
}
