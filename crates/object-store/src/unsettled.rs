//! `Unsettled`: paths that are being written, or whose last write has an unknown outcome.
//!
//! What is read from such a path is not stored: it may be replaced at any moment by a request that
//! is already on its way. A write registers its path before it invalidates it, and a fill looks
//! here after it has taken its read point. So either the fill sees the write here, or the
//! invalidation is behind the fill's read point and voids it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::failpoint::{Failpoint, failpoint};

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
    // Bounded: by the writers, and by `unknown`.
    by_name: HashMap<Arc<str>, Path>,
    /// Those of unknown outcome, each once, by when they settle: a call looks at no more of them
    /// than it removes. A queue would hold a path for each of its writes.
    // Bounded: by the constant, beyond which it is emptied.
    unknown: BTreeSet<(Instant, Arc<str>)>,
    /// More outcomes were unknown at once than can be remembered: every path is unsettled.
    all_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Path {
    writers: usize,
    /// Some if it is in `unknown`, by this.
    until: Option<Instant>,
}

impl Unsettled {
    /// A write of this path begins.
    pub(crate) fn begin(&self, path: &str) {
        self.with(|paths, _| paths.begin(path));
    }

    /// It has ended; `unknown` is for how long its request may still be carried out.
    pub(crate) fn end(&self, path: &str, unknown: Option<Duration>) {
        self.with(|paths, now| {
            let until = unknown.map(|unknown| now.checked_add(unknown).unwrap_or(now + ALWAYS));
            paths.end(path, until.filter(|until| *until > now));
        });
    }

    pub(crate) fn holds(&self, path: &str) -> bool {
        if self.count.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let is_ignored = failpoint(Failpoint::UnknownOutcomeIgnored);
        self.with(|paths, _| {
            let is_held = |path: &Path| path.writers > 0 || !is_ignored;
            (paths.all_until.is_some() && !is_ignored)
                || paths.by_name.get(path).is_some_and(is_held)
        })
    }

    /// Forgets what is over, then acts.
    fn with<T>(&self, act: impl FnOnce(&mut Paths, Instant) -> T) -> T {
        let mut paths = self.paths.lock();
        let now = Instant::now();
        paths.expire(now);
        let result = act(&mut paths, now);
        let count = paths.by_name.len() + usize::from(paths.all_until.is_some());
        self.count.store(count, Ordering::SeqCst);
        result
    }
}

impl Paths {
    fn begin(&mut self, path: &str) {
        match self.by_name.get_mut(path) {
            Some(entry) => entry.writers += 1,
            None => {
                self.by_name.insert(path.into(), Path { writers: 1, until: None });
            }
        }
    }

    fn end(&mut self, path: &str, until: Option<Instant>) {
        let Some((name, mut entry)) = self.by_name.remove_entry(path) else { return };
        entry.writers = entry.writers.saturating_sub(1);
        if until > entry.until {
            if let Some(earlier) = entry.until {
                self.unknown.remove(&(earlier, Arc::clone(&name)));
            }
            entry.until = until;
            self.unknown.extend(until.map(|until| (until, Arc::clone(&name))));
        }
        if entry.writers > 0 || entry.until.is_some() {
            self.by_name.insert(name, entry);
        }
        if self.unknown.len() > PATHS_MAX {
            self.all_until = self.all_until.max(self.unknown.last().map(|(until, _)| *until));
            // Bounded: by the paths remembered. Each was added by a call of its own.
            while let Some((_, name)) = self.unknown.pop_first() {
                self.settle(&name);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        self.all_until = self.all_until.filter(|until| *until > now);
        // Bounded: by the paths remembered. Each was added by a call of its own.
        while self.unknown.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, name)) = self.unknown.pop_first() {
                self.settle(&name);
            }
        }
    }

    /// Its outcome is of no concern any more.
    fn settle(&mut self, name: &Arc<str>) {
        let Some(entry) = self.by_name.get_mut(name) else { return };
        entry.until = None;
        if entry.writers == 0 {
            self.by_name.remove(name);
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

    #[test]
    fn a_path_that_nobody_asks_for_again_is_forgotten_as_well() {
        let unsettled = Unsettled::default();
        unsettled.begin("a");
        unsettled.end("a", Some(Duration::from_millis(1)));
        unsettled.begin("b");
        unsettled.end("b", LONG);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!unsettled.holds("another") && unsettled.holds("b"));
        assert_eq!(unsettled.count.load(Ordering::SeqCst), 1);
        unsettled.begin("c");
        unsettled.end("c", Some(Duration::from_millis(1)));
        std::thread::sleep(Duration::from_millis(2));
        unsettled.begin("d");
        unsettled.end("d", None);
        assert_eq!(unsettled.count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_path_is_remembered_once_however_often_its_outcome_is_unknown() {
        let unsettled = Unsettled::default();
        for _ in 0..2 * PATHS_MAX {
            unsettled.begin("a");
            unsettled.end("a", LONG);
        }
        assert!(unsettled.holds("a") && !unsettled.holds("b"));
        assert_eq!(unsettled.paths.lock().unknown.len(), 1);
    }

    /// Paths with writers count as well when the others have become too many.
    #[test]
    fn a_path_that_is_written_stays_unsettled_when_all_outcomes_are_forgotten() {
        let (mut paths, now) = (Paths::default(), Instant::now());
        let soon = now + Duration::from_secs(1);
        paths.begin("a");
        paths.begin("a");
        paths.end("a", Some(soon));
        for number in 0..=PATHS_MAX {
            let path = number.to_string();
            paths.begin(&path);
            paths.end(&path, Some(soon));
            assert!(paths.unknown.len() <= PATHS_MAX && paths.by_name.len() <= PATHS_MAX + 1);
        }
        paths.expire(now);
        assert_eq!(paths.all_until, Some(soon));
        paths.expire(soon);
        assert!(paths.all_until.is_none() && paths.by_name.contains_key("a"));
        paths.end("a", None);
        assert!(!paths.by_name.contains_key("a"));
    }

    /// As many as a stream of deletes has, each of which ends and is asked for while the others
    /// are being written. If each looked at all of them it would take minutes.
    #[test]
    fn no_call_looks_at_all_paths() {
        let unsettled = Unsettled::default();
        let paths: Vec<String> = (0..4 * PATHS_MAX).map(|number| number.to_string()).collect();
        let began = Instant::now();
        for path in &paths {
            unsettled.begin(path);
        }
        for path in &paths {
            assert!(unsettled.holds(path));
            unsettled.end(path, None);
            assert!(began.elapsed() < Duration::from_secs(20), "{path} of {}", paths.len());
        }
        assert_eq!(unsettled.count.load(Ordering::SeqCst), 0);
    }
}
