//! Runs a cache under many schedules: a few threads call every method on a few keys, and the
//! checker of `tests/model` goes through the history of their calls.
//!
//! `TAMIS_CASES` sets the number of schedules of each course, `TAMIS_SEED` their seed. A failure
//! prints its schedule and the number of its course; with both, `TAMIS_SCHEDULE` and
//! `TAMIS_COURSE`, the test that has failed runs it again.

// Some events are of histories with versions.
mod gated;
#[allow(dead_code)]
#[path = "../model/history.rs"]
mod history;
mod scene;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::{Config, FailurePersistence, Runner};
use tamis_tiers::{Failpoint, plant};

use crate::gated::gated;
use crate::scene::{SCRIPTS, Script, Tiers, scene};

/// Of a schedule with few of them.
const PREEMPTIONS: usize = 3;

fn number_from(variable: &str) -> Option<usize> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

fn config(persistence: FailurePersistence) -> Config {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    config.failure_persistence = persistence;
    // Known: it takes each order of memory for the strongest.
    config.silence_warnings = true;
    config
}

/// What a schedule runs: 0 are calls that are drawn, the others are scripts.
fn script_of(course: usize) -> Option<Script> {
    course.checked_sub(1).map(|number| *SCRIPTS.get(number).expect("a course of that number"))
}

/// Runs one course under schedules with few preemptions, and under as many random ones. The former
/// preempt at any step of the longest that was seen before, so short courses are runs of their own.
fn run(
    config: &Config,
    (tiers, course): (Tiers, usize),
    (seed, count): (u64, usize),
    ran: &Arc<AtomicUsize>,
) {
    let script = script_of(course);
    let counted = |ran: Arc<AtomicUsize>| {
        move || {
            ran.fetch_add(1, Ordering::Relaxed);
            scene(tiers, script);
        }
    };
    let few = PctScheduler::new_from_seed(seed, PREEMPTIONS, count);
    Runner::new(few, config.clone()).run(counted(Arc::clone(ran)));
    let random = RandomScheduler::new_from_seed(seed, count);
    Runner::new(random, config.clone()).run(counted(Arc::clone(ran)));
}

/// Runs all courses.
fn holds(tiers: Tiers, drawn: usize, scripted: usize) {
    struct Named(usize);

    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with TAMIS_COURSE={}", self.0);
            }
        }
    }

    let config = config(FailurePersistence::Print);
    if let Ok(schedule) = env::var("TAMIS_SCHEDULE") {
        let script = script_of(number_from("TAMIS_COURSE").expect("the course is printed as well"));
        let replaying = ReplayScheduler::new_from_encoded(schedule.trim());
        Runner::new(replaying, config).run(move || scene(tiers, script));
        return;
    }
    let (cases, seed) = (number_from("TAMIS_CASES"), number_from("TAMIS_SEED").unwrap_or(0));
    let ran = Arc::default();
    for course in 0..=SCRIPTS.len() {
        let _named = Named(course);
        let count = cases.unwrap_or(if course == 0 { drawn } else { scripted });
        run(&config, (tiers, course), (seed as u64, count), &ran);
    }
    println!("{tiers:?}: {} schedules", ran.load(Ordering::Relaxed));
}

#[test]
fn memory_with_room_for_all_keeps_its_promises() {
    holds(Tiers::Roomy, 2000, 250);
}

#[test]
fn memory_that_evicts_keeps_its_promises() {
    holds(Tiers::Tiny, 2000, 250);
}

#[test]
fn both_tiers_keep_their_promises() {
    holds(Tiers::Disk, 1000, 100);
}

/// Runs an invalidation, the opening of a gate, and a get.
fn run_gated(config: &Config, tiers: Tiers, (seed, count): (u64, usize), ran: &Arc<AtomicUsize>) {
    let counted = |ran: Arc<AtomicUsize>| {
        move || {
            ran.fetch_add(1, Ordering::Relaxed);
            gated(tiers);
        }
    };
    let few = PctScheduler::new_from_seed(seed, PREEMPTIONS, count);
    Runner::new(few, config.clone()).run(counted(Arc::clone(ran)));
    let random = RandomScheduler::new_from_seed(seed, count);
    Runner::new(random, config.clone()).run(counted(Arc::clone(ran)));
}

#[test]
fn a_gate_that_is_opened_behind_an_invalidation_lets_nothing_older_pass() {
    let config = config(FailurePersistence::Print);
    let (cases, seed) = (number_from("TAMIS_CASES"), number_from("TAMIS_SEED").unwrap_or(0));
    for (tiers, count) in [(Tiers::Roomy, 1000), (Tiers::Disk, 300)] {
        let ran = Arc::default();
        run_gated(&config, tiers, (seed as u64, cases.unwrap_or(count)), &ran);
        println!("{tiers:?}: {} schedules", ran.load(Ordering::Relaxed));
    }
}

#[test]
fn a_gate_that_is_asked_late_is_found() {
    let _bug = plant(Failpoint::GateAskedLate);
    let (config, ran) = (config(FailurePersistence::None), Arc::default());
    let run = || run_gated(&config, Tiers::Roomy, (1, 4000), &ran);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "it is not found");
    println!("GateAskedLate: {} schedules", ran.load(Ordering::Relaxed));
}

/// The number of schedules of a course until a planted bug is found.
fn found_after(bug: Failpoint, tiers: Tiers, course: usize, most: usize) -> Option<usize> {
    let _bug = plant(bug);
    let (config, ran) = (config(FailurePersistence::None), Arc::default());
    let run = || run(&config, (tiers, course), (1, most), &ran);
    let found = catch_unwind(AssertUnwindSafe(run)).is_err();
    found.then(|| ran.load(Ordering::Relaxed))
}

#[test]
fn planted_bugs_are_found() {
    let most = number_from("TAMIS_CASES").unwrap_or(4000);
    let bugs = [
        (Failpoint::HeldBeforePending, Tiers::Roomy, 3),
        (Failpoint::HeldOutsideShard, Tiers::Roomy, 1),
        (Failpoint::LabelsWithdrawnEarly, Tiers::Roomy, 3),
        (Failpoint::PutIntoEndedNamespace, Tiers::Roomy, 0),
        (Failpoint::StaleFillStored, Tiers::Roomy, 0),
        (Failpoint::EvictedByHash, Tiers::Tiny, 0),
        (Failpoint::ReleasedTwice, Tiers::Tiny, 0),
        (Failpoint::PromotionUnchecked, Tiers::Disk, 1),
        (Failpoint::PromotionCheckedEarly, Tiers::Disk, 1),
        (Failpoint::PendingInvalidationIgnored, Tiers::Disk, 0),
        (Failpoint::InvalidationWithdrawnEarly, Tiers::Disk, 0),
    ];
    // Between two steps of a read an invalidation has to begin, and to end.
    let rare = (most >= 40_000).then_some((Failpoint::SlotBeforePending, Tiers::Disk, 3));
    let found = bugs.into_iter().chain(rare).map(|(bug, tiers, course)| {
        let after = found_after(bug, tiers, course, most);
        println!("{bug:?}, {tiers:?}, course {course}: {after:?}");
        (bug, after)
    });
    let missed: Vec<_> = found.filter(|(_, after)| after.is_none()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
