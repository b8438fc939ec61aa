//! What callers and caches leave in their process: live bytes, descriptors and threads.
//!
//! `TAMIS_RUNS` multiplies the numbers of caches, calls and forks.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod caches;
mod call;
mod census;
#[path = "../engine/mod.rs"]
mod engine;
mod forks;
mod moved;

/// One test, since its counts are of the whole process.
#[test]
fn nothing_is_left_in_the_process() {
    let runs = std::env::var("TAMIS_RUNS").map_or(1, |runs| runs.parse().unwrap());
    census::step("the beginning");
    let rest = census::Census::now();
    caches::in_memory(3000 * runs, &rest);
    caches::on_disk(240 * runs, &rest);
    caches::kept_handles_are_noticed(&rest);
    caches::a_value_may_panic_in_its_drop(&rest);
    moved::calls_outlive_their_runtimes(4 * runs, &rest);
    forks::a_child_hangs_nowhere_and_the_parent_goes_on(6 * runs, &rest);
}
