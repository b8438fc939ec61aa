//! Typed fetches: who fetches, who is given what, and what is stored.

use std::cell::Cell;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures::executor::block_on;
use futures::future::join_all;
use tamis::{
    BlobCache, BlobCachePolicy, BlobCachePut, BlobCacheStats, CacheTier, FetchError, L1Admission,
    Plain, TypedHit, TypedPut,
};

use crate::codecs::{Manner, Numbers};
use crate::{clock, disk, numbers, open, seconds, value};

/// Not ready for so many polls.
async fn wait(polls: usize) {
    let left = Cell::new(polls);
    std::future::poll_fn(|context| {
        if left.get() == 0 {
            return Poll::Ready(());
        }
        left.set(left.get() - 1);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The answers of so many callers that ask at one time, and how many of them fetched.
fn ask(
    cache: &BlobCache,
    numbers: &tamis::TypedNamespace<u64, Numbers>,
    callers: u64,
) -> (Vec<Option<u64>>, u64) {
    let before = cache.stats().fetches();
    let calls = (0..callers).map(|caller| {
        numbers.get_or_fetch("k", move || async move {
            wait(3).await;
            Ok::<_, Error>(caller)
        })
    });
    let answers = block_on(join_all(calls));
    let answers = answers.into_iter().map(|answer| answer.unwrap().into_value()).collect();
    (answers, cache.stats().fetches() - before)
}

/// The answer that one fetch has given to all of many callers. The caller whose read from disk is
/// back first fetches.
fn answer_of_one(cache: &BlobCache, numbers: &tamis::TypedNamespace<u64, Numbers>) -> Option<u64> {
    let (answers, fetches) = ask(cache, numbers, 20);
    assert!(answers[0].is_some() && answers == [answers[0]; 20], "{answers:?}");
    assert_eq!(fetches, 1);
    answers[0]
}

#[test]
fn one_fetch_serves_all_callers() {
    let (cache, numbers) = numbers();
    assert_eq!(ask(&cache, &numbers, 20), (vec![Some(0); 20], 1));
    assert_eq!(ask(&cache, &numbers, 20), (vec![Some(0); 20], 0));
    assert_eq!(cache.stats().flights_joined(), 19);
    let stats = cache.stats();
    assert_eq!((stats.misses(), stats.hits(), stats.values_undecoded()), (20, 20, 0));
}

/// In memory and on disk; even with the version of the value that replaces it.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn what_does_not_decode_is_fetched_once_and_overwritten() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    for admission in [L1Admission::Auto, L1Admission::Never] {
        let name = admission.to_string();
        let policy = BlobCachePolicy::default().version(7).l1_admission(admission);
        let numbers = cache.namespace(&name).with_policy(policy.clone());
        let numbers = numbers.typed::<u64, _>(Numbers::default());
        let old = || BlobCachePut::new("of an older release").with_policy(policy.clone());
        block_on(cache.put(&name, "k", old())).unwrap();
        let before = cache.stats();
        let answer = answer_of_one(&cache, &numbers);
        let after = cache.stats();
        assert_eq!(after.values_undecoded() - before.values_undecoded(), 20);
        assert_eq!(after.misses() - before.misses(), 20);
        let counted = |stats: &BlobCacheStats| (stats.hits(), stats.version_mismatches());
        assert_eq!(counted(&after), counted(&before));
        assert_eq!(after.fetches_not_stored(), before.fetches_not_stored());
        assert_eq!(value(block_on(numbers.get("k"))), answer);
        // A put by hand has to be above it, and a newer version is not overwritten.
        let newer = policy.clone().version(8);
        let newer = BlobCachePut::new("of a newer release").with_policy(newer);
        block_on(cache.put(&name, "k", newer)).unwrap();
        assert!(block_on(numbers.put("k", 1)).is_err());
        let (answers, _) = ask(&cache, &numbers, 1);
        assert_eq!(answers, [Some(0)]);
        let stored = block_on(cache.get(&name, "k")).unwrap();
        assert_eq!(stored.value(), b"of a newer release");
        assert_eq!(cache.stats().fetches_not_stored(), before.fetches_not_stored() + 1);
        block_on(numbers.invalidate_key("k")).unwrap();
        let stats = cache.stats();
        assert_eq!(stats.version_mismatches(), before.version_mismatches() + 2);
        return_to_zero(&cache, &name);
    }
    block_on(cache.close()).unwrap();
    let cache = disk(folder.path());
    block_on(cache.put("below", "k", "no number")).unwrap();
    block_on(cache.close()).unwrap();
    // After a restart, from disk.
    let cache = disk(folder.path());
    let numbers = cache.namespace("below").typed::<u64, _>(Numbers::default());
    let answer = answer_of_one(&cache, &numbers);
    assert_eq!(value(block_on(numbers.get("k"))), answer);
    block_on(cache.close()).unwrap();
}

fn return_to_zero(cache: &BlobCache, name: &str) {
    assert!(block_on(cache.get(name, "k")).is_none());
    assert_eq!(cache.stats().flights_under_way(), 0);
}

/// Each caller is given what it has fetched itself; none waits for another twice.
#[test]
fn a_value_that_cannot_be_encoded_goes_to_its_caller_alone() {
    for manner in [Manner::Fails, Manner::Panics, Manner::FailsBadly] {
        let cache = open(&clock());
        block_on(cache.put("n", "k", "no number")).unwrap();
        let numbers = cache.namespace("n").typed::<u64, _>(Numbers::encoding(manner));
        let (answers, fetches) = ask(&cache, &numbers, 10);
        assert_eq!((answers, fetches), ((0..10).map(Some).collect(), 10));
        let stats = cache.stats();
        assert_eq!((stats.fetches_not_stored(), stats.fetch_errors()), (10, 0));
        assert_eq!((stats.insertions(), stats.flights_under_way()), (1, 0));
        assert_eq!(block_on(cache.get("n", "k")).unwrap().value(), b"no number");
    }
}

/// The freshly stored bytes do not decode either.
#[test]
fn a_codec_that_cannot_read_what_it_writes_ends_every_call() {
    for manner in [Manner::Fails, Manner::Panics, Manner::FailsBadly] {
        let cache = open(&clock());
        let numbers = cache.namespace("n").typed::<u64, _>(Numbers::decoding(manner));
        for _ in 0..3 {
            let (answers, fetches) = ask(&cache, &numbers, 10);
            assert_eq!((answers, fetches), ((0..10).map(Some).collect(), 10));
        }
        assert!(block_on(numbers.get("k")).is_none());
        assert!(cache.stats().values_undecoded() >= 30);
        assert_eq!(cache.stats().flights_under_way(), 0);
    }
}

/// They do not share fetches, and each overwrites what the other has stored.
#[test]
fn callers_of_two_types_are_given_their_own() {
    let (cache, numbers) = numbers();
    let texts = cache.namespace("n").typed::<String, _>(Plain);
    let calls = block_on(async {
        let number = numbers.get_or_fetch("k", || async {
            wait(3).await;
            Ok::<_, Error>(0x00ff_ffff_ffff_ffff)
        });
        let text = texts.get_or_fetch("k", || async {
            wait(3).await;
            Ok::<_, Error>(String::from("text"))
        });
        let bytes = cache.get_or_fetch("n", "k", || async {
            wait(3).await;
            Ok::<_, Error>(BlobCachePut::new("bytes"))
        });
        futures::join!(number, text, bytes)
    });
    assert_eq!(calls.0.unwrap().into_value(), Some(0x00ff_ffff_ffff_ffff));
    assert_eq!(calls.1.unwrap().into_value().as_deref(), Some("text"));
    assert_eq!(calls.2.unwrap().value(), b"bytes");
    assert_eq!((cache.stats().fetches(), cache.stats().flights_joined()), (3, 0));
    block_on(numbers.invalidate_key("k")).unwrap();
    for turn in 0..3 {
        let number = 0x00ff_ffff_ffff_fff0 + turn;
        let found = block_on(numbers.get_or_fetch("k", || async { Ok::<_, Error>(number) }));
        assert_eq!(found.unwrap().into_value(), Some(number));
        let text = || async { Ok::<_, Error>(turn.to_string()) };
        let found = block_on(texts.get_or_fetch("k", text)).unwrap();
        assert_eq!(found.into_value(), Some(turn.to_string()));
    }
}

#[test]
fn a_fetch_may_bring_an_absence_or_labels() {
    let (cache, numbers) = numbers();
    let none = block_on(numbers.get_or_fetch("none", || async { Ok::<_, Error>(None) })).unwrap();
    assert!(none.is_absent() && none.tier() == CacheTier::Fetched);
    let again = || async { panic!("it is cached") };
    let again = numbers.get_or_fetch::<_, _, _, u64, Error>("none", again);
    assert!(block_on(again).unwrap().is_absent());
    let tagged = || async { Ok::<_, Error>(TypedPut::new(3).with_tags(["t"])) };
    assert_eq!(block_on(numbers.get_or_fetch("k", tagged)).unwrap().value(), Some(&3));
    assert_eq!(block_on(numbers.invalidate_tags(&["t"])), Ok(1));
    let error = || async { Err::<u64, _>(Error::from(ErrorKind::TimedOut)) };
    match block_on(numbers.get_or_fetch("k", error)) {
        Err(FetchError::Fetch(error)) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        other => panic!("{other:?}"),
    }
    assert_eq!(cache.stats().values_undecoded(), 0);
}

#[test]
fn a_stale_value_is_answered_and_refreshed() {
    let clock = clock();
    let cache = open(&clock);
    let policy = BlobCachePolicy::default().ttl(seconds(10)).stale_serve(seconds(100));
    let numbers = cache.namespace("n").with_policy(policy).typed::<u64, _>(Numbers::default());
    let fetch = |number: u64| move || async move { Ok::<_, Error>(number) };
    let (first, none) = block_on(numbers.get_or_refresh("k", fetch(1))).unwrap();
    assert!(first.value() == Some(&1) && none.is_none());
    clock.advance(seconds(20));
    let (stale, refresh) = block_on(numbers.get_or_refresh("k", fetch(2))).unwrap();
    assert!(stale.is_stale() && stale.value() == Some(&1));
    let (also, none) = block_on(numbers.get_or_refresh("k", fetch(3))).unwrap();
    assert!(also.is_stale() && none.is_none());
    let refresh = refresh.unwrap();
    assert_eq!(format!("{refresh:?}"), "TypedRefresh { .. }");
    let renewed = std::thread::spawn(move || block_on(refresh).unwrap()).join().unwrap();
    assert_eq!(renewed.into_value(), Some(2));
    assert_eq!(value(block_on(numbers.get("k"))), Some(2));
    // What is stale and does not decode is no answer, and no consolation.
    block_on(cache.namespace("n").put("k", stale_soon("no number"))).unwrap();
    clock.advance(seconds(20));
    let error = || async { Err::<u64, _>(Error::other("the origin is down")) };
    let failed = block_on(numbers.get_or_fetch("k", error));
    assert!(matches!(failed, Err(FetchError::Fetch(_))), "{failed:?}");
    let failed = block_on(numbers.get_or_refresh("k", error));
    assert!(matches!(failed, Err(FetchError::Fetch(_))), "{failed:?}");
    let (found, none) = block_on(numbers.get_or_refresh("k", fetch(4))).unwrap();
    assert!(found.value() == Some(&4) && none.is_none() && !found.is_stale());
    // What is stale and decodes is.
    clock.advance(seconds(20));
    let stale = block_on(numbers.get_or_fetch("k", error)).unwrap();
    assert!(stale.is_stale() && stale.value() == Some(&4));
    assert_eq!(cache.stats().values_undecoded(), 3);
}

fn stale_soon(value: &'static str) -> BlobCachePut {
    let policy = BlobCachePolicy::default().ttl(seconds(10)).stale_serve(seconds(100));
    BlobCachePut::new(value).with_policy(policy)
}

/// A value that was fetched before its key was invalidated is not stored.
#[test]
fn a_fetch_is_as_old_as_its_beginning() {
    let (cache, numbers) = numbers();
    let fetched = block_on(numbers.get_or_fetch("k", || async {
        cache.invalidate_key("n", "k").await.unwrap();
        Ok::<_, Error>(1)
    }));
    assert_eq!(fetched.unwrap().into_value(), Some(1));
    assert!(block_on(numbers.get("k")).is_none());
}

/// Dropped after any number of polls, a call leaves the key to others.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn a_dropped_call_holds_nothing() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let cache = disk(folder.path());
    let numbers = cache.namespace("n").typed::<u64, _>(Numbers::default());
    for old in [None, Some("no number")] {
        for polls in 0..12 {
            block_on(numbers.invalidate_key("k")).unwrap();
            if let Some(old) = old {
                block_on(cache.put("n", "k", old)).unwrap();
            }
            let fetch = |number: u64| {
                move || async move {
                    wait(4).await;
                    Ok::<_, Error>(number)
                }
            };
            let (mut first, mut joined) = (
                Box::pin(numbers.get_or_fetch("k", fetch(1))),
                Box::pin(numbers.get_or_fetch("k", fetch(2))),
            );
            let mut context = Context::from_waker(Waker::noop());
            let mut is_over = false;
            for _ in 0..polls {
                is_over = is_over || first.as_mut().poll(&mut context).is_ready();
                if !is_over {
                    assert!(joined.as_mut().poll(&mut context).is_pending());
                }
            }
            drop(first);
            let answer = value(Some(block_on(joined).unwrap()));
            assert!(answer == Some(1) || answer == Some(2), "{answer:?}");
            let put = pin!(numbers.put("k", 3)).poll(&mut context);
            assert!(put.is_pending() || matches!(put, Poll::Ready(Ok(()))));
            assert_eq!(cache.stats().flights_under_way(), 0);
        }
    }
    block_on(cache.close()).unwrap();
}

/// Compiles only for what may be spawned.
fn may_be_spawned<F: Future + Send + 'static>(_: Option<F>) {}

#[test]
fn a_refresh_may_be_spawned_if_its_fetch_may() {
    let (_cache, numbers) = numbers();
    let key = String::from("k");
    let fetch = || async { Ok::<_, Error>(1) };
    let found: (TypedHit<u64>, _) = block_on(numbers.get_or_refresh(key.as_str(), fetch)).unwrap();
    may_be_spawned(found.1);
    let shared = std::rc::Rc::new(2);
    let bound = || async move { Ok::<_, Error>(*shared) };
    let found = block_on(numbers.get_or_refresh("bound to its thread", bound)).unwrap();
    assert_eq!(found.0.value(), Some(&2));
}
