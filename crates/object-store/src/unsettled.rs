//! `Unsettled`: paths that are being written, or whose last write has an unknown outcome.
//!
//! What is read from such a path is not stored: it may be replaced at any moment by a request that
//! is already on its way. A write registers its path before it invalidates it, and a fill looks
//! here after it has taken its read point. So either the fill sees the write here, or the
//! invalidation is behind the fill's read point and voids it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Of so many paths it is remembered by itself that a write's outcome is unknown.
const PATHS_MAX: usize = 16_384;

/// In place of a time that the clock cannot reach.
const ALWAYS: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[derive(Debug, Default)]
pub(crate) struct Unsettled {
    paths: Mutex<Paths>,
    /// How many paths there are, and one more if it is all of them: none is the usual answer.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Paths {
    by_name: HashMap<String, Path>,
    /// More outcomes were unknown at once than can be remembered: every path is unsettled.
    all_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Path {
    writers: usize,
    until: Option<Instant>,
}

impl Path {
    fn is_settled(&self, now: Instant) -> bool {
        self.writers == 0 && self.until.is_none_or(|until| until <= now)
    }
}

impl Unsettled {
    /// A write of this path begins.
    pub(crate) fn begin(&self, path: &str) {
        let mut paths = self.paths.lock();
        paths.by_name.entry(path.to_owned()).or_default().writers += 1;
        self.count.store(paths.count(), Ordering::SeqCst);
    }

    /// It has ended; `unknown` is for how long its request may still be carried out.
    pub(crate) fn end(&self, path: &str, unknown: Option<Duration>) {
        let now = Instant::now();
        let mut paths = self.paths.lock();
        let until = unknown.map(|unknown| now.checked_add(unknown).unwrap_or(now + ALWAYS));
        if let Some(entry) = paths.by_name.get_mut(path) {
            entry.writers = entry.writers.saturating_sub(1);
            entry.until = entry.until.max(until);
        }
        paths.tidy(now, path);
        self.count.store(paths.count(), Ordering::SeqCst);
    }

    pub(crate) fn holds(&self, path: &str) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let now = Instant::now();
        let mut paths = self.paths.lock();
        paths.tidy(now, path);
        self.count.store(paths.count(), Ordering::SeqCst);
        paths.all_until.is_some() || paths.by_name.contains_key(path)
    }
}

impl Paths {
    fn count(&self) -> usize {
        self.by_name.len() + usize::from(self.all_until.is_some())
    }

    /// Forgets what is over: of this path, and of all if there are many.
    fn tidy(&mut self, now: Instant, path: &str) {
        if self.by_name.get(path).is_some_and(|entry| entry.is_settled(now)) {
            self.by_name.remove(path);
        }
        self.all_until = self.all_until.filter(|until| *until > now);
        if self.by_name.len() <= PATHS_MAX {
            return;
        }
        // Bounded: by twice the paths that are remembered, and those with a writer.
        self.by_name.retain(|_, entry| !entry.is_settled(now));
        let idle = self.by_name.values().filter(|entry| entry.writers == 0).count();
        if idle > PATHS_MAX / 2 {
            let latest = self.by_name.values().filter_map(|entry| entry.until).max();
            self.all_until = self.all_until.max(latest);
            self.by_name.retain(|_, entry| entry.writers > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(Duration::from_secs(3600));

    #[test]
    fn a_path_is_unsettled_while_it_has_writers_and_while_an_outcome_is_unknown() {
        let unsettled = Unsettled::default();
        assert!(!unsettled.holds("a"));
        unsettled.begin("a");
        unsettled.begin("a");
        unsettled.end("a", None);
        assert!(unsettled.holds("a") && !unsettled.holds("b"));
        unsettled.end("a", None);
        assert!(!unsettled.holds("a"));

        unsettled.begin("a");
        unsettled.end("a", LONG);
        unsettled.begin("a");
        unsettled.end("a", None);
        assert!(unsettled.holds("a"), "a later write does not settle an earlier one");

        unsettled.begin("b");
        unsettled.end("b", Some(Duration::ZERO));
        assert!(!unsettled.holds("b"));
        unsettled.begin("b");
        unsettled.end("b", Some(Duration::MAX));
        assert!(unsettled.holds("b"));
    }

    #[test]
    fn more_unknown_outcomes_than_fit_make_every_path_unsettled() {
        let unsettled = Unsettled::default();
        unsettled.begin("writing");
        for number in 0..=PATHS_MAX {
            let path = number.to_string();
            unsettled.begin(&path);
            unsettled.end(&path, LONG);
        }
        assert!(unsettled.paths.lock().by_name.len() <= PATHS_MAX);
        assert!(unsettled.holds("0") && unsettled.holds("never written"));
        assert!(unsettled.paths.lock().by_name.contains_key("writing"));
    }
}
