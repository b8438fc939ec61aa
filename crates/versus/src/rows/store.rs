//! `Store`: a filled store on disk that is opened for each measurement, so that no thread of one
//! cache runs while another one is measured.

use std::fs;
use std::path::{Path, PathBuf};

use rand::RngExt;
use tokio::task::JoinSet;

use crate::Error;
use crate::bench::Bench;
use crate::blobs::Blobs;
use crate::caches::{Cache, Kind, Setup};
use crate::load::{Request, drive, timed};
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
        bench.runtime()?.block_on(async {
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
        let sample = bench.runtime()?.block_on(async {
            let cache = self.open().await?;
            let (blobs, entries, asked) = (self.blobs.clone(), self.entries, cache.clone());
            let sample = drive(tasks, bench.span(), move |random| {
                let (blobs, cache) = (blobs.clone(), asked.clone());
                let number = random.random_range(0..entries);
                async move {
                    let (time, hit) = timed(cache.get(&Blobs::key(number))).await;
                    let hit = hit?;
                    if let Some(hit) = &hit {
                        blobs.check(number, hit.as_ref())?;
                    }
                    Ok(Request { get: Some((time, hit.is_some())), put: None })
                }
            });
            let sample = sample.await?;
            cache.close().await?;
            Ok::<_, Error>(sample)
        })?;
        Ok(sample)
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

/// Puts all values of the numbers below `entries`, with that many tasks.
pub(super) async fn put_all(
    cache: &Cache,
    blobs: &Blobs,
    entries: u64,
    tasks: u64,
) -> Result<(), Error> {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let (cache, blobs) = (cache.clone(), blobs.clone());
        running.spawn(async move {
            let mut number = task;
            while number < entries {
                cache.put(Blobs::key(number), blobs.value(number)).await?;
                number += tasks;
                // Puts that never wait would starve the other tasks.
                if (number / tasks).is_multiple_of(64) {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(result) = running.join_next().await {
        result??;
    }
    Ok(())
}

/// Removes a store that may be there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    if path.exists() {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}
