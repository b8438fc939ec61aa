//! `Ahead`: who reads in sequence, how far ahead of them has been asked for, and what is being
//! asked for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

/// So many paths are watched; the one that was seen first goes first.
const PATHS_MAX: usize = 1024;

/// So many requests are under way, each in a task and of a path of its own.
const REQUESTS_MAX: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Ahead {
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    by_path: HashMap<String, Reader>,
    order: VecDeque<String>,
    /// The paths of requests that are under way. They may be watched no longer.
    // Bounded: by the constant.
    asking: HashSet<String>,
}

#[derive(Debug)]
struct Reader {
    /// Where the last answer ended.
    next: u64,
    /// How far has been asked for.
    asked: u64,
}

/// What to ask for. While it exists there is no other of its path.
#[derive(Debug)]
pub(crate) struct Request {
    ahead: Arc<Ahead>,
    path: String,
    pub(crate) range: Range<u64>,
}

impl Drop for Request {
    fn drop(&mut self) {
        self.ahead.watched.lock().asking.remove(&self.path);
    }
}

impl Ahead {
    /// Notes an answer, and says what to ask for ahead of the next: nothing, unless it began where
    /// the last one ended. `most` bytes ahead, and not beyond `size`.
    pub(crate) fn after(
        self: &Arc<Self>,
        path: &str,
        answer: &Range<u64>,
        most: u64,
        size: u64,
    ) -> Option<Request> {
        let mut watched = self.watched.lock();
        let Watched { by_path, asking, .. } = &mut *watched;
        let Some(reader) = by_path.get_mut(path) else {
            watched.add(path, answer.end);
            return None;
        };
        let is_sequence = reader.next == answer.start && answer.start > 0;
        reader.next = answer.end;
        if !is_sequence {
            reader.asked = answer.end;
            return None;
        }
        let from = reader.asked.max(answer.end);
        // Half of it is asked for at a time.
        let wanted = answer.end.saturating_add(most).min(size);
        if from.saturating_sub(answer.end) > most / 2 || from >= wanted {
            return None;
        }
        if asking.len() >= REQUESTS_MAX || !asking.insert(path.to_owned()) {
            return None;
        }
        reader.asked = wanted;
        Some(Request { ahead: Arc::clone(self), path: path.to_owned(), range: from..wanted })
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

    fn ahead_of(ahead: &Arc<Ahead>, path: &str, answer: Range<u64>) -> Option<Request> {
        ahead.after(path, &answer, 100, 1000)
    }

    #[test]
    fn only_sequences_are_read_ahead_of() {
        let ahead = Arc::default();
        let range = |answer| ahead_of(&ahead, "a", answer).map(|request| request.range.clone());
        assert_eq!(range(0..10), None);
        assert_eq!(range(10..20), Some(20..120));
        assert_eq!(range(20..30), None, "there is more than half of it");
        assert_eq!(range(30..80), Some(120..180));
        assert_eq!(range(500..510), None);
        assert_eq!(range(510..950), Some(950..1000));
        assert_eq!(range(950..1000), None);
    }

    #[test]
    fn the_paths_watched_are_bounded() {
        let ahead = Arc::new(Ahead::default());
        for number in 0..3 * PATHS_MAX {
            assert!(ahead.after(&number.to_string(), &(0..1), 1, 1).is_none());
        }
        let watched = ahead.watched.lock();
        assert_eq!((watched.by_path.len(), watched.order.len()), (PATHS_MAX, PATHS_MAX));
    }

    #[test]
    fn a_path_has_one_request_under_way() {
        let ahead = Arc::new(Ahead::default());
        assert!(ahead_of(&ahead, "a", 0..10).is_none());
        let first = ahead_of(&ahead, "a", 10..20).unwrap();
        for _ in 0..10 {
            assert!(ahead_of(&ahead, "a", 0..10).is_none());
            assert!(ahead_of(&ahead, "a", 10..20).is_none());
        }
        // Nor is it forgotten with its reader.
        for number in 0..PATHS_MAX {
            assert!(ahead_of(&ahead, &number.to_string(), 0..10).is_none());
        }
        assert!(ahead_of(&ahead, "a", 0..10).is_none());
        assert!(ahead_of(&ahead, "a", 10..20).is_none());
        drop(first);
        // What was not asked for meanwhile is asked for now.
        assert_eq!(ahead_of(&ahead, "a", 20..30).unwrap().range, 30..130);
    }

    #[test]
    fn the_requests_under_way_are_bounded() {
        let ahead = Arc::new(Ahead::default());
        let second = |number: usize| {
            let path = number.to_string();
            assert!(ahead_of(&ahead, &path, 0..10).is_none());
            ahead_of(&ahead, &path, 10..20)
        };
        let mut requests: Vec<_> = (0..3 * REQUESTS_MAX).filter_map(second).collect();
        assert_eq!(requests.len(), REQUESTS_MAX);
        requests.pop();
        requests.extend((500..510).filter_map(second));
        assert_eq!(requests.len(), REQUESTS_MAX);
        drop(requests);
        assert!(ahead.watched.lock().asking.is_empty());
    }
}
