//! `get_or_fetch_spawned` and `get_or_refresh_spawned`: fetches that run in tasks.
//!
//! ```text
//! the caller looks ── fresh ───────────────────────────────> answer, maybe with a refresh ahead
//!   └─ joins the flight of another ── value or error ──────> answer
//!   └─ leads: its fetch moves to a task, and it waits
//!        ├─ value or error ────────────────────────────────> answer
//!        ├─ the fetch comes back: it runs in the caller's polls
//!        └─ soft timeout: looks ── stale ──────────────────> answer; the fetch goes on
//! ```
//!
//! A fetch in a task is a [`FetchFuture`] that the task owns instead of the caller; flights know
//! nothing of tasks. It moves before it begins, so that the user's fetch runs on one executor.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::counters::Event;
use crate::engine::Engine;
use crate::engine::fetch::caller::{CallerFetch, FetchOnce, SpawnableFetch};
use crate::engine::fetch::fetcher::Offer;
use crate::engine::fetch::future::{FetchFuture, InTask};
use crate::engine::fetch::outcome::{Answer, Outcome};
use crate::engine::fetch::request::{FetchRequest, HandleDefaults, Look};
use crate::engine::fetch::{claim, find, unneeded};
use crate::error::FetchError;
use crate::hit::{BlobCacheHit, CacheTier};
use crate::key::NamespaceRef;
use crate::put::BlobCachePut;
use crate::remote::{RemoteHandle, RemoteOutcome};
use crate::timeout::Timeout;

/// A fresh hit in memory that is not refreshed allocates nothing.
pub(crate) async fn get_or_fetch_spawned<F, Fut, E>(
    engine: &Arc<Engine>,
    namespace: NamespaceRef<'_>,
    key: &[u8],
    defaults: HandleDefaults<'_>,
    fetch: F,
) -> Result<BlobCacheHit, FetchError<E>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    match look_fresh(engine, namespace, key, defaults, fetch)? {
        Ok(hit) => Ok(hit),
        Err((request, fetch)) => {
            Box::pin(SpawnedFetch::new(request, FetchOnce::spawnable(fetch))).await
        }
    }
}

/// A fresh or stale hit, and a refresh for a stale one in a task.
pub(crate) async fn get_or_refresh_spawned<F, Fut, E>(
    engine: &Arc<Engine>,
    namespace: NamespaceRef<'_>,
    key: &[u8],
    defaults: HandleDefaults<'_>,
    fetch: F,
) -> Result<BlobCacheHit, FetchError<E>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    match look_fresh(engine, namespace, key, defaults, fetch)? {
        Ok(hit) => Ok(hit),
        Err((request, fetch)) => {
            Box::pin(find_or_fetch_spawned(request, FetchOnce::spawnable(fetch))).await
        }
    }
}

/// A request, and the fetch for it.
type ToFetch<F> = (Arc<FetchRequest>, F);

/// A fresh hit in memory, or else what a fetch takes.
fn look_fresh<F, Fut, E>(
    engine: &Arc<Engine>,
    namespace: NamespaceRef<'_>,
    key: &[u8],
    defaults: HandleDefaults<'_>,
    fetch: F,
) -> Result<Result<BlobCacheHit, ToFetch<F>>, FetchError<E>>
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = Result<BlobCachePut, E>> + Send + 'static,
    E: Send + Sync + 'static,
{
    let request = || Arc::new(FetchRequest::new(engine, namespace, key, defaults).for_task());
    if engine.config().spawner.is_none() {
        unneeded(fetch);
        return Err(FetchError::NoSpawner);
    }
    let Some(hit) = engine.gets().look_fresh(namespace, key) else {
        return Ok(Err((request(), fetch)));
    };
    if engine.fetcher().is_due(&hit, &defaults.fetch_policy(engine, namespace)) {
        refresh_ahead(&request(), FetchOnce::spawnable(fetch));
    } else {
        unneeded(fetch);
    }
    Ok(Ok(hit))
}

/// Looks into both tiers. Refreshes what it finds in a task, if that is due.
pub(crate) async fn find_or_fetch_spawned<E: Send + Sync + 'static>(
    request: Arc<FetchRequest>,
    fetch: SpawnableFetch<E>,
) -> Result<BlobCacheHit, FetchError<E>> {
    let Some(hit) = find(&request).await else {
        return SpawnedFetch::new(request, fetch).await;
    };
    if hit.is_stale() {
        refresh(&request, fetch);
    } else if request.is_due(&hit) {
        refresh_ahead(&request, fetch);
    } else {
        unneeded(fetch);
    }
    Ok(hit)
}

/// Refreshes an entry that is still fresh, in a task.
pub(crate) fn refresh_ahead<E: Send + Sync + 'static>(
    request: &Arc<FetchRequest>,
    fetch: SpawnableFetch<E>,
) {
    // Before the claim: the fetch ends the attempt.
    request.begin_attempt();
    let Some(claim) = claim::<E>(request, true) else { return unneeded(fetch) };
    let fetching = FetchFuture::ahead(Arc::clone(request), fetch, claim);
    if !spawn_refresh(request, fetching) {
        // Nor does each hit ask for a task while there are too many.
        request.begin_attempt();
    }
}

/// Refreshes a stale entry in a task, unless there is a refresh already, or one has failed a moment
/// ago.
fn refresh<E: Send + Sync + 'static>(request: &Arc<FetchRequest>, fetch: SpawnableFetch<E>) {
    if let Some(claim) = claim::<E>(request, false) {
        spawn_refresh(request, FetchFuture::refresh(Arc::clone(request), fetch, claim));
    } else {
        unneeded(fetch);
    }
}

/// False with too many tasks. The caller does not run it instead, since that was to be answered at
/// once: a later one tries again.
fn spawn_refresh<E: Send + Sync + 'static>(
    request: &FetchRequest,
    fetching: FetchFuture<SpawnableFetch<E>, E>,
) -> bool {
    request.fetcher().spawn(InTask(Box::new(fetching))).is_ok()
}

/// A call that waits for a fetch in a task.
pub(crate) struct SpawnedFetch<E> {
    request: Arc<FetchRequest>,
    course: Course<E>,
    patience: Patience,
}

enum Course<E> {
    /// In the polls of this call: before it fetches, while another caller fetches, or because no
    /// task does.
    Own(Box<FetchFuture<SpawnableFetch<E>, E>>),
    Task(RemoteHandle<InTask<E>, Answer<E>>),
    Over,
}

/// With an entry that is stale.
enum Patience {
    /// It has found none, and waits.
    Endless,
    Until(Timeout),
    /// It is over: the entry is looked up again.
    Over(Look),
}

impl<E: Send + Sync + 'static> SpawnedFetch<E> {
    pub(crate) fn new(request: Arc<FetchRequest>, fetch: SpawnableFetch<E>) -> Self {
        let course = Course::Own(Box::new(FetchFuture::pausing(Arc::clone(&request), fetch)));
        Self { request, course, patience: Patience::Endless }
    }

    /// The outcome; or else whether others go on with the fetch if this call does not.
    fn go_on(&mut self, context: &mut Context<'_>) -> Result<Outcome<E>, bool> {
        // Bounded: a fetch moves to a task once, and back.
        loop {
            match mem::replace(&mut self.course, Course::Over) {
                Course::Own(mut fetching) => match Pin::new(&mut fetching).poll(context) {
                    Poll::Ready(outcome) => {
                        self.refresh_found(&outcome, fetching.take_fetch());
                        return Ok(outcome);
                    }
                    Poll::Pending => {
                        self.be_patient(fetching.has_found_stale());
                        if !fetching.is_paused() {
                            let is_joined = fetching.is_joined();
                            self.course = Course::Own(fetching);
                            return Err(is_joined);
                        }
                        fetching.resume();
                        let spawned = self.request.fetcher().spawn(InTask(fetching));
                        let own = |InTask(fetching)| Course::Own(fetching);
                        self.course = spawned.map_or_else(own, Course::Task);
                    }
                },
                Course::Task(mut handle) => match handle.poll_outcome(context) {
                    // Polled late, it must not return a stale entry whose window is over.
                    Poll::Ready(RemoteOutcome::Output(answer)) => {
                        return Ok(self.request.outcome(answer));
                    }
                    Poll::Ready(RemoteOutcome::Lost) => return Ok(Err(FetchError::Panicked)),
                    Poll::Ready(RemoteOutcome::Back(InTask(fetching))) => {
                        self.course = Course::Own(fetching);
                    }
                    Poll::Pending => {
                        self.course = Course::Task(handle);
                        return Err(true);
                    }
                },
                Course::Over => panic!("polled after it was over"),
            }
        }
    }

    /// A hit on disk may be due for a refresh, which the look into memory could not tell.
    fn refresh_found(&self, outcome: &Outcome<E>, fetch: Option<SpawnableFetch<E>>) {
        let is_due = |hit: &BlobCacheHit| {
            // A typed caller would take the value of the refresh for that of another fetch.
            hit.tier() != CacheTier::Fetched && !hit.is_stale() && self.request.is_due(hit)
        };
        match fetch.filter(|fetch| !fetch.is_called()) {
            Some(fetch) if outcome.as_ref().is_ok_and(is_due) => {
                refresh_ahead(&self.request, fetch);
            }
            unused => unneeded(unused),
        }
    }

    /// Its patience begins once it waits and knows of a stale entry.
    fn be_patient(&mut self, has_found_stale: bool) {
        if has_found_stale && matches!(self.patience, Patience::Endless) {
            let timeout = self.request.soft_timeout();
            self.patience = timeout.map_or(Patience::Endless, Patience::Until);
        }
    }

    /// The entry that is answered in place of the fetch, once that has taken too long.
    fn instead(&mut self, context: &mut Context<'_>) -> Option<BlobCacheHit> {
        if let Patience::Until(timeout) = &self.patience {
            if timeout.poll(context).is_pending() {
                return None;
            }
            self.patience = Patience::Over(self.request.look(Offer::Always));
        }
        let Patience::Over(look) = &mut self.patience else { return None };
        let Poll::Ready(found) = look.poll(context) else { return None };
        self.patience = Patience::Endless;
        found
    }
}

impl<E> Unpin for SpawnedFetch<E> {}

impl<E: Send + Sync + 'static> Future for SpawnedFetch<E> {
    type Output = Outcome<E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<E>> {
        let goes_on = match self.go_on(context) {
            Ok(outcome) => return Poll::Ready(outcome),
            Err(goes_on) => goes_on,
        };
        // A fetch in this call's own polls would end with it.
        if !goes_on {
            return Poll::Pending;
        }
        let Some(hit) = self.instead(context) else { return Poll::Pending };
        self.course = Course::Over;
        if hit.is_stale() {
            self.request.fetcher().count(Event::SoftTimeout);
            self.request.fetcher().count(Event::StaleServe);
        }
        Poll::Ready(Ok(hit))
    }
}
