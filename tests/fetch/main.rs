//! `get_or_fetch` and `get_or_refresh` as a user calls them: one fetch for all callers of a key;
//! transfer of the lead when a caller is dropped, fails or panics; concurrent mutations; stale
//! entries and absences.
//!
//! Most tests poll by hand, so that they know the state of each call.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod errors;
mod freshness;
mod handover;
mod limits;
mod one;
mod order;
mod refresh;
mod sleepers;
mod spawned;
mod spawned_stale;
mod stress;
mod touched;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use futures::channel::oneshot;
use futures::executor::block_on;
use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePolicy, BlobCachePut, Clock,
    ExtendedTtlPolicy, FetchError,
};

/// The result of a fetch in these tests.
type Answer = Result<BlobCachePut, &'static str>;

/// The result of a call.
type Outcome = Result<BlobCacheHit, FetchError<&'static str>>;

fn open() -> BlobCache {
    block_on(BlobCache::open(BlobCacheConfig::default())).unwrap()
}

fn open_at(clock: &Clock) -> BlobCache {
    let config = BlobCacheConfig::builder().clock(clock.clone()).build().unwrap();
    block_on(BlobCache::open(config)).unwrap()
}

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000))
}

/// Fresh for ten seconds, stale for five more.
fn briefly() -> BlobCachePolicy {
    let extended =
        ExtendedTtlPolicy { stale_serve: Some(Duration::from_secs(5)), ..Default::default() };
    BlobCachePolicy::default().ttl(Duration::from_secs(10)).extended(extended)
}

/// Tasks that move between several threads.
fn threads() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(4).enable_time().build().unwrap()
}

fn value(outcome: &Outcome) -> &[u8] {
    outcome.as_ref().unwrap().value()
}

/// A fetch that answers when the test sends the answer.
fn told() -> (oneshot::Sender<Answer>, impl FnOnce() -> Told) {
    let (tell, answer) = oneshot::channel();
    (tell, move || Told(answer))
}

struct Told(oneshot::Receiver<Answer>);

impl Future for Told {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let told = Pin::new(&mut self.0).poll(context);
        told.map(|answer| answer.expect("the test sends or keeps the sender"))
    }
}

/// A fetch that must not be called.
fn never() -> futures::future::Ready<Answer> {
    panic!("this fetch must not be called");
}

/// A future that the test polls, with its waker.
struct Call<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Call<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::default() }
    }

    /// Polls it once. None if it waits.
    fn poll(&mut self) -> Option<T> {
        self.woken.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Polls it as an executor would: as long as it is woken.
    fn run(&mut self) -> Option<T> {
        loop {
            match self.poll() {
                Some(output) => return Some(output),
                None if self.is_woken() => {}
                None => return None,
            }
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::Relaxed)
    }
}

/// A call of `get_or_fetch` for one key.
fn call<F, Fut>(cache: &BlobCache, fetch: F) -> Call<Outcome>
where
    F: FnOnce() -> Fut + 'static,
    Fut: Future<Output = Answer> + 'static,
{
    let cache = cache.clone();
    Call::new(async move { cache.get_or_fetch("n", "key", fetch).await })
}

/// A call that has joined a flight, and must be given its result without fetching.
fn joined(cache: &BlobCache) -> Call<Outcome> {
    let mut joiner = call(cache, never);
    assert!(joiner.run().is_none(), "another caller is fetching");
    joiner
}

/// A call that leads, and the sender of its fetch's answer.
fn leading(cache: &BlobCache) -> (Call<Outcome>, oneshot::Sender<Answer>) {
    let (tell, fetch) = told();
    let mut leader = call(cache, fetch);
    assert!(leader.run().is_none(), "the fetch waits for its answer");
    (leader, tell)
}

/// A fetch that answers at once and counts its calls.
fn counted(calls: &Arc<AtomicUsize>, answer: Answer) -> impl FnOnce() -> Ready + use<> {
    let calls = Arc::clone(calls);
    move || {
        calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(answer)
    }
}

type Ready = std::future::Ready<Answer>;
