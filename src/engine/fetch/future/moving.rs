//! How a fetch moves to a task: it stops before it begins, and goes on there.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::FetchFuture;
use crate::counters::Event;
use crate::engine::fetch::outcome::Answer;
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

/// A fetch that a task polls, for a caller that may come late for the answer.
pub(crate) struct InTask<F, Fut, E>(pub(crate) Box<FetchFuture<F, Fut, E>>);

impl<F, Fut, E> Future for InTask<F, Fut, E>
where
    F: Begin<Fut>,
    Fut: Future<Output = Result<BlobCachePut, E>>,
    E: Send + Sync + 'static,
{
    type Output = Answer<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer<E>> {
        self.0.poll_answer(context)
    }
}

/// Whoever polled it before polls it no longer: others need not wait for that.
impl<F, Fut, E> Work for InTask<F, Fut, E>
where
    F: Begin<Fut> + Send + 'static,
    Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    fn moved(&self) {
        let lead = self.0.stage.lead();
        if let Some(lead) = lead.filter(|_| !failpoint(Failpoint::LeadNotMoved)) {
            lead.note_woken();
        }
    }

    fn left_task(&self) {
        self.0.count(Event::FetchNotSpawned);
    }
}
