//! Concurrent histories over two tiers on a simulated disk, and the checker that judges them.
//!
//! Up to six concurrent calls of all kinds, a fifth of them dropped halfway, over 24 keys in two
//! namespaces that are configured differently; some keys are used through a typed handle. Memory
//! and disk are so small that eviction, promotion and reclaim are constant. Eight processes in a
//! row end in a close, a kill or a power loss, sometimes during recovery, with calls in progress.
//!
//! A tenth of the calls are put aside, for long or forever, and a fifth have misbehaving wakers;
//! some processes have smaller budgets than the one before. Half of the histories have a listener
//! for events, which are checked as well. Every polled call must complete within
//! a stated number of steps, and the bounds are checked after each poll.
//!
//! A failure prints its seed and a minimal set of calls that reproduces it.
//!
//! `TAMIS_RUNS` sets the number of runs of each laboratory; `TAMIS_SEED` runs one alone.

#![allow(
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    reason = "numbers of a test are small, and a panic fails the test"
)]

mod budget;
mod call;
mod checker;
mod defaults;
mod failpoints;
mod faults;
mod fetch;
mod life;
mod limits;
mod manner;
mod many;
mod plan;
mod setting;
mod shrink;
mod tally;
mod typed;
mod under_way;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::life::History;
use self::plan::Plan;
use self::setting::Setting;
use self::shrink::shrink;
use self::tally::Tally;
use crate::engine::tests::bench::seeds_of;
use crate::modes::CrashSafety;

#[derive(Debug)]
struct Failure {
    what: String,
    /// All mutations, as known to the checker.
    told: String,
    /// Detected by the checker, not by a panic.
    is_checked: bool,
}

fn run(plan: &Plan, setting: Setting) -> Result<Tally, Failure> {
    let lived = catch_unwind(AssertUnwindSafe(|| {
        let mut history = History::new(plan.seed, setting);
        let lived = history.run(plan);
        lived.map(|()| history.tally).map_err(|what| (what, history.checker.lock().told()))
    }));
    match lived {
        Ok(lived) => lived.map_err(|(what, told)| Failure { what, told, is_checked: true }),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().cloned();
            let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned()));
            let what = what.unwrap_or_default();
            Err(Failure { what, told: String::new(), is_checked: false })
        }
    }
}

/// The least that a laboratory must have met.
fn require(setting: Setting, runs: u64, tally: &Tally) {
    let has_warmth = setting.crash_safety != CrashSafety::Cold;
    let least = |name: &str, met: u64, each_run: f64| {
        assert!(met as f64 >= each_run * runs as f64, "{name}: {met} are too few: {tally:?}");
    };
    least("hits in memory", tally.hits_l1, 10.0);
    least("hits on disk", tally.hits_l2, 10.0);
    least("promotions", tally.promoted, 1.0);
    least("calls dropped", tally.dropped, 5.0);
    least("calls put aside", tally.asleep, 3.0);
    least("and polled again", tally.woken, 1.0);
    least("wakers that panic", tally.panics, 5.0);
    least("wakers that reenter", tally.reentries, 5.0);
    least("wakers that drop", tally.drops, 1.0);
    least("stale sets refused", tally.refused, 0.5);
    least("version mismatches", tally.mismatches, 1.0);
    least("entries touched", tally.touched, 3.0);
    least("hits through typed handles", tally.typed, 10.0);
    least("values that do not decode", tally.undecoded, 5.0);
    least("hits by a namespace's policy", tally.defaults, 5.0);
    least("fetches ended by a namespace's policy", tally.by_namespace, 0.3);
    least("dependencies of all namespaces", tally.over_namespaces, 0.3);
    least("budgets of open caches", tally.budgets, 1.5);
    least("smaller ones", tally.budgets_smaller, 0.2);
    least("fetches in tasks", tally.spawned, 5.0);
    least("refreshes ahead", tally.ahead, 0.05);
    least("stale entries after a soft timeout", tally.soft, 0.03);
    least("fetches that took too long", tally.timed_out, 0.03);
    least("errors held", tally.held, 0.03);
    least("hits on values whose callers had gone", tally.left, 0.03);
    least("entries invalidated", tally.invalidated, 10.0);
    least("events", tally.events, 50.0);
    if has_warmth {
        least("hits after an open", tally.hits_after_open, 5.0);
        least("recovered entries", tally.recovered, 5.0);
        least("opens by an image", tally.opens_by_image, 0.3);
    }
    if !setting.is_roomy {
        least("opens with smaller budgets", tally.smaller, 0.5);
        least("evictions", tally.evicted, 1.0);
        least("segments reclaimed", tally.reclaimed, 3.0);
        least("reinsertions", tally.second_chances, 0.5);
    }
    if !setting.is_roomy && !setting.has_little_index {
        least("values not admitted", tally.not_admitted, 1.0);
        least("puts over the write rate", tally.over_rate, 1.0);
    }
    if !setting.is_roomy && !setting.has_faults && setting.key_hash_bits == 64 {
        least("misses of which a listener was told", tally.misses_told, 0.5);
    }
    if setting.has_faults {
        least("faults", tally.failures, 5.0);
    }
}

fn laboratory(name: &str, setting: Setting) {
    laboratory_of(60, name, setting);
}

/// Of so many runs, unless `TAMIS_RUNS` says otherwise.
fn laboratory_of(runs: u64, name: &str, setting: Setting) {
    let seeds = seeds_of(runs);
    let (runs, mut all) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds.clone() {
        let plan = Plan::new(seed);
        match run(&plan, setting) {
            Ok(tally) => all += tally,
            Err(failure) => {
                let smallest = shrink(plan, |plan| {
                    run(plan, setting).is_err_and(|it| it.is_checked == failure.is_checked)
                });
                let smallest_fails = run(&smallest, setting).err();
                panic!(
                    "TAMIS_SEED={seed} of {name} fails: {}\nwith {} calls of {}: {:?}\n{}",
                    failure.what,
                    smallest.calls(),
                    Plan::new(seed).calls(),
                    smallest.lives,
                    smallest_fails.map_or(failure.told, |it| format!("{}\n{}", it.what, it.told)),
                );
            }
        }
    }
    println!("{name}: seeds {seeds:?}, {all:?}");
    if runs >= 20 {
        require(setting, runs, &all);
    }
}

const PROCESS: Setting = Setting {
    crash_safety: CrashSafety::Process,
    key_hash_bits: 64,
    has_faults: false,
    is_roomy: false,
    has_quotas: false,
    is_plain: false,
    has_little_index: false,
};
const POWER: Setting = Setting { crash_safety: CrashSafety::Power, ..PROCESS };
const COLD: Setting = Setting { crash_safety: CrashSafety::Cold, ..PROCESS };

#[test]
fn process() {
    laboratory("process", PROCESS);
}

#[test]
fn process_with_colliding_hashes() {
    laboratory("process, 8 bits", Setting { key_hash_bits: 8, ..PROCESS });
    laboratory("process, 3 bits", Setting { key_hash_bits: 3, ..PROCESS });
}

#[test]
fn process_on_a_bad_disk() {
    laboratory("process, faults", Setting { has_faults: true, ..PROCESS });
    laboratory(
        "process, faults, 8 bits",
        Setting { has_faults: true, key_hash_bits: 8, ..PROCESS },
    );
}

#[test]
fn power() {
    laboratory("power", POWER);
    laboratory("power, 8 bits", Setting { key_hash_bits: 8, ..POWER });
}

#[test]
fn power_on_a_bad_disk() {
    laboratory("power, faults", Setting { has_faults: true, ..POWER });
}

#[test]
fn with_quotas() {
    let quotas = Setting { has_quotas: true, ..PROCESS };
    laboratory("quotas", quotas);
    laboratory("quotas, 8 bits", Setting { key_hash_bits: 8, ..quotas });
    laboratory("quotas, power, faults", Setting { has_faults: true, has_quotas: true, ..POWER });
}

#[test]
fn with_little_room_in_the_index() {
    let little = Setting { has_little_index: true, ..PROCESS };
    laboratory("little index", little);
    laboratory("little index, 8 bits", Setting { key_hash_bits: 8, ..little });
    let power = Setting { has_little_index: true, ..POWER };
    // What is rare is rarer there.
    laboratory_of(120, "little index, power, faults", Setting { has_faults: true, ..power });
}

#[test]
fn cold() {
    laboratory("cold", COLD);
    laboratory("cold, 8 bits", Setting { key_hash_bits: 8, ..COLD });
}

#[test]
fn with_room_nothing_is_missed_and_one_of_two_versions_wins() {
    laboratory("roomy", Setting { is_roomy: true, ..PROCESS });
    laboratory("roomy, power", Setting { is_roomy: true, ..POWER });
}
