//! `Store`: the records of one size, and how they are named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tamis::{BlobCache, BlobCachePolicy, BlobCachePut, L1Admission};

use crate::Error;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind, Setup};
use crate::load::for_each;

/// Half of the records, to be flushed.
pub(super) const HALF: &str = "half";
/// The other half.
pub(super) const REST: &str = "rest";
/// 1,000 keys, 10 with each prefix.
pub(super) const SMALL: &str = "small";

pub(super) const SMALL_KEYS: u64 = 1_000;

pub(super) const VALUE_BYTES: u64 = 100;

/// Records with one tag, or one dependency.
pub(super) const LABELLED: u64 = 100;

/// Records of `REST` that have a dependency, too.
pub(super) const DEPENDENT: u64 = 10_000;

/// An open store.
pub(super) struct Store {
    path: PathBuf,
    pub(super) cache: BlobCache,
    setup: Setup,
    pub(super) blobs: Blobs,
    /// In each half.
    pub(super) records: u64,
}

/// Opens tamis.
pub(super) async fn open(path: &Path, setup: &Setup) -> Result<BlobCache, Error> {
    match Kind::Tamis.open(path, setup).await? {
        Cache::Tamis(cache) => Ok(cache),
        _ => Err("another cache was opened".into()),
    }
}

impl Store {
    /// A new store with that many records in each half.
    pub(super) async fn filled(path: PathBuf, setup: Setup, records: u64) -> Result<Self, Error> {
        let cache = open(&path, &setup).await?;
        let store = Self { path, cache, setup, blobs: Blobs::of(VALUE_BYTES), records };
        store.fill().await?;
        Ok(store)
    }

    /// Opens it anew, after a close.
    pub(super) async fn reopen(&self) -> Result<BlobCache, Error> {
        open(&self.path, &self.setup).await
    }

    async fn fill(&self) -> Result<(), Error> {
        let (cache, blobs) = (self.cache.clone(), self.blobs.clone());
        for_each(self.records, 8, move |number| {
            let (cache, key) = (cache.clone(), Blobs::key(number));
            let put = put(&blobs, number);
            let mut other = put.clone();
            if number < DEPENDENT {
                other = other.with_dependencies([dependency(number / LABELLED)]);
            }
            async move {
                cache.put(HALF, &key, put).await?;
                cache.put(REST, &key, other).await?;
                if number < SMALL_KEYS {
                    cache.put(SMALL, small_key(number), vec![7; 100]).await?;
                }
                Ok(())
            }
        })
        .await?;
        self.cache.sync().await?;
        let (found, expected) = (self.cache.stats().l2_entries() as u64, 2 * self.records);
        if found < expected {
            return Err(format!("only {found} of {expected} records are on disk").into());
        }
        Ok(())
    }
}

/// A value with its tag, kept out of memory.
pub(super) fn put(blobs: &Blobs, number: u64) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(blobs.value(number)).with_policy(policy).with_tags([tag(number / LABELLED)])
}

pub(super) fn tag(group: u64) -> String {
    format!("tag-{group}")
}

pub(super) fn dependency(group: u64) -> String {
    format!("dependency-{group}")
}

/// Ten keys have the same prefix.
fn small_key(number: u64) -> String {
    format!("{}{number}", prefix(number / 10))
}

pub(super) fn prefix(group: u64) -> String {
    format!("part-{group}/")
}

pub(super) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
