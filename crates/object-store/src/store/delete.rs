//! Deletes, in a stream: each path is a write from when the inner store takes it until its answer.
//!
//! The inner store answers in the order of the paths, but an error may stand for many of them. So a
//! path whose answer has not come by name is of unknown outcome when the stream ends. An error that
//! the caller put in place of a path is an answer as well, and of none of them; it may come early.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::task::Poll;

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;

use super::Core;
use super::object_store::path::Path;
use super::object_store::{Error, Result};
use super::write::Writing;

/// So many paths of a stream wait for their answers. A store takes fewer at once: S3 some 20,000.
const TAKEN_MAX: usize = 1 << 15;

/// Each invalidates its path.
const DROPS_IN_A_POLL: usize = 64;

/// What the inner store has taken of the stream: the write of a path, or None for an error in place
/// of a path.
type Item = Option<Writing>;

/// The items without an answer by name.
#[derive(Default)]
struct Taken {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    // Bounded: by the constant, beyond which the oldest is given up as of unknown outcome.
    items: VecDeque<Item>,
    /// How often each path is among them.
    by_path: HashMap<Path, usize>,
    /// How many of them are errors.
    refused: usize,
    /// Since the last path that was told by its name there was an error that may stand for many, or
    /// a path was given up.
    is_unclear: bool,
}

/// What an answer says of the paths that were taken.
#[derive(Default)]
struct Settled {
    known: Option<Writing>,
    /// Of unknown outcome, as their drop says.
    unknown: Vec<Writing>,
}

impl Taken {
    /// Gives back a write that has waited for too long. Its drop is for who calls this.
    #[must_use]
    fn push(&self, item: Item) -> Option<Writing> {
        let mut state = self.state.lock();
        match &item {
            // Bounded: by one path, here and below.
            Some(writing) => {
                for path in writing.paths() {
                    *state.by_path.entry(path.clone()).or_default() += 1;
                }
            }
            None => state.refused += 1,
        }
        state.items.push_back(item);
        if state.items.len() <= TAKEN_MAX {
            return None;
        }
        state.is_unclear = true;
        state.pop().flatten()
    }

    fn settle(&self, answer: &Result<Path>) -> Settled {
        let mut state = self.state.lock();
        match answer {
            Ok(path) => state.settle_by_name(path),
            Err(error) => state.settle_error(error),
        }
    }
}

impl State {
    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        match &item {
            Some(writing) => writing.paths().iter().for_each(|path| self.uncount(path)),
            None => self.refused -= 1,
        }
        Some(item)
    }

    fn uncount(&mut self, path: &Path) {
        if let Some(count) = self.by_path.get_mut(path) {
            *count -= 1;
            if *count == 0 {
                self.by_path.remove(path);
            }
        }
    }

    fn settle_by_name(&mut self, path: &Path) -> Settled {
        let mut settled = Settled::default();
        if !self.by_path.contains_key(path) {
            return settled;
        }
        self.is_unclear = false;
        // Those before it had errors as answers. Bounded: by the items.
        while let Some(item) = self.pop() {
            if item.as_ref().is_some_and(|writing| writing.paths().contains(path)) {
                settled.known = item;
                break;
            }
            settled.unknown.extend(item);
        }
        settled
    }

    fn settle_error(&mut self, error: &Error) -> Settled {
        // While there is an error of the caller's, this may be it, before its turn.
        let is_of_first =
            matches!(error, Error::NotFound { .. }) && !self.is_unclear && self.refused == 0;
        let first = self.pop();
        self.is_unclear |= !is_of_first && !matches!(first, Some(None));
        let writing = first.flatten();
        if is_of_first {
            Settled { known: writing, unknown: Vec::new() }
        } else {
            Settled { known: None, unknown: Vec::from_iter(writing) }
        }
    }
}

/// One error may have stood for thousands: their drops are spread over many polls.
async fn give_up(writings: Vec<Writing>) {
    // Bounded: by the items.
    for (number, writing) in (1..).zip(writings) {
        drop(writing);
        if number % DROPS_IN_A_POLL == 0 {
            another_poll().await;
        }
    }
}

/// Resolves at the next poll.
async fn another_poll() {
    let mut is_next = false;
    poll_fn(|context| {
        if mem::replace(&mut is_next, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Core {
    pub(crate) fn delete_all(
        self: &Arc<Self>,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let taken = Arc::new(Taken::default());
        let (core, taking) = (Arc::clone(self), Arc::clone(&taken));
        let locations = locations.then(move |location| {
            let (core, taken) = (Arc::clone(&core), Arc::clone(&taking));
            async move {
                let item = match &location {
                    Ok(path) => Some(Writing::begin(&core, vec![path.clone()]).await),
                    Err(_) => None,
                };
                drop(taken.push(item));
                location
            }
        });
        let answers = self.inner.delete_stream(locations.boxed());
        let core = Arc::clone(self);
        let answers = answers.then(move |answer| {
            let (core, taken) = (Arc::clone(&core), Arc::clone(&taken));
            async move {
                let Settled { known, unknown } = taken.settle(&answer);
                give_up(unknown).await;
                match (known, &answer) {
                    (Some(writing), _) => writing.end(true).await,
                    // It was given up, perhaps long ago, and may have been cached since.
                    (None, Ok(path)) => {
                        Writing::begin(&core, vec![path.clone()]).await.end(true).await;
                    }
                    (None, Err(_)) => {}
                }
                answer
            }
        });
        answers.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::executor::block_on;
    use futures::future::poll_immediate;
    use tamis::{BlobCache, BlobCacheConfig};

    use super::super::CachedObjectStore;
    use super::super::object_store::memory::InMemory;
    use super::*;

    /// A path whose write has a known outcome is settled, one of unknown outcome is not.
    struct Stream {
        core: Arc<Core>,
        taken: Taken,
    }

    impl Stream {
        async fn new() -> Self {
            let cache = BlobCache::open(BlobCacheConfig::default()).await.unwrap();
            let store = CachedObjectStore::builder(Arc::new(InMemory::new()), &cache, "objects");
            let store = store.unknown_writes(Duration::from_secs(3600)).build().unwrap();
            Self { core: store.core, taken: Taken::default() }
        }

        async fn of(items: &[Option<&str>]) -> Self {
            let stream = Self::new().await;
            for item in items {
                assert!(stream.take(*item).await.is_none());
            }
            stream
        }

        /// None: the caller's error. Gives back what is given up.
        async fn take(&self, path: Option<&str>) -> Option<Writing> {
            let Some(path) = path.map(Path::from) else { return self.taken.push(None) };
            self.taken.push(Some(Writing::begin(&self.core, vec![path]).await))
        }

        /// The answer is of a path whose outcome it tells, and so many have none.
        async fn answer(&self, answer: Result<&str>) -> (bool, usize) {
            let Settled { known, unknown } = self.taken.settle(&answer.map(Path::from));
            let of = (known.is_some(), unknown.len());
            if let Some(writing) = known {
                writing.end(true).await;
            }
            of
        }

        fn is_settled(&self, path: &str) -> bool {
            !self.core.unsettled.holds(path)
        }

        fn is_empty(&self) -> bool {
            let state = self.taken.state.lock();
            state.items.is_empty() && state.by_path.is_empty() && state.refused == 0
        }
    }

    /// Between two polls others have their turn; who drops it midway has given up the rest as well.
    #[test]
    fn paths_are_given_up_in_steps() {
        block_on(async {
            for polls in [1, 2, 4] {
                let (stream, mut writings) = (Stream::new().await, Vec::new());
                for number in 0..3 * DROPS_IN_A_POLL + 1 {
                    let path = Path::from(number.to_string());
                    writings.push(Writing::begin(&stream.core, vec![path]).await);
                }
                let mut giving_up = Box::pin(give_up(writings));
                let mut has_ended = false;
                for _ in 0..polls {
                    has_ended = poll_immediate(&mut giving_up).await.is_some();
                }
                assert_eq!(has_ended, polls == 4);
                drop(giving_up);
                assert!(!stream.is_settled("0") && !stream.is_settled("192"));
                assert!(stream.is_settled("193"));
            }
        });
    }

    fn missing<T>() -> Result<T> {
        Err(Error::NotFound { path: "a path".into(), source: "there is none".into() })
    }

    fn down<T>() -> Result<T> {
        Err(Error::Generic { store: "S3", source: "it is down".into() })
    }

    #[test]
    fn an_answer_by_name_settles_its_path_and_none_before_it() {
        block_on(async {
            let stream = Stream::of(&[Some("a"), Some("b"), Some("c"), Some("b")]).await;
            assert_eq!(stream.answer(Ok("b")).await, (true, 1));
            assert!(!stream.is_settled("a") && !stream.is_settled("c"));
            assert!(!stream.is_settled("b"), "it is deleted once more");
            assert_eq!(stream.answer(Ok("never taken")).await, (false, 0));
            assert_eq!(stream.answer(Ok("a")).await, (false, 0), "its turn is over");
            assert_eq!(stream.answer(Ok("c")).await, (true, 0));
            assert_eq!(stream.answer(Ok("b")).await, (true, 0));
            assert!(stream.is_settled("b") && stream.is_settled("c") && stream.is_empty());
        });
    }

    #[test]
    fn that_there_is_none_settles_the_first_unless_an_error_stood_for_many() {
        block_on(async {
            let stream = Stream::of(&["a", "b", "c", "d", "e"].map(Some)).await;
            assert_eq!(stream.answer(missing()).await, (true, 0));
            assert!(stream.is_settled("a"));
            // It may be of `b` and `c`: then the next one is of `d`.
            assert_eq!(stream.answer(down()).await, (false, 1));
            assert_eq!(stream.answer(missing()).await, (false, 1));
            assert!(!stream.is_settled("b") && !stream.is_settled("c"));
            // The next one that is named says where the answers are.
            assert_eq!(stream.answer(Ok("d")).await, (true, 0));
            assert_eq!(stream.answer(missing()).await, (true, 0));
            assert!(stream.is_settled("e") && stream.is_empty());
            assert_eq!(stream.answer(missing()).await, (false, 0), "of nothing that was taken");
        });
    }

    /// The caller's own error, which a store may pass on before the answers of earlier paths.
    #[test]
    fn while_the_caller_has_an_error_in_the_stream_no_other_error_settles_a_path() {
        block_on(async {
            let stream = Stream::of(&[Some("a"), None, Some("b")]).await;
            // Early: `a` has not been deleted yet.
            assert_eq!(stream.answer(missing()).await, (false, 1));
            assert!(!stream.is_settled("a"));
            assert_eq!(stream.answer(Ok("a")).await, (false, 0));
            assert_eq!(stream.answer(Ok("b")).await, (true, 0));
            assert!(stream.is_settled("b") && stream.is_empty());

            // In its turn: what follows is as clear as before.
            let stream = Stream::of(&[Some("a"), None, Some("b")]).await;
            assert_eq!(stream.answer(Ok("a")).await, (true, 0));
            assert_eq!(stream.answer(missing()).await, (false, 0));
            assert_eq!(stream.answer(missing()).await, (true, 0));
            assert!(stream.is_settled("a") && stream.is_settled("b") && stream.is_empty());
        });
    }

    #[test]
    fn the_oldest_of_too_many_is_given_up() {
        block_on(async {
            let stream = Stream::new().await;
            let name = |number: usize| number.to_string();
            for number in 0..TAKEN_MAX {
                assert!(stream.take(Some(&name(number))).await.is_none(), "{number}");
            }
            drop(stream.take(Some("one more")).await.expect("the oldest"));
            assert!(!stream.is_settled("0") && !stream.is_empty());
            drop(stream.take(None).await.expect("the next"));
            assert_eq!(stream.taken.state.lock().items.len(), TAKEN_MAX);
            assert_eq!(stream.taken.state.lock().by_path.len(), TAKEN_MAX - 1);

            // What was given up is told by name or not at all.
            assert_eq!(stream.answer(missing()).await, (false, 1));
            assert_eq!(stream.answer(Ok("0")).await, (false, 0));
            assert_eq!(stream.answer(Ok("3")).await, (true, 0));
            assert!(stream.is_settled("3") && !stream.is_settled("0"));
            assert_eq!(stream.answer(Ok("one more")).await, (true, TAKEN_MAX - 4));
            assert_eq!(stream.answer(missing()).await, (false, 0), "the caller's own");
            assert!(stream.is_empty());
        });
    }
}
