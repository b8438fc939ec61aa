//! A get of a key that is nowhere, beside a hit in memory: with a disk tier, it is the filter that
//! knows, and nothing is read.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on;
use tamis::BlobCache;

use crate::Error;
use crate::bar::Bar;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind};
use crate::contest::{Contest, Contestant, Outcome};
use crate::load::two_workers;
use crate::metric::Metric::{DiskReads, NanosPerCall};

use super::probes::{Caller, Probes};
use super::store::{put_all, remove};

const NAMESPACE: &str = "thumbnails";
const ABSENT: &str = "absent key";

pub(super) fn run(bench: &Bench) -> Result<Vec<Outcome>, Error> {
    let entries = bench.pick(100_000, 10_000);
    let (path, blobs) = (bench.path("absent"), Blobs::of(100));
    let setup = Kind::Tamis.roomy(256 << 20, entries, 100);
    let runtime = two_workers()?;
    let Cache::Tamis(cache) = runtime.block_on(Kind::Tamis.open(&path, &setup))? else {
        return Err("another cache was opened".into());
    };
    runtime.block_on(put_all(&Cache::Tamis(cache.clone()), &blobs, entries, 8))?;
    let hits: Vec<_> = (0..entries).map(Blobs::key).collect();
    let absent: Vec<_> = (entries..2 * entries).map(Blobs::key).collect();
    let limit = bench.span() / 4;
    let contestant = |name, keys: &[String]| {
        let (cache, asked) = (cache.clone(), cache.clone());
        let caller = Caller::new(name, move |key| look_up(&asked, key));
        let probes = Probes::of(keys, 1);
        Contestant::new(name, move || {
            let reads = cache.stats().l2_reads();
            let mut sample = caller.sample(&probes, limit)?;
            sample.insert(DiskReads, (cache.stats().l2_reads() - reads) as f64);
            Ok(sample)
        })
    };
    let contestants = vec![contestant("hit", &hits), contestant(ABSENT, &absent)];
    let outcome = Contest::new(format!("{entries} entries"), NanosPerCall, "hit")
        .bar(Bar::at_most(1.5, NanosPerCall).times("hit").by(ABSENT))
        .bar(Bar::at_most(0.0, DiskReads).by(ABSENT))
        .run(bench, contestants)?;
    block_on(cache.close())?;
    remove(&path)?;
    Ok(vec![outcome])
}

/// Waits for a read if there is one: that it should not happen is the bar.
fn look_up(cache: &BlobCache, key: &str) {
    let mut get = pin!(cache.get(NAMESPACE, key));
    let found = match get.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(found) => found,
        Poll::Pending => block_on(get),
    };
    black_box(found.is_some());
}
