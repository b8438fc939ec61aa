//! `Store`: a filled store on disk that is opened for each measurement, so that no thread of one
//! cache runs while another one is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::Error;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind, Setup};
use crate::load::{Request, drive, drive_alone, for_each, timed, two_workers};
use crate::metric::Sample;

/// Concurrent tasks that fill a store.
const FILLERS: u64 = 8;

/// A closed store with entries 0 to `entries`.
pub(super) struct Store {
    pub(super) kind: Kind,
    path: PathBuf,
    setup: Setup,
    blobs: Blobs,
    entries: u64,
}

impl Store {
    /// Fills it.
    pub(super) fn filled(
        bench: &Bench,
        kind: Kind,
        setup: Setup,
        blobs: &Blobs,
        entries: u64,
    ) -> Result<Self, Error> {
        bench.tell(&format!("fill {}", kind.name()));
        let path = bench.path(&format!("{kind:?}"));
        let store = Self { kind, path, setup, blobs: blobs.clone(), entries };
        two_workers()?.block_on(async {
            let cache = store.open().await?;
            put_all(&cache, blobs, entries, FILLERS).await?;
            cache.settle().await?;
            cache.close().await
        })?;
        Ok(store)
    }

    pub(super) async fn open(&self) -> Result<Cache, Error> {
        self.kind.open(&self.path, &self.setup).await
    }

    /// Gets of uniform keys, by that many tasks. All should hit, but a cache may lose entries.
    pub(super) fn gets(&self, bench: &Bench, tasks: usize) -> Result<Sample, Error> {
        two_workers()?.block_on(async {
            let cache = self.open().await?;
            let sample = drive(tasks, bench.span(), self.request(&cache)).await?;
            cache.close().await?;
            Ok(sample)
        })
    }

    /// The same by one caller, on the executor that polls this.
    pub(super) async fn gets_alone(&self, span: Duration) -> Result<Sample, Error> {
        let cache = self.open().await?;
        let sample = drive_alone(span, self.request(&cache)).await?;
        cache.close().await?;
        Ok(sample)
    }

    fn request(
        &self,
        cache: &Cache,
    ) -> impl Fn(&mut StdRng) -> BoxFuture<'static, Result<Request, Error>> + Clone + Send + use<>
    {
        let (cache, blobs, entries) = (cache.clone(), self.blobs.clone(), self.entries);
        move |random| {
            let (cache, blobs) = (cache.clone(), blobs.clone());
            let number = random.random_range(0..entries);
            Box::pin(get(cache, blobs, number))
        }
    }

    /// The largest file.
    pub(super) fn data_file(&self) -> Result<PathBuf, Error> {
        let mut largest = None;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            largest = largest.max(Some((entry.metadata()?.len(), entry.path())));
        }
        Ok(largest.ok_or("the store has no file")?.1)
    }

    pub(super) fn remove(self) -> Result<(), Error> {
        remove(&self.path)
    }
}

async fn get(cache: Cache, blobs: Blobs, number: u64) -> Result<Request, Error> {
    let (time, hit) = timed(cache.get(&Blobs::key(number))).await;
    let hit = hit?;
    if let Some(hit) = &hit {
        blobs.check(number, hit.as_ref())?;
    }
    Ok(Request { get: Some((time, hit.is_some())), put: None })
}

/// Puts all values of the numbers below `entries`, with that many tasks.
pub(super) async fn put_all(
    cache: &Cache,
    blobs: &Blobs,
    entries: u64,
    tasks: u64,
) -> Result<(), Error> {
    let (cache, blobs) = (cache.clone(), blobs.clone());
    for_each(entries, tasks, move |number| {
        let (cache, value) = (cache.clone(), blobs.value(number));
        async move { cache.put(Blobs::key(number), value).await }
    })
    .await
}

/// Removes a store that may be there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
