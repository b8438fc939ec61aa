//! Fetches, in tasks and in the polls of their callers. Their values are fills, read when the fetch
//! is called; those of tasks may be stored when their callers have gone.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures::future::BoxFuture;
use parking_lot::Mutex;

use super::call::{Fetch, FetchVerb, FullKey, Put};
use super::checker::{Asked, Checker, Found};
use super::defaults::SOFT_TIMEOUT;
use super::manner::{patient, yields};
use super::many::Outcome;
use super::setting::BEGINNING;
use super::tally::Tally;
use super::typed;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::error::FetchError;
use crate::hit::{BlobCacheHit, CacheTier};
use crate::io::TaskRunner;
use crate::put::BlobCachePut;
use crate::wake::wake;

pub(super) type Answer = Result<BlobCacheHit, FetchError<io::Error>>;

/// What a fetch reads from. It has no handle of the cache, which would keep that open.
pub(super) struct Origin {
    pub(super) checker: Arc<Mutex<Checker>>,
    pub(super) runner: Arc<dyn TaskRunner>,
    pub(super) clock: Clock,
}

impl Origin {
    fn seconds(&self) -> u64 {
        self.clock.timestamp().0 / 1_000_000_000 - BEGINNING
    }

    /// The value is that of this moment.
    fn read(
        self,
        full_key: FullKey,
        fetch: Fetch,
    ) -> impl Future<Output = io::Result<BlobCachePut>> + Send + 'static {
        self.checker.lock().begin_fetch(full_key, fetch.put.clone());
        apart(async move {
            yields(fetch.polls).await;
            if fetch.is_slow {
                self.runner.sleep(2 * SOFT_TIMEOUT).await;
            }
            if fetch.fails {
                self.checker.lock().failed(fetch.put.number, self.seconds());
                return Err(io::Error::other(FetchFailed(fetch.put.number)));
            }
            self.checker.lock().fetched(fetch.put.number, self.seconds());
            Ok(fetch.put.blob())
        })
    }
}

/// The error of the fetch of that number.
#[derive(Debug, thiserror::Error)]
#[error("fetch {0} fails on purpose")]
struct FetchFailed(u32);

/// Polls with a waker that does not panic: the one of a caller would do so in the fetch, which then
/// has panicked itself.
async fn apart<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    poll_fn(|context| {
        let waker = Waker::from(Arc::new(Quiet(context.waker().clone())));
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

struct Quiet(Waker);

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        wake(self.0.clone());
    }
}

pub(super) fn fetch(
    cache: BlobCache,
    origin: Origin,
    asked: Asked,
    (full_key, fetch): (FullKey, Fetch),
    polls: u32,
) -> BoxFuture<'static, Outcome> {
    let (number, verb) = (fetch.put.number, fetch.verb);
    let (space, key) = (full_key.namespace(), full_key.name());
    let read = move || origin.read(full_key, fetch);
    let answer = async move {
        let answer: Answer = match verb {
            FetchVerb::Fetch => cache.get_or_fetch_spawned(space, key, read).await,
            FetchVerb::Refresh => cache.get_or_refresh_spawned(space, key, read).await,
            FetchVerb::OwnFetch => cache.get_or_fetch(space, key, read).await,
            FetchVerb::OwnRefresh => match cache.get_or_refresh(space, key, read).await {
                Ok((_, Some(refresh))) => refresh.await,
                Ok((hit, None)) => Ok(hit),
                Err(error) => Err(error),
            },
            FetchVerb::Typed => typed::fetch_spawned(&cache, (full_key, number), read).await?,
            FetchVerb::OwnTyped => typed::fetch(&cache, (full_key, number), read).await?,
        };
        Ok(answer)
    };
    Box::pin(async move {
        match patient(answer, polls).await.transpose() {
            Ok(answer) => Outcome::Fetched(number, full_key, asked, answer),
            Err(what) => Outcome::Wrong(what),
        }
    })
}

/// Judges the end of a call at a clock.
pub(super) fn fetched(
    checker: &mut Checker,
    tally: &mut Tally,
    (number, full_key, asked): (u32, FullKey, Asked),
    (answer, clock): (Option<Answer>, u64),
) -> Result<(), String> {
    if answer.is_some() {
        checker.was_answered(number, clock);
    }
    let hit = match answer {
        None => {
            tally.dropped += 1;
            checker.left(number);
            return Ok(());
        }
        Some(Ok(hit)) => hit,
        Some(Err(FetchError::Fetch(error))) => {
            let failed = error.get_ref().and_then(|error| error.downcast_ref());
            let FetchFailed(of) = failed.ok_or("an error of nobody's")?;
            let is_held = *of != number;
            tally.held += u64::from(is_held);
            tally.by_namespace += u64::from(is_held && checker.has_own_policy(full_key));
            return checker.was_given_error(*of, full_key, asked);
        }
        Some(Err(FetchError::TimedOut)) if checker.may_time_out(full_key) => {
            tally.timed_out += 1;
            tally.by_namespace += u64::from(checker.has_own_policy(full_key));
            checker.left(number);
            return Ok(());
        }
        Some(Err(error)) => return Err(format!("fetch {number} fails: {error}")),
    };
    let found = found(&hit, asked.clock)?;
    let found = match hit.tier() {
        CacheTier::Fetched => {
            checker.given(found.number, clock);
            Found { clock: None, ..found }
        }
        // In place of a fetch that takes long, or fails: as it is when the caller is answered.
        _ if hit.is_stale() => Found { clock: Some(clock), ..found },
        _ => found,
    };
    let is_stored = found.clock.is_some();
    tally.left += u64::from(is_stored && checker.has_left(found.number));
    checker.got(full_key, asked, Some(found))
}

/// What a hit says. `clock`: when it was judged, at the earliest.
pub(super) fn found(hit: &BlobCacheHit, clock: u64) -> Result<Found, String> {
    let number = Put::number_of(hit.value()).ok_or("a mixture of values")?;
    Ok(Found { number, version: hit.version(), is_stale: hit.is_stale(), clock: Some(clock) })
}
