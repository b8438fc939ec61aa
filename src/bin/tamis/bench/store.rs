//! `Store`: a cache whose values are all on disk and none in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, BlobCacheStats, L1Admission,
    L2Admission, L2Compression, SizeEstimate, SizeQuery,
};
use tokio::runtime::Runtime;

use super::super::failure::Failure;
use super::super::file_system::store_room;
use super::super::values::Values;
use super::load::{Calls, End, drive};

const KEY_BYTES: usize = 8;

const L1_BYTES: usize = 1 << 20;

/// Tasks that fill it.
const FILLERS: u32 = 8;

/// More take more memory for their index than a measurement should.
const ENTRIES_MAX: u64 = 1 << 22;

/// Fewer would be the same ones again and again.
const ENTRIES_MIN: u64 = 16;

/// Bytes of a value that are compared with those put. The cache checks the others.
const CHECKED_BYTES: usize = 64;

/// How large a store is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) value_bytes: u64,
    entries: u64,
    estimate: SizeEstimate,
}

impl Shape {
    /// Of so many bytes of values, all alike.
    pub(super) fn new(value_bytes: u64, bytes: u64) -> Result<Self, Failure> {
        let impossible = || {
            let message = "is too large a value for so small a store: --gib makes it larger";
            Failure::usage(format!("{value_bytes} {message}"))
        };
        let entries = (bytes / value_bytes).min(ENTRIES_MAX);
        if entries < ENTRIES_MIN {
            return Err(impossible());
        }
        let value = usize::try_from(value_bytes).map_err(|_| impossible())?;
        let query = SizeQuery {
            // None must be reclaimed while they are read.
            entries: entries + entries / 16 + 1,
            key_bytes: KEY_BYTES,
            value_bytes: value,
            stored_bytes: value,
            labels: 0,
            label_bytes: 0,
            l1_share_pct: 0,
            has_ttl: false,
        };
        let estimate = query.estimate().ok_or_else(impossible)?;
        Ok(Self { value_bytes, entries, estimate })
    }

    /// Bytes of its values.
    pub(super) fn bytes(&self) -> u64 {
        self.value_bytes * self.entries
    }

    /// Bytes that it takes on the device.
    pub(super) fn room(&self) -> u64 {
        store_room(self.estimate.l2_bytes_max)
    }
}

pub(super) struct Store<'a> {
    cache: BlobCache,
    runtime: &'a Runtime,
    shape: Shape,
    values: Values,
    /// The number of the next value that is put.
    next: Arc<AtomicU64>,
    path: PathBuf,
}

impl<'a> Store<'a> {
    /// Makes it in a folder that is not there yet.
    pub(super) fn filled(
        runtime: &'a Runtime,
        path: &Path,
        shape: Shape,
        end: &End,
    ) -> Result<Self, Failure> {
        let estimate = &shape.estimate;
        let index = usize::try_from(estimate.l2_index_bytes_max).unwrap_or(usize::MAX);
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(L1_BYTES)
            .l2_path(path)
            .l2_bytes_max(estimate.l2_bytes_max)
            .l2_segment_bytes(estimate.l2_segment_bytes)
            .l2_index_bytes_max(index.max(1 << 20))
            .l2_compression(L2Compression::Off)
            .l2_admission(L2Admission::Always)
            .l2_second_chances(false)
            .build()?;
        let cache = runtime.block_on(BlobCache::open(config))?;
        let (values, next) = (Values::new(shape.value_bytes), Arc::new(AtomicU64::new(0)));
        let store = Self { cache, runtime, shape, values, next, path: path.to_owned() };
        let all = End { span: Duration::MAX, calls_max: shape.entries, ..end.clone() };
        let filled = store.put_until((FILLERS, 0), &all);
        if let Err(failure) = filled {
            // Why it could not be filled says more than why it cannot be closed.
            let _ = store.close();
            return Err(failure);
        }
        Ok(store)
    }

    /// Its file.
    pub(super) fn data_file(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn stats(&self) -> BlobCacheStats {
        self.cache.stats()
    }

    /// Gets of random values, and the bytes that the cache has read for each.
    pub(super) fn gets(&self, load: (u32, u64), end: &End) -> Result<(Calls, f64), Failure> {
        let (cache, values, shape) = (self.cache.clone(), self.values.clone(), self.shape);
        let call = move |random: u64| {
            let (cache, number) = (cache.clone(), random % shape.entries);
            let expected = values.of(number, shape.value_bytes);
            async move {
                let hit = cache.get("bench", number.to_le_bytes()).await;
                let checked = expected.len().min(CHECKED_BYTES);
                let is_it = hit.is_some_and(|hit| {
                    hit.value().len() == expected.len()
                        && hit.value()[..checked] == expected[..checked]
                });
                if is_it { Ok(()) } else { Err(lost(&cache)) }
            }
        };
        let before = self.cache.stats().l2_read_bytes();
        let calls = drive(self.runtime, load, end, call, async { Ok(()) })?;
        let read = self.cache.stats().l2_read_bytes() - before;
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        let read = read as f64 / calls.count.max(1) as f64;
        Ok((calls, read))
    }

    /// Puts of new values, at the most as many as the store was filled with; and a sync.
    pub(super) fn puts(&self, load: (u32, u64), end: &End) -> Result<Calls, Failure> {
        self.put_until(load, &End { calls_max: self.shape.entries, ..end.clone() })
    }

    fn put_until(&self, load: (u32, u64), end: &End) -> Result<Calls, Failure> {
        let (cache, values) = (self.cache.clone(), self.values.clone());
        let (next, bytes) = (Arc::clone(&self.next), self.shape.value_bytes);
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let call = move |_| {
            let (cache, number) = (cache.clone(), next.fetch_add(1, Ordering::Relaxed));
            let put = BlobCachePut::new(values.of(number, bytes)).with_policy(policy.clone());
            async move { Ok(cache.put("bench", number.to_le_bytes(), put).await?) }
        };
        let sync = async { Ok(self.cache.sync().await?) };
        drive(self.runtime, load, end, call, sync)
    }

    /// Its threads have ended when this returns.
    pub(super) fn close(self) -> Result<(), Failure> {
        Ok(self.runtime.block_on(self.cache.close())?)
    }
}

/// A value is not there, which nothing but a device that fails explains.
fn lost(cache: &BlobCache) -> Failure {
    let stats = cache.stats();
    let message = format!(
        "a value that was put is not there: the disk tier is {:?}, {} transfers have failed, {} \
         records are damaged, {} puts were refused",
        stats.l2_state(),
        stats.l2_io_errors(),
        stats.l2_corruptions(),
        stats.l2_full_rejections()
    );
    Failure::refused("lost", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_tells_the_bytes_that_it_has_and_not_those_asked_for() {
        let bytes = |value_bytes, bytes| Shape::new(value_bytes, bytes).ok().unwrap().bytes();
        assert_eq!(bytes(4096, 1 << 30), 1 << 30);
        assert_eq!(bytes(1000, 1 << 20), 1_048_000);
        assert_eq!(bytes(1, 1 << 30), ENTRIES_MAX);
    }
}
