//! Runs the scenes of `lib.rs` under many schedules.

use tamis_rings::{Mishap, scene};

const SCHEDULES: usize = 4_000;

fn every_read_is_answered(mishap: Mishap) {
    shuttle::check_random(move || scene(mishap), SCHEDULES);
    // Schedules with few preemptions.
    shuttle::check_pct(move || scene(mishap), SCHEDULES, 3);
}

#[test]
fn every_read_is_answered_and_every_ring_is_freed() {
    every_read_is_answered(Mishap::Nothing);
}

#[test]
fn no_read_is_lost_with_a_runtime() {
    every_read_is_answered(Mishap::Shutdown);
}

#[test]
fn callers_are_answered_when_the_disk_s_thread_breaks_down() {
    every_read_is_answered(Mishap::Breakdown);
}
