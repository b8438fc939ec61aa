//! Mutations of inputs, as fuzzers make them.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// Numbers at which code is often wrong.
const STRANGE: [u64; 9] = [0, 1, 7, 8, 0x7f, 0x80, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// One of the inputs after one to eight changes.
pub(super) fn mutated(random: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..1 << random.random_range(0..4) {
        let other = &inputs[random.random_range(0..inputs.len())];
        change(random, &mut input, other);
    }
    input
}

fn change(random: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    let length = input.len();
    let at = random.random_range(0..=length);
    let run = random.random_range(0..=(length - at).min(32));
    match random.random_range(0..10) {
        0..3 if at < length => input[at] ^= 1 << random.random_range(0..8),
        3..5 if at < length => input[at] = random.random(),
        5 => {
            let number = STRANGE[random.random_range(0..STRANGE.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.random_range(0..4)];
            let end = (at + width).min(length);
            input[at..end].copy_from_slice(&number[..end - at]);
        }
        6 => drop(input.drain(at..at + run)),
        7 => {
            let mut inserted = vec![0; random.random_range(0..9)];
            random.fill_bytes(&mut inserted);
            drop(input.splice(at..at, inserted));
        }
        8 => {
            let copied = input[at..at + run].to_vec();
            let to = random.random_range(0..=length - run);
            input[to..to + run].copy_from_slice(&copied);
        }
        _ => {
            let from = random.random_range(0..=other.len());
            let copied = &other[from..(from + run.max(8)).min(other.len())];
            drop(input.splice(at..at + run, copied.iter().copied()));
        }
    }
}
