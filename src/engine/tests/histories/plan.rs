//! `Plan`: the numbers of the calls of a history.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// The numbers of the calls of each process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) lives: Vec<Vec<u32>>,
}

/// The calls of a process are numbered from a multiple of this.
const LIFE: u32 = 1000;

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut life = |number: u32| {
            let first = number * LIFE;
            (first..first + random.random_range(1..200)).collect()
        };
        Self { seed, lives: (0..8).map(&mut life).collect() }
    }

    pub(super) fn calls(&self) -> usize {
        self.lives.iter().map(Vec::len).sum()
    }
}
