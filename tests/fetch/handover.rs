//! Leaders that are dropped, fail or panic, and joiners that are dropped at the worst moment.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::executor::block_on;
use tamis::{BlobCachePut, FetchError};

use crate::{
    Answer, Call, Outcome, Ready, Told, briefly, call, clock, counted, joined, leading, never,
    open, open_at, told, value,
};

/// How a leader ends without an outcome for others.
#[derive(Debug, Clone, Copy)]
enum End {
    Dropped,
    Panicked,
}

const ENDS: [End; 2] = [End::Dropped, End::Panicked];

/// A call whose fetch answers or panics when the test says so.
fn leader_that(cache: &tamis::BlobCache, end: End) -> (Call<Outcome>, impl FnOnce(Call<Outcome>)) {
    let (tell, fetch) = told();
    let fetching = move || async move {
        let answer = fetch().await;
        assert!(!matches!(end, End::Panicked), "on purpose");
        answer
    };
    let mut leader = call(cache, fetching);
    assert!(leader.run().is_none());
    let finish = move |mut leader: Call<Outcome>| match end {
        End::Dropped => drop(leader),
        End::Panicked => {
            tell.send(Ok("unused".into())).unwrap();
            assert!(matches!(leader.run().unwrap(), Err(FetchError::Panicked)));
        }
    };
    (leader, finish)
}

#[test]
fn the_next_caller_leads_with_its_own_fetch() {
    for end in ENDS {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        let (leader, finish) = leader_that(&cache, end);
        let mut joiners: Vec<_> = (0..5)
            .map(|_| call(&cache, counted(&calls, Ok(BlobCachePut::from("value")))))
            .collect();
        assert!(joiners.iter_mut().all(|joiner| joiner.run().is_none()));
        finish(leader);
        assert_eq!(joiners.iter().filter(|joiner| joiner.is_woken()).count(), 1, "{end:?}");
        assert!(joiners[0].is_woken(), "the caller that has waited longest");
        for joiner in &mut joiners {
            assert_eq!(value(&joiner.run().unwrap()), b"value", "{end:?}");
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{end:?}");
    }
}

#[test]
fn a_joiner_dropped_as_leader_passes_the_lead_on() {
    for end in ENDS {
        for dropped in 1..5 {
            let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
            let (leader, finish) = leader_that(&cache, end);
            let mut joiners: Vec<_> = (0..5)
                .map(|_| call(&cache, counted(&calls, Ok(BlobCachePut::from("value")))))
                .collect();
            assert!(joiners.iter_mut().all(|joiner| joiner.run().is_none()));
            finish(leader);
            for _ in 0..dropped {
                let woken = joiners.iter().position(Call::is_woken).expect("one has the lead");
                drop(joiners.remove(woken));
            }
            let woken = joiners.iter().position(Call::is_woken).expect("it is passed on");
            assert_eq!(value(&joiners[woken].run().unwrap()), b"value");
        }
    }
}

#[test]
fn an_unclaimed_lead_goes_to_the_next_caller() {
    for end in ENDS {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        let (leader, finish) = leader_that(&cache, end);
        let mut joiner = joined(&cache);
        finish(leader);
        // It was woken and is not polled; no caller waits for it.
        let mut newcomer = call(&cache, counted(&calls, Ok("value".into())));
        assert_eq!(value(&newcomer.run().unwrap()), b"value", "{end:?}");
        assert_eq!(value(&joiner.run().unwrap()), b"value", "{end:?}");
    }
}

#[test]
fn a_panic_when_the_fetch_is_called_is_a_panic_of_the_fetch() {
    let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
    let fetch = || -> std::future::Ready<Answer> { panic!("on purpose") };
    let outcome = call(&cache, fetch).run().unwrap();
    assert!(matches!(outcome, Err(FetchError::Panicked)));
    assert_eq!(outcome.unwrap_err().to_string(), "the fetch panicked");
    let mut next = call(&cache, counted(&calls, Ok("value".into())));
    assert_eq!(value(&next.run().unwrap()), b"value");
    assert_eq!((cache.stats().fetches(), cache.stats().fetch_errors()), (2, 1));
}

#[test]
fn a_fetch_that_panics_in_its_drop_transfers_the_lead() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("on purpose");
            }
        }
    }
    let cache = open();
    let (tell, fetch) = told();
    let mut leader = call(&cache, move || async move {
        let _bomb = Bomb;
        fetch().await
    });
    assert!(leader.run().is_none());
    let mut joiner = call(&cache, || async { Answer::Ok("value".into()) });
    assert!(joiner.run().is_none());
    drop(leader);
    assert!(joiner.is_woken());
    assert_eq!(value(&joiner.run().unwrap()), b"value");
    drop(tell);
}

/// Not one after the other.
#[test]
fn all_that_have_joined_share_an_error_and_it_is_not_cached() {
    let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
    let (mut leader, tell) = leading(&cache);
    let mut joiners: Vec<_> = (0..200).map(|_| call(&cache, counted(&calls, Err("own")))).collect();
    assert!(joiners.iter_mut().all(|joiner| joiner.run().is_none()));
    tell.send(Err("down")).unwrap();
    let failed = |outcome| match outcome {
        Err(FetchError::Fetch(error)) => *error,
        other => panic!("{other:?}"),
    };
    let first = leader.run().unwrap();
    assert_eq!(failed(first), "down");
    for joiner in &mut joiners {
        assert_eq!(failed(joiner.run().unwrap()), "down");
    }
    let stats = cache.stats();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!((stats.fetches(), stats.fetch_errors(), stats.flights_joined()), (1, 1, 200));
    assert_eq!((stats.entries(), stats.flights_under_way()), (0, 0));
    let fetch = || async { Answer::Ok("value".into()) };
    assert_eq!(value(&block_on(cache.get_or_fetch("n", "key", fetch))), b"value");
}

#[test]
fn a_joiner_polled_late_prefers_a_value_to_an_error() {
    let cache = open();
    let (mut leader, tell) = leading(&cache);
    let mut joiner = joined(&cache);
    tell.send(Err("down")).unwrap();
    assert!(leader.run().unwrap().is_err());
    block_on(cache.put("n", "key", "put")).unwrap();
    assert_eq!(value(&joiner.run().unwrap()), b"put");
}

/// The owner of the error may panic in its drop.
#[test]
fn a_shared_error_that_panics_in_its_drop_reaches_all_of_them() {
    let cache = open();
    let (tell, told) = futures::channel::oneshot::channel::<()>();
    let calls = Arc::new(AtomicUsize::new(0));
    let ask = |told: Option<futures::channel::oneshot::Receiver<()>>| {
        let (cache, calls) = (cache.clone(), Arc::clone(&calls));
        Call::new(async move {
            let fetch = || async move {
                calls.fetch_add(1, Ordering::Relaxed);
                told.unwrap().await.unwrap();
                Err::<BlobCachePut, _>(Bomb(true))
            };
            match cache.get_or_fetch("n", "key", fetch).await {
                Err(FetchError::Fetch(error)) => {
                    let others = Arc::strong_count(&error) - 1;
                    std::mem::forget(error);
                    others
                }
                other => panic!("{:?}", other.map(|_| ()).is_ok()),
            }
        })
    };
    let mut leader = ask(Some(told));
    assert!(leader.run().is_none());
    let mut joiner = ask(None);
    assert!(joiner.run().is_none());
    tell.send(()).unwrap();
    assert!(leader.run().is_some() && joiner.run().is_some());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn errors_keep_their_source_and_can_be_cloned() {
    let cache = open();
    let fetch = || async { Err::<BlobCachePut, _>(std::io::Error::other("no route")) };
    let error = block_on(cache.get_or_fetch("n", "key", fetch)).unwrap_err().clone();
    assert_eq!(error.to_string(), "the fetch failed: no route");
    let error = error.with_sources();
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<std::io::Error>());
}

#[test]
fn dropped_callers_leave_nothing_to_wait_for() {
    let cache = open();
    let (leader, _tell) = leading(&cache);
    let joiners: Vec<_> = (0..10).map(|_| joined(&cache)).collect();
    drop(leader);
    drop(joiners);
    let (mut leader, tell) = leading(&cache);
    let joiner = joined(&cache);
    drop(joiner);
    tell.send(Ok("value".into())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"value");
}

#[test]
fn a_leader_dropped_while_it_stores_passes_its_value_on() {
    // Copied in many batches, so there are many polls at which to drop it.
    let large = || BlobCachePut::copy_from_slice(&vec![7; 2 << 20]);
    let roomy = || BlobCachePut::new(bytes::Bytes::from(vec![7; 2 << 20]));
    for polls in 1..14 {
        let (cache, calls) = (open(), Arc::new(AtomicUsize::new(0)));
        let (mut leader, tell) = leading(&cache);
        let mut joiner = call(&cache, counted(&calls, Ok(large())));
        assert!(joiner.run().is_none());
        tell.send(Ok(roomy())).unwrap();
        let done = (0..polls).find_map(|_| leader.poll());
        drop(leader);
        assert_eq!(value(&joiner.run().unwrap()).len(), 2 << 20);
        let stored = cache.stats().insertions();
        assert_eq!(stored, 1, "{polls} polls");
        assert!(done.is_none() || calls.load(Ordering::Relaxed) == 0);
    }
}

/// Panics when it is dropped, once it is armed.
struct Bomb(bool);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            resume_unwind(Box::new("as planned"));
        }
    }
}

/// A fetch that panics when it is dropped after it has answered.
struct Nasty(Told, Bomb);

impl Future for Nasty {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let answer = ready!(pin!(&mut self.0).poll(context));
        self.1.0 = true;
        Poll::Ready(answer)
    }
}

#[test]
fn a_fetch_that_panics_in_its_drop_after_its_answer_has_succeeded() {
    for answer in [Ok(BlobCachePut::from("old")), Err("down")] {
        let (cache, calls) = (open(), Arc::default());
        let (tell, fetch) = told();
        let mut leader = call(&cache, || Nasty(fetch(), Bomb(false)));
        assert!(leader.poll().is_none());
        let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
        assert!(joiner.poll().is_none());
        let is_good = answer.is_ok();
        tell.send(answer).unwrap();
        assert_eq!(leader.run().unwrap().is_ok(), is_good);
        let outcome = joiner.run().unwrap();
        assert_eq!(outcome.is_ok(), is_good);
        assert!(!is_good || value(&outcome) == b"old");
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        assert_eq!(cache.stats().flights_under_way(), 0);
    }
}

/// The call has its answer already, which such a panic must not lose.
#[test]
fn a_fetch_that_is_not_needed_may_panic_in_its_drop() {
    let clock = clock();
    let cache = open_at(&clock);
    let unneeded = || {
        let bomb = Bomb(true);
        move || {
            let _ = &bomb;
            never()
        }
    };
    block_on(cache.put("n", "key", BlobCachePut::new("old").with_policy(briefly()))).unwrap();
    let hit = block_on(cache.get_or_fetch("n", "key", unneeded())).unwrap();
    assert_eq!(hit.value(), b"old");
    let (hit, refresh) = block_on(cache.get_or_refresh("n", "key", unneeded())).unwrap();
    assert!(hit.value() == b"old" && refresh.is_none());
    clock.advance(Duration::from_secs(11));
    let (_, first) = block_on(cache.get_or_refresh("n", "key", never)).unwrap();
    let (hit, second) = block_on(cache.get_or_refresh("n", "key", unneeded())).unwrap();
    assert!(hit.is_stale() && first.is_some() && second.is_none());
}

#[test]
fn a_panic_payload_may_itself_panic_in_its_drop() {
    let (cache, calls) = (open(), Arc::default());
    let mut leader = call(&cache, || -> Ready { resume_unwind(Box::new(Bomb(true))) });
    assert!(matches!(leader.run(), Some(Err(FetchError::Panicked))));
    let (tell, fetch) = told();
    let mut leader = call(&cache, || async {
        let answer = fetch().await;
        if answer.is_err() {
            resume_unwind(Box::new(Bomb(true)));
        }
        answer
    });
    assert!(leader.poll().is_none());
    let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
    assert!(joiner.poll().is_none());
    tell.send(Err("down")).unwrap();
    assert!(matches!(leader.run(), Some(Err(FetchError::Panicked))));
    assert_eq!(value(&joiner.run().unwrap()), b"new");
    assert_eq!(cache.stats().flights_under_way(), 0);
}
