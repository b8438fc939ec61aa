//! How a fetch moves to a task: it stops before it begins, and goes on there.

use std::future::Future;
use std::sync::Arc;

use super::FetchFuture;
use crate::engine::fetch::request::FetchRequest;
use crate::engine::fetch::stage::Stage;
use crate::engine::fetch::typing::Begin;
use crate::failpoint::{Failpoint, failpoint};
use crate::put::BlobCachePut;
use crate::remote::Work;

impl<F, Fut, E> FetchFuture<F, Fut, E> {
    /// Stops before it fetches, until it is [resumed](Self::resume).
    pub(crate) fn pausing(request: Arc<FetchRequest>, fetch: F) -> Self {
        let mut fetching = Self::new(request, fetch);
        fetching.is_pausing = true;
        fetching
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_pausing && matches!(self.stage, Stage::Paused(..))
    }

    pub(crate) fn resume(&mut self) {
        self.is_pausing = false;
    }

    /// It waits for another caller's fetch.
    pub(crate) fn is_joined(&self) -> bool {
        matches!(self.stage, Stage::Joined(_))
    }

    pub(crate) fn has_found_stale(&self) -> bool {
        self.has_found_stale
    }

    /// The fetch, if it was not called.
    pub(crate) fn unused(&mut self) -> Option<F> {
        self.fetch.take()
    }
}

/// Whoever polled it before polls it no longer: others need not wait for that.
impl<F, Fut, E> Work for FetchFuture<F, Fut, E>
where
    F: Begin<Fut> + Send + 'static,
    Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    fn moved(&self) {
        if let Some(lead) = self.stage.lead().filter(|_| !failpoint(Failpoint::LeadNotMoved)) {
            lead.note_woken();
        }
    }
}
