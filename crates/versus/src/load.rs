//! `drive`: tasks that call a cache, one call after the other, for a given time.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::Error;
use crate::metric::{Metric, Sample};
use crate::process::cpu_time;

/// The runtime that callers run on.
pub(crate) fn two_workers() -> Result<Runtime, Error> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Calls between two yields: calls that never wait would starve the other tasks.
const CALLS_BEFORE_YIELD: u64 = 64;

/// What one request was made of.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// How long its get took, and whether that found a value.
    pub(crate) get: Option<(Duration, bool)>,
    /// How long its put took.
    pub(crate) put: Option<Duration>,
}

/// What one task has seen.
struct Caller {
    requests: u64,
    hits: u64,
    gets: Histogram<u64>,
    puts: Histogram<u64>,
}

impl Caller {
    fn new() -> Result<Self, Error> {
        let histogram = || Histogram::new_with_bounds(1, 60_000_000_000, 3);
        Ok(Self { requests: 0, hits: 0, gets: histogram()?, puts: histogram()? })
    }

    fn count(&mut self, request: &Request) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.requests += 1;
        if let Some((time, is_hit)) = request.get {
            self.gets.saturating_record(nanos(time));
            self.hits += u64::from(is_hit);
        }
        if let Some(time) = request.put {
            self.puts.saturating_record(nanos(time));
        }
    }

    fn add(&mut self, other: &Self) -> Result<(), Error> {
        self.requests += other.requests;
        self.hits += other.hits;
        self.gets.add(&other.gets)?;
        self.puts.add(&other.puts)?;
        Ok(())
    }
}

/// Times one call.
pub(crate) async fn timed<T>(call: impl Future<Output = T>) -> (Duration, T) {
    let started = Instant::now();
    let result = call.await;
    (started.elapsed(), result)
}

/// Runs `call` for all numbers below `end`, in that many tasks.
pub(crate) async fn for_each<C, F>(end: u64, tasks: u64, call: C) -> Result<(), Error>
where
    C: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let call = call.clone();
        running.spawn(async move {
            let mut number = task;
            while number < end {
                call(number).await?;
                number += tasks;
                if (number / tasks).is_multiple_of(CALLS_BEFORE_YIELD) {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(result) = running.join_next().await {
        result??;
    }
    Ok(())
}

/// Runs `request` in that many tasks for a tenth of `span` unmeasured, then for `span`. Each gets
/// the task's own random numbers.
pub(crate) async fn drive<R, F>(tasks: usize, span: Duration, request: R) -> Result<Sample, Error>
where
    R: Fn(&mut StdRng) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Request, Error>> + Send + 'static,
{
    run(tasks, span / 10, 0, request.clone()).await?;
    run(tasks, span, 1, request).await
}

/// The same by one caller, on the executor that polls this.
pub(crate) async fn drive_alone<R, F>(span: Duration, request: R) -> Result<Sample, Error>
where
    R: Fn(&mut StdRng) -> F + Clone,
    F: Future<Output = Result<Request, Error>>,
{
    call(Instant::now(), span / 10, 0, request.clone()).await?;
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let caller = call(started, span, 1 << 32, request).await?;
    Ok(sample(&caller, started.elapsed(), cpu_time()?.saturating_sub(cpu)))
}

async fn run<R, F>(tasks: usize, span: Duration, seed: u64, request: R) -> Result<Sample, Error>
where
    R: Fn(&mut StdRng) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Request, Error>> + Send + 'static,
{
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let mut callers = JoinSet::new();
    for task in 0..tasks {
        let (seed, request) = ((seed << 32) + task as u64, request.clone());
        callers.spawn(async move { call(started, span, seed, request).await });
    }
    let mut all = Caller::new()?;
    while let Some(caller) = callers.join_next().await {
        all.add(&caller??)?;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu));
    Ok(sample(&all, elapsed, cpu))
}

/// One call after the other until `span` is over.
async fn call<R, F>(
    started: Instant,
    span: Duration,
    seed: u64,
    request: R,
) -> Result<Caller, Error>
where
    R: Fn(&mut StdRng) -> F,
    F: Future<Output = Result<Request, Error>>,
{
    let (mut caller, mut random) = (Caller::new()?, StdRng::seed_from_u64(seed));
    while started.elapsed() < span {
        caller.count(&request(&mut random).await?);
        if caller.requests.is_multiple_of(CALLS_BEFORE_YIELD) {
            tokio::task::yield_now().await;
        }
    }
    Ok(caller)
}

fn sample(all: &Caller, elapsed: Duration, cpu: Duration) -> Sample {
    let requests = all.requests as f64;
    let mut sample = Sample::from([
        (Metric::CallsPerSecond, requests / elapsed.as_secs_f64()),
        (Metric::CpuPerCall, cpu.as_secs_f64() * 1e6 / requests),
    ]);
    let mut add = |times: &Histogram<u64>, p50, p99| {
        if !times.is_empty() {
            sample.insert(p50, times.value_at_quantile(0.5) as f64 / 1e3);
            sample.insert(p99, times.value_at_quantile(0.99) as f64 / 1e3);
        }
    };
    add(&all.gets, Metric::GetP50, Metric::GetP99);
    add(&all.puts, Metric::PutP50, Metric::PutP99);
    if !all.gets.is_empty() {
        sample.insert(Metric::Hits, all.hits as f64 * 100.0 / all.gets.len() as f64);
    }
    sample
}
