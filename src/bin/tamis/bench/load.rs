//! `drive`: tasks or threads that make one call after the other for a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::super::failure::Failure;
use super::super::interrupt::Interrupt;
use super::super::values::Random;

/// Longer times count as this one.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Calls between two yields: those that never wait would starve the other tasks.
const CALLS_BEFORE_YIELD: u64 = 64;

/// What some calls came to.
pub(super) struct Calls {
    pub(super) count: u64,
    pub(super) elapsed: Duration,
    latencies: Histogram<u64>,
}

impl Calls {
    fn new() -> Result<Self, Failure> {
        let latencies = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3);
        let latencies = latencies.map_err(|error| Failure::refused("io", error.to_string()))?;
        Ok(Self { count: 0, elapsed: Duration::ZERO, latencies })
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        // Both have the same bounds, so all that one has counted fits the other.
        let _ = self.latencies.add(&other.latencies);
    }

    fn record(&mut self, took: Duration) {
        self.count += 1;
        self.latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    #[allow(clippy::cast_precision_loss, reason = "counts and times far below 2^53")]
    pub(super) fn per_second(&self) -> f64 {
        self.count as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    #[allow(clippy::cast_precision_loss, reason = "counts and times far below 2^53")]
    pub(super) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// When calls end: after a time, after so many, or when somebody asks for it.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) span: Duration,
    pub(super) calls_max: u64,
    pub(super) interrupt: Interrupt,
}

impl End {
    /// Whether one call more may begin, of those that `begun` counts. The first of a caller always
    /// may, so that there is a figure however short the time is.
    fn allows(&self, started: Instant, begun: &AtomicU64, calls: &Calls) -> bool {
        (calls.count == 0 || started.elapsed() < self.span)
            && !self.interrupt.is_asked()
            && begun.fetch_add(1, Ordering::Relaxed) < self.calls_max
    }
}

/// Calls by so many tasks, each with random numbers of its own, and what has to be waited for when
/// they are done.
pub(super) fn drive<C, F>(
    runtime: &Runtime,
    (depth, seed): (u32, u64),
    end: &End,
    call: C,
    finish: impl Future<Output = Result<(), Failure>>,
) -> Result<Calls, Failure>
where
    C: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    runtime.block_on(async {
        let (started, begun) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for task in 0..depth {
            let (call, end, begun) = (call.clone(), end.clone(), Arc::clone(&begun));
            let mut random = random(seed, task);
            tasks.spawn(async move {
                let mut calls = Calls::new()?;
                while end.allows(started, &begun, &calls) {
                    let start = Instant::now();
                    call(random.next()).await?;
                    calls.record(start.elapsed());
                    if calls.count % CALLS_BEFORE_YIELD == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                Ok::<_, Failure>(calls)
            });
        }
        let mut all = Calls::new()?;
        let mut failed = Ok(());
        while let Some(joined) = tasks.join_next().await {
            let joined = joined.map_err(|error| Failure::refused("panicked", error.to_string()));
            match joined.and_then(|calls| calls) {
                Ok(calls) => all.add(&calls),
                Err(failure) => failed = Err(failure),
            }
        }
        failed?;
        finish.await?;
        all.elapsed = started.elapsed();
        end.interrupt.check()?;
        Ok(all)
    })
}

/// The same by threads, whose calls block. Each has a state of its own, made beforehand.
pub(super) fn drive_threads<S: Send>(
    (depth, seed): (u32, u64),
    end: &End,
    state: impl Fn() -> S,
    call: impl Fn(&mut S, u64) -> Result<(), Failure> + Sync,
) -> Result<Calls, Failure> {
    let states: Vec<_> = (0..depth).map(|number| (state(), random(seed, number))).collect();
    let (started, begun) = (Instant::now(), AtomicU64::new(0));
    let work = |(mut state, mut random): (S, Random)| {
        let mut calls = Calls::new()?;
        while end.allows(started, &begun, &calls) {
            let start = Instant::now();
            call(&mut state, random.next())?;
            calls.record(start.elapsed());
        }
        Ok::<_, Failure>(calls)
    };
    let mut all = Calls::new()?;
    thread::scope(|scope| {
        let work = &work;
        let begin = |state| thread::Builder::new().spawn_scoped(scope, move || work(state));
        let threads: Vec<_> = states.into_iter().map(begin).collect();
        for thread in threads {
            let thread = thread.map_err(|error| {
                Failure::refused("io", format!("could not make {depth} threads: {error}"))
            })?;
            let panicked = || Failure::refused("panicked", "a thread has panicked".to_owned());
            all.add(&thread.join().unwrap_or_else(|_| Err(panicked()))?);
        }
        Ok::<_, Failure>(())
    })?;
    all.elapsed = started.elapsed();
    end.interrupt.check()?;
    Ok(all)
}

fn random(seed: u64, task: u32) -> Random {
    let mut mixed = Random::new((seed << 32) | u64::from(task));
    Random::new(mixed.next())
}
