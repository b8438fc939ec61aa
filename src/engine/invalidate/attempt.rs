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
use crate::key::KeyHasher;
use crate::scope::NamespaceScope;
use crate::wake::contained;

pub(crate) struct Attempts {
    hasher: KeyHasher,
    disk: Arc<DiskTier>,
    deadlines: Arc<Deadlines>,
    cleanup: Cleanup,
    flushes: Flushes,
}

/// A caller that waits until fewer are pending. Dropped, it flushes its namespaces instead.
struct Waiting<'a> {
    hasher: &'a KeyHasher,
    flushes: &'a Flushes,
    scope: NamespaceScope<'a>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // If the log has no room either, nothing can be done.
        contained(|| {
            // Bounded: by the names of one call.
            for name in self.scope.names() {
                _ = self.flushes.try_flush(self.hasher.namespace(name));
            }
            if self.scope == NamespaceScope::All {
                _ = self.flushes.try_flush_all();
            }
        });
    }
}

impl Attempts {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            hasher: parts.hasher.clone(),
            disk: Arc::clone(&parts.disk),
            deadlines: Arc::clone(&parts.deadlines),
            cleanup: Cleanup::new(parts),
            flushes: Flushes::new(parts),
        }
    }

    /// Tries until nothing blocks it.
    pub(crate) async fn attempt<'a, T>(
        &'a self,
        scope: NamespaceScope<'a>,
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
                    // Not a value, whose drop in a later turn would flush.
                    waiting.get_or_insert_with(|| Waiting {
                        hasher: &self.hasher,
                        flushes: &self.flushes,
                        scope,
                    });
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
