//! `DiskTier`: the disk tier of a cache, if it has one, and the tasks beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::{io, iter};

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::batch::{BATCH_ENTRIES, yield_now};
use crate::disposal::{Freeing, Remains};
use crate::error::CacheError;
use crate::io::{DiskEngine, FileDisk, TaskRunner, Termination};
use crate::l2::{
    Assigned, Change, ClosedIndex, EncodedRecord, GenerationNumber, L2, Record, Refusal,
};
use crate::modes::L2Engine;

/// Without a disk tier nothing is recorded and nothing waits.
pub(crate) struct DiskTier {
    running: Option<Running>,
    path: PathBuf,
}

pub(crate) struct Running {
    pub(crate) l2: L2,
    pub(crate) runner: Arc<dyn TaskRunner>,
    /// None on a simulated disk.
    pub(crate) file: Option<FileDisk>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl DiskTier {
    pub(crate) fn new(running: Option<Running>, path: Option<PathBuf>) -> Self {
        Self { running, path: path.unwrap_or_default() }
    }

    pub(crate) fn l2(&self) -> Option<&L2> {
        self.running.as_ref().map(|running| &running.l2)
    }

    pub(crate) fn tasks(&self) -> Option<&Arc<dyn TaskRunner>> {
        self.running.as_ref().map(|running| &running.runner)
    }

    pub(crate) fn is_off(&self) -> bool {
        self.l2().is_some_and(|l2| l2.health().is_off())
    }

    /// Runs a task on the tier's thread. Drops it if there is no tier or the tier has ended.
    pub(crate) fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        if let Some(running) = &self.running {
            drop(running.runner.spawn(name, task));
        }
    }

    /// What transfers the file. None without a tier, or on a simulated disk.
    pub(crate) fn engine(&self) -> Option<L2Engine> {
        let file = self.running.as_ref()?.file.as_ref()?;
        Some(match file.engine() {
            DiskEngine::IoUring => L2Engine::IoUring,
            DiskEngine::Threads => L2Engine::Threads,
        })
    }

    /// The runner for searches: not the writer's thread, if there is another one.
    pub(crate) fn search_tasks(&self) -> Option<Arc<dyn TaskRunner>> {
        let Running { runner, file, .. } = self.running.as_ref()?;
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
        let is_simulated = self.running.as_ref().is_some_and(|running| running.file.is_none());
        if !is_simulated {
            let batches = iter::from_fn(move || freeing.work().then_some(BATCH_ENTRIES));
            return drop(Remains::new(batches));
        }
        let work = async move {
            // Bounded: a batch in each turn, then a yield.
            while freeing.work() {
                yield_now().await;
            }
        };
        self.spawn("freeing", Box::pin(work));
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

    #[cfg(test)]
    pub(crate) fn file(&self) -> Option<FileDisk> {
        self.running.as_ref()?.file.clone()
    }

    /// Begins to release the file. That completes after the writer has ended, without being polled.
    pub(crate) fn close_file(&self) -> Option<Termination> {
        Some(self.running.as_ref()?.file.as_ref()?.close())
    }
}
