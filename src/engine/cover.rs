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
//! Beside another owner mutations go on while it is looked after again, since that takes patience.

use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::CacheError;
use crate::failpoint::{Failpoint, failpoint};
use crate::io::{DiskError, MarkLeft, MarkRequest, VoidMark};
use crate::waiters::Waiters;

/// How long the outcome of an attempt counts.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So often as long counts that another owner has the store, while an attempt is under way.
const IN_USE_TIMES: u32 = 3;
/// How long an attempt waits for the lock of the store: one that opens it, and fails, has it for a
/// moment, and so has a killed owner.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// Of the last attempt that decided something.
    last: Option<(Instant, Outcome)>,
    /// The last attempt that met a lock which may have been this cache's own.
    undecided: u64,
    /// Mutations have returned beside another owner, and no mark was left since.
    is_owing: bool,
    /// The process in which this cache opens the store at present: it may have the lock itself.
    reopening: Option<u32>,
    /// How often that has begun or ended.
    reopenings: u64,
}

#[derive(Clone)]
enum Outcome {
    Marked,
    /// Another owner has the store.
    InUse,
    Failed(CacheError),
}

impl State {
    fn is_under_way(&self) -> bool {
        self.begun > self.ended && self.process == process::id()
    }

    fn is_reopening(&self) -> bool {
        self.reopening == Some(process::id())
    }

    /// What a mutation is told by an outcome.
    fn told(&mut self, outcome: &Outcome) -> Result<(), CacheError> {
        match outcome {
            Outcome::Marked => {}
            Outcome::InUse => self.is_owing = true,
            Outcome::Failed(error) => return Err(error.clone()),
        }
        Ok(())
    }

    /// Begins an attempt; so many reopenings had begun by then.
    fn begin(&mut self) -> Begun {
        self.begun += 1;
        self.ended = self.begun - 1;
        self.process = process::id();
        Begun { number: self.begun, reopenings: self.reopenings }
    }
}

struct Begun {
    number: u64,
    reopenings: u64,
}

/// What a mutation has to do.
struct Step {
    /// An attempt to be made.
    begun: Option<Begun>,
    then: Then,
}

enum Then {
    Return(Result<(), CacheError>),
    /// It waits for this attempt.
    Wait(u64),
}

/// This cache opens the store, until this is dropped: the lock says nothing meanwhile.
#[must_use = "it ends when this is dropped"]
pub(crate) struct CoverReopening(Arc<Shared>);

impl Cover {
    pub(crate) fn new(mark: Arc<dyn VoidMark>) -> Self {
        Self { mark, again_after: AGAIN_AFTER, shared: Arc::default() }
    }

    /// The same, with every mutation trying again. So tests repeat.
    #[cfg(test)]
    pub(crate) fn trying_always(mark: Arc<dyn VoidMark>) -> Self {
        Self { again_after: Duration::ZERO, ..Self::new(mark) }
    }

    /// Resolves once the mutations that are in force by now are covered, or it is not `is_needed`
    /// any more: the tier has the store, which is void.
    ///
    /// # Errors
    ///
    /// `L2Io`: no mark could be left. The mutation is in force in this process.
    pub(crate) async fn covered(
        &self,
        is_needed: impl Fn() -> bool + Send + Sync,
    ) -> Result<(), CacheError> {
        if failpoint(Failpoint::VoidMarkOmitted) {
            return Ok(());
        }
        // Bounded: an attempt in each turn, which met a reopening by this cache.
        loop {
            let Step { begun, then } = self.step();
            // Bounded: one.
            begun.into_iter().for_each(|begun| self.leave(begun, PATIENCE));
            let number = match then {
                Then::Return(outcome) => return outcome,
                Then::Wait(number) => number,
            };
            let ended = || self.shared.outcome_of(number);
            let outcome = self.shared.waiters.until((), ended).await;
            if let Some(outcome) = outcome {
                return if is_needed() { outcome } else { Ok(()) };
            }
            let over = || (!self.shared.state.lock().is_reopening()).then_some(());
            self.shared.waiters.until((), over).await;
            if !is_needed() {
                return Ok(());
            }
        }
    }

    fn step(&self) -> Step {
        let mut state = self.shared.state.lock();
        let last = state.last.clone();
        let age = last.as_ref().map(|(at, _)| at.elapsed());
        let counts = |times| age.is_some_and(|age| age < self.again_after * times);
        match last {
            Some((_, outcome)) if counts(1) => {
                Step { begun: None, then: Then::Return(state.told(&outcome)) }
            }
            Some((_, Outcome::InUse)) if counts(IN_USE_TIMES) => {
                state.is_owing = true;
                let begun = (!state.is_under_way()).then(|| state.begin());
                Step { begun, then: Then::Return(Ok(())) }
            }
            _ => {
                let begun = (!state.is_under_way()).then(|| state.begin());
                Step { begun, then: Then::Wait(state.begun) }
            }
        }
    }

    fn leave(&self, begun: Begun, patience: Duration) {
        let (shared, told) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        let reopenings = begun.reopenings;
        self.mark.leave(MarkRequest {
            patience,
            // Else it may be about a store that this cache has had meanwhile, and closed.
            is_wanted: Box::new(move || shared.state.lock().reopenings == reopenings),
            done: Box::new(move |left| told.end(&begun, left)),
        });
    }

    /// Resolves once no attempt is under way. Mutations that returned beside another owner which
    /// has let go are covered then, if that is possible.
    pub(crate) async fn settle(&self) {
        let idle = || (!self.shared.state.lock().is_under_way()).then_some(());
        self.shared.waiters.until((), idle).await;
        let begun = {
            let mut state = self.shared.state.lock();
            (state.is_owing && !state.is_under_way()).then(|| state.begin())
        };
        // Bounded: one. An owner that is still there stays for longer than a close waits.
        begun.into_iter().for_each(|begun| self.leave(begun, Duration::ZERO));
        self.shared.waiters.until((), idle).await;
    }

    pub(crate) fn reopening(&self) -> CoverReopening {
        let mut state = self.shared.state.lock();
        state.reopening = Some(process::id());
        state.reopenings += 1;
        CoverReopening(Arc::clone(&self.shared))
    }
}

impl Drop for CoverReopening {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.reopening = None;
        // An attempt that began meanwhile may have met this cache's own lock, and may wait for it.
        state.reopenings += 1;
        drop(state);
        self.0.waiters.wake_all_at_once();
    }
}

impl Shared {
    /// Some once the attempt has ended; None within if it decided nothing.
    fn outcome_of(&self, number: u64) -> Option<Option<Result<(), CacheError>>> {
        let mut state = self.state.lock();
        if state.ended < number {
            return None;
        }
        if state.undecided == state.ended {
            return Some(None);
        }
        let last = state.last.clone();
        Some(last.map(|(_, outcome)| state.told(&outcome)))
    }

    fn end(&self, begun: &Begun, left: Result<MarkLeft, DiskError>) {
        {
            let mut state = self.state.lock();
            let is_ours = state.is_reopening() || state.reopenings != begun.reopenings;
            let outcome = match left {
                Ok(MarkLeft::Durably) => Some(Outcome::Marked),
                Ok(MarkLeft::InUse) => Some(Outcome::InUse).filter(|_| !is_ours),
                Err(error) => Some(Outcome::Failed(not_left(error))),
            };
            state.ended = state.ended.max(begun.number);
            match outcome {
                None => state.undecided = state.ended,
                Some(outcome) => {
                    state.is_owing &= !matches!(outcome, Outcome::Marked);
                    state.last = Some((Instant::now(), outcome));
                }
            }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;

    use super::*;

    /// Keeps what it is asked for.
    #[derive(Default)]
    struct Slow {
        waiting: Mutex<Vec<MarkRequest>>,
        asked: AtomicUsize,
    }

    impl VoidMark for Slow {
        fn leave(&self, request: MarkRequest) {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.waiting.lock().push(request);
        }

        fn remove(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Slow {
        fn answer(&self, left: Result<MarkLeft, DiskError>) {
            let request = self.waiting.lock().pop().expect("asked");
            (request.done)(left);
        }

        fn is_wanted(&self) -> bool {
            (self.waiting.lock().last().expect("asked").is_wanted)()
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
        let (mut first, mut second) =
            (Box::pin(cover.covered(|| true)), Box::pin(cover.covered(|| true)));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::Durably));
        assert_eq!((first.now_or_never(), second.now_or_never()), (Some(Ok(())), Some(Ok(()))));
        assert_eq!(cover.covered(|| true).now_or_never(), Some(Ok(())));
        assert_eq!(mark.asked(), 1);
    }

    #[test]
    fn an_outcome_is_told_and_counts_for_a_while() {
        let (mark, mut cover) = cover();
        let mut first = Box::pin(cover.covered(|| true));
        assert!((&mut first).now_or_never().is_none());
        mark.answer(Err(DiskError::Unavailable { reason: "planned".to_owned() }));
        let told = first.now_or_never().expect("ended").expect_err("no mark");
        assert!(matches!(told, CacheError::L2Io { .. }) && told.to_string().contains("planned"));
        assert_eq!(cover.covered(|| true).now_or_never(), Some(Err(told)));
        assert_eq!(mark.asked(), 1);
        cover.again_after = Duration::ZERO;
        let mut second = Box::pin(cover.covered(|| true));
        assert!((&mut second).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::Durably));
        assert_eq!(second.now_or_never(), Some(Ok(())));
        assert_eq!(mark.asked(), 2);
        // Another process may have removed it since.
        assert!(cover.covered(|| true).now_or_never().is_none());
        assert_eq!(mark.asked(), 3);
    }

    #[test]
    fn a_lock_that_may_be_its_own_decides_nothing_and_mutations_ask_again() {
        for (before, after) in [(true, true), (false, true), (true, false)] {
            let (mark, cover) = cover();
            let mut reopening = before.then(|| cover.reopening());
            let mut mutation = Box::pin(cover.covered(|| true));
            assert!((&mut mutation).now_or_never().is_none());
            if !after {
                reopening = None;
                drop(cover.reopening());
            } else if !before {
                reopening = Some(cover.reopening());
            }
            mark.answer(Ok(MarkLeft::InUse));
            assert!((&mut mutation).now_or_never().is_none(), "{before} {after}");
            drop(reopening);
            assert!((&mut mutation).now_or_never().is_none());
            assert_eq!(mark.asked(), 2, "{before} {after}");
            mark.answer(Ok(MarkLeft::Durably));
            assert_eq!(mutation.now_or_never(), Some(Ok(())));
        }
    }

    /// The store that it was asked for may have been this cache's own since, and be closed again.
    #[test]
    fn a_mark_is_not_wanted_behind_a_reopening_that_began_before_it_or_since() {
        for is_during in [true, false] {
            let (mark, cover) = cover();
            let reopening = is_during.then(|| cover.reopening());
            let mut mutation = Box::pin(cover.covered(|| true));
            assert!((&mut mutation).now_or_never().is_none());
            assert!(mark.is_wanted());
            drop(reopening.unwrap_or_else(|| cover.reopening()));
            assert!(!mark.is_wanted(), "{is_during}");
            mark.answer(Ok(MarkLeft::InUse));
            // It has decided nothing: another one is asked for.
            assert!((&mut mutation).now_or_never().is_none());
            assert!(mark.is_wanted() && mark.asked() == 2);
        }
    }

    /// Its outcome is not known yet to this waiter when a reopening begins.
    #[test]
    fn an_outcome_is_told_though_a_reopening_begins() {
        let (mark, cover) = cover();
        let mut mutation = Box::pin(cover.covered(|| true));
        assert!((&mut mutation).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::InUse));
        let _reopening = cover.reopening();
        assert_eq!(mutation.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn a_mutation_that_waits_is_covered_by_the_tier_that_has_taken_the_store() {
        let (mark, cover) = cover();
        let is_missing = std::sync::atomic::AtomicBool::new(true);
        let mut mutation = Box::pin(cover.covered(|| is_missing.load(Ordering::Relaxed)));
        let reopening = cover.reopening();
        assert!((&mut mutation).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::InUse));
        drop(cover.reopening());
        is_missing.store(false, Ordering::Relaxed);
        drop(reopening);
        assert_eq!(mutation.now_or_never(), Some(Ok(())));
        assert_eq!(mark.asked(), 1);
    }

    #[test]
    fn mutations_beside_an_owner_wait_once_and_a_close_covers_what_they_owe() {
        let (mark, mut cover) = cover();
        cover.settle().now_or_never().expect("nothing is owed");
        let mut first = Box::pin(cover.covered(|| true));
        assert!((&mut first).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::InUse));
        assert_eq!(first.now_or_never(), Some(Ok(())));
        // Old by now, and not too old.
        let at = Instant::now().checked_sub(Duration::from_secs(20)).expect("the machine is up");
        cover.shared.state.lock().last = Some((at, Outcome::InUse));
        cover.again_after = Duration::from_secs(10);
        for _ in 0..3 {
            assert_eq!(cover.covered(|| true).now_or_never(), Some(Ok(())), "it goes on");
        }
        assert_eq!(mark.asked(), 2, "and is looked after");
        let mut settling = Box::pin(cover.settle());
        assert!((&mut settling).now_or_never().is_none());
        mark.answer(Ok(MarkLeft::InUse));
        assert!((&mut settling).now_or_never().is_none());
        assert_eq!(mark.asked(), 3, "once more, at the end");
        mark.answer(Ok(MarkLeft::Durably));
        assert_eq!(settling.now_or_never(), Some(()));
        cover.settle().now_or_never().expect("nothing is owed any more");
    }

    #[test]
    fn a_forked_child_waits_for_no_thread_of_its_parent() {
        let (mark, cover) = cover();
        assert!(cover.covered(|| true).now_or_never().is_none());
        cover.shared.state.lock().process = 0;
        assert!(cover.covered(|| true).now_or_never().is_none());
        assert_eq!(mark.asked(), 2, "it asks by itself");
    }
}
