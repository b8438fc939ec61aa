//! `Caller`: a task that makes calls by chance, one after the other, and checks what they return.

mod many;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BlobCache, BlobCacheHit, BlobCachePolicy, BlobCachePut, CacheError, FetchError, L1Admission,
    Plain, SweepLimit, TypedError,
};

use crate::blobs::{Blobs, Key, NAMESPACES, prefix};
use crate::ledger::{ABSENT, Ledger};
use crate::resources::Latencies;
use crate::verb::Verb;

/// When one of the callers first makes these calls, and how often, in seconds.
const BY_THE_CLOCK: [(Verb, u64, u64); 3] =
    [(Verb::Namespace, 1, 5), (Verb::ExpireNamespace, 2, 7), (Verb::All, 3, 60)];

/// Calls between two looks at the clock for those.
const LOOK_EVERY: u64 = 64;

/// What all callers share.
#[derive(Default)]
pub(crate) struct Totals {
    /// Hits with a value that no put of the key has made.
    pub(crate) wrong: AtomicU64,
    /// Hits with a value older than the newest, or not marked as stale though they are.
    pub(crate) stale: AtomicU64,
    /// Calls that returned an error.
    pub(crate) failed: AtomicU64,
    pub(crate) hits: AtomicU64,
    pub(crate) checked: AtomicU64,
}

/// A task, and what it knows.
pub(crate) struct Caller {
    task: u32,
    tasks: u32,
    keys: u32,
    random: StdRng,
    ledger: Ledger,
    puts: u64,
    calls: u64,
    /// When it makes which call by the clock. Only one caller does.
    due: Vec<(Instant, Verb, Duration)>,
    blobs: Arc<Blobs>,
    pub(crate) latencies: Arc<Latencies>,
    totals: Arc<Totals>,
}

/// A call, with its key, that has returned.
type Outcome = Result<(), CacheError>;

impl Caller {
    pub(crate) fn new(
        (task, tasks): (u32, u32),
        keys: u32,
        seed: u64,
        blobs: &Arc<Blobs>,
        totals: &Arc<Totals>,
    ) -> Self {
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        let due =
            BY_THE_CLOCK.map(|(verb, first, every)| (now + seconds(first), verb, seconds(every)));
        Self {
            task,
            tasks,
            keys,
            random: StdRng::seed_from_u64(seed + u64::from(task)),
            ledger: Ledger::new(keys),
            puts: 0,
            calls: 0,
            due: if task == 0 { due.into() } else { Vec::new() },
            blobs: Arc::clone(blobs),
            latencies: Arc::default(),
            totals: Arc::clone(totals),
        }
    }

    /// Calls until the time is over.
    pub(crate) async fn run(mut self, cache: BlobCache, end: Instant) -> Self {
        while Instant::now() < end {
            self.calls += 1;
            let verb = self.next_verb();
            let begun = Instant::now();
            let outcome = self.call(&cache, verb).await;
            self.latencies.record(verb, begun.elapsed());
            if let Err(error) = outcome {
                if self.totals.failed.fetch_add(1, Ordering::Relaxed) < 10 {
                    println!("FAILED: {}: {error}", verb.name());
                }
            }
            // A hit in memory does not wait: without this, a task would keep its thread.
            tokio::task::consume_budget().await;
        }
        self
    }

    fn next_verb(&mut self) -> Verb {
        if self.calls % LOOK_EVERY == 0 {
            let now = Instant::now();
            if let Some((at, verb, every)) = self.due.iter_mut().find(|(at, ..)| now >= *at) {
                *at = now + *every;
                return *verb;
            }
        }
        Verb::of(self.random.random_range(0..1000))
    }

    /// A key; some are asked for more often than others.
    fn key(&mut self) -> Key {
        let chance: f64 = self.random.random_range(0.0..1.0);
        let number = scaled(chance.powi(3), self.keys);
        Key { task: self.task, number }
    }

    fn put(&mut self, key: Key) -> (BlobCachePut, u64) {
        self.puts += 1;
        let put = BlobCachePut::new(self.blobs.value(key, self.puts, &mut self.random));
        let policy = BlobCachePolicy::default();
        let put = match self.random.random_range(0..10) {
            0 => put.with_policy(policy.ttl(Duration::from_secs(20))),
            1 => put.with_policy(
                policy.ttl(Duration::from_secs(5)).stale_serve(Duration::from_secs(20)),
            ),
            2 => put.with_policy(policy.idle_ttl(Duration::from_secs(30))),
            3 => put.with_policy(policy.version(self.puts)),
            4 => put.with_policy(policy.l1_admission(L1Admission::Never)),
            5 => put.with_tags([label(key), format!("of {}", key.task)]),
            6 => put.with_dependencies([label(key)]),
            7 => put.with_content_metadata([("content-type", "image/png"), ("etag", "7")]),
            _ => put,
        };
        (put, self.puts)
    }

    async fn call(&mut self, cache: &BlobCache, verb: Verb) -> Outcome {
        let key = self.key();
        let namespace = NAMESPACES[key.namespace()];
        match verb {
            Verb::Get => self.get(cache, key).await,
            Verb::GetMany => self.get_many(cache, key).await,
            Verb::Exists => _ = cache.exists(namespace, key.bytes()),
            Verb::Fetch | Verb::Refresh => self.fetch(cache, key, verb == Verb::Refresh).await,
            Verb::Spawned => self.fetch_in_a_task(cache, key).await,
            Verb::Put => self.store(cache, key).await?,
            Verb::PutMany => self.put_many(cache, key).await?,
            Verb::Typed => self.typed(cache, key).await?,
            Verb::Touch => {
                let policy = BlobCachePolicy::default().ttl(Duration::from_secs(20));
                _ = cache.touch(namespace, key.bytes(), &policy).await?;
            }
            Verb::List => self.list(cache, key).await,
            Verb::Key => {
                cache.invalidate_key(namespace, key.bytes()).await?;
                self.ledger.removed(key.number);
            }
            Verb::Keys => self.invalidate_many(cache, key).await?,
            Verb::Prefix => {
                _ = cache.invalidate_prefix(namespace, prefix(key.group())).await?;
            }
            Verb::Labels => {
                cache.invalidate_tags(namespace, &[label(key)]).await?;
                cache.invalidate_dependencies(namespace, &[label(key)]).await?;
            }
            Verb::Namespace => _ = cache.invalidate_namespace(namespace).await?,
            Verb::All => cache.invalidate_all().await?,
            Verb::Expire => {
                cache.expire_key(namespace, key.bytes()).await?;
                self.ledger.expired(key.number);
            }
            Verb::ExpireMany => {
                cache.expire_prefix(namespace, prefix(key.group())).await?;
                cache.expire_tags(namespace, &[label(key)]).await?;
                cache.expire_dependencies(namespace, &[label(key)]).await?;
            }
            Verb::ExpireNamespace => _ = cache.expire_namespace(namespace).await?,
            Verb::Sweep => _ = cache.sweep_expired(SweepLimit::Entries(1000)).await,
            Verb::Sync => cache.sync().await?,
            Verb::Stats => _ = (cache.stats(), cache.namespace_stats(namespace)),
            Verb::Dropped => self.drop_half_way(cache, key).await,
        }
        Ok(())
    }

    /// A get of an own key, or of one of another task.
    async fn get(&mut self, cache: &BlobCache, own: Key) {
        let key = Key { task: self.own_or_another(), ..own };
        let handle = cache.namespace(NAMESPACES[key.namespace()]);
        if let Some(hit) = handle.get(key.bytes()).await {
            self.totals.hits.fetch_add(1, Ordering::Relaxed);
            self.check(key, &hit, None);
        }
    }

    fn own_or_another(&mut self) -> u32 {
        if self.random.random_range(0..2) == 0 {
            self.task
        } else {
            self.random.random_range(0..self.tasks)
        }
    }

    async fn store(&mut self, cache: &BlobCache, key: Key) -> Outcome {
        let namespace = NAMESPACES[key.namespace()];
        match self.random.random_range(0..20) {
            0 => {
                cache.put(namespace, key.bytes(), BlobCachePut::absent()).await?;
                self.ledger.put(key.number, ABSENT);
            }
            1 | 2 => {
                let point = cache.read_point();
                let (put, number) = self.put(key);
                tokio::task::yield_now().await;
                let stored = cache.put(namespace, key.bytes(), put.read_at(point)).await;
                self.ledger.may_have_put(key.number, number);
                stored?;
            }
            _ => {
                let (put, number) = self.put(key);
                cache.put(namespace, key.bytes(), put).await?;
                self.ledger.put(key.number, number);
            }
        }
        Ok(())
    }

    async fn fetch(&mut self, cache: &BlobCache, key: Key, refreshes: bool) {
        let namespace = NAMESPACES[key.namespace()];
        let (put, number) = self.put(key);
        let origin = async || {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(put)
        };
        let hit: Result<BlobCacheHit, FetchError<Infallible>> = if refreshes {
            match cache.get_or_refresh(namespace, key.bytes(), origin).await {
                Ok((_, Some(refresh))) => refresh.await,
                Ok((hit, None)) => Ok(hit),
                Err(error) => Err(error),
            }
        } else {
            cache.get_or_fetch(namespace, key.bytes(), origin).await
        };
        self.check_fetched(key, hit, number);
    }

    async fn fetch_in_a_task(&mut self, cache: &BlobCache, key: Key) {
        let (put, number) = self.put(key);
        let origin = || async {
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(put)
        };
        let namespace = NAMESPACES[key.namespace()];
        let hit = cache.get_or_fetch_spawned(namespace, key.bytes(), origin).await;
        self.check_fetched(key, hit, number);
    }

    /// The same with values that have a type.
    async fn typed(&mut self, cache: &BlobCache, key: Key) -> Outcome {
        let values = cache.namespace(NAMESPACES[key.namespace()]).typed::<Vec<u8>, _>(Plain);
        self.puts += 1;
        let number = self.puts;
        let value = self.blobs.value(key, number, &mut self.random);
        match self.random.random_range(0..3) {
            0 => {
                values.put(key.bytes(), value).await.map_err(|error| match error {
                    TypedError::Cache(error) => error,
                    error => unreachable!("bytes are encoded as they are: {error}"),
                })?;
                self.ledger.put(key.number, number);
            }
            1 => {
                let origin = async || Ok::<_, Infallible>(value);
                let hit = values.get_or_fetch(key.bytes(), origin).await;
                self.check_fetched(key, hit.map(|hit| hit.hit().clone()), number);
            }
            _ => {
                if let Some(hit) = values.get(key.bytes()).await {
                    self.totals.hits.fetch_add(1, Ordering::Relaxed);
                    if hit.value().is_some_and(|value| *value != hit.hit().value()) {
                        self.totals.wrong.fetch_add(1, Ordering::Relaxed);
                    }
                    self.check(key, hit.hit(), None);
                }
            }
        }
        Ok(())
    }

    fn check_fetched(
        &mut self,
        key: Key,
        hit: Result<BlobCacheHit, FetchError<Infallible>>,
        number: u64,
    ) {
        match hit {
            Ok(hit) => self.check(key, &hit, Some(number)),
            Err(_) => _ = self.totals.failed.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// `fetched` is the put of a fetch, which need not have been stored.
    fn check(&mut self, key: Key, hit: &BlobCacheHit, fetched: Option<u64>) {
        self.totals.checked.fetch_add(1, Ordering::Relaxed);
        let put = if hit.is_absent() { Some(ABSENT) } else { self.blobs.put_of(key, hit.value()) };
        let Some(put) = put else {
            self.totals.wrong.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if key.task != self.task {
            return;
        }
        if fetched == Some(put) {
            self.ledger.may_have_put(key.number, put);
        } else if !self.ledger.found(key.number, put, hit.is_stale()) {
            self.totals.stale.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls a call a few times and drops it.
    async fn drop_half_way(&mut self, cache: &BlobCache, key: Key) {
        let namespace = NAMESPACES[key.namespace()];
        let polls = self.random.random_range(1..4);
        match self.random.random_range(0..3) {
            0 => poll_some(cache.get(namespace, key.bytes()), polls).await,
            1 => {
                let (put, number) = self.put(key);
                poll_some(cache.put(namespace, key.bytes(), put), polls).await;
                self.ledger.may_have_put(key.number, number);
            }
            _ => poll_some(cache.invalidate_key(namespace, key.bytes()), polls).await,
        }
    }
}

/// Polls a call so many times at most, in turns with the other tasks.
async fn poll_some<T>(call: impl Future<Output = T>, polls: u32) {
    let mut call = pin!(call);
    for _ in 0..polls {
        let mut is_over = false;
        std::future::poll_fn(|context| {
            is_over = call.as_mut().poll(context).is_ready();
            std::task::Poll::Ready(())
        })
        .await;
        if is_over {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn label(key: Key) -> String {
    format!("label {}", key.number / 8)
}

/// A number below `keys`, from a chance below 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below a small number")]
fn scaled(chance: f64, keys: u32) -> u32 {
    ((chance * f64::from(keys)) as u32).min(keys - 1)
}
