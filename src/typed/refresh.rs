//! `TypedRefresh`: the refresh of a stale typed value.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::{Call, Encoding, TypedFetch};
use super::codec::Codec;
use super::hit::TypedHit;
use super::put::TypedPut;
use crate::engine::fetch::FetchFuture;
use crate::engine::fetch::caller::FetchOnce;
use crate::error::FetchError;

type Fetching<F, Fut, E, T, C> =
    FetchFuture<FetchOnce<TypedFetch<F, T, C>, Encoding<Fut, T, C>>, E>;

/// A refresh of a stale typed value that its caller has been given already: spawn it or await it.
/// It is for typed values what [`BlobCacheRefresh`](crate::BlobCacheRefresh) is for bytes, and
/// `Send` when its fetch is.
#[must_use = "nothing is refreshed until it is polled"]
pub struct TypedRefresh<F, Fut, E, T, C> {
    fetching: Box<Fetching<F, Fut, E, T, C>>,
    call: Arc<Call<T, C>>,
}

impl<F, Fut, E, T, C> TypedRefresh<F, Fut, E, T, C> {
    pub(super) fn new(fetching: Fetching<F, Fut, E, T, C>, call: Arc<Call<T, C>>) -> Self {
        Self { fetching: Box::new(fetching), call }
    }
}

impl<F, Fut, V, E, T, C> Future for TypedRefresh<F, Fut, E, T, C>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<V, E>>,
    V: Into<TypedPut<T>>,
    E: Send + Sync + 'static,
    T: Send + 'static,
    C: Codec<T>,
{
    type Output = Result<TypedHit<T>, FetchError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let fetched = Pin::new(&mut self.fetching).poll(context)?;
        fetched.map(|hit| self.call.answer(hit).ok_or(FetchError::Panicked))
    }
}

impl<F, Fut, E, T, C> fmt::Debug for TypedRefresh<F, Fut, E, T, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TypedRefresh").finish_non_exhaustive()
    }
}
