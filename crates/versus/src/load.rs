//! `drive`: tasks that call a cache, one call after the other, for a given time.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinSet;

use crate::Error;
use crate::metric::{Metric, Sample};
use crate::process::cpu_time;

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

async fn run<R, F>(tasks: usize, span: Duration, seed: u64, request: R) -> Result<Sample, Error>
where
    R: Fn(&mut StdRng) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Request, Error>> + Send + 'static,
{
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let mut callers = JoinSet::new();
    for task in 0..tasks {
        let mut random = StdRng::seed_from_u64((seed << 32) + task as u64);
        let request = request.clone();
        callers.spawn(async move {
            let mut caller = Caller::new()?;
            while started.elapsed() < span {
                caller.count(&request(&mut random).await?);
                if caller.requests.is_multiple_of(CALLS_BEFORE_YIELD) {
                    tokio::task::yield_now().await;
                }
            }
            Ok::<_, Error>(caller)
        });
    }
    let mut all = Caller::new()?;
    while let Some(caller) = callers.join_next().await {
        all.add(&caller??)?;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu));
    Ok(sample(&all, elapsed, cpu))
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
