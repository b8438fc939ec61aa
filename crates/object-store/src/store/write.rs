//! `Writing`: a write under way. Its paths are unsettled from before its first invalidation until
//! after its last, so that nothing which was read meanwhile is stored.
//!
//! ```text
//! register   invalidate   inner call   invalidate   deregister
//! ```
//!
//! A fill that took its read point before either invalidation is void; one that took it between
//! them finds the path registered, and stores nothing. If the guard is dropped before it has ended,
//! what has become of the inner call is unknown: it invalidates once more, and the path stays
//! unsettled for a while.

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join;
use tamis::CacheError;

use super::Core;
use super::object_store::path::Path;
use super::object_store::{Error, Result};
use crate::failpoint::{Failpoint, failpoint};

pub(crate) struct Writing {
    core: Arc<Core>,
    paths: Vec<Path>,
    has_ended: bool,
}

impl Writing {
    pub(crate) async fn begin(core: &Arc<Core>, paths: Vec<Path>) -> Self {
        // Bounded: by two paths, here and below.
        for path in &paths {
            core.unsettled.begin(path.as_ref());
        }
        let writing = Self { core: Arc::clone(core), paths, has_ended: false };
        writing.core.forget(&writing.paths).await;
        writing
    }

    pub(crate) fn paths(&self) -> &[Path] {
        &self.paths
    }

    pub(crate) async fn end(mut self, is_known: bool) {
        self.core.forget(&self.paths).await;
        self.has_ended = true;
        self.settle(is_known);
    }

    fn settle(&self, is_known: bool) {
        let unknown = (!is_known).then_some(self.core.settings.unknown_writes);
        for path in &self.paths {
            self.core.unsettled.end(path.as_ref(), unknown);
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.has_ended {
            // An invalidation is in force from its first poll on. Without room in the log it is
            // not, but nothing was stored since the first one.
            let _ = self.core.forget(&self.paths).now_or_never();
            self.settle(failpoint(Failpoint::DroppedWriteKnown));
        }
    }
}

/// Whether an error says that the write has not happened, or what has happened instead. Others, of
/// a connection for instance, leave that open.
pub(crate) fn is_known(error: &Error) -> bool {
    match error {
        Error::NotFound { .. }
        | Error::InvalidPath { .. }
        | Error::NotSupported { .. }
        | Error::AlreadyExists { .. }
        | Error::Precondition { .. }
        | Error::NotModified { .. }
        | Error::NotImplemented { .. }
        | Error::PermissionDenied { .. }
        | Error::Unauthenticated { .. }
        | Error::UnknownConfigurationKey { .. } => true,
        Error::Generic { .. } => false,
        _ => false,
    }
}

impl Core {
    /// Carries out a write of these paths.
    pub(crate) async fn write<T>(
        self: &Arc<Self>,
        paths: Vec<Path>,
        write: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let writing = Writing::begin(self, paths).await;
        let result = write.await;
        writing.end(result.as_ref().err().is_none_or(is_known)).await;
        result
    }

    /// Forgets all that is known of these paths. The blocks stay, and nothing leads to them.
    async fn forget(&self, paths: &[Path]) {
        if failpoint(Failpoint::NothingForgotten) {
            return;
        }
        let key_bytes_max = self.claim.cache().config().key_bytes_max();
        let keys = paths.iter().map(|path| path.as_ref());
        let keys = keys.flat_map(|path| [self.keys.meta(path, None), self.keys.prior(path)]);
        // There is nothing under a longer key. Bounded: by two paths.
        let keys: Vec<_> = keys.filter(|key| key.len() <= key_bytes_max).collect();
        let labels: Vec<_> = paths.iter().map(|path| self.keys.label(path.as_ref())).collect();
        // Together: both are in force from the first poll on.
        let keys = self.blobs.invalidate_keys(&keys);
        let (keys, labels) = join(keys, self.blobs.invalidate_dependencies(&labels)).await;
        tell(keys.err());
        // What has too long a label was not stored with it.
        tell(labels.err().filter(|error| !matches!(error, CacheError::LabelsTooLarge { .. })));
    }

    /// Forgets what is known of an object now, but not its blocks.
    pub(crate) async fn refresh(&self, location: &Path, version: Option<&str>) {
        let key = self.keys.meta(location.as_ref(), version);
        let result = self.blobs.invalidate_key(key).await;
        tell(result.err().filter(|error| !matches!(error, CacheError::KeyTooLarge { .. })));
    }
}

/// A write does not fail for the cache's sake. What is not in force, or not after a restart, is
/// bounded by the staleness that is permitted.
fn tell(error: Option<CacheError>) {
    if let Some(error) = error {
        tracing::warn!(target: "tamis_object_store", %error, "an invalidation has failed");
    }
}
