//! `Ahead`: who reads in sequence, and how far ahead of them has been asked for.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;

use parking_lot::Mutex;

/// So many paths are watched; the one that was seen first goes first.
const PATHS_MAX: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Ahead {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    by_path: HashMap<String, Reader>,
    order: VecDeque<String>,
}

#[derive(Debug)]
struct Reader {
    /// Where the last answer ended.
    next: u64,
    /// How far has been asked for.
    asked: u64,
}

impl Ahead {
    /// Notes an answer, and says what to ask for ahead of the next: nothing, unless it began where
    /// the last one ended. `most` bytes ahead, and not beyond `size`.
    pub(crate) fn after(
        &self,
        path: &str,
        answer: &Range<u64>,
        most: u64,
        size: u64,
    ) -> Range<u64> {
        let mut watched = self.watched.lock();
        let Some(reader) = watched.by_path.get_mut(path) else {
            watched.add(path, answer.end);
            return 0..0;
        };
        let is_sequence = reader.next == answer.start && answer.start > 0;
        reader.next = answer.end;
        if !is_sequence {
            reader.asked = answer.end;
            return 0..0;
        }
        let from = reader.asked.max(answer.end);
        // Half of it is asked for at a time.
        let wanted = answer.end.saturating_add(most).min(size);
        if from.saturating_sub(answer.end) > most / 2 || from >= wanted {
            return 0..0;
        }
        reader.asked = wanted;
        from..wanted
    }
}

impl Watched {
    fn add(&mut self, path: &str, next: u64) {
        if self.order.len() >= PATHS_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_path.remove(&oldest);
            }
        }
        self.order.push_back(path.to_owned());
        self.by_path.insert(path.to_owned(), Reader { next, asked: next });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sequences_are_read_ahead_of() {
        let ahead = Ahead::default();
        assert_eq!(ahead.after("a", &(0..10), 100, 1000), 0..0);
        assert_eq!(ahead.after("a", &(10..20), 100, 1000), 20..120);
        assert_eq!(ahead.after("a", &(20..30), 100, 1000), 0..0, "there is more than half of it");
        assert_eq!(ahead.after("a", &(30..80), 100, 1000), 120..180);
        assert_eq!(ahead.after("a", &(500..510), 100, 1000), 0..0);
        assert_eq!(ahead.after("a", &(510..950), 100, 1000), 950..1000);
        assert_eq!(ahead.after("a", &(950..1000), 100, 1000), 0..0);
    }

    #[test]
    fn the_paths_watched_are_bounded() {
        let ahead = Ahead::default();
        for number in 0..3 * PATHS_MAX {
            ahead.after(&number.to_string(), &(0..1), 1, 1);
        }
        let watched = ahead.watched.lock();
        assert_eq!((watched.by_path.len(), watched.order.len()), (PATHS_MAX, PATHS_MAX));
    }
}
