//! Minimizes a failing plan: parts are left out as long as it still fails.

use super::plan::Plan;

/// The most plans tried.
const TRIALS_MAX: usize = 600;

/// A minimal part of `plan` that still fails, as far as the trials suffice.
pub(super) fn shrink(plan: Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let mut smallest = plan;
    let mut trials = 0;
    let mut size = smallest.calls().next_power_of_two() / 2;
    while size > 0 && trials < TRIALS_MAX {
        let mut from = 0;
        let mut has_shrunk = false;
        while from < smallest.calls() && trials < TRIALS_MAX {
            let candidate = without(&smallest, from, size);
            trials += 1;
            if fails(&candidate) {
                smallest = candidate;
                has_shrunk = true;
            } else {
                from += size;
            }
        }
        // Calls that were necessary before may be removable now.
        size = if has_shrunk && size == 1 { 1 } else { size / 2 };
    }
    smallest
}

/// The plan without `size` calls from index `from`.
fn without(plan: &Plan, from: usize, size: usize) -> Plan {
    let mut at = 0;
    let mut is_kept = |_: &u32| {
        at += 1;
        !(from + 1..=from + size).contains(&at)
    };
    let lives = plan.lives.iter();
    let lives = lives.map(|life| life.iter().copied().filter(&mut is_kept).collect()).collect();
    Plan { seed: plan.seed, lives }
}

#[test]
fn only_the_necessary_calls_are_left() {
    let plan = Plan { seed: 0, lives: vec![(0..100).collect(), (1000..1150).collect()] };
    let needed = [7, 8, 1003, 1149];
    let fails = |plan: &Plan| needed.iter().all(|call| plan.lives.concat().contains(call));
    let smallest = shrink(plan, fails);
    assert_eq!(smallest.lives, [vec![7, 8], vec![1003, 1149]]);
}
