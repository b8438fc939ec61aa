//! Lookups in memory: keys in random order, and what a call costs the thread that makes it.
//!
//! Threads are measured in CPU time, so that others on the same cores do not count.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Error;
use crate::metric::{Metric, Sample};
use crate::process::thread_time;

/// Calls between two reads of the clock.
const BATCH: u32 = 500;

/// The most probes: they should not displace the caches' own memory from the CPU's caches.
const PROBES_MAX: usize = 200_000;

/// Keys in the order of calls, consecutive in memory.
pub(super) struct Probes {
    text: String,
    ends: Vec<usize>,
}

impl Probes {
    /// Uniform draws, a list for each thread.
    pub(super) fn of(keys: &[String], threads: u64) -> Vec<Self> {
        let number = (4 * keys.len()).min(PROBES_MAX);
        (0..threads).map(|thread| Self::draw(keys, number, thread)).collect()
    }

    fn draw(keys: &[String], number: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut probes = Self { text: String::new(), ends: Vec::with_capacity(number) };
        for _ in 0..number {
            probes.text.push_str(&keys[random.random_range(0..keys.len())]);
            probes.ends.push(probes.text.len());
        }
        probes
    }

    fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

/// Makes calls for the given time, and returns the nanoseconds that each took.
type Measure = Box<dyn Fn(&Probes, Duration) -> f64 + Sync>;

/// A kind of call. Built around the call itself, so that none is made through a pointer.
pub(super) struct Caller {
    pub(super) name: &'static str,
    measure: Measure,
}

impl Caller {
    pub(super) fn new(name: &'static str, call: impl Fn(&str) + Sync + 'static) -> Self {
        let measure = move |probes: &Probes, limit| measure(probes, limit, &call);
        Self { name, measure: Box::new(measure) }
    }

    /// One thread for each list of probes, all at the same time; the mean of their results.
    pub(super) fn sample(&self, probes: &[Probes], limit: Duration) -> Result<Sample, Error> {
        let begin = Barrier::new(probes.len());
        let total = thread::scope(|scope| {
            let run = |probes| {
                begin.wait();
                (self.measure)(probes, limit)
            };
            let threads: Vec<_> =
                probes.iter().map(|probes| scope.spawn(move || run(probes))).collect();
            let results = threads.into_iter().map(thread::ScopedJoinHandle::join);
            results.sum::<Result<f64, _>>()
        });
        let total = total.map_err(|_| format!("a thread of {} has panicked", self.name))?;
        Ok(Sample::from([(Metric::NanosPerCall, total / probes.len() as f64)]))
    }
}

/// Starts with one unmeasured pass, since contestants evict each other from the CPU's caches.
fn measure(probes: &Probes, limit: Duration, call: impl Fn(&str)) -> f64 {
    probes.iter().for_each(&call);
    let mut stream = probes.iter().cycle();
    let (start, mut calls) = (thread_time(), 0);
    loop {
        stream.by_ref().take(BATCH as usize).for_each(&call);
        calls += BATCH;
        let taken = thread_time().saturating_sub(start);
        if taken >= limit {
            return taken.as_secs_f64() * 1e9 / f64::from(calls);
        }
    }
}
