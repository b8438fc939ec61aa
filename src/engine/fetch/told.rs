//! `Told`: what a fetch tells a subscriber, now and then.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The least time between two equal events.
const TELL_PAUSE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Told {
    pub(crate) not_stored: Seldom,
    pub(crate) not_refreshed: Seldom,
    pub(crate) not_decoded: Seldom,
    pub(crate) not_encoded: Seldom,
}

/// An event that is told once in a while.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub(crate) fn tell(&self, tell: impl FnOnce()) {
        let now = Instant::now();
        let mut told = self.0.lock();
        if told.is_none_or(|told| now.duration_since(told) >= TELL_PAUSE) {
            *told = Some(now);
            drop(told);
            tell();
        }
    }
}
