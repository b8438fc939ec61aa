//! Stands for the disk on a real file where there is none: without the feature `disk`, and on other
//! systems than Linux. No such disk can be opened.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;

use super::error::DiskError;
use super::options::{DiskEngine, DiskOptions, FileFacts};
use super::task_runner::TaskRunner;
use super::{AlignedBuffer, Disk, Held, ReadRequest, StatusAnswers};

/// There is none.
#[derive(Clone)]
pub(crate) struct FileDisk(Infallible);

/// There is none.
pub(crate) struct Termination(Infallible);

impl FileDisk {
    /// # Errors
    ///
    /// `Unavailable`.
    pub(crate) async fn open(options: DiskOptions) -> Result<Self, DiskError> {
        let reason = if cfg!(target_os = "linux") {
            "tamis was built without its feature disk; enable that, or configure no l2_path"
        } else {
            "tamis has a disk tier on Linux only; configure no l2_path on this system"
        };
        Err(DiskError::Unavailable { reason: reason.to_owned() }.at(&options.directory))
    }

    pub(crate) fn facts(&self) -> &FileFacts {
        match self.0 {}
    }

    pub(crate) fn engine(&self) -> DiskEngine {
        match self.0 {}
    }

    pub(crate) fn refusal(&self) -> Option<&str> {
        match self.0 {}
    }

    pub(crate) fn task_runner(&self) -> Arc<dyn TaskRunner> {
        match self.0 {}
    }

    pub(crate) fn read_task_runner(&self) -> Arc<dyn TaskRunner> {
        match self.0 {}
    }

    pub(crate) fn boot_id(&self) -> [u8; 16] {
        match self.0 {}
    }

    pub(crate) fn close(&self) -> Termination {
        match self.0 {}
    }

    pub(crate) fn serve_status(&self, _: Weak<dyn StatusAnswers>) -> BoxFuture<'static, ()> {
        match self.0 {}
    }

    pub(crate) fn status_bytes(&self) -> usize {
        match self.0 {}
    }
}

impl Disk for FileDisk {
    fn length(&self) -> u64 {
        match self.0 {}
    }

    fn resize(&self, _: u64) -> BoxFuture<'static, io::Result<()>> {
        match self.0 {}
    }

    fn read(&self, _: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        match self.0 {}
    }

    fn write(
        &self,
        _: u64,
        _: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        match self.0 {}
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        match self.0 {}
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        match self.0 {}
    }
}

impl Termination {
    pub(crate) async fn wait(self) {
        match self.0 {}
    }
}

/// Runs a poll. It submits nothing.
pub(crate) fn together<T>(poll: impl FnOnce() -> T) -> T {
    poll()
}

/// There is no other owner of a store where none can be opened.
pub(crate) fn hold(_: &Path, _: Duration) -> Result<Held, DiskError> {
    Ok(Held::NotAsked)
}

/// Whether there is no store: this build makes none, and another one has made none.
pub(crate) fn is_surely_empty(directory: &Path) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    let found = fs::symlink_metadata(directory.join("data"));
    found.is_err_and(|error| matches!(error.kind(), NotFound | NotADirectory))
}
