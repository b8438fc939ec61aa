//! `Call`: the values that one fetching call decodes and fetches, beside the future that knows
//! bytes alone. `TypedFetch` and `Encoding`: the caller's fetch, which brings a value, as one that
//! brings bytes.

use std::any::TypeId;
use std::future::Future;
use std::mem::take;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;

use super::codec::{self, Codec};
use super::hit::TypedHit;
use super::put::TypedPut;
use crate::engine::fetch::caller::Begin;
use crate::engine::fetch::fetcher::Fetcher;
use crate::engine::fetch::typing::Typing;
use crate::entry::Entry;
use crate::failpoint::{Failpoint, failpoint};
use crate::hit::{BlobCacheHit, CacheTier};
use crate::key::NamespaceRef;
use crate::put::BlobCachePut;
use crate::wake::discard;

/// A call may look at an entry after the one that it answers, not at more.
const DECODED_MAX: usize = 2;

pub(super) struct Call<T, C> {
    fetcher: Arc<Fetcher>,
    namespace: Box<str>,
    codec: Arc<C>,
    /// Whether it has counted a value that does not decode.
    is_counted: AtomicBool,
    values: Mutex<Values<T>>,
}

struct Values<T> {
    /// Of the entries that it has found, the latest last.
    decoded: Vec<(Arc<Entry>, T)>,
    /// By its own fetch; None for an absence.
    fetched: Option<Option<T>>,
}

impl<T, C> Call<T, C> {
    pub(super) fn new(
        fetcher: &Arc<Fetcher>,
        namespace: NamespaceRef<'_>,
        codec: &Arc<C>,
        is_counted: bool,
    ) -> Arc<Self> {
        let values = Values { decoded: Vec::new(), fetched: None };
        Arc::new(Self {
            fetcher: Arc::clone(fetcher),
            namespace: namespace.name.into(),
            codec: Arc::clone(codec),
            is_counted: is_counted.into(),
            values: Mutex::new(values),
        })
    }
}

impl<T: Send + 'static, C: Codec<T>> Call<T, C> {
    pub(super) fn typing<E: 'static>(self: &Arc<Self>) -> Typing {
        let call = Arc::clone(self);
        Typing::new(TypeId::of::<fn(T, C, E)>(), move |hit| call.accept(hit))
    }

    /// Decodes what was found, and keeps the value.
    fn accept(&self, hit: &BlobCacheHit) -> bool {
        if hit.is_absent() {
            return true;
        }
        match codec::decode(&*self.codec, hit) {
            Ok(value) => {
                let entry = Arc::clone(&hit.entry);
                let mut values = self.values.lock();
                let oldest =
                    (values.decoded.len() == DECODED_MAX).then(|| values.decoded.remove(0));
                values.decoded.push((entry, value));
                drop(values);
                discard(oldest);
                true
            }
            Err(failure) => {
                if !self.is_counted.swap(true, Ordering::Relaxed) {
                    note_undecoded(&self.fetcher, &self.namespace, &failure);
                }
                discard(failure);
                false
            }
        }
    }

    /// The value of a hit that the call has accepted, or fetched.
    pub(super) fn answer(&self, hit: BlobCacheHit) -> Option<TypedHit<T>> {
        let mut values = self.values.lock();
        let own = if hit.tier() == CacheTier::Fetched { values.fetched.take() } else { None };
        // Bounded: two.
        let found = values.decoded.iter().position(|(entry, _)| {
            Arc::ptr_eq(entry, &hit.entry) || failpoint(Failpoint::DecodedOfAnother)
        });
        let found = found.map(|at| values.decoded.swap_remove(at).1);
        drop(values);
        let value = match (own, found) {
            (Some(own), found) => {
                discard(found);
                own
            }
            (None, Some(found)) => Some(found),
            (None, None) if hit.is_absent() => None,
            (None, None) => Some(codec::decode(&*self.codec, &hit).ok()?),
        };
        Some(TypedHit::new(value, hit))
    }

    /// The put of a value that was fetched, which stays here.
    fn encode(&self, mut put: TypedPut<T>) -> BlobCachePut {
        if let Err(failure) = put.encode(&*self.codec) {
            put.put.is_unencoded = true;
            let error = failure.error().map(|error| error as _);
            self.fetcher.tell_not_encoded(&self.namespace, error);
            discard(failure);
        }
        let TypedPut { value, put } = put;
        let before = self.values.lock().fetched.replace(value);
        discard(before);
        put
    }
}

/// Its values are the caller's: they may panic when they are dropped.
impl<T, C> Drop for Call<T, C> {
    fn drop(&mut self) {
        let values = self.values.get_mut();
        discard(values.fetched.take());
        // Bounded: two.
        take(&mut values.decoded).into_iter().for_each(discard);
    }
}

/// Counts and tells that a call has found bytes that do not decode.
pub(super) fn note_undecoded<E>(fetcher: &Fetcher, namespace: &str, failure: &codec::Failure<E>)
where
    E: std::error::Error,
{
    fetcher.note_undecoded(namespace, failure.error().map(|error| error as _));
}

pub(super) struct TypedFetch<F, T, C> {
    fetch: F,
    call: Arc<Call<T, C>>,
}

impl<F, T, C> TypedFetch<F, T, C> {
    pub(super) fn new(fetch: F, call: &Arc<Call<T, C>>) -> Self {
        Self { fetch, call: Arc::clone(call) }
    }
}

impl<F: FnOnce() -> Fut, Fut, T, C> Begin<Encoding<Fut, T, C>> for TypedFetch<F, T, C> {
    fn begin(self) -> Encoding<Fut, T, C> {
        Encoding { fetching: Box::pin((self.fetch)()), call: self.call }
    }
}

pub(super) struct Encoding<Fut, T, C> {
    fetching: Pin<Box<Fut>>,
    call: Arc<Call<T, C>>,
}

impl<Fut, V, E, T, C> Future for Encoding<Fut, T, C>
where
    Fut: Future<Output = Result<V, E>>,
    V: Into<TypedPut<T>>,
    T: Send + 'static,
    C: Codec<T>,
{
    type Output = Result<BlobCachePut, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let fetched = self.fetching.as_mut().poll(context);
        fetched.map_ok(|value| self.call.encode(value.into()))
    }
}
