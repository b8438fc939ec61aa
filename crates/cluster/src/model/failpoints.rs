//! Planted bugs: the model finds each within a stated number of cases.

use super::run;
use crate::failpoint::{Failpoint, plant};

/// Plants the bug, and counts the cases until a hit is too old; also from `TAMIS_RUNS` further
/// seeds.
fn found(failpoint: Failpoint, cases_max: u64) {
    let starts = std::env::var("TAMIS_RUNS").map_or(1, |text| text.parse().unwrap());
    let mut needed = Vec::new();
    for start in 0..starts {
        let _planted = plant(failpoint);
        let first = 1_000_000 + start * 100_000;
        let case = (first..first + cases_max).find(|seed| run(*seed).violation.is_some());
        let case =
            case.unwrap_or_else(|| panic!("{failpoint:?} is not found in {cases_max} cases"));
        needed.push(case - first + 1);
    }
    needed.sort_unstable();
    println!("{failpoint:?}: found within {needed:?} cases");
}

#[test]
fn gaps_that_are_ignored() {
    found(Failpoint::GapIgnored, 100);
}

#[test]
fn anchors_that_are_not_compared() {
    found(Failpoint::AnchorIgnored, 500);
}

#[test]
fn epochs_that_are_not_compared() {
    found(Failpoint::EpochIgnored, 100);
}

#[test]
fn servers_that_are_not_compared() {
    found(Failpoint::ServerIgnored, 500);
}

#[test]
fn leases_that_count_from_the_answer() {
    found(Failpoint::LeaseFromAnswer, 100);
}

#[test]
fn gates_that_open_during_a_replay() {
    found(Failpoint::OpenDuringReplay, 100);
}

#[test]
fn positions_that_are_saved_first() {
    found(Failpoint::PositionFirst, 500);
}

#[test]
fn records_that_are_skipped() {
    found(Failpoint::UnknownSkipped, 100);
}

#[test]
fn records_that_are_sent_once() {
    found(Failpoint::SentOnce, 500);
}

#[test]
fn fills_that_are_stored_past_their_point() {
    found(Failpoint::FillPastPoint, 100);
}
