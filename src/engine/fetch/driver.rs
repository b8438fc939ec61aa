//! `FetchDriver`: the course of one fetch, without a task of its own.
//!
//! ```text
//! look ── fresh ──────────────────────────────────────────────> answer
//!   └─ enter a flight ── join ── value or error ──────────────> answer
//!        └─ lead ── look again, if anything has happened since
//!             └─ fetch ── value ── store ── complete ───────> answer
//!                  └─ failed ── look ── stale ── complete ────> answer
//!                       └─ complete ──────────────────────────> error
//! ```
//!
//! Leadership must be transferred wherever a fetch is dropped: the lead is in its stage, and drops
//! with it. A leader polls everything through its lead. A leader that was woken and is not polled
//! may lose the lead; polled again, it finishes its own fetch and completes no flight.
//!
//! It knows the type of the fetch's errors alone: each call of a fetching verb has a closure of its
//! own, and would be compiled into a course of its own.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::counters::Event;
use crate::engine::fetch::caller::CallerFetch;
use crate::engine::fetch::ending::Ending;
use crate::engine::fetch::fetcher::Offer;
use crate::engine::fetch::outcome::{Answer, Called, FlightOutcome, Outcome};
use crate::engine::fetch::request::FetchRequest;
use crate::engine::fetch::stage::{Claim, FailedAt, Joiner, Lead, Next, Stage, led};
use crate::engine::fetch::watch::WatchGuard;
use crate::error::FetchError;
use crate::failpoint::{Failpoint, failpoint};
use crate::flight::{JoinOutcome, Part};
use crate::hit::BlobCacheHit;
use crate::moment::{Moment, ReadPoint};
use crate::telemetry::Contained;
use crate::timeout::Timeout;
use crate::wake::{contained, discard};

pub(super) struct FetchDriver<E> {
    request: Arc<FetchRequest>,
    /// When the call began; None until it is polled.
    began: Option<Moment>,
    /// When the call, or one of its looks, began with its gate closed.
    closed_at: Option<Duration>,
    called: Called,
    /// The last moment before the latest look began.
    looked: Option<Moment>,
    is_counted: bool,
    /// Its caller has the entry, and is told of a failure.
    is_refresh: bool,
    /// It is to replace a fresh entry that is near its end.
    is_ahead: bool,
    /// It stops before it fetches, to be moved to a task.
    is_pausing: bool,
    has_found_stale: bool,
    /// When it has waited for long enough: for other callers, then for its own fetch.
    deadline: Option<Timeout>,
    stage: Stage<E>,
}

impl<E> FetchDriver<E> {
    pub(super) fn new(request: Arc<FetchRequest>) -> Self {
        Self {
            request,
            began: None,
            closed_at: None,
            called: None,
            looked: None,
            is_counted: false,
            is_refresh: false,
            is_ahead: false,
            is_pausing: false,
            has_found_stale: false,
            deadline: None,
            stage: Stage::New(None),
        }
    }

    /// Its caller has the hit, which was counted then.
    pub(super) fn refresh(request: Arc<FetchRequest>, claim: Claim) -> Self {
        let mut driver = Self::new(request);
        (driver.is_counted, driver.is_refresh) = (true, true);
        driver.stage = Stage::New(Some(claim));
        driver
    }

    /// A refresh of an entry that is still fresh.
    pub(super) fn ahead(request: Arc<FetchRequest>, claim: Claim) -> Self {
        let mut driver = Self::refresh(request, claim);
        driver.is_ahead = true;
        driver
    }

    /// Stops before it fetches, until it is [resumed](Self::resume).
    pub(super) fn pausing(request: Arc<FetchRequest>) -> Self {
        let mut driver = Self::new(request);
        driver.is_pausing = true;
        driver
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_pausing && matches!(self.stage, Stage::Paused(..))
    }

    pub(super) fn resume(&mut self) {
        self.is_pausing = false;
    }

    /// It waits for another caller's fetch.
    pub(super) fn is_joined(&self) -> bool {
        matches!(self.stage, Stage::Joined(_))
    }

    pub(super) fn has_found_stale(&self) -> bool {
        self.has_found_stale
    }

    pub(super) fn is_fetching(&self) -> bool {
        matches!(self.stage, Stage::Fetching(..))
    }

    /// Leaves its flight. It is not polled again.
    pub(super) fn end(&mut self) {
        discard(mem::replace(&mut self.stage, Stage::Over));
    }

    /// Whoever polled it before polls it no longer: others need not wait for that.
    pub(super) fn note_moved(&self) {
        let lead = self.stage.lead();
        if let Some(lead) = lead.filter(|_| !failpoint(Failpoint::LeadNotMoved)) {
            lead.note_woken();
        }
    }

    pub(super) fn note_left_task(&self) {
        self.count(Event::FetchNotSpawned);
    }

    fn now(&self) -> ReadPoint {
        self.request.fetcher().now()
    }

    fn count(&self, event: Event) {
        self.request.fetcher().count(event);
    }
}

impl<E> Drop for FetchDriver<E> {
    fn drop(&mut self) {
        self.end();
        if self.is_ahead {
            self.request.end_attempt();
        }
    }
}

impl<E: Send + Sync + 'static> FetchDriver<E> {
    /// What a caller is given that takes the answer now.
    pub(super) fn poll(
        &mut self,
        fetch: &mut dyn CallerFetch<E>,
        context: &mut Context<'_>,
    ) -> Poll<Outcome<E>> {
        self.poll_answer(fetch, context).map(|answer| self.request.outcome(answer))
    }

    /// The answer, for a caller that may take it later.
    pub(super) fn poll_answer(
        &mut self,
        fetch: &mut dyn CallerFetch<E>,
        context: &mut Context<'_>,
    ) -> Poll<Answer<E>> {
        // Bounded: by the stages of a fetch.
        loop {
            let stage = mem::replace(&mut self.stage, Stage::Over);
            match self.proceed(stage, fetch, context) {
                Next::Stage(stage) => self.stage = stage,
                Next::Wait(stage) => {
                    self.stage = stage;
                    return Poll::Pending;
                }
                Next::Answer(answer) => return Poll::Ready(answer),
            }
        }
    }

    fn proceed(
        &mut self,
        stage: Stage<E>,
        fetch: &mut dyn CallerFetch<E>,
        context: &mut Context<'_>,
    ) -> Next<E> {
        match stage {
            Stage::New(claim) => {
                // First: an invalidation before the gate was opened was before `began`.
                self.note_gate();
                self.began = Some(self.now().moment);
                match claim.and_then(|claim| claim.begin()) {
                    Some(lead) => self.lead(Some(lead)),
                    None => self.look(None),
                }
            }
            Stage::Looking(mut look, lead) => {
                let of_flight = lead.as_ref().and_then(|(lead, _)| lead.as_ref());
                match led(of_flight, context, |context| look.poll(context)) {
                    Poll::Pending => Next::Wait(Stage::Looking(look, lead)),
                    Poll::Ready(found) => self.found(found, lead),
                }
            }
            Stage::Joined(mut joiner) => match joiner.poll_outcome(context) {
                Poll::Pending if self.is_late(context) => self.waited(joiner),
                Poll::Pending => Next::Wait(Stage::Joined(joiner)),
                Poll::Ready(JoinOutcome::LookAgain) => self.look(None),
                Poll::Ready(JoinOutcome::Lead(lead)) => self.lead(Some(lead)),
                Poll::Ready(JoinOutcome::Value(outcome)) => self.joined(outcome),
            },
            Stage::Paused(lead, watch) if self.is_pausing => Next::Wait(Stage::Paused(lead, watch)),
            Stage::Paused(lead, watch) => self.begin(lead, watch),
            Stage::Calling(lead, watch) => self.call(fetch, lead, watch),
            Stage::Fetching(span, lead, watch) => self.go_on(fetch, (span, lead, watch), context),
            Stage::Failed(mut look, error, lead, at) => {
                match led(lead.as_ref(), context, |context| look.poll(context)) {
                    Poll::Pending => Next::Wait(Stage::Failed(look, error, lead, at)),
                    Poll::Ready(Some(hit)) => self.ending().complete_stale(lead, hit, at, error),
                    Poll::Ready(None) => self.ending().complete_failed(lead, at, error),
                }
            }
            Stage::Storing(mut storing, lead) => {
                // A value of the caller's may panic when it is dropped.
                let poll = |context: &mut Context<'_>| contained(|| storing.as_mut().poll(context));
                match led(lead.as_ref(), context, poll) {
                    Some(Poll::Pending) => Next::Wait(Stage::Storing(storing, lead)),
                    Some(Poll::Ready((hit, until))) => {
                        // Of a fetch before it, or of a leader that it has replaced.
                        self.request.forget_held::<E>();
                        self.ending().complete(lead, hit, until)
                    }
                    None => {
                        discard(storing);
                        self.failed(FetchError::Panicked, lead, None)
                    }
                }
            }
            Stage::Waking(mut wakers, answer) => {
                if wakers.wake() {
                    context.waker().wake_by_ref();
                    return Next::Wait(Stage::Waking(wakers, answer));
                }
                Next::Answer(answer)
            }
            Stage::Over => panic!("polled after it was over"),
        }
    }

    fn go_on(
        &mut self,
        fetch: &mut dyn CallerFetch<E>,
        (span, lead, watch): (Contained, Option<Lead>, WatchGuard),
        context: &mut Context<'_>,
    ) -> Next<E> {
        // A fetch that has panicked is not polled again.
        let poll = |context: &mut Context<'_>| {
            let polled = contained(|| span.within(|| fetch.poll(context)));
            let is_late = matches!(polled, Some(Poll::Pending)) && self.is_late(context);
            (polled, is_late)
        };
        let answer = match led(lead.as_ref(), context, poll) {
            (Some(Poll::Pending), false) => {
                return Next::Wait(Stage::Fetching(span, lead, watch));
            }
            (Some(Poll::Pending), true) => Err(FetchError::TimedOut),
            (Some(Poll::Ready(answer)), _) => answer.map_err(Arc::new).map_err(FetchError::Fetch),
            (None, _) => Err(FetchError::Panicked),
        };
        self.deadline = None;
        self.request.count_fetched();
        // The caller's future is dropped here, contained, before the next stage exists: if a local
        // panics in its drop, the return value is leaked, and a leaked lead would hold its key.
        fetch.end();
        drop(span);
        match answer {
            Ok(put) => {
                let is_late = failpoint(Failpoint::PointTakenLate);
                let watch = if is_late { self.request.watch() } else { watch };
                // A fresh entry that the gate keeps back may have its version.
                let renews = self.is_ahead || self.closed_at.is_some();
                let storing = Arc::clone(&self.request).store(put, watch, renews);
                Next::Stage(Stage::Storing(Box::pin(storing), lead))
            }
            Err(error) => self.failed(error, lead, Some(watch)),
        }
    }

    fn is_late(&self, context: &Context<'_>) -> bool {
        self.deadline.as_ref().is_some_and(|deadline| deadline.poll(context).is_ready())
    }

    /// It has waited for another caller for as long as a fetch may take. The others wait on.
    fn waited(&mut self, joiner: Joiner) -> Next<E> {
        drop(joiner);
        self.count(Event::FlightTimeout);
        let looked = self.now().moment;
        let at = FailedAt { fetched: looked, looked, is_own: false };
        let look = self.request.look(Offer::Always);
        Next::Stage(Stage::Failed(look, FetchError::TimedOut, None, at))
    }

    fn look(&mut self, lead: Option<(Option<Lead>, WatchGuard)>) -> Next<E> {
        self.note_gate();
        let point = lead.as_ref().map_or_else(|| self.now(), |(_, watch)| watch.point);
        self.looked = Some(point.moment);
        Next::Stage(Stage::Looking(self.request.look(Offer::IfFresh), lead))
    }

    fn note_gate(&mut self) {
        if self.closed_at.is_none() {
            self.closed_at = self.request.closed_at();
        }
    }

    fn found(
        &mut self,
        found: Option<BlobCacheHit>,
        lead: Option<(Option<Lead>, WatchGuard)>,
    ) -> Next<E> {
        let is_enough = |hit: &BlobCacheHit| !(self.is_ahead && self.request.is_ending(hit));
        let (fresh, stale) = match found {
            Some(hit) if !hit.is_stale() && is_enough(&hit) => (Some(hit), None),
            found => (None, found),
        };
        self.has_found_stale = stale.is_some();
        if !mem::replace(&mut self.is_counted, true) {
            match &fresh {
                Some(hit) => self.request.fetcher().count_hit(hit),
                None => self.request.count_miss(),
            }
        }
        match (fresh, lead) {
            (Some(hit), None) => self.ending().answer(hit),
            (Some(hit), Some((lead, watch))) => {
                self.ending().complete(lead, hit, watch.point.moment)
            }
            (None, Some((lead, watch))) => self.begin(lead, watch),
            (None, None) => match self.request.held() {
                Some((error, _)) => {
                    self.count(Event::FetchHeldOff);
                    Next::Answer(self.ending().answer_failed(stale, error))
                }
                None => self.enter(),
            },
        }
    }

    fn enter(&mut self) -> Next<E> {
        match self.request.enter::<E>(self.began.unwrap_or_default()) {
            Part::Join(joiner) => {
                if self.deadline.is_none() {
                    self.deadline = self.request.hard_timeout();
                }
                Next::Stage(Stage::Joined(joiner))
            }
            Part::Lead(lead) => self.lead(Some(lead)),
            Part::None => self.lead(None),
        }
    }

    /// Begins to lead. If there was a mutation since the look, the flight before may have stored.
    fn lead(&mut self, lead: Option<Lead>) -> Next<E> {
        let watch = self.request.watch();
        if self.looked == Some(watch.point.moment) {
            self.fetch(lead, watch)
        } else {
            self.look(Some((lead, watch)))
        }
    }

    fn begin(&mut self, lead: Option<Lead>, watch: WatchGuard) -> Next<E> {
        // Another caller has taken the lead before this one began to fetch.
        if lead.as_ref().is_some_and(|lead| !lead.is_in_force()) {
            return self.enter();
        }
        self.fetch(lead, watch)
    }

    fn fetch(&mut self, lead: Option<Lead>, watch: WatchGuard) -> Next<E> {
        // Another fetch may have failed since the look.
        if let Some((error, fetched)) = self.request.held() {
            self.count(Event::FetchHeldOff);
            let at = FailedAt { fetched, looked: self.now().moment, is_own: false };
            let look = self.request.look(Offer::Always);
            return Next::Stage(Stage::Failed(look, error, lead, at));
        }
        if self.is_pausing {
            return Next::Wait(Stage::Paused(lead, watch));
        }
        Next::Stage(Stage::Calling(lead, watch))
    }

    fn call(
        &mut self,
        fetch: &mut dyn CallerFetch<E>,
        lead: Option<Lead>,
        watch: WatchGuard,
    ) -> Next<E> {
        self.count(Event::Fetch);
        if self.is_ahead {
            self.count(Event::RefreshAhead);
        }
        self.request.note_called();
        self.deadline = self.request.hard_timeout();
        self.called = self.request.gate_time();
        match contained(|| fetch.call()) {
            Some(()) => Next::Stage(Stage::Fetching(self.request.span(), lead, watch)),
            None => self.failed(FetchError::Panicked, lead, Some(watch)),
        }
    }

    /// A stale entry is better than an error. `watch` of the fetch, unless that has ended.
    fn failed(
        &mut self,
        error: FetchError<E>,
        lead: Option<Lead>,
        watch: Option<WatchGuard>,
    ) -> Next<E> {
        self.count(Event::FetchError);
        if matches!(error, FetchError::TimedOut) {
            self.count(Event::FetchTimeout);
        }
        let fetched = watch.as_ref().map(|watch| watch.point.moment).unwrap_or_default();
        // Before others can lead. One that was replaced says nothing of the fetch under way: it may
        // have timed out because it was not polled.
        let is_in_force = lead.as_ref().is_none_or(Lead::is_in_force);
        if let Some(watch) = watch.filter(|_| is_in_force) {
            self.request.hold(&error, watch);
        }
        let at = FailedAt { fetched, looked: self.now().moment, is_own: true };
        Next::Stage(Stage::Failed(self.request.look(Offer::Always), error, lead, at))
    }

    /// The outcome of the leader that this caller has joined.
    fn joined(&mut self, outcome: FlightOutcome) -> Next<E> {
        // With its gate closed, no moment tells what the outcome may have missed.
        let is_older = self.closed_at.is_some_and(|closed| !outcome.is_since(closed));
        if is_older && !failpoint(Failpoint::SharedThroughClosedGate) {
            discard(outcome);
            return self.look(None);
        }
        let (hit, failure) = match outcome {
            FlightOutcome::Value(hit, _) => (Some(hit), None),
            FlightOutcome::Stale(hit, failure, _) => (Some(hit), Some(failure)),
            FlightOutcome::Failed(failure) => (None, Some(failure)),
        };
        // Polled late, it must not return an expired value.
        if hit.as_ref().is_some_and(|hit| self.is_over(hit)) {
            discard((hit, failure));
            return self.look(None);
        }
        // Nor one that it cannot decode. It does not wait for another such value, but fetches.
        let is_kept = failpoint(Failpoint::UndecodedShared);
        let hit = hit.filter(|hit| self.request.accepts(hit) || is_kept);
        if hit.is_none() && failure.is_none() {
            return self.lead(None);
        }
        // Nor an error if there is a value by now.
        let put = failure.as_ref().and_then(|_| self.request.find()).filter(|hit| !hit.is_stale());
        self.count(Event::FlightJoined);
        let error = failure.and_then(|failure| failure.error());
        match (put.or(hit), error) {
            (Some(hit), Some(error)) if hit.is_stale() => {
                Next::Answer(self.ending().answer_stale(hit, error))
            }
            (Some(hit), error) => {
                discard(error);
                self.ending().answer(hit)
            }
            (None, Some(error)) => Next::Answer(Answer::Failed(error)),
            (None, None) => unreachable!("a flight has one type of errors"),
        }
    }

    fn ending(&self) -> Ending<'_> {
        let &Self { ref request, is_refresh, is_ahead, called, .. } = self;
        Ending { request, is_refresh, is_ahead, called }
    }

    fn is_over(&self, hit: &BlobCacheHit) -> bool {
        self.request.fetcher().is_over(hit)
    }
}
