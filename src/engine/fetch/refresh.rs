//! `BlobCacheRefresh`: a fetch whose caller has the stale entry already.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::engine::fetch::caller::FetchOnce;
use crate::engine::fetch::future::FetchFuture;
use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::put::BlobCachePut;

/// A refresh of a stale entry that its caller has been given already: spawn it or await it. See
/// [`get_or_refresh`](crate::BlobCache::get_or_refresh).
///
/// It does nothing until it is polled. Until then it holds a claim on the fetch of its key: other
/// callers of [`get_or_refresh`](crate::BlobCache::get_or_refresh) get the stale entry alone, and a
/// [`get_or_fetch`](crate::BlobCache::get_or_fetch) runs its own fetch. The claim ends when the
/// refresh is dropped, or after a second without a poll. If the refresh has begun to fetch and is
/// dropped, or is woken and not polled for 100 to 200 ms, a waiting caller fetches instead.
///
/// It returns what `get_or_fetch` would: the value that it has fetched and stored, or that another
/// caller has. If its fetch fails, it returns the [`FetchError`], which is counted and now and then
/// logged; the stale entry stays within its window, and for a second no caller is given another
/// refresh of it. Callers of `get_or_fetch` that wait for it are given the stale entry.
/// It keeps the cache open until it is dropped, and panics if it is polled after it has returned.
#[must_use = "nothing is refreshed until it is polled"]
pub struct BlobCacheRefresh<F, Fut, E>(Box<FetchFuture<FetchOnce<F, Fut>, E>>);

impl<F, Fut, E> BlobCacheRefresh<F, Fut, E> {
    pub(crate) fn new(fetching: FetchFuture<FetchOnce<F, Fut>, E>) -> Self {
        Self(Box::new(fetching))
    }
}

impl<F, Fut, E> Future for BlobCacheRefresh<F, Fut, E>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<BlobCachePut, E>>,
    E: Send + Sync + 'static,
{
    type Output = Result<BlobCacheHit, FetchError<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<F, Fut, E> fmt::Debug for BlobCacheRefresh<F, Fut, E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BlobCacheRefresh").finish_non_exhaustive()
    }
}
