//! Bugs planted on purpose: each must be found by the checker, within a stated number of calls.

use super::life::Plan;
use super::setting::Setting;
use super::{COLD, POWER, PROCESS, run};
use crate::flaw::{Flaw, plant};

/// Plants the flaw, and counts the calls until the checker finds it: from the first seed on, and
/// from `TAMIS_RUNS` others if asked.
fn found(flaw: Flaw, setting: Setting, calls_max: usize) {
    let starts = std::env::var("TAMIS_RUNS").map_or(1, |text| text.parse().unwrap());
    let mut needed = Vec::new();
    for start in 0..starts {
        let _planted = plant(flaw);
        let (mut calls, mut seed) = (0, start * 100_000);
        let failure = loop {
            let plan = Plan::new(seed);
            calls += plan.calls();
            match run(&plan, setting) {
                Err(failure) if failure.is_checked => break failure,
                _ => {}
            }
            assert!(calls <= calls_max, "{flaw:?} is not found in {calls} calls");
            seed += 1;
        };
        if start == 0 {
            println!("{flaw:?}: {}", failure.what);
        }
        needed.push(calls);
    }
    needed.sort_unstable();
    println!("{flaw:?}: found within {needed:?} calls");
}

#[test]
fn a_promotion_without_a_check() {
    found(Flaw::PromotionUnchecked, PROCESS, 1_000_000);
}

#[test]
fn a_rule_that_is_not_asked() {
    found(Flaw::RuleNotAsked, Setting { is_roomy: true, ..PROCESS }, 1_000_000);
}

#[test]
fn a_rule_that_is_withdrawn_early() {
    found(Flaw::RuleWithdrawnEarly, PROCESS, 1_000_000);
}

#[test]
fn slots_dropped_before_the_head_mark_moves() {
    found(Flaw::SlotsDroppedEarly, PROCESS, 1_000_000);
}

#[test]
fn a_second_chance_outside_of_its_section() {
    // Rare, and rarer where budgets become smaller.
    found(Flaw::SecondChanceUnchecked, Setting { is_plain: true, ..PROCESS }, 3_000_000);
}

#[test]
fn a_tail_appended_after_a_tear() {
    found(Flaw::TailAppendedAfterTear, PROCESS, 1_000_000);
}

#[test]
fn an_acknowledgement_out_of_order() {
    found(Flaw::AcknowledgedOutOfOrder, PROCESS, 1_000_000);
}

#[test]
fn an_acknowledgement_without_a_sync() {
    found(Flaw::AcknowledgedUnsynced, POWER, 1_000_000);
}

#[test]
fn a_flush_that_is_not_waited_for() {
    found(Flaw::FlushNotAwaited, PROCESS, 3_000_000);
}

#[test]
fn a_missing_tombstone() {
    found(Flaw::TombstoneOmitted, PROCESS, 1_000_000);
}

#[test]
fn a_failed_write_that_is_ignored() {
    found(Flaw::FailedWriteIgnored, Setting { has_faults: true, ..PROCESS }, 1_000_000);
}

#[test]
fn labels_forgotten_at_open() {
    found(Flaw::LabelsForgotten, PROCESS, 1_000_000);
}

#[test]
fn another_boot_that_is_ignored() {
    found(Flaw::BootIgnored, PROCESS, 1_000_000);
}

#[test]
fn a_stale_fill_that_is_stored() {
    found(Flaw::StaleFillStored, COLD, 1_000_000);
}

#[test]
fn a_key_that_is_not_compared() {
    found(Flaw::KeyNotCompared, Setting { key_hash_bits: 3, ..PROCESS }, 1_000_000);
}

#[test]
fn damage_that_is_skipped() {
    found(Flaw::DamageSkipped, Setting { has_faults: true, ..PROCESS }, 1_000_000);
}

#[test]
fn a_pin_in_the_future_of_a_reader() {
    found(Flaw::PinInFuture, PROCESS, 1_000_000);
}

#[test]
fn a_permit_that_a_sleeper_keeps() {
    found(Flaw::PermitKeptBySleeper, PROCESS, 1_000_000);
}

#[test]
fn a_waker_that_is_called_under_a_lock() {
    found(Flaw::WokenUnderLock, PROCESS, 1_000_000);
}

#[test]
fn a_replay_without_a_bound() {
    found(Flaw::ReplayUnbounded, PROCESS, 1_000_000);
}
