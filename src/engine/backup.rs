//! `Backups`: copies the store of an open cache into another directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use crate::backup_report::BackupReport;
use crate::engine::admission::Admission;
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::io::{Disk, DiskOptions, FileDisk};
use crate::l2::{self, CopyError};
use crate::telemetry::tell;

pub(crate) struct Backups {
    admission: Admission,
    disk: Arc<DiskTier>,
    is_under_way: Arc<AtomicBool>,
}

/// The one backup at a time, until it is dropped.
struct UnderWay(Arc<AtomicBool>);

impl UnderWay {
    fn begin(flag: &Arc<AtomicBool>) -> Result<Self, CacheError> {
        if flag.swap(true, Ordering::AcqRel) {
            let reason = "another backup of this cache is under way: wait for it".to_owned();
            return Err(CacheError::L2Unavailable { reason });
        }
        Ok(Self(Arc::clone(flag)))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Backups {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            admission: Admission::new(parts),
            disk: Arc::clone(&parts.disk),
            is_under_way: Arc::default(),
        }
    }

    /// Copies the store into a directory that has none. Dropped, it leaves an unfinished copy.
    ///
    /// # Errors
    /// There is no disk tier, it was closed or is off, the directory has a store already, or either
    /// file cannot be read or written.
    pub(crate) async fn back_up(&self, directory: &Path) -> Result<BackupReport, CacheError> {
        let under_way = self.begin()?;
        let mut options = DiskOptions::new(directory, l2::EMPTY_BYTES);
        options.first = Arc::new(l2::begin_unfinished());
        let file = FileDisk::open(options).await?;
        let path = file.facts().path.clone();
        let copied = match self.check_target(&file).await {
            Ok(()) => self.copy(under_way, (Arc::new(file.clone()), path.clone())).await,
            Err(error) => Err(error),
        };
        file.close().wait().await;
        let report = copied?;
        let path = path.display();
        tell!(info, "backup", %path, bytes = report.bytes(), "the store is copied");
        Ok(report)
    }

    /// The same to a disk that holds an unfinished copy.
    #[cfg(test)]
    pub(crate) async fn back_up_to(
        &self,
        target: Arc<dyn Disk>,
    ) -> Result<BackupReport, CacheError> {
        let under_way = self.begin()?;
        self.copy(under_way, (target, PathBuf::from("simulated"))).await
    }

    fn begin(&self) -> Result<UnderWay, CacheError> {
        self.admission.check_open()?;
        if self.disk.l2().is_none() {
            let reason = "the cache has no disk tier that could be backed up".to_owned();
            return Err(CacheError::InvalidConfig { field: "l2_path", reason });
        }
        if self.disk.is_off() || !self.disk.has_file() {
            return Err(self.disk.device_error());
        }
        UnderWay::begin(&self.is_under_way)
    }

    /// An unfinished copy, of this call or an earlier one, is all that may be there.
    async fn check_target(&self, file: &FileDisk) -> Result<(), CacheError> {
        let facts = file.facts();
        let unfinished = l2::is_unfinished(file).await;
        let is_unfinished = unfinished.map_err(|error| target_failed(&facts.path, error))?;
        let path = facts.path.display();
        let reason = if !is_unfinished {
            format!("{path} is there already: remove it, or choose another directory")
        } else if facts.marked_void {
            format!("a void mark is beside {path}: empty the directory, or choose another one")
        } else {
            return Ok(());
        };
        Err(CacheError::L2Unavailable { reason })
    }

    /// Copies in a task, which depends on no caller, and ends once nobody waits for it.
    async fn copy(
        &self,
        under_way: UnderWay,
        (target, path): (Arc<dyn Disk>, PathBuf),
    ) -> Result<BackupReport, CacheError> {
        let (answer, answered) = oneshot::channel();
        let disk = Arc::clone(&self.disk);
        let task = async move {
            let _under_way = under_way;
            let is_wanted = || !answer.is_closed();
            let Some(l2) = disk.l2() else { return };
            let copied = l2::copy_store(l2, target, &is_wanted).await;
            drop(answer.send(copied));
        };
        self.disk.spawn_search("backup", Box::pin(task));
        match answered.await {
            Ok(Ok(copied)) => Ok(BackupReport::new(copied.segments, copied.bytes)),
            Ok(Err(error)) => Err(self.failed(error, path)),
            Err(_) => self.admission.check_open().and(Err(self.disk.device_error())),
        }
    }

    fn failed(&self, error: CopyError, path: PathBuf) -> CacheError {
        match error {
            CopyError::Off => self.disk.device_error(),
            CopyError::Source(source) => {
                let context = format!("could not read the store at {}", self.disk.path().display());
                CacheError::L2Io { context, source: source.into() }
            }
            CopyError::Target(source) => target_failed(&path, source),
            CopyError::NoRoom { needed_bytes, available_bytes } => {
                CacheError::L2Full { path, size: needed_bytes, max: available_bytes }
            }
            CopyError::Outrun => {
                let path = path.display();
                let reason = format!("the store is written faster than it can be copied to {path}");
                CacheError::L2Unavailable { reason }
            }
            // The caller is there: it was the close.
            CopyError::Unwanted => CacheError::Closed,
        }
    }
}

fn target_failed(path: &Path, source: io::Error) -> CacheError {
    let context = format!("could not copy to {}", path.display());
    CacheError::L2Io { context, source: source.into() }
}
