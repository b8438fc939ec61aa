//! Planted bugs: the model finds each within a stated number of cases.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::model::run;
use crate::failpoint::{Failpoint, plant};

/// Plants the bug, and counts the cases until an answer is not permitted; also from `TAMIS_RUNS`
/// further seeds.
fn found(failpoint: Failpoint, cases_max: u64) {
    let starts = std::env::var("TAMIS_RUNS").map_or(1, |text| text.parse().unwrap());
    let mut needed = Vec::new();
    for start in 0..starts {
        let _planted = plant(failpoint);
        let first = start * 100_000;
        let case = (first..first + cases_max).find(|seed| is_found(*seed));
        let case =
            case.unwrap_or_else(|| panic!("{failpoint:?} is not found in {cases_max} cases"));
        needed.push(case - first + 1);
    }
    needed.sort_unstable();
    println!("{failpoint:?}: found within {needed:?} cases");
}

/// Whether the model has refused an answer. On one thread, which has the bug.
fn is_found(seed: u64) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(seed)))) else {
        return false;
    };
    let said = panic.downcast_ref::<String>().is_some_and(|said| said.contains("was told"));
    assert!(said, "the model has failed itself: {panic:?}");
    true
}

#[test]
fn writes_that_forget_nothing() {
    found(Failpoint::NothingForgotten, 100);
}

#[test]
fn renames_that_forget_one_path() {
    found(Failpoint::SourceNotForgotten, 200);
}

#[test]
fn unknown_outcomes_that_are_ignored() {
    found(Failpoint::UnknownOutcomeIgnored, 200);
}

#[test]
fn dropped_writes_that_count_as_known() {
    found(Failpoint::DroppedWriteKnown, 200);
}

#[test]
fn blocks_of_any_version() {
    found(Failpoint::BlocksUnchecked, 200);
}

#[test]
fn generations_that_are_reused() {
    found(Failpoint::GenerationReused, 200);
}

#[test]
fn versions_that_share_a_key() {
    found(Failpoint::VersionNotInKey, 200);
}

#[test]
fn refusals_by_what_was_known() {
    found(Failpoint::StaleRefusal, 200);
}

#[test]
fn fetches_that_began_earlier() {
    found(Failpoint::EarlierFetchTaken, 200);
}

#[test]
fn ages_that_count_from_the_answer() {
    found(Failpoint::AgedFromAnswer, 200);
}

#[test]
fn errors_of_anothers_range() {
    found(Failpoint::ErrorOfRangeShared, 200);
}
