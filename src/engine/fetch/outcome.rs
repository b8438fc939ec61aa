//! `FlightOutcome`: how a flight ended, for all callers that wait.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::error::FetchError;
use crate::hit::BlobCacheHit;

#[derive(Debug, Clone)]
pub(crate) enum FlightOutcome {
    Value(BlobCacheHit),
    /// The fetch failed, and there is a stale entry. A refresh is told of the failure.
    Stale(BlobCacheHit, Failure),
    Failed(Failure),
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
