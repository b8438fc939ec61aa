//! `Attempts`: retries a mutation until it takes effect.

use std::mem;
use std::sync::Arc;

use crate::batch::yield_now;
use crate::engine::acknowledge::Acknowledgement;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::blocked::{Attempt, Blocked};
use crate::engine::invalidate::cleanup::Cleanup;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::key::NamespaceRef;
use crate::wake::contained;

pub(crate) struct Attempts {
    disk: Arc<DiskTier>,
    deadlines: Arc<Deadlines>,
    cleanup: Cleanup,
    flushes: Flushes,
}

/// A caller that waits until fewer are pending. Dropped, it flushes the namespace instead.
struct Waiting<'a> {
    flushes: &'a Flushes,
    namespace: NamespaceRef<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // If the log has no room either, nothing can be done.
        contained(|| _ = self.flushes.try_flush(self.namespace));
    }
}

impl Attempts {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            disk: Arc::clone(&parts.disk),
            deadlines: Arc::clone(&parts.deadlines),
            cleanup: Cleanup::new(parts),
            flushes: Flushes::new(parts),
        }
    }

    /// Tries until nothing blocks it.
    pub(crate) async fn attempt<'a, T>(
        &'a self,
        namespace: NamespaceRef<'a>,
        mut attempt: impl FnMut() -> Attempt<T>,
    ) -> Result<(T, Acknowledgement), CacheError> {
        self.disk.check_ours()?;
        let (mut waiting, mut ticket) = (None, None);
        // Bounded: a wait in each turn.
        let attempted = loop {
            match attempt() {
                Ok(done) => break Ok(done),
                Err(Blocked::Closed) => break Err(CacheError::Closed),
                Err(Blocked::NoRoom) => match self.disk.l2() {
                    Some(l2) => ticket = Some(l2.log.room(0, ticket).await),
                    None => yield_now().await,
                },
                Err(Blocked::TooMany) => {
                    waiting.get_or_insert(Waiting { flushes: &self.flushes, namespace });
                    self.cleanup.advance().await;
                }
            }
        };
        // It has taken effect, or never will: no flush in its place.
        mem::forget(waiting);
        self.deadlines.note_invalidation();
        attempted
    }
}
