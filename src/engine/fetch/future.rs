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
    driver: FetchDriver<E>,
    /// Until it is taken back.
    fetch: Option<C>,
}

/// Only boxed parts are pinned.
impl<C, E> Unpin for FetchFuture<C, E> {}

impl<C, E> FetchFuture<C, E> {
    pub(crate) fn new(request: Arc<FetchRequest>, fetch: C) -> Self {
        Self { driver: FetchDriver::new(request), fetch: Some(fetch) }
    }

    /// Its caller has the hit, which was counted then.
    pub(super) fn refresh(request: Arc<FetchRequest>, fetch: C, claim: Claim) -> Self {
        Self { driver: FetchDriver::refresh(request, claim), fetch: Some(fetch) }
    }

    /// A refresh of an entry that is still fresh.
    pub(super) fn ahead(request: Arc<FetchRequest>, fetch: C, claim: Claim) -> Self {
        Self { driver: FetchDriver::ahead(request, claim), fetch: Some(fetch) }
    }

    /// Stops before it fetches, until it is [resumed](Self::resume).
    pub(super) fn pausing(request: Arc<FetchRequest>, fetch: C) -> Self {
        Self { driver: FetchDriver::pausing(request), fetch: Some(fetch) }
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

    /// The fetch, after the answer.
    pub(super) fn take_fetch(&mut self) -> Option<C> {
        self.fetch.take()
    }
}

/// Others can lead before foreign code is dropped, which may take its time; but not before a fetch
/// that was called is gone, since two of a key may not run at one time.
impl<C, E> Drop for FetchFuture<C, E> {
    fn drop(&mut self) {
        if !self.driver.is_fetching() {
            self.driver.end();
        }
        drop(self.fetch.take());
    }
}

impl<C: CallerFetch<E>, E: Send + Sync + 'static> Future for FetchFuture<C, E> {
    type Output = Outcome<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<E>> {
        let Self { driver, fetch: Some(fetch) } = &mut *self else { unreachable!("it is over") };
        driver.poll(fetch, context)
    }
}

/// A fetch that a task polls, for a caller that may come late for the answer.
pub(super) struct InTask<E>(pub(super) Box<FetchFuture<SpawnableFetch<E>, E>>);

impl<E: Send + Sync + 'static> Future for InTask<E> {
    type Output = Answer<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer<E>> {
        let FetchFuture { driver, fetch: Some(fetch) } = &mut *self.0 else {
            unreachable!("it is over")
        };
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
