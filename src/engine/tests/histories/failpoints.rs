//! Planted bugs: the checker must find each within a stated number of calls, but for searches that
//! begin at `TAMIS_SEED`.

use super::plan::Plan;
use super::setting::Setting;
use super::{COLD, Failure, POWER, PROCESS, run};
use crate::failpoint::{Failpoint, plant};

/// Plants the bug and counts the calls until it is found, also from `TAMIS_RUNS` further seeds.
fn found(failpoint: Failpoint, setting: Setting, calls_max: usize) {
    found_from(0, failpoint, setting, calls_max);
}

/// For a bug that is rarely seen: from a seed whose histories show it soon.
fn found_from(seed: u64, failpoint: Failpoint, setting: Setting, calls_max: usize) {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, calls_max) = number("TAMIS_SEED").map_or((seed, calls_max), |it| (it, usize::MAX));
    let mut needed = Vec::new();
    for start in 0..number("TAMIS_RUNS").unwrap_or(1) {
        let _planted = plant(failpoint);
        let (mut calls, mut seed) = (0, first + start * 100_000);
        let failure = loop {
            let plan = Plan::new(seed);
            calls += plan.calls();
            match run(&plan, setting) {
                Err(failure) if shows(failpoint, &failure) => break failure,
                _ => {}
            }
            assert!(calls <= calls_max, "{failpoint:?} is not found in {calls} calls");
            seed += 1;
        };
        if start == 0 {
            println!("{failpoint:?}, TAMIS_SEED={seed}: {}", failure.what);
        }
        needed.push(calls);
    }
    needed.sort_unstable();
    println!("{failpoint:?}: found within {needed:?} calls");
}

/// Whether the bug may have caused it. A call that hangs shows some of them only: it may do so for
/// another reason.
fn shows(failpoint: Failpoint, failure: &Failure) -> bool {
    let may_hang = matches!(
        failpoint,
        Failpoint::PermitKeptBySleeper
            | Failpoint::PinInFuture
            | Failpoint::InvalidationWithdrawnEarly
    );
    failure.is_checked && (may_hang || !failure.what.contains(" hangs after "))
}

#[test]
fn expiries_forgotten_by_recovery() {
    found(Failpoint::ExpiryForgotten, PROCESS, 1_000_000);
}

#[test]
fn a_typed_caller_that_is_given_what_does_not_decode() {
    found(Failpoint::UndecodedShared, PROCESS, 1_000_000);
}

#[test]
fn a_typed_value_of_another_entry() {
    found_from(115, Failpoint::DecodedOfAnother, PROCESS, 100_000);
}

#[test]
fn what_a_namespace_has_of_its_own_is_ignored() {
    found(Failpoint::NamespaceDefaultsIgnored, PROCESS, 1_000_000);
}

#[test]
fn memory_that_keeps_more_than_its_new_budget() {
    found(Failpoint::ExcessKept, PROCESS, 1_000_000);
}

#[test]
fn an_invalidation_of_several_namespaces_that_covers_one() {
    found(Failpoint::SeveralCutShort, PROCESS, 1_000_000);
}

#[test]
fn an_overwrite_that_is_refused_and_leaves_the_old_value_on_disk() {
    found(Failpoint::OverwriteRefused, PROCESS, 1_000_000);
}

#[test]
fn an_error_that_is_held_for_ever() {
    found(Failpoint::HeldTooLong, PROCESS, 1_000_000);
}

#[test]
fn an_error_that_is_held_over_a_change() {
    found(Failpoint::HeldOverChange, PROCESS, 1_000_000);
}

#[test]
fn a_reinsertion_of_an_expired_record() {
    found(Failpoint::ExpiryNotReinserted, PROCESS, 3_000_000);
}

#[test]
fn touches_forgotten_by_recovery() {
    found(Failpoint::RenewalForgotten, PROCESS, 1_000_000);
}

#[test]
fn an_unchecked_promotion() {
    found_from(60, Failpoint::PromotionUnchecked, PROCESS, 100_000);
}

#[test]
fn an_ignored_pending_invalidation() {
    found(Failpoint::PendingInvalidationIgnored, Setting { is_roomy: true, ..PROCESS }, 1_000_000);
}

#[test]
fn a_pending_invalidation_withdrawn_early() {
    found(Failpoint::InvalidationWithdrawnEarly, PROCESS, 1_000_000);
}

#[test]
fn slots_dropped_before_the_head_mark_moves() {
    found(Failpoint::SlotsDroppedEarly, PROCESS, 1_000_000);
}

#[test]
fn a_reinsertion_outside_of_its_section() {
    // Rare, and rarer with smaller budgets.
    found(Failpoint::ReinsertionUnchecked, Setting { is_plain: true, ..PROCESS }, 3_000_000);
}

#[test]
fn a_tail_appended_after_a_tear() {
    found(Failpoint::TailAppendedAfterTear, PROCESS, 1_000_000);
}

#[test]
fn an_acknowledgement_out_of_order() {
    found(Failpoint::AcknowledgedOutOfOrder, PROCESS, 1_000_000);
}

#[test]
fn an_acknowledgement_without_a_sync() {
    found(Failpoint::AcknowledgedUnsynced, POWER, 1_000_000);
}

#[test]
fn a_flush_that_is_not_awaited() {
    // Rarer with sleepers and smaller budgets.
    found_from(2640, Failpoint::FlushNotAwaited, Setting { is_plain: true, ..PROCESS }, 100_000);
}

#[test]
fn a_missing_tombstone() {
    found(Failpoint::TombstoneOmitted, PROCESS, 1_000_000);
}

#[test]
fn tombstones_of_many_keys_that_are_not_awaited() {
    found(Failpoint::ManyNotAwaited, PROCESS, 3_000_000);
}

#[test]
fn a_misplaced_answer_of_many() {
    found(Failpoint::ManyMisplaced, PROCESS, 1_000_000);
}

#[test]
fn records_kept_by_a_restart() {
    found(Failpoint::RestartKeepsRecords, Setting { has_faults: true, ..PROCESS }, 1_000_000);
}

#[test]
fn an_ignored_failed_write() {
    found(Failpoint::FailedWriteIgnored, Setting { has_faults: true, ..PROCESS }, 1_000_000);
}

#[test]
fn labels_forgotten_at_open() {
    found(Failpoint::LabelsForgotten, PROCESS, 1_000_000);
}

#[test]
fn an_ignored_reboot() {
    found(Failpoint::BootIgnored, PROCESS, 1_000_000);
}

#[test]
fn a_stored_stale_fill() {
    found(Failpoint::StaleFillStored, COLD, 1_000_000);
}

#[test]
fn a_fetch_that_takes_its_read_point_late() {
    found(Failpoint::PointTakenLate, PROCESS, 1_000_000);
}

#[test]
fn an_uncompared_key() {
    found(Failpoint::KeyNotCompared, Setting { key_hash_bits: 3, ..PROCESS }, 1_000_000);
}

#[test]
fn skipped_damage() {
    found(Failpoint::DamageSkipped, Setting { has_faults: true, ..PROCESS }, 1_000_000);
}

#[test]
fn an_end_that_a_listener_is_told_twice() {
    found(Failpoint::ReplacementToldTwice, PROCESS, 1_000_000);
}

#[test]
fn an_end_that_no_listener_is_told() {
    found(Failpoint::DropUntold, PROCESS, 1_000_000);
}

#[test]
fn a_pin_in_the_future_of_a_reader() {
    found(Failpoint::PinInFuture, PROCESS, 1_000_000);
}

#[test]
fn a_permit_kept_by_a_sleeper() {
    found(Failpoint::PermitKeptBySleeper, PROCESS, 1_000_000);
}

#[test]
fn a_waker_called_under_a_lock() {
    found(Failpoint::WokenUnderLock, PROCESS, 1_000_000);
}

#[test]
fn an_unbounded_replay() {
    found(Failpoint::ReplayUnbounded, PROCESS, 1_000_000);
}
