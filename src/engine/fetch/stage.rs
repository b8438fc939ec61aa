//! `Stage`: where a fetch stands, and what it holds there.

use std::task::Context;

use futures::future::BoxFuture;

use crate::engine::fetch::fetcher::Fetched;
use crate::engine::fetch::outcome::{Answer, FlightOutcome};
use crate::engine::fetch::request::Look;
use crate::engine::fetch::watch::WatchGuard;
use crate::error::FetchError;
use crate::flight;
use crate::moment::Moment;
use crate::telemetry::Contained;

pub(super) type Lead = flight::Lead<FlightOutcome, Moment>;
pub(super) type Joiner = flight::Joiner<FlightOutcome, Moment>;
pub(super) type Claim = flight::Claim<FlightOutcome, Moment>;
type Wakers = flight::Wakers<FlightOutcome, Moment>;

/// The lead is None without a flight: another key of the hash has one, or no entry has this key.
pub(super) enum Stage<E> {
    New(Option<Claim>),
    /// The lead, if this caller leads, and its read point.
    Looking(Look, Option<(Option<Lead>, WatchGuard)>),
    Joined(Joiner),
    /// It is to fetch, in a task.
    Paused(Option<Lead>, WatchGuard),
    /// It calls the caller's fetch within the same poll.
    Calling(Option<Lead>, WatchGuard),
    /// The span is around the polls of the caller's fetch.
    Fetching(Contained, Option<Lead>, WatchGuard),
    Failed(Look, FetchError<E>, Option<Lead>, FailedAt),
    Storing(BoxFuture<'static, Fetched>, Option<Lead>),
    Waking(Wakers, Answer<E>),
    Over,
}

/// The moments at which a fetch that has failed, and the look after it, began.
#[derive(Clone, Copy)]
pub(super) struct FailedAt {
    pub(super) fetched: Moment,
    pub(super) looked: Moment,
    /// Of this call's own fetch; or else of one before, or of others, which took too long.
    pub(super) is_own: bool,
}

pub(super) enum Next<E> {
    Stage(Stage<E>),
    Wait(Stage<E>),
    Answer(Answer<E>),
}

impl<E> Stage<E> {
    pub(super) fn lead(&self) -> Option<&Lead> {
        match self {
            Self::Looking(_, Some((lead, _)))
            | Self::Paused(lead, _)
            | Self::Fetching(_, lead, _)
            | Self::Failed(_, _, lead, _)
            | Self::Storing(_, lead) => lead.as_ref(),
            _ => None,
        }
    }
}

pub(super) fn led<R>(
    lead: Option<&Lead>,
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> R,
) -> R {
    match lead {
        Some(lead) => lead.poll(context, poll),
        None => poll(context),
    }
}
