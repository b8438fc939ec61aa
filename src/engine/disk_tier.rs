//! `DiskTier`: the disk tier of a cache, if it has one, and the tasks beside it. A tier whose file
//! could not be opened is one that is off, and has no tasks until it has a file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::{io, iter};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::disposal::{Freeing, Remains};
use crate::engine::cover::Cover;
use crate::engine::missing::Missing;
use crate::error::CacheError;
use crate::io::{Disk, DiskEngine, FileDisk, StatusAnswers, TaskRunner, Termination};
use crate::l2::{
    Assigned, Change, ClosedIndex, EncodedRecord, GenerationNumber, L2, Record, Refusal, StaysOff,
};
use crate::modes::L2Engine;

/// Without a disk tier nothing is recorded and nothing waits.
pub(crate) struct DiskTier {
    l2: Option<L2>,
    /// Not set as long as the file could not be opened.
    running: OnceLock<Running>,
    /// If it could not be opened with the cache.
    missing: Option<Missing>,
    path: PathBuf,
}

/// A disk tier, for a new cache.
pub(crate) struct Tier {
    pub(crate) l2: L2,
    pub(crate) file: TierFile,
}

pub(crate) enum TierFile {
    Open(Running),
    Missing(Box<Missing>),
}

pub(crate) struct Running {
    pub(crate) runner: Arc<dyn TaskRunner>,
    /// None on a simulated disk.
    pub(crate) file: Option<FileDisk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl DiskTier {
    pub(crate) fn new(tier: Option<Tier>, path: Option<PathBuf>) -> Self {
        let path = path.unwrap_or_default();
        let Some(Tier { l2, file }) = tier else {
            return Self { l2: None, running: OnceLock::new(), missing: None, path };
        };
        let (running, missing) = match file {
            TierFile::Open(running) => (OnceLock::from(running), None),
            TierFile::Missing(missing) => (OnceLock::new(), Some(*missing)),
        };
        Self { l2: Some(l2), running, missing, path }
    }

    pub(crate) fn l2(&self) -> Option<&L2> {
        self.l2.as_ref()
    }

    /// Why the file is not open. None if it is, or there is no disk tier.
    pub(crate) fn missing(&self) -> Option<&Missing> {
        self.missing.as_ref().filter(|_| self.running.get().is_none())
    }

    /// Whether there is a tier whose file is open, be it turned off.
    pub(crate) fn has_file(&self) -> bool {
        self.running.get().is_some()
    }

    /// What covers mutations as long as the store on file may hold anything that they replace, and
    /// no record of theirs can be there. None otherwise.
    pub(crate) fn cover(&self) -> Option<&Cover> {
        Some(&self.missing()?.cover)
    }

    /// The file is open, and void. To be called in a commit section of a cache that is not closed.
    pub(crate) fn open_late(&self, disk: Arc<dyn Disk>, running: Running) {
        if let Some((missing, l2)) = self.missing.as_ref().zip(self.l2()) {
            // First, so that no mutation finds the tier off and not void.
            l2.health().set_voided();
            missing.disk.open(disk);
            let _ = self.running.set(running);
        }
    }

    /// Has a tier that is off go on at once, if the device allows it.
    ///
    /// # Errors
    ///
    /// `L2Io`: it stays off.
    pub(crate) async fn restart(&self) -> Result<(), CacheError> {
        let Some(l2) = self.l2().filter(|l2| l2.health().is_off()) else { return Ok(()) };
        let reason = match l2.restart().await {
            Ok(()) => return Ok(()),
            Err(StaysOff::Failed(reason)) => reason,
            Err(StaysOff::Ended) => "the task that writes to disk has ended".to_owned(),
        };
        let context = format!("the store at {} stays turned off", self.path.display());
        Err(CacheError::L2Io { context, source: io::Error::other(reason).into() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn tasks(&self) -> Option<&Arc<dyn TaskRunner>> {
        self.running.get().map(|running| &running.runner)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.l2().is_some_and(|l2| l2.health().is_off())
    }

    /// Runs a task on the tier's thread. Drops it if there is no tier or the tier has ended.
    pub(crate) fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        if let Some(running) = self.running.get() {
            drop(running.runner.spawn(name, task));
        }
    }

    /// What transfers the file. None without a tier, or on a simulated disk.
    pub(crate) fn engine(&self) -> Option<L2Engine> {
        let file = self.running.get()?.file.as_ref()?;
        Some(match file.engine() {
            DiskEngine::IoUring => L2Engine::IoUring,
            DiskEngine::Threads => L2Engine::Threads,
        })
    }

    /// The runner for searches: not the writer's thread, if there is another one.
    pub(crate) fn search_tasks(&self) -> Option<Arc<dyn TaskRunner>> {
        let Running { runner, file } = self.running.get()?;
        Some(file.as_ref().map_or_else(|| Arc::clone(runner), FileDisk::read_task_runner))
    }

    /// Runs a search beside the writer. Drops it if there is no tier or the tier has ended.
    pub(crate) fn spawn_search(&self, name: &'static str, search: BoxFuture<'static, ()>) {
        if let Some(runner) = self.search_tasks() {
            drop(runner.spawn(name, search));
        }
    }

    /// Frees what was added to `freeing`: on a thread that delays no write, or beside the other
    /// tasks of a simulated disk.
    pub(crate) fn free(&self, freeing: Arc<Freeing>) {
        let of_missing = || self.missing.as_ref()?.simulated.as_ref();
        let simulated = match self.running.get() {
            Some(Running { runner, file }) => Some(runner).filter(|_| file.is_none()),
            None => of_missing(),
        };
        let Some(runner) = simulated else {
            let batches = iter::from_fn(move || freeing.work().then_some(BATCH_ENTRIES));
            return drop(Remains::new(batches));
        };
        let work = async move {
            // Bounded: a batch in each turn, then a yield.
            while freeing.work() {
                yield_now().await;
            }
        };
        drop(runner.spawn("freeing", Box::pin(work)));
    }

    /// Refuses a forked process: it has a copy of the cache, but not the threads of its tier.
    pub(crate) fn check_ours(&self) -> Result<(), CacheError> {
        if self.l2().is_none_or(|l2| !l2.is_foreign()) {
            return Ok(());
        }
        let reason = format!(
            "the store at {} belongs to the process that forked this one; open a cache of another \
             path here",
            self.path.display()
        );
        Err(CacheError::L2Unavailable { reason })
    }

    pub(crate) fn device_error(&self) -> CacheError {
        if let Some(missing) = self.missing() {
            let source = io::Error::other(missing.error().to_string());
            let context = format!("the store at {} could not be opened", self.path.display());
            return CacheError::L2Io { context, source: source.into() };
        }
        let reason = self.l2().and_then(|l2| l2.health().last_reason());
        let source = io::Error::other(reason.unwrap_or_else(|| "not said".to_owned()));
        let context = format!("the store at {} has been turned off", self.path.display());
        CacheError::L2Io { context, source: source.into() }
    }

    /// The number of a generation that begins now, above all numbers that have records.
    pub(crate) fn next_generation_number(&self) -> GenerationNumber {
        GenerationNumber(self.l2().map_or(0, |l2| l2.log.tail().value()))
    }

    /// Appends a record. None without a tier, or after its log has ended.
    pub(crate) fn record(
        &self,
        record: &Record<'_>,
        change: &Change<'_>,
    ) -> Result<Option<Assigned>, NoRoom> {
        let encoded = EncodedRecord::new(record, Bytes::new()).ok();
        let Some((l2, encoded)) = self.l2().zip(encoded) else { return Ok(None) };
        match l2.log.append(encoded, change) {
            Ok(assigned) => Ok(Some(assigned)),
            Err(Refusal::NoRoom) => Err(NoRoom),
            Err(Refusal::Off) => Ok(None),
        }
    }

    /// Ends the log. The writer writes the rest, an image of `index`, then ends.
    pub(crate) fn close_log(&self, index: Option<Arc<dyn ClosedIndex>>) {
        if let Some(l2) = self.l2() {
            l2.log.close(index);
        }
    }

    /// Opens a status socket beside the file, unless that is missing or simulated. Resolves once
    /// clients can connect, or cannot for good; needs no polls.
    pub(crate) fn serve_status(&self, answers: Weak<dyn StatusAnswers>) -> BoxFuture<'static, ()> {
        let file = self.running.get().and_then(|running| running.file.as_ref());
        file.map_or_else(|| ready(()).boxed(), |file| file.serve_status(answers))
    }

    /// Memory of the clients of the status socket.
    pub(crate) fn status_bytes(&self) -> usize {
        let file = self.running.get().and_then(|running| running.file.as_ref());
        file.map_or(0, FileDisk::status_bytes)
    }

    #[cfg(test)]
    pub(crate) fn file(&self) -> Option<FileDisk> {
        self.running.get()?.file.clone()
    }

    /// Begins to release the file. That completes after the writer has ended, without being polled.
    pub(crate) fn close_file(&self) -> Option<Termination> {
        Some(self.running.get()?.file.as_ref()?.close())
    }
}
