//! `Store`: a cache in a temporary directory, filled with keys and values that are pure functions
//! of a number, so that every read can be checked.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::fs::statfs;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CrashSafety, L1Admission,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::Error;

/// Random bytes that values are slices of, at any offset: all differ, and none compresses.
const POOL_BYTES: u64 = 64 << 20;

/// The kernel's type number of tmpfs.
const TMPFS: u64 = 0x0102_1994;

/// An upper bound of record and directory bytes besides key and value.
const OVERHEAD_BYTES: u64 = 160;

/// An upper bound of index bytes per entry.
const SLOT_BYTES: u64 = 40;

/// The temporary directory of all stores.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    /// Creates it in a directory, or beside this program.
    pub(crate) fn new(directory: Option<&Path>) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let beside = program.parent().ok_or("this program has no directory")?;
        let directory = directory.unwrap_or(beside);
        fs::create_dir_all(directory)?;
        if u64::try_from(statfs(directory)?.f_type) == Ok(TMPFS) {
            let directory = directory.display();
            return Err(format!("{directory} is in memory: name a --directory on disk").into());
        }
        Ok(Self(tempfile::Builder::new().prefix("tamis-disk-").tempdir_in(directory)?))
    }

    /// The path of a file or directory in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Removes it with its contents.
    pub(crate) fn close(self) -> Result<(), Error> {
        Ok(self.0.close()?)
    }
}

/// The contents of a store.
#[derive(Clone)]
pub(crate) struct Blobs {
    pub(crate) namespace: &'static str,
    pub(crate) key_bytes: u64,
    pub(crate) value_bytes: u64,
    pub(crate) policy: BlobCachePolicy,
    /// Whether blobs of odd numbers are offered for promotion when they are read.
    pub(crate) promotes_odd: bool,
    pool: Bytes,
}

impl Blobs {
    /// Blobs that stay out of memory. Keys of up to 64 bytes, values of up to 64 MiB.
    pub(crate) fn new(namespace: &'static str, key_bytes: u64, value_bytes: u64) -> Self {
        let bytes = POOL_BYTES + value_bytes;
        let mut pool = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        StdRng::seed_from_u64(7).fill_bytes(&mut pool);
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let pool = Bytes::from(pool);
        Self { namespace, key_bytes, value_bytes, policy, promotes_odd: false, pool }
    }

    pub(crate) fn tiny() -> Self {
        Self::new("thumbnails", 16, 8)
    }

    /// Bytes of a key and its value.
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.key_bytes + self.value_bytes
    }

    pub(crate) fn key(&self, number: u64) -> String {
        format!("{number:0width$}", width = usize::try_from(self.key_bytes).unwrap_or(0))
    }

    pub(crate) fn value(&self, number: u64) -> &[u8] {
        // An odd multiplier: offsets repeat only after a full period.
        let start = number.wrapping_mul(0x9e37_79b1) % POOL_BYTES;
        let range = start..start + self.value_bytes;
        let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
        self.pool.get(at(range.start)..at(range.end)).unwrap_or_default()
    }

    fn put(&self, number: u64) -> BlobCachePut {
        let policy = match self.promotes_odd && is_odd(number) {
            true => self.policy.clone().l1_admission(L1Admission::Auto),
            false => self.policy.clone(),
        };
        BlobCachePut::from(self.value(number).to_vec()).with_policy(policy)
    }
}

pub(crate) fn is_odd(number: u64) -> bool {
    number % 2 == 1
}

/// A cache with a minimal memory tier, and its contents.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) cache: BlobCache,
    pub(crate) blobs: Arc<Blobs>,
}

impl Store {
    /// Opens a store with room for that many blobs, so that none is reclaimed.
    pub(crate) async fn roomy(path: &Path, blobs: Blobs, entries: u64) -> Result<Self, Error> {
        let bytes = entries * (blobs.payload_bytes() + OVERHEAD_BYTES);
        // A segment ends early if the next record or its directory does not fit.
        let bytes = (bytes + bytes / 4).next_multiple_of(64 << 20) + (256 << 20);
        Self::of(path, blobs, bytes, entries).await
    }

    /// Opens a store with a file of that size.
    pub(crate) async fn sized(path: &Path, blobs: Blobs, bytes: u64) -> Result<Self, Error> {
        let entries = bytes / blobs.payload_bytes();
        Self::of(path, blobs, bytes, entries).await
    }

    /// A store in an open cache.
    pub(crate) fn over(cache: BlobCache, blobs: Blobs) -> Self {
        Self { cache, blobs: Arc::new(blobs) }
    }

    async fn of(path: &Path, blobs: Blobs, bytes: u64, entries: u64) -> Result<Self, Error> {
        let index = usize::try_from(entries * SLOT_BYTES + (1 << 20))?;
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(1 << 20)
            .l2_path(path)
            .l2_bytes_max(bytes)
            .l2_index_bytes_max(index)
            .crash_safety(CrashSafety::Process)
            .build()?;
        let cache = BlobCache::open(config).await?;
        Ok(Self::over(cache, blobs))
    }

    /// Puts the blobs of these numbers, with concurrent tasks.
    pub(crate) async fn put(
        &self,
        numbers: Range<u64>,
        putters: u64,
        progress: &ProgressBar,
    ) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for putter in 0..putters {
            let (store, progress) = (self.clone(), progress.clone());
            let mine = numbers.start + putter..numbers.end;
            let step = usize::try_from(putters)?;
            tasks.spawn(async move {
                let mut untold = 0;
                for number in mine.step_by(step) {
                    store.put_one(number).await?;
                    untold += 1;
                    if untold == 64 {
                        progress.inc(std::mem::take(&mut untold));
                        // Puts that never wait would starve the other tasks.
                        tokio::task::yield_now().await;
                    }
                }
                progress.inc(untold);
                Ok::<(), CacheError>(())
            });
        }
        while let Some(joined) = tasks.join_next().await {
            joined??;
        }
        Ok(())
    }

    pub(crate) async fn put_one(&self, number: u64) -> Result<(), CacheError> {
        let (key, put) = (self.blobs.key(number), self.blobs.put(number));
        self.cache.put(self.blobs.namespace, key, put).await
    }

    pub(crate) async fn put_many(&self, numbers: &[u64]) -> Result<(), CacheError> {
        let item = |number: &u64| (self.blobs.key(*number), self.blobs.put(*number));
        let puts = self.cache.put_many(self.blobs.namespace, numbers.iter().map(item));
        puts.await.into_iter().collect()
    }

    /// Whether the blob of a number is there. An error if its value is wrong.
    pub(crate) async fn holds(&self, number: u64) -> Result<bool, Error> {
        let key = self.blobs.key(number);
        match self.cache.get(self.blobs.namespace, &key).await {
            Some(hit) if hit.value() == self.blobs.value(number) => Ok(true),
            Some(_) => Err(format!("{key} has a value that was never put under it").into()),
            None => Ok(false),
        }
    }

    /// An error if an entry was not taken to disk or has left it: the figures would be invalid.
    pub(crate) fn check_complete(&self) -> Result<(), Error> {
        let stats = self.cache.stats();
        match (stats.l2_full_rejections(), stats.l2_reclaimed_segments(), stats.l2_state()) {
            (0, 0, tamis::L2State::Healthy) => Ok(()),
            (rejected, reclaimed, state) => Err(format!(
                "the store is not complete: {rejected} blobs rejected, {reclaimed} segments \
                 reclaimed, {state:?}"
            )
            .into()),
        }
    }
}
