//! Calls that a store survives once: flushes, a close and an open.

use std::time::Instant;

use crate::Error;
use crate::blobs::Blobs;
use crate::metric::Metric::{RecordsPerSecond, Returned};
use crate::metric::Sample;

use super::calls::Calls;
use super::store::{HALF, REST, Store, micros};

pub(super) const CLOSE: &str = "close";
pub(super) const OPEN: &str = "open, after a close, a tag each";
pub(super) const FLUSH: &str = "invalidate_namespace, half of the records";
pub(super) const FLUSH_ALL: &str = "invalidate_all";

/// Times one call.
async fn once<R>(call: impl Future<Output = R>) -> (R, Sample) {
    let started = Instant::now();
    let result = call.await;
    (result, Sample::from([(Returned, micros(started.elapsed()))]))
}

/// Uses the store up.
pub(super) async fn measure(store: Store, size: &str, calls: &mut Calls) -> Result<(), Error> {
    let (result, sample) = once(store.cache.close()).await;
    result?;
    calls.add(CLOSE, size, vec![sample]);
    let (cache, mut sample) = once(store.reopen()).await;
    let cache = cache?;
    let rate = 2.0 * store.records as f64 / sample[&Returned] * 1e6;
    sample.insert(RecordsPerSecond, rate);
    calls.add(OPEN, size, vec![sample]);
    let key = Blobs::key(store.records - 1);
    let (result, sample) = once(cache.invalidate_namespace(HALF)).await;
    if !result? || cache.get(HALF, &key).await.is_some() {
        return Err("the flush of a namespace has left a record".into());
    }
    calls.add(FLUSH, size, vec![sample]);
    let (result, sample) = once(cache.invalidate_all()).await;
    result?;
    if cache.get(REST, &key).await.is_some() {
        return Err("the flush of everything has left a record".into());
    }
    calls.add(FLUSH_ALL, size, vec![sample]);
    Ok(cache.close().await?)
}
