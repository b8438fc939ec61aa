//! Callers that are kept and not polled: leaders at every stage, and woken joiners.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, L1Admission};

use crate::{
    Answer, Call, Outcome, briefly, call, clock, counted, joined, leading, never, open, told, value,
};

/// Far longer than anything here takes.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Waits for a condition, for as long as a minute.
fn until(what: &str, mut has_happened: impl FnMut() -> bool) {
    let started = Instant::now();
    while !has_happened() {
        assert!(started.elapsed() < TOO_LONG, "{what} has not happened");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Polls all calls when they are woken, until all have ended.
fn all_of(mut calls: Vec<Call<Outcome>>) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    until("the end of all calls", || {
        calls.retain_mut(|call| {
            let outcome = if call.is_woken() { call.poll() } else { None };
            let is_over = outcome.is_some();
            outcomes.extend(outcome);
            !is_over
        });
        calls.is_empty()
    });
    outcomes
}

fn joining(cache: &BlobCache, calls: &Arc<AtomicUsize>, put: &'static str) -> Call<Outcome> {
    let mut joiner = call(cache, counted(calls, Ok(put.into())));
    assert!(joiner.run().is_none(), "another caller is fetching");
    joiner
}

#[test]
fn a_woken_unpolled_leader_is_replaced() {
    let (cache, calls) = (open(), Arc::default());
    let (mut leader, tell) = leading(&cache);
    let joiners: Vec<_> = (0..5).map(|_| joining(&cache, &calls, "new")).collect();
    tell.send(Ok("old".into())).unwrap();
    assert!(leader.is_woken());
    for outcome in all_of(joiners) {
        assert_eq!(value(&outcome), b"new");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "one of them has led");
    assert_eq!(cache.stats().flights_under_way(), 0);
    // It continues with its own value, which no other caller gets.
    assert_eq!(value(&leader.run().unwrap()), b"old");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new");
    assert_eq!((cache.stats().fetches(), cache.stats().fetches_not_stored()), (2, 0));
}

#[test]
fn a_caller_that_joins_a_long_sleeping_leader_does_not_wait() {
    let (cache, calls) = (open(), Arc::default());
    let (leader, tell) = leading(&cache);
    tell.send(Ok("old".into())).unwrap();
    assert!(leader.is_woken());
    let joiner = joining(&cache, &calls, "new");
    assert_eq!(value(&all_of(vec![joiner])[0]), b"new");
    drop(leader);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn a_leader_polled_late_returns_its_own_value_and_completes_no_flight() {
    let (cache, calls) = (open(), Arc::default());
    let (mut leader, tell) = leading(&cache);
    let mut joiner = joining(&cache, &calls, "its own");
    tell.send(Ok("old".into())).unwrap();
    until("the lead is taken", || joiner.is_woken());
    // The lead is void, though no other caller has taken it yet.
    assert_eq!(value(&leader.run().unwrap()), b"old");
    assert_eq!(cache.stats().flights_under_way(), 1);
    // It looks again, and finds the value that the late leader has stored.
    assert_eq!(value(&joiner.run().unwrap()), b"old");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

#[test]
fn a_sleeping_leaders_value_is_not_given_after_an_overwrite() {
    let (cache, calls) = (open(), Arc::default());
    let (mut leader, tell) = leading(&cache);
    let early = joining(&cache, &calls, "unused");
    tell.send(Ok("old".into())).unwrap();
    block_on(cache.invalidate_key("n", "key")).unwrap();
    let late = joining(&cache, &calls, "unused");
    block_on(cache.put("n", "key", BlobCachePut::new("newest"))).unwrap();
    for outcome in all_of(vec![early, late]) {
        assert_eq!(value(&outcome), b"newest");
    }
    assert_eq!(value(&leader.run().unwrap()), b"old");
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"newest");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_leader_whose_fetch_waits_keeps_the_lead() {
    let cache = open();
    let (mut leader, tell) = leading(&cache);
    let mut joiner = joined(&cache);
    thread::sleep(Duration::from_millis(500));
    assert!(!joiner.is_woken());
    // A leader that is polled in time keeps the lead, too.
    tell.send(Ok("value".into())).unwrap();
    assert_eq!(value(&leader.run().unwrap()), b"value");
    assert_eq!(value(&joiner.run().unwrap()), b"value");
}

#[test]
fn a_leader_that_sleeps_while_it_stores_is_replaced() {
    let (cache, calls) = (open(), Arc::default());
    let (mut leader, tell) = leading(&cache);
    let joiner = joining(&cache, &calls, "new");
    // Copied in many batches.
    tell.send(Ok(BlobCachePut::new(Bytes::from(vec![7; 2 << 20])))).unwrap();
    assert!(leader.poll().is_none() && leader.is_woken());
    assert_eq!(value(&all_of(vec![joiner])[0]), b"new");
    assert_eq!(value(&leader.run().unwrap()).len(), 2 << 20);
    assert_eq!(block_on(cache.get("n", "key")).unwrap().value(), b"new");
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn a_leader_that_sleeps_in_a_disk_lookup_is_replaced() {
    // On a busy machine the device may answer before a poll ends; then it does not sleep.
    assert!((0..100).any(|_| sleeps_in_a_disk_lookup_and_is_replaced()), "no lookup was slow");
}

/// False if the leader did not have to wait for the disk.
fn sleeps_in_a_disk_lookup_and_is_replaced() -> bool {
    let (folder, clock) = (tempfile::tempdir().unwrap(), clock());
    let config = BlobCacheConfig::builder()
        .l2_path(folder.path())
        .l2_bytes_max(16 << 20)
        .l2_segment_bytes(1 << 20)
        .clock(clock.clone())
        .build()
        .unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    let policy = briefly().l1_admission(L1Admission::Never);
    block_on(cache.put("n", "key", BlobCachePut::new("stale").with_policy(policy))).unwrap();
    block_on(cache.sync()).unwrap();
    clock.advance(Duration::from_secs(10));
    // It finds a stale entry, leads, and looks again because of a mutation meanwhile.
    let led = Arc::default();
    let mut leader = call(&cache, counted(&led, Ok("led".into())));
    if leader.poll().is_some() {
        return false;
    }
    until("the look", || leader.is_woken());
    block_on(cache.put("n", "other", "value")).unwrap();
    if leader.poll().is_some() {
        return false;
    }
    assert_eq!(cache.stats().flights_under_way(), 1);
    until("the second look", || leader.is_woken());
    let calls = Arc::default();
    let mut joiner = call(&cache, counted(&calls, Ok("new".into())));
    assert!(joiner.poll().is_none());
    assert_eq!(value(&all_of(vec![joiner])[0]), b"new");
    // It has not begun to fetch, and no longer needs to.
    assert_eq!(value(&all_of(vec![leader])[0]), b"new");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(led.load(Ordering::Relaxed), 0);
    block_on(cache.close()).unwrap();
    true
}

#[test]
fn joiners_that_sleep_as_new_leaders_are_replaced() {
    let (cache, calls) = (open(), Arc::default());
    let (leader, _tell) = leading(&cache);
    let sleepers: Vec<_> = (0..300).map(|_| joined(&cache)).collect();
    let last = joining(&cache, &calls, "value");
    drop(leader);
    assert_eq!(sleepers.iter().filter(|sleeper| sleeper.is_woken()).count(), 1);
    assert_eq!(value(&all_of(vec![last])[0]), b"value");
    for outcome in all_of(sleepers) {
        assert_eq!(value(&outcome), b"value");
    }
    assert_eq!(cache.stats().flights_under_way(), 0);
}

/// A future that counts its wakes.
struct Counted {
    call: Call<Outcome>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counted {
    fn joined(cache: &BlobCache) -> Self {
        let mut this = Self { call: call(cache, never), wakes: Arc::default() };
        assert!(this.poll().is_none());
        this
    }

    fn poll(&mut self) -> Option<Outcome> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        match self.call.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::Relaxed)
    }
}

#[test]
fn many_joiners_are_woken_once_each_however_the_leader_ends() {
    for how in ["asleep", "dropped", "polled"] {
        let cache = open();
        let (mut leader, tell) = leading(&cache);
        let mut herd: Vec<_> = (0..16_000).map(|_| Counted::joined(&cache)).collect();
        tell.send(Ok("value".into())).unwrap();
        assert!(leader.poll().is_none(), "it wakes some in each poll");
        let woken = herd.iter().filter(|joiner| joiner.wakes() > 0).count();
        assert!((1..=256).contains(&woken), "{woken} in one poll");
        let mut leader = Some(leader);
        match how {
            "asleep" => {}
            "dropped" => leader = None,
            _ => assert_eq!(value(&leader.as_mut().unwrap().run().unwrap()), b"value"),
        }
        until("all are woken", || herd.iter().all(|joiner| joiner.wakes() > 0));
        for joiner in &mut herd {
            assert_eq!(joiner.wakes(), 1, "{how}");
            assert_eq!(value(&joiner.poll().unwrap()), b"value");
        }
        drop(leader);
    }
}

/// A waker that panics in every operation.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("a waker"));
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("a waker that is dropped"));
    }
}

/// Joins with one waker that panics when it is woken, and one that panics in its drop.
fn joined_with_bombs(cache: &BlobCache) -> Call<Outcome> {
    let mut joiner = call(cache, || async { Answer::Ok("of a bomb".into()) });
    for _ in 0..2 {
        let waker = Waker::from(Arc::new(Bomb));
        assert!(joiner.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        // The flight drops its own copy.
        std::mem::forget(waker);
    }
    joiner
}

#[test]
fn panicking_wakers_do_not_affect_other_callers() {
    for lands in [true, false] {
        let (cache, calls) = (open(), Arc::default());
        let (mut leader, tell) = leading(&cache);
        let bombs: Vec<_> = (0..3).map(|_| joined_with_bombs(&cache)).collect();
        let joiner = joining(&cache, &calls, "its own");
        if lands {
            tell.send(Ok("value".into())).unwrap();
            assert_eq!(value(&leader.run().unwrap()), b"value");
        } else {
            drop(leader);
        }
        let expected = if lands { &b"value"[..] } else { b"its own" };
        assert_eq!(value(&all_of(vec![joiner])[0]), expected);
        drop(bombs);
        assert_eq!(cache.stats().flights_under_way(), 0);
    }
}

/// A fetch that never answers, and panics in its drop.
struct Nasty;

impl Drop for Nasty {
    fn drop(&mut self) {
        resume_unwind(Box::new("a fetch that is dropped"));
    }
}

#[test]
fn a_panicking_fetch_transfers_the_lead_despite_panicking_wakers() {
    let (cache, calls) = (open(), Arc::default());
    let mut leader = call(&cache, || async {
        let _nasty = Nasty;
        std::future::pending::<Answer>().await
    });
    assert!(leader.run().is_none());
    let bomb = joined_with_bombs(&cache);
    let joiner = joining(&cache, &calls, "value");
    drop(leader);
    assert_eq!(value(&all_of(vec![joiner])[0]), b"value");
    drop(bomb);
    assert_eq!(cache.stats().flights_under_way(), 0);
}

/// A blob whose last drop panics.
struct NastyBytes;

impl AsRef<[u8]> for NastyBytes {
    fn as_ref(&self) -> &[u8] {
        b"nasty"
    }
}

impl Drop for NastyBytes {
    fn drop(&mut self) {
        resume_unwind(Box::new("bytes that are dropped"));
    }
}

#[test]
fn a_blob_that_panics_in_its_drop_delays_no_caller() {
    // Not stored, so that all share it without a copy.
    for sleeps in [false, true] {
        let (cache, calls) = (open(), Arc::default());
        let (tell, fetch) = told();
        let mut leader = call(&cache, fetch);
        assert!(leader.run().is_none());
        let mut gone = joined(&cache);
        let joiner = joining(&cache, &calls, "its own");
        let policy = BlobCachePolicy::default().max_blob_bytes(1);
        let put = BlobCachePut::new(Bytes::from_owner(NastyBytes)).with_policy(policy);
        tell.send(Ok(put)).unwrap();
        if sleeps {
            assert_eq!(value(&all_of(vec![joiner])[0]), b"its own");
            std::mem::forget(leader.run());
        } else {
            std::mem::forget(leader.run());
            std::mem::forget(all_of(vec![joiner]));
        }
        std::mem::forget(gone.run());
        assert_eq!(cache.stats().flights_under_way(), 0);
    }
}
