//! How a fetch ended: `FlightOutcome` for all callers that wait, `Answer` for its own.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::FetchError;
use crate::hit::BlobCacheHit;

pub(super) type Outcome<E> = Result<BlobCacheHit, FetchError<E>>;

/// An outcome that its caller may be polled late to take.
pub(crate) enum Answer<E> {
    Hit(BlobCacheHit),
    /// The stale entry in place of an error, as long as its window is not over.
    Stale(BlobCacheHit, FetchError<E>),
    Failed(FetchError<E>),
}

#[derive(Debug, Clone)]
pub(crate) enum FlightOutcome {
    Value(BlobCacheHit, Called),
    /// The fetch failed, and there is a stale entry. A refresh is told of the failure.
    Stale(BlobCacheHit, Failure, Called),
    Failed(Failure),
}

/// When the leader called its fetch, by the clock of the namespace's gate. None: without a gate, or
/// it has not called it.
pub(crate) type Called = Option<Duration>;

impl FlightOutcome {
    /// Whether it has nothing from before that time: what follows a call was looked up after it.
    pub(super) fn is_since(&self, time: Duration) -> bool {
        match self {
            Self::Value(_, called) | Self::Stale(_, _, called) => *called >= Some(time),
            Self::Failed(_) => true,
        }
    }
}

/// A [`FetchError`] of the error type that the flight's identity names.
#[derive(Clone)]
pub(crate) struct Failure(Arc<dyn Any + Send + Sync>);

impl Failure {
    pub(crate) fn new<E: Send + Sync + 'static>(error: FetchError<E>) -> Self {
        Self(Arc::new(error))
    }

    /// None if it is of another type.
    pub(crate) fn error<E: Send + Sync + 'static>(&self) -> Option<FetchError<E>> {
        self.0.downcast_ref().cloned()
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Failure").finish_non_exhaustive()
    }
}
