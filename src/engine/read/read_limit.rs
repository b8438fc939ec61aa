//! `Reads`: bounds the memory of reads from disk.
//! Short reads have a share of their own, so that they never wait behind long ones.

use crate::batch::BATCH_BYTES;
use crate::limiter::Limiter;
use crate::timer::Timer;

/// The share of short reads.
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

    /// The most bytes of all short reads together.
    pub(crate) fn short_max(&self) -> usize {
        self.short.bytes_max()
    }

    pub(crate) fn of(&self, bytes: usize) -> &Limiter {
        if bytes <= BATCH_BYTES { &self.short } else { &self.long }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.short.bytes() + self.long.bytes()
    }

    #[cfg(test)]
    pub(crate) fn callers(&self) -> usize {
        self.short.callers() + self.long.callers()
    }
}
