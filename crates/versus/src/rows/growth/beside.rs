//! Overwrites alone, and beside calls that search for a prefix.

use rand::RngExt;

use crate::Error;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::load::{Request, drive, timed};
use crate::metric::Sample;

use super::calls::Calls;
use super::store::{REST, SMALL, Store, prefix, put};

pub(super) const OVERWRITES: &str = "overwrites, 64 in flight";

const TASKS: usize = 64;

/// The name of the contestant.
pub(super) fn beside_prefixes(size: &str) -> String {
    format!("{size}, beside invalidate_prefix")
}

pub(super) async fn measure(
    bench: &Bench,
    store: &Store,
    size: &str,
    calls: &mut Calls,
) -> Result<(), Error> {
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        alone.push(overwrites(bench, store).await?);
        let cache = store.cache.clone();
        let others = tokio::spawn(async move {
            for group in 0.. {
                cache.invalidate_prefix(SMALL, prefix(group)).await?;
            }
            Ok::<_, Error>(())
        });
        beside.push(overwrites(bench, store).await?);
        others.abort();
        if let Ok(failure) = others.await {
            failure?;
        }
    }
    calls.add(OVERWRITES, size, alone);
    calls.add(OVERWRITES, &beside_prefixes(size), beside);
    Ok(())
}

async fn overwrites(bench: &Bench, store: &Store) -> Result<Sample, Error> {
    let (cache, blobs, records) = (store.cache.clone(), store.blobs.clone(), store.records);
    drive(TASKS, bench.span() / 2, move |random| {
        let (cache, number) = (cache.clone(), random.random_range(0..records));
        let put = put(&blobs, number);
        async move {
            let (time, result) = timed(cache.put(REST, Blobs::key(number), put)).await;
            result?;
            Ok(Request { get: None, put: Some(time) })
        }
    })
    .await
}
