//! Errors: of the builder, of fetches that many wait for, and what they become for each of them.

use std::fmt;
use std::sync::Arc;

use tamis::FetchError;
use thiserror::Error as ThisError;

use super::moment::Moment;
use super::object_store::path::Path;
use super::object_store::{Error, GetRange};
use crate::settings::OutOfRange;

/// The name in errors that are this crate's own.
pub(crate) const STORE: &str = "CachedObjectStore";

/// Why a store was not built.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum BuildError {
    /// Another store of this process uses the namespace of this cache: they would mix up their
    /// objects. Clone that store, or choose another namespace.
    #[error("the namespace {namespace} of this cache is in use by another store")]
    NamespaceInUse {
        /// The namespace.
        namespace: String,
    },
    /// A setting is out of its range.
    #[error("{setting} is {value}, and may be {min} to {max}")]
    OutOfRange {
        /// The method of the builder.
        setting: &'static str,
        /// What it was given.
        value: u64,
        /// The least that it takes.
        min: u64,
        /// The most that it takes.
        max: u64,
    },
    /// Nothing would read ahead: the cache's configuration has no
    /// [`spawner`](tamis::BlobCacheConfigBuilder::spawner).
    #[error("read_ahead needs a spawner in the configuration of the cache")]
    NoSpawner,
}

impl From<OutOfRange> for BuildError {
    fn from(OutOfRange { setting, value, range }: OutOfRange) -> Self {
        Self::OutOfRange { setting, value, min: *range.start(), max: *range.end() }
    }
}

/// Why a fetch has no value. All who wait for it have the same reason.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The inner store's error.
    Inner(Arc<Error>),
    /// The inner store's error about an object, asked then, for a range if there was one: the error
    /// may be about that range alone.
    OfObject { error: Arc<Error>, asked: Moment, range: Option<GetRange> },
    /// The object is no longer the one that was to be read.
    Changed,
    /// It cannot be cached: the inner store has to be asked as if there were no cache.
    Uncached,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Inner(Arc::new(error))
    }
}

impl From<FetchError<Self>> for Failure {
    fn from(error: FetchError<Self>) -> Self {
        match error {
            FetchError::Fetch(failure) => Arc::unwrap_or_clone(failure),
            other => {
                let source = other.to_string().into();
                Error::Generic { store: STORE, source }.into()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) | Self::OfObject { error, .. } => error.fmt(formatter),
            Self::Changed => formatter.write_str("the object has changed"),
            Self::Uncached => formatter.write_str("it cannot be cached"),
        }
    }
}

/// The inner error, for one of those who share it: the same variant, with its source shared.
pub(crate) fn own(error: Arc<Error>) -> Error {
    let error = match Arc::try_unwrap(error) {
        Ok(error) => return error,
        Err(error) => error,
    };
    let source = || Box::new(Shared(Arc::clone(&error)));
    match &*error {
        Error::NotFound { path, .. } => Error::NotFound { path: path.clone(), source: source() },
        Error::AlreadyExists { path, .. } => {
            Error::AlreadyExists { path: path.clone(), source: source() }
        }
        Error::Precondition { path, .. } => {
            Error::Precondition { path: path.clone(), source: source() }
        }
        Error::NotModified { path, .. } => {
            Error::NotModified { path: path.clone(), source: source() }
        }
        Error::PermissionDenied { path, .. } => {
            Error::PermissionDenied { path: path.clone(), source: source() }
        }
        Error::Unauthenticated { path, .. } => {
            Error::Unauthenticated { path: path.clone(), source: source() }
        }
        Error::NotSupported { .. } => Error::NotSupported { source: source() },
        Error::NotImplemented { operation, implementer } => {
            Error::NotImplemented { operation: operation.clone(), implementer: implementer.clone() }
        }
        Error::Generic { store, .. } => Error::Generic { store, source: source() },
        _ => Error::Generic { store: STORE, source: Box::new(Whole(Arc::clone(&error))) },
    }
}

/// The source of an error that others have as well.
struct Shared(Arc<Error>);

impl Shared {
    fn source(&self) -> &(dyn std::error::Error + 'static) {
        std::error::Error::source(&*self.0).unwrap_or(&*self.0)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.source(), formatter)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.source(), formatter)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source().source()
    }
}

/// An error that others have as well.
#[derive(Debug)]
struct Whole(Arc<Error>);

impl fmt::Display for Whole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, formatter)
    }
}

impl std::error::Error for Whole {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

pub(crate) fn ended_early() -> Error {
    Error::Generic { store: STORE, source: "the answer ended before its length".into() }
}

/// Of an answer that has begun: nothing that it has said already can be taken back.
pub(crate) fn changed(location: &Path) -> Error {
    let source = "the object has changed while it was read".into();
    Error::Precondition { path: location.to_string(), source }
}

pub(crate) fn not_found(location: &Path) -> Error {
    let source = "there was none when the inner store was asked last".into();
    Error::NotFound { path: location.to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_error_says_what_the_inner_one_does() {
        let source = || "why".into();
        let path = String::from("a");
        let errors = [
            Error::Generic { store: "S3", source: source() },
            Error::NotFound { path: path.clone(), source: source() },
            Error::AlreadyExists { path: path.clone(), source: source() },
            Error::Precondition { path: path.clone(), source: source() },
            Error::NotModified { path: path.clone(), source: source() },
            Error::PermissionDenied { path: path.clone(), source: source() },
            Error::Unauthenticated { path, source: source() },
            Error::NotSupported { source: source() },
            Error::NotImplemented { operation: "get".into(), implementer: "S3".into() },
        ];
        for error in errors {
            let (said, error) = (error.to_string(), Arc::new(error));
            let shared = own(Arc::clone(&error));
            assert_eq!(shared.to_string(), said);
            assert_eq!(std::mem::discriminant(&shared), std::mem::discriminant(&*error));
            drop(shared);
            assert_eq!(own(error).to_string(), said);
        }
    }
}
