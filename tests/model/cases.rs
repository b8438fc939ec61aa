//! Seeds: which cases run, and how a failing one is reported.
//!
//! `TAMIS_SEED` runs one case alone; `TAMIS_CASES` sets the number of cases otherwise.

use std::env;

/// Runs `case` for each requested seed. Returns their number; None if one seed was requested, which
/// says nothing about averages.
pub(crate) fn for_each_seed(default: u64, mut case: impl FnMut(u64)) -> Option<u64> {
    if let Some(seed) = number_from("TAMIS_SEED") {
        named(seed, || case(seed));
        return None;
    }
    let cases = number_from("TAMIS_CASES").unwrap_or(default);
    for seed in 0..cases {
        named(seed, || case(seed));
    }
    Some(cases)
}

/// The same for cases that start threads, each of which takes as long as many others.
pub(crate) fn for_each_round(default: u64, mut round: impl FnMut(u64)) -> Option<u64> {
    if let Some(seed) = number_from("TAMIS_SEED") {
        named(seed, || round(seed));
        return None;
    }
    let rounds = number_from("TAMIS_CASES").map_or(default, |cases| (cases / 20).max(1));
    for seed in 0..rounds {
        named(seed, || round(seed));
    }
    Some(rounds)
}

fn named(seed: u64, case: impl FnOnce()) {
    struct Named(u64);

    impl Drop for Named {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed with TAMIS_SEED={}", self.0);
            }
        }
    }

    let _named = Named(seed);
    case();
}

fn number_from(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
