//! `Reads`: the memory that reading records from disk may take at one time.
//!
//! A read takes the blocks of its record, and what it decompresses them to. Short reads have a part
//! of the budget to themselves, so that they never wait behind long ones.

use crate::batch::BATCH_BYTES;
use crate::limiter::Limiter;
use crate::timer::Timer;

/// Short reads have one part of so many.
const SHORT_SHARE: usize = 4;

pub(crate) struct Reads {
    short: Limiter,
    long: Limiter,
}

impl Reads {
    pub(crate) fn new(bytes_max: usize, timer: &Timer) -> Self {
        let short = bytes_max / SHORT_SHARE;
        Self {
            short: Limiter::new(short, timer.clone()),
            long: Limiter::new(bytes_max - short, timer.clone()),
        }
    }

    /// The part of the budget that a read of so many bytes belongs to.
    pub(crate) fn of(&self, bytes: usize) -> &Limiter {
        if bytes <= BATCH_BYTES { &self.short } else { &self.long }
    }

    /// What reads under way take.
    pub(crate) fn bytes(&self) -> usize {
        self.short.bytes() + self.long.bytes()
    }
}
