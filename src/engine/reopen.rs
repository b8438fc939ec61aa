//! Opens the disk tier of a cache that had to begin without it.
//!
//! The file is opened as at any open, then the store in it is voided and taken over: the cache has
//! changed what it may hold, and hashes keys with a key of its own. Only then the tier gets the
//! file. From there on it is a tier that is off in a store that is void, which begins anew like one
//! that was turned off by a failing device.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use crate::blocking::block_on;
use crate::commit_lock::CommitLock;
use crate::config::BlobCacheConfig;
use crate::engine::disk_setup::{DiskSetup, open_file, opening};
use crate::engine::disk_tier::{DiskTier, Running};
use crate::engine::errors::not_opened;
use crate::engine::parts::Parts;
use crate::engine::reopening::Attempt;
use crate::error::CacheError;
use crate::l2::WriterStart;
use crate::telemetry::tell;

/// Starts the tasks of the tier, if the cache is still there. Resolves once its status socket can
/// be connected to.
pub(crate) type StartTasks = Box<dyn FnOnce(WriterStart) -> BoxFuture<'static, ()> + Send>;

/// What an attempt works on. It keeps no cache alive.
pub(crate) struct Reopen {
    config: Arc<BlobCacheConfig>,
    commit_lock: Arc<CommitLock>,
    disk: Arc<DiskTier>,
    start: StartTasks,
}

impl Reopen {
    pub(crate) fn new(parts: &Parts, start: StartTasks) -> Self {
        Self {
            config: Arc::clone(&parts.config),
            commit_lock: Arc::clone(&parts.commit_lock),
            disk: Arc::clone(&parts.disk),
            start,
        }
    }

    /// Makes the attempt on a thread of its own.
    pub(crate) fn on_thread(self, path: &Path, attempt: Attempt) {
        let path = path.to_owned();
        let shown = path.clone();
        // The attempt stays here if there is no thread.
        let shared = Arc::new(parking_lot::Mutex::new(Some((self, attempt))));
        let taken = Arc::clone(&shared);
        let run = move || {
            let Some((reopen, attempt)) = taken.lock().take() else { return };
            block_on(reopen.run(&path, attempt));
        };
        let spawned = thread::Builder::new().name("tamis-reopen".into()).spawn(run);
        let Err(error) = spawned else { return };
        let Some((reopen, attempt)) = shared.lock().take() else { return };
        let reason = format!(
            "{}: no thread could be started; raise nproc (ulimit -u, LimitNPROC=), TasksMax= or \
             pids.max, or the memory limit ({error})",
            shown.display()
        );
        reopen.end(attempt, Some(Err(CacheError::L2Unavailable { reason })));
    }

    async fn run(mut self, path: &Path, attempt: Attempt) {
        let Some(missing) = self.disk.missing() else {
            // An attempt that ended when this one began.
            return self.end(attempt, Some(Ok(())));
        };
        let reopening = missing.cover.reopening();
        let opened = open_file(&self.config, path).await;
        let outcome = match opened {
            Err(error) => Some(Err(error)),
            Ok(setup) => {
                let file = setup.file.clone();
                let outcome = self.take(setup, &attempt).await;
                if let Some(file) = file.filter(|_| !matches!(outcome, Some(Ok(())))) {
                    file.close().wait().await;
                }
                outcome
            }
        };
        drop(reopening);
        self.end(attempt, outcome);
    }

    /// The same with a disk that is open.
    #[cfg(test)]
    pub(crate) async fn run_on(mut self, setup: DiskSetup, attempt: Attempt) {
        let reopening = self.disk.missing().map(|missing| missing.cover.reopening());
        let outcome = self.take(setup, &attempt).await;
        drop(reopening);
        self.end(attempt, outcome);
    }

    fn end(self, attempt: Attempt, outcome: Option<Result<(), CacheError>>) {
        let error = outcome.as_ref().and_then(|outcome| outcome.clone().err());
        // A close is no reason why the store could not be opened.
        let error = error.filter(|error| *error != CacheError::Closed);
        if let (Some(error), Some(missing)) = (&error, self.disk.missing()) {
            missing.set_error(error);
            // Bounded: one.
            self.disk.l2().into_iter().for_each(|l2| l2.health().stays_off(error.to_string()));
        }
        attempt.end(outcome);
        if let Some(error) = error {
            tell!(warn, "degradation", %error, "the disk tier stays off");
        }
    }

    /// Gives the tier its disk. None if no caller wants it any more.
    async fn take(
        &mut self,
        setup: DiskSetup,
        attempt: &Attempt,
    ) -> Option<Result<(), CacheError>> {
        let (Some(missing), Some(l2)) = (self.disk.missing(), self.disk.l2()) else {
            return Some(Ok(()));
        };
        if !attempt.is_wanted() {
            return None;
        }
        let opening = opening(&self.config, l2.geometry(), missing.identity, Some(&setup));
        let started = match l2.take_over(Arc::clone(&setup.disk), &opening).await {
            Ok(started) => started,
            Err(error) => return Some(Err(not_opened(error, &self.config, setup.file.as_ref()))),
        };
        {
            // A close comes before this, or finds the file.
            let section = self.commit_lock.section();
            if section.is_closed() {
                return Some(Err(CacheError::Closed));
            }
            if !attempt.is_wanted() {
                return None;
            }
            let (disk, runner) = (Arc::clone(&setup.disk), Arc::clone(&setup.runner));
            self.disk.open_late(disk, Running { runner, file: setup.file.clone() });
        }
        // Not earlier: a store that is given back keeps it.
        setup.remove_mark().await;
        let start = std::mem::replace(&mut self.start, Box::new(|_| ready(()).boxed()));
        start(started).await;
        Some(Ok(()))
    }
}
