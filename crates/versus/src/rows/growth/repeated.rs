//! Calls that can be made again and again, one after the other.

use std::time::Instant;

use tamis::{BlobCachePut, SweepLimit};

use crate::Error;
use crate::blobs::Blobs;
use crate::metric::Metric::Returned;
use crate::metric::Sample;

use super::calls::Calls;
use super::store::{DEPENDENT, LABELLED, REST, SMALL, Store, dependency, micros, prefix, put, tag};

/// How often each call is made.
const TIMES: u64 = 50;

/// An odd number larger than any size: its multiples visit the records in no order.
const STRIDE: u64 = 2_654_435_761;

pub(super) const PREFIX: &str = "invalidate_prefix, 10 of 1,000 keys of a namespace";

/// Makes a call `TIMES` times.
async fn repeat<F, R>(mut call: impl FnMut(u64) -> F) -> Result<Vec<Sample>, Error>
where
    F: Future<Output = Result<R, Error>>,
{
    let mut samples = Vec::new();
    for time in 0..TIMES {
        let started = Instant::now();
        call(time).await?;
        samples.push(Sample::from([(Returned, micros(started.elapsed()))]));
    }
    Ok(samples)
}

pub(super) async fn measure(store: &Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    reads(store, size, calls).await?;
    writes(store, size, calls).await?;
    invalidations(store, size, calls).await?;
    others(store, size, calls).await
}

/// A key of `REST` without a dependency.
fn key(store: &Store, time: u64) -> String {
    Blobs::key(number(store, time))
}

fn number(store: &Store, time: u64) -> u64 {
    let first = DEPENDENT.min(store.records / 2);
    first + (time * STRIDE) % (store.records - first)
}

fn absent_key(time: u64) -> String {
    Blobs::key(u64::MAX - time)
}

async fn reads(store: &Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    let cache = &store.cache;
    let found = |time| async move {
        let found = cache.get(REST, key(store, time)).await;
        found.map(drop).ok_or_else(|| Error::from("a record is missing"))
    };
    calls.add("get, from disk", size, repeat(found).await?);
    let absent = |time| async move { Ok(cache.get(REST, absent_key(time)).await) };
    calls.add("get, absent key", size, repeat(absent).await?);
    let exists = |time| async move { Ok(cache.exists(REST, key(store, time))) };
    calls.add("exists", size, repeat(exists).await?);
    Ok(())
}

async fn writes(store: &Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    let cache = &store.cache;
    let blob = |time| put(&store.blobs, number(store, time));
    let fresh = |time| async move { Ok(cache.put(REST, absent_key(time), blob(time)).await?) };
    calls.add("put, fresh key", size, repeat(fresh).await?);
    let over = |time| async move { Ok(cache.put(REST, key(store, time), blob(time)).await?) };
    calls.add("put, over a record", size, repeat(over).await?);
    let fetch = |time| async move {
        let fetch = || async move { Ok::<_, std::io::Error>(blob(time)) };
        Ok(cache.get_or_fetch(REST, absent_key(TIMES + time), fetch).await?)
    };
    calls.add("get_or_fetch, absent key", size, repeat(fetch).await?);
    let refresh = |time| async move {
        let fetch = || async move { Ok::<BlobCachePut, std::io::Error>(blob(time)) };
        Ok(cache.get_or_refresh(REST, absent_key(2 * TIMES + time), fetch).await?.0)
    };
    calls.add("get_or_refresh, absent key", size, repeat(refresh).await?);
    Ok(())
}

async fn invalidations(store: &Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    let cache = &store.cache;
    let of_key = |time| async move { Ok(cache.invalidate_key(REST, absent_key(time)).await?) };
    calls.add("invalidate_key", size, repeat(of_key).await?);
    let of_dependency = |time| async move {
        let dependencies = [dependency(time)];
        Ok(cache.invalidate_dependencies(REST, &dependencies).await?)
    };
    calls.add("invalidate_dependencies, 100 records", size, repeat(of_dependency).await?);
    let of_tag = |time| async move {
        let tags = [tag(number(store, time) / LABELLED)];
        Ok(cache.invalidate_tags(REST, &tags).await?)
    };
    calls.add("invalidate_tags, 100 records", size, repeat(of_tag).await?);
    let of_prefix = |time| async move {
        match cache.invalidate_prefix(SMALL, prefix(time)).await? {
            10 => Ok(()),
            found => Err(Error::from(format!("{found} keys have the prefix, not 10"))),
        }
    };
    calls.add(PREFIX, size, repeat(of_prefix).await?);
    Ok(())
}

async fn others(store: &Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    let cache = &store.cache;
    let sweep = |_| async { Ok(cache.sweep_expired(SweepLimit::Entries(256)).await) };
    calls.add("sweep_expired, 256 entries", size, repeat(sweep).await?);
    calls.add("sync", size, repeat(|_| async { Ok(cache.sync().await?) }).await?);
    calls.add("stats", size, repeat(|_| async { Ok(cache.stats()) }).await?);
    let of_namespace = |_| async { Ok(cache.namespace_stats(REST)) };
    calls.add("namespace_stats", size, repeat(of_namespace).await?);
    calls.add("read_point", size, repeat(|_| async { Ok(cache.read_point()) }).await?);
    Ok(())
}
