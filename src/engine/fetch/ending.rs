//! `Ending`: how a fetch ends: what the others are given that wait for it, and what its own caller.

use std::sync::Arc;

use crate::counters::Event;
use crate::engine::fetch::outcome::{Answer, Called, Failure, FlightOutcome};
use crate::engine::fetch::request::FetchRequest;
use crate::engine::fetch::stage::{FailedAt, Lead, Next, Stage};
use crate::error::FetchError;
use crate::flight::Completion;
use crate::hit::BlobCacheHit;
use crate::moment::Moment;
use crate::wake::discard;

pub(super) struct Ending<'a> {
    pub(super) request: &'a FetchRequest,
    /// Its caller has the entry, and is told of a failure.
    pub(super) is_refresh: bool,
    /// It is to replace a fresh entry that is near its end.
    pub(super) is_ahead: bool,
    pub(super) called: Called,
}

impl Ending<'_> {
    pub(super) fn complete<E: Send + Sync + 'static>(
        &self,
        lead: Option<Lead>,
        hit: BlobCacheHit,
        until: Moment,
    ) -> Next<E> {
        let Some(lead) = lead else { return self.answer(hit) };
        let value = FlightOutcome::Value(hit.clone(), self.called);
        let wakers = lead.complete(Completion { value, until });
        if hit.is_stale() {
            self.count(Event::StaleServe);
        }
        Next::Stage(Stage::Waking(wakers, Answer::Hit(hit)))
    }

    /// The others are given the stale entry, and this caller as well unless it has it.
    pub(super) fn complete_stale<E: Send + Sync + 'static>(
        &self,
        lead: Option<Lead>,
        hit: BlobCacheHit,
        FailedAt { looked: until, is_own, .. }: FailedAt,
        error: FetchError<E>,
    ) -> Next<E> {
        if is_own && (hit.is_stale() || self.is_ahead) {
            self.request.rest();
        }
        if !hit.is_stale() {
            discard(error);
            let generation = Arc::clone(&hit.entry.generation);
            let next = self.complete(lead, hit, until);
            if is_own && self.is_ahead {
                self.request.fetcher().tell_not_refreshed(generation.name());
            }
            return next;
        }
        let value = FlightOutcome::Stale(hit.clone(), Failure::new(error.clone()), self.called);
        let wakers = lead.map(|lead| lead.complete(Completion { value, until }));
        if is_own {
            self.request.fetcher().tell_not_refreshed(hit.entry.generation.name());
        }
        let answer = self.answer_stale(hit, error);
        match wakers {
            Some(wakers) => Next::Stage(Stage::Waking(wakers, answer)),
            None => Next::Answer(answer),
        }
    }

    /// All that had joined before the fetch began, or before the next mutation, are given the
    /// error: each would wait for its own otherwise, one after the other. What the error says may
    /// be wrong after any mutation, so later callers look again. A panic says nothing about the
    /// origin: the next one fetches, unless it has to wait with that.
    pub(super) fn complete_failed<E: Send + Sync + 'static>(
        &self,
        lead: Option<Lead>,
        FailedAt { fetched: until, .. }: FailedAt,
        error: FetchError<E>,
    ) -> Next<E> {
        let is_held = self.request.fetch_policy.retry_after.is_some();
        let is_shared = !matches!(error, FetchError::Panicked) || is_held;
        let Some(lead) = lead.filter(|_| is_shared) else {
            return Next::Answer(Answer::Failed(error));
        };
        let value = FlightOutcome::Failed(Failure::new(error.clone()));
        let wakers = lead.complete(Completion { value, until });
        Next::Stage(Stage::Waking(wakers, Answer::Failed(error)))
    }

    pub(super) fn answer<E: Send + Sync + 'static>(&self, hit: BlobCacheHit) -> Next<E> {
        if hit.is_stale() {
            self.count(Event::StaleServe);
        }
        Next::Answer(Answer::Hit(hit))
    }

    pub(super) fn answer_failed<E: Send + Sync + 'static>(
        &self,
        stale: Option<BlobCacheHit>,
        error: FetchError<E>,
    ) -> Answer<E> {
        match stale {
            Some(hit) => self.answer_stale(hit, error),
            None => Answer::Failed(error),
        }
    }

    pub(super) fn answer_stale<E: Send + Sync + 'static>(
        &self,
        hit: BlobCacheHit,
        error: FetchError<E>,
    ) -> Answer<E> {
        if self.is_refresh { Answer::Failed(error) } else { Answer::Stale(hit, error) }
    }

    fn count(&self, event: Event) {
        self.request.fetcher().count(event);
    }
}
