//! `Runs`: all sizes, each on a thread of its own that reads the trace for it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use futures::executor::block_on;
use indicatif::ProgressBar;
use tamis::{BlobCacheStats, SizeQuery};

use super::super::driven::{Driven, Tally};
use super::super::failure::Failure;
use super::super::scratch::Scratch;
use super::super::values::Values;
use super::budget::Budget;
use super::simulated::{Policy, Simulated};
use super::subject::{REQUESTS_BETWEEN, Subject};

/// Of a key, as the cache is driven.
const KEY_BYTES: usize = 8;

/// Of a value whose rounding by the allocator is a usual one.
const VALUE_BYTES: usize = 64;

/// Larger ones need no larger index.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// The index of a cache that is not told otherwise, beside its file.
const DEFAULT_INDEX_SHARE: u64 = 32;
const DEFAULT_INDEX_BYTES_MIN: u64 = 1 << 20;

/// What came of one size.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) budget: Budget,
    pub(super) tally: Tally,
    pub(super) stats: BlobCacheStats,
    pub(super) others: Vec<Simulated>,
}

pub(super) struct Runs<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) budgets: &'a [Budget],
    /// Where stores are made, and what is put there, if there are some.
    pub(super) disk: Option<(&'a Scratch, Values)>,
}

impl Runs<'_> {
    /// So many at one time, in the order of the budgets.
    pub(super) fn all(&self, jobs: usize, bar: &ProgressBar) -> Result<Vec<Outcome>, Failure> {
        let (next, has_failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let done = Mutex::new(Vec::new());
        let work = || -> Result<(), Failure> {
            loop {
                // The largest first: it takes the longest, and its room was counted for.
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(budget) = self.budgets.iter().rev().nth(number) else { return Ok(()) };
                let outcome = self.one(*budget, bar, &has_failed);
                let outcome = outcome.inspect_err(|_| has_failed.store(true, Ordering::Relaxed))?;
                done.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
            }
        };
        thread::scope(|scope| {
            let jobs = jobs.min(self.budgets.len());
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
            let panicked = || Failure::refused("panicked", "a replay has panicked".to_owned());
            // An interrupt, which all of them see, or the failure that has ended the others.
            ends.into_iter().try_for_each(|end| end.unwrap_or_else(|_| Err(panicked())))
        })?;
        let mut outcomes = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcomes.sort_by_key(|outcome| outcome.budget.bytes);
        Ok(outcomes)
    }

    fn one(
        &self,
        budget: Budget,
        bar: &ProgressBar,
        has_failed: &AtomicBool,
    ) -> Result<Outcome, Failure> {
        let store = |(scratch, values): &(&Scratch, Values)| {
            (scratch.path(&budget.bytes.to_string()), values.clone())
        };
        let (folder, values) = self.disk.as_ref().map(store).unzip();
        let driven = match (&folder, values, budget.l2_bytes) {
            (Some(folder), Some(values), Some(l2_bytes)) => {
                let tiers = (budget.l1_bytes, l2_bytes);
                let index = self.index_bytes(l2_bytes);
                Driven::in_both_tiers(tiers, values, folder, |config| match index {
                    Some(bytes) => config.l2_index_bytes_max(bytes),
                    None => config,
                })?
            }
            _ => Driven::in_memory(budget.l1_bytes, overhead())?,
        };
        let mut others: Vec<_> =
            Policy::ALL.map(|policy| Simulated::new(policy, budget.bytes)).into();
        let (tally, stats) = block_on(self.drive(driven, &mut others, bar, has_failed))?;
        if let Some(folder) = folder {
            fs::remove_dir_all(&folder).map_err(|error| Failure::io("remove", &folder, &error))?;
        }
        Ok(Outcome { budget, tally, stats, others })
    }

    async fn drive(
        &self,
        mut driven: Driven,
        others: &mut [Simulated],
        bar: &ProgressBar,
        has_failed: &AtomicBool,
    ) -> Result<(Tally, BlobCacheStats), Failure> {
        let driving = async {
            let mut reader = self.subject.reader()?;
            let mut number = 0_u64;
            while let Some(request) = reader.advance()? {
                let request = self.subject.sized(request);
                driven.request(request).await?;
                others.iter_mut().for_each(|other| other.request(request));
                number += 1;
                if number % REQUESTS_BETWEEN == 0 {
                    bar.inc(REQUESTS_BETWEEN);
                    self.subject.interrupt.check()?;
                    if has_failed.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            bar.inc(number % REQUESTS_BETWEEN);
            Ok(())
        };
        let driven_to: Result<(), Failure> = driving.await;
        // Its threads are to be gone before its folder is.
        let finished = driven.finish().await;
        driven_to?;
        Ok(finished?)
    }

    /// Enough index for all that may be on disk, since the least values of a trace may be many.
    fn index_bytes(&self, l2_bytes: u64) -> Option<usize> {
        let objects = self.subject.scan.objects();
        let mean = self.subject.working_set() / objects.max(1);
        let estimate = SizeQuery {
            entries: objects.min(l2_bytes / (mean / 2).max(1)),
            ..query(usize::try_from(mean).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX))
        };
        let needed = estimate.estimate()?.l2_index_bytes_max;
        let default = (l2_bytes / DEFAULT_INDEX_SHARE).max(DEFAULT_INDEX_BYTES_MIN);
        usize::try_from(needed.max(default)).ok()
    }
}

/// What an entry takes in memory beside its value.
fn overhead() -> u64 {
    let estimate = query(VALUE_BYTES).estimate();
    estimate.map_or(0, |estimate| estimate.l1_entry_bytes - VALUE_BYTES as u64)
}

fn query(value_bytes: usize) -> SizeQuery {
    SizeQuery {
        entries: 1,
        key_bytes: KEY_BYTES,
        value_bytes,
        stored_bytes: value_bytes,
        labels: 0,
        label_bytes: 0,
        l1_share_pct: 100,
        has_ttl: false,
    }
}
