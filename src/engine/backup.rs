//! `Backups`: copies the store of an open cache into another directory.
//!
//! All of it is done by a task beside the searches, which depends on no caller. It ends once the
//! caller is gone, and once the log has ended: then requests of the target that are under way are
//! left to the target's own threads, so that one that hangs delays no close.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{Either, select};
use tokio::sync::oneshot;

use crate::backup_report::BackupReport;
use crate::config::BlobCacheConfig;
use crate::engine::admission::Admission;
use crate::engine::disk_setup::engine_of;
use crate::engine::disk_tier::DiskTier;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::io::{Disk, DiskOptions, FileDisk, FileMark};
use crate::l2::{self, CopyError};
use crate::telemetry::tell;

pub(crate) struct Backups {
    config: Arc<BlobCacheConfig>,
    admission: Admission,
    disk: Arc<DiskTier>,
    is_under_way: Arc<AtomicBool>,
}

/// Where a copy goes.
enum Target {
    Directory(PathBuf, DiskOptions),
    /// A disk that holds an unfinished copy.
    #[cfg(test)]
    Disk(Arc<dyn Disk>),
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
            config: Arc::clone(&parts.config),
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
        let mut options = target_options(directory);
        options.engine = engine_of(&self.config);
        self.run(Target::Directory(directory.to_owned(), options)).await
    }

    /// The same to a disk that holds an unfinished copy.
    #[cfg(test)]
    pub(crate) async fn back_up_to(
        &self,
        target: Arc<dyn Disk>,
    ) -> Result<BackupReport, CacheError> {
        self.run(Target::Disk(target)).await
    }

    async fn run(&self, target: Target) -> Result<BackupReport, CacheError> {
        self.admission.check_open()?;
        if self.disk.l2().is_none() {
            let reason = "the cache has no disk tier that could be backed up".to_owned();
            return Err(CacheError::InvalidConfig { field: "l2_path", reason });
        }
        if self.disk.is_off() || !self.disk.has_file() {
            return Err(self.disk.device_error());
        }
        let under_way = UnderWay::begin(&self.is_under_way)?;
        let (mut answer, answered) = oneshot::channel();
        let disk = Arc::clone(&self.disk);
        let task = async move {
            let Some(log) = disk.l2().map(|l2| &l2.log) else { return };
            let outcome = {
                let copying = pin!(copy(&disk, target));
                let gone = pin!(answer.closed());
                match select(copying, select(gone, pin!(log.closed()))).await {
                    Either::Left((outcome, _)) => outcome,
                    Either::Right((Either::Left(_), _)) => return,
                    Either::Right((Either::Right((Ok(()), _)), _)) => Err(CacheError::Closed),
                    Either::Right((Either::Right((Err(_), _)), _)) => Err(disk.device_error()),
                }
            };
            // Before the caller may begin the next one.
            drop(under_way);
            drop(answer.send(outcome));
        };
        self.disk.spawn_search("backup", Box::pin(task));
        match answered.await {
            Ok(outcome) => outcome,
            // The tier has ended before the task began.
            Err(_) => self.admission.check_open().and(Err(self.disk.device_error())),
        }
    }
}

async fn copy(disk: &DiskTier, target: Target) -> Result<BackupReport, CacheError> {
    let (directory, options) = match target {
        Target::Directory(directory, options) => (directory, options),
        #[cfg(test)]
        Target::Disk(target) => return copy_to(disk, target, Path::new("simulated")).await,
    };
    let file = open_target(&directory, options).await?;
    let path = file.facts().path.clone();
    let copied = copy_to(disk, Arc::new(file.clone()), &path).await;
    file.close().wait().await;
    let report = copied?;
    let path = path.display();
    let (bytes, shared_bytes) = (report.bytes(), report.shared_bytes());
    tell!(info, "backup", %path, bytes, shared_bytes, "the store is copied");
    Ok(report)
}

/// How the file of a copy is opened.
pub(crate) fn target_options(directory: &Path) -> DiskOptions {
    let mut options = DiskOptions::new(directory, l2::EMPTY_BYTES);
    options.first = Arc::new(l2::begin_unfinished());
    options.read_rings = 1;
    options
}

/// Opens the file of a copy, with an unfinished one in it.
///
/// # Errors
/// The directory has a store or a mark already, or is in use, or the file cannot be made or read.
pub(crate) async fn open_target(
    directory: &Path,
    options: DiskOptions,
) -> Result<FileDisk, CacheError> {
    if FileMark::new(directory).is_left()? {
        let directory = directory.display();
        let reason = format!("a void mark is in {directory}: empty it, or choose another one");
        return Err(CacheError::L2Unavailable { reason });
    }
    let file = FileDisk::open(options).await?;
    let checked = check(&file).await;
    if checked.is_err() {
        file.close().wait().await;
    }
    checked.map(|()| file)
}

/// An unfinished copy, of this call or an earlier one, is all that may be there.
async fn check(file: &FileDisk) -> Result<(), CacheError> {
    let path = &file.facts().path;
    let unfinished = l2::is_unfinished(file).await;
    if unfinished.map_err(|error| target_failed(path, error))? {
        return Ok(());
    }
    let path = path.display();
    let reason = format!("{path} is there already: remove it, or choose another directory");
    Err(CacheError::L2Unavailable { reason })
}

async fn copy_to(
    disk: &DiskTier,
    target: Arc<dyn Disk>,
    path: &Path,
) -> Result<BackupReport, CacheError> {
    let Some(l2) = disk.l2() else { return Err(disk.device_error()) };
    let error = match l2::copy_store(l2, target).await {
        Ok(copied) => {
            return Ok(BackupReport::new(copied.segments, copied.bytes, copied.shared_bytes));
        }
        Err(error) => error,
    };
    Err(match error {
        CopyError::Off => disk.device_error(),
        CopyError::Source(source) => {
            let context = format!("could not read the store at {}", disk.path().display());
            CacheError::L2Io { context, source: source.into() }
        }
        CopyError::Target(source) => target_failed(path, source),
        CopyError::NoRoom { needed_bytes, available_bytes } => {
            no_room(path, needed_bytes, available_bytes)
        }
        CopyError::Outrun => {
            let path = path.display();
            let reason = format!("the store is written faster than it can be copied to {path}");
            CacheError::L2Unavailable { reason }
        }
    })
}

/// The file system of the copy has no room for so much.
pub(crate) fn no_room(path: &Path, needed: u64, available: u64) -> CacheError {
    CacheError::L2Full { path: path.to_owned(), size: needed, max: available }
}

/// The copy cannot be written.
pub(crate) fn target_failed(path: &Path, source: io::Error) -> CacheError {
    let context = format!("could not copy to {}", path.display());
    CacheError::L2Io { context, source: source.into() }
}
