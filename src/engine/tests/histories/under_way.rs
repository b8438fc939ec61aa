//! `UnderWay`: the calls of a process that have not ended. Awake ones are polled together and must
//! end soon; sleeping ones are neither polled nor dropped.

use std::collections::BTreeMap;
use std::mem;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::manner::{Nap, Polled, polled};

/// Every polled call ends within so many steps: eight times the most seen in 60 seeds.
pub(super) const STEPS_MAX: u64 = 60_000;

type Call<T> = BoxFuture<'static, Option<T>>;

pub(super) struct UnderWay<T> {
    awake: FuturesUnordered<BoxFuture<'static, (u32, Polled<Option<T>>)>>,
    /// The step at which each was begun or woken, and its description.
    since: BTreeMap<u32, (u64, String)>,
    asleep: Vec<Asleep<T>>,
    settled: Vec<(u32, Polled<Option<T>>)>,
}

struct Asleep<T> {
    number: u32,
    what: String,
    call: Call<T>,
    /// The number of begun calls at which it is polled again; None for never.
    until: Option<u64>,
}

impl<T: Send + 'static> UnderWay<T> {
    pub(super) fn new() -> Self {
        Self {
            awake: FuturesUnordered::new(),
            since: BTreeMap::new(),
            asleep: Vec::new(),
            settled: Vec::new(),
        }
    }

    pub(super) fn width(&self) -> usize {
        self.awake.len()
    }

    pub(super) fn begin(
        &mut self,
        (number, what): (u32, String),
        call: Call<T>,
        nap: Option<Nap>,
        step: u64,
    ) {
        self.since.insert(number, (step, what));
        self.awake.push(Box::pin(async move { (number, polled(call, nap).await) }));
    }

    pub(super) async fn next(&mut self) -> Option<(u32, Polled<Option<T>>)> {
        self.awake.next().await
    }

    /// Removes a call from the awake ones. Returns when it was begun or woken.
    pub(super) fn left(&mut self, number: u32) -> (u64, String) {
        self.since.remove(&number).unwrap_or_default()
    }

    pub(super) fn sleep(&mut self, number: u32, what: String, call: Call<T>, until: Option<u64>) {
        self.asleep.push(Asleep { number, what, call, until });
    }

    pub(super) fn wake(&mut self, calls: u64, step: u64) -> u64 {
        let is_due = |asleep: &mut Asleep<T>| asleep.until.is_some_and(|until| until <= calls);
        let due: Vec<_> = self.asleep.extract_if(.., is_due).collect();
        let count = due.len() as u64;
        for Asleep { number, what, call, .. } in due {
            self.begin((number, what), call, None, step);
        }
        count
    }

    /// Wakes all calls that do not sleep forever.
    pub(super) fn wake_all(&mut self, step: u64) -> u64 {
        self.wake(u64::MAX, step)
    }

    /// Polls all awake calls until they have ended or are put aside.
    pub(super) async fn settled(&mut self) {
        let settled = mem::take(&mut self.awake).collect().await;
        self.settled = settled;
    }

    /// Makes [`next`](Self::next) return [settled](Self::settled) calls, too.
    pub(super) fn unsettle(&mut self, step: u64) {
        for (since, _) in self.since.values_mut() {
            *since = step;
        }
        for settled in mem::take(&mut self.settled) {
            self.awake.push(Box::pin(async { settled }));
        }
    }

    pub(super) fn check(&self, step: u64) -> Result<(), String> {
        for (number, (since, what)) in &self.since {
            let steps = step - since;
            if steps > STEPS_MAX {
                return Err(format!("call {number}, {what}, hangs after {steps} steps"));
            }
        }
        Ok(())
    }

    pub(super) fn told(&self) -> String {
        let awake = self.since.iter().map(|(number, (_, what))| format!(" {number}: {what};"));
        let asleep = self.asleep.iter().map(|it| format!(" {}: {}, asleep;", it.number, it.what));
        awake.chain(asleep).collect()
    }
}
