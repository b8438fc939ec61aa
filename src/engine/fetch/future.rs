//! `FetchFuture`: a caller's fetch, and the driver that polls it. `InTask`: the same, in a task.
//!
//! Hand-written futures, because a refresh must be `Send` exactly when its fetch is.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::engine::fetch::caller::{CallerFetch, SpawnableFetch};
use crate::engine::fetch::driver::FetchDriver;
use crate::engine::fetch::outcome::{Answer, Outcome};
use crate::engine::fetch::request::FetchRequest;
use crate::engine::fetch::stage::Claim;
use crate::remote::Work;

pub(crate) struct FetchFuture<C, E> {
    /// Dropped before the lead, so that two fetches of a key are not there at one time.
    fetch: C,
    driver: FetchDriver<E>,
}

/// Only boxed parts are pinned.
impl<C, E> Unpin for FetchFuture<C, E> {}

impl<C, E> FetchFuture<C, E> {
    pub(crate) fn new(request: Arc<FetchRequest>, fetch: C) -> Self {
        Self { fetch, driver: FetchDriver::new(request) }
    }

    /// Its caller has the hit, which was counted then.
    pub(super) fn refresh(request: Arc<FetchRequest>, fetch: C, claim: Claim) -> Self {
        Self { fetch, driver: FetchDriver::refresh(request, claim) }
    }

    /// A refresh of an entry that is still fresh.
    pub(super) fn ahead(request: Arc<FetchRequest>, fetch: C, claim: Claim) -> Self {
        Self { fetch, driver: FetchDriver::ahead(request, claim) }
    }

    /// Stops before it fetches, until it is [resumed](Self::resume).
    pub(super) fn pausing(request: Arc<FetchRequest>, fetch: C) -> Self {
        Self { fetch, driver: FetchDriver::pausing(request) }
    }

    pub(super) fn is_paused(&self) -> bool {
        self.driver.is_paused()
    }

    pub(super) fn resume(&mut self) {
        self.driver.resume();
    }

    /// It waits for another caller's fetch.
    pub(super) fn is_joined(&self) -> bool {
        self.driver.is_joined()
    }

    pub(super) fn has_found_stale(&self) -> bool {
        self.driver.has_found_stale()
    }

    /// The fetch.
    pub(super) fn into_fetch(self) -> C {
        self.fetch
    }
}

impl<C: CallerFetch<E>, E: Send + Sync + 'static> Future for FetchFuture<C, E> {
    type Output = Outcome<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<E>> {
        let Self { fetch, driver } = &mut *self;
        driver.poll(fetch, context)
    }
}

/// A fetch that a task polls, for a caller that may come late for the answer.
pub(super) struct InTask<E>(pub(super) Box<FetchFuture<SpawnableFetch<E>, E>>);

impl<E: Send + Sync + 'static> Future for InTask<E> {
    type Output = Answer<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer<E>> {
        let FetchFuture { fetch, driver } = &mut *self.0;
        driver.poll_answer(fetch, context)
    }
}

impl<E: Send + Sync + 'static> Work for InTask<E> {
    fn moved(&self) {
        self.0.driver.note_moved();
    }

    fn left_task(&self) {
        self.0.driver.note_left_task();
    }
}
