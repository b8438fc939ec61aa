//! `Cover`: sees to it that no later process finds in a store what a cache has changed that could
//! not open it.
//!
//! Nobody knows what such a store holds, so every mutation may be over something in it. Before one
//! returns, a mark is left durably beside the store: its next open begins empty. A store that
//! another owner has is left alone: the mutations are this cache's own then, and of that owner's
//! store they say nothing.
//!
//! An attempt is made on a thread of its own and tells its outcome there, so that it depends on no
//! caller. The outcome counts for a second: within that, mutations wait for nothing. After that
//! another process may have opened the store, which removes the mark, and have filled it again.

use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{DiskError, MarkLeft, VoidMark};
use crate::waiters::Waiters;

/// How long the outcome of an attempt counts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct Cover {
    mark: Arc<dyn VoidMark>,
    again_after: Duration,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    waiters: Waiters,
}

#[derive(Default)]
struct State {
    begun: u64,
    ended: u64,
    /// That began the last attempt. A forked child has a copy of this, and not of the thread.
    process: u32,
    /// Of the last attempt.
    last: Option<(Instant, Result<(), CacheError>)>,
    /// This cache itself may have the lock of the store at present.
    is_reopening: bool,
    /// How often that has begun.
    reopenings: u64,
}

impl State {
    fn is_under_way(&self) -> bool {
        self.begun > self.ended && self.process == process::id()
    }
}

/// What a mutation has to do.
enum Step {
    Return(Result<(), CacheError>),
    /// It waits for an attempt that is under way.
    Wait(u64),
    /// It begins one; so many reopenings had begun by then.
    Begin(u64, u64),
}

impl Cover {
    pub(crate) fn new(mark: Arc<dyn VoidMark>) -> Self {
        Self { mark, again_after: AGAIN_AFTER, shared: Arc::default() }
    }

    /// The same, with every mutation trying again. So tests repeat.
    #[cfg(test)]
    pub(crate) fn trying_always(mark: Arc<dyn VoidMark>) -> Self {
        Self { again_after: Duration::ZERO, ..Self::new(mark) }
    }

    /// Resolves once the mutations that are in force by now are covered.
    ///
    /// # Errors
    ///
    /// `L2Io`: no mark could be left. The mutation is in force in this process.
    pub(crate) async fn covered(&self) -> Result<(), CacheError> {
        if failpoint(Failpoint::VoidMarkOmitted) {
            return Ok(());
        }
        let number = match self.step() {
            Step::Return(outcome) => return outcome,
            Step::Wait(number) => number,
            Step::Begin(number, reopenings) => {
                let shared = Arc::clone(&self.shared);
                self.mark.leave(Box::new(move |left| shared.end(number, reopenings, left)));
                number
            }
        };
        self.shared.waiters.until((), || self.shared.outcome_of(number)).await
    }

    fn step(&self) -> Step {
        let mut state = self.shared.state.lock();
        if state.is_under_way() {
            return Step::Wait(state.begun);
        }
        match &state.last {
            Some((at, outcome)) if at.elapsed() < self.again_after => {
                return Step::Return(outcome.clone());
            }
            _ => {}
        }
        state.begun += 1;
        state.ended = state.begun - 1;
        state.process = process::id();
        Step::Begin(state.begun, state.reopenings)
    }

    /// The mark is gone, and later mutations need another one.
    pub(crate) fn uncover(&self) {
        self.shared.state.lock().last = None;
    }

    /// The store is being opened by this cache, or no more: its lock says nothing meanwhile.
    pub(crate) fn set_reopening(&self, is_reopening: bool) {
        let mut state = self.shared.state.lock();
        state.is_reopening = is_reopening;
        state.reopenings += u64::from(is_reopening);
        state.last = None;
    }
}

impl Shared {
    fn outcome_of(&self, number: u64) -> Option<Result<(), CacheError>> {
        let state = self.state.lock();
        let is_over = state.ended >= number;
        let last = || state.last.as_ref().map_or(Err(undecided()), |(_, outcome)| outcome.clone());
        is_over.then(last)
    }

    fn end(&self, number: u64, reopenings: u64, left: Result<MarkLeft, DiskError>) {
        {
            let mut state = self.state.lock();
            let is_ours = state.is_reopening || state.reopenings != reopenings;
            let outcome = match left {
                Ok(MarkLeft::Durably) => Ok(()),
                Ok(MarkLeft::InUse) if is_ours => Err(undecided()),
                Ok(MarkLeft::InUse) => Ok(()),
                Err(error) => Err(not_left(error)),
            };
            state.ended = state.ended.max(number);
            state.last = Some((Instant::now(), outcome));
        }
        self.waiters.wake_all_at_once();
    }
}

fn not_left(error: DiskError) -> CacheError {
    let context = format!("no mark could be left that the store is void ({error})");
    let source = match error {
        DiskError::Io { source, .. } => source,
        other => std::io::Error::other(other.to_string()),
    };
    CacheError::L2Io { context, source: source.into() }
}

fn undecided() -> CacheError {
    let context = "no mark can be left while the disk tier is being reopened".to_owned();
    CacheError::L2Io { context, source: std::io::Error::other("try again").into() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;
    use crate::io::MarkDone;

    /// Keeps what it has to call.
    #[derive(Default)]
    struct Slow {
        waiting: Mutex<Vec<MarkDone>>,
        asked: AtomicUsize,
    }

    impl VoidMark for Slow {
        fn leave(&self, done: MarkDone) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.waiting.lock().push(done);
        }

        fn remove(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Slow {
        fn answer(&self, left: Result<MarkLeft, DiskError>) {
            let done = self.waiting.lock().pop().expect("asked");
            done(left);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    fn cover() -> (Arc<Slow>, Cover) {
        let mark = Arc::<Slow>::default();
        let dynamic: Arc<dyn VoidMark> = Arc::<Slow>::clone(&mark);
        // Longer than a test takes on a busy machine.
        (mark, Cover { again_after: Duration::from_secs(3600), ..Cover::new(dynamic) })
    }

    #[test]
    fn many_mutations_wait_for_one_mark_and_later_ones_for_none() {
        let (mark, cover) = cover();
        let (mut first, mut second) = (Box::pin(cover.covered()), Box::pin(cover.covered()));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::Durably));
        assert_eq!((first.now_or_never(), second.now_or_never()), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(cover.covered().now_or_never(), Some(Ok(())));
        assert_eq!(mark.asked(), 1);
    }

    #[test]
    fn an_outcome_is_told_and_counts_for_a_while() {
        let (mark, mut cover) = cover();
        let mut first = Box::pin(cover.covered());
        assert!((&mut first).now_or_never().is_none());
        mark.answer(Err(DiskError::Unavailable { reason: "planned".to_owned() }));
        let told = first.now_or_never().expect("ended").expect_err("no mark");
        assert!(matches!(told, CacheError::L2Io { .. }) && told.to_string().contains("planned"));
        assert_eq!(cover.covered().now_or_never(), Some(Err(told)));
        assert_eq!(mark.asked(), 1);
        cover.again_after = Duration::ZERO;
        let mut second = Box::pin(cover.covered());
        assert!((&mut second).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::Durably));
        assert_eq!(second.now_or_never(), Some(Ok(())));
        assert_eq!(mark.asked(), 2);
        // Another process may have removed it since.
        assert!(cover.covered().now_or_never().is_none());
        assert_eq!(mark.asked(), 3);
    }

    #[test]
    fn another_owner_of_the_store_is_told_from_this_cache_that_reopens_it() {
        for (before, after, is_other) in
            [(false, false, true), (true, true, false), (false, true, false), (true, false, false)]
        {
            let (mark, cover) = cover();
            cover.set_reopening(before);
            let mut mutation = Box::pin(cover.covered());
            assert!((&mut mutation).now_or_never().is_none());
            if before != after {
                cover.set_reopening(after);
            }
            if before && !after {
                // It reopens again meanwhile.
                cover.set_reopening(true);
                cover.set_reopening(false);
            }
            mark.answer(Ok(MarkLeft::InUse));
            let told = mutation.now_or_never().expect("ended");
            assert_eq!(told.is_ok(), is_other, "{before} {after}");
        }
    }

    #[test]
    fn a_mark_that_is_gone_is_left_again() {
        let (mark, cover) = cover();
        for asked in 1..4 {
            let mut mutation = Box::pin(cover.covered());
            assert!((&mut mutation).now_or_never().is_none());
            mark.answer(Ok(MarkLeft::Durably));
            assert_eq!(mutation.now_or_never(), Some(Ok(())));
            assert_eq!(cover.covered().now_or_never(), Some(Ok(())));
            assert_eq!(mark.asked(), asked);
            cover.uncover();
        }
    }

    #[test]
    fn a_forked_child_waits_for_no_thread_of_its_parent() {
        let (mark, cover) = cover();
        assert!(cover.covered().now_or_never().is_none());
        cover.shared.state.lock().process = 0;
        assert!(cover.covered().now_or_never().is_none());
        assert_eq!(mark.asked(), 2, "it asks by itself");
    }
}
