//! Gets of many keys: reads go on while memory is asked, and no poll hashes more than a batch.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::bench::{Bench, config, made};
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES};
use crate::meter::measured;

/// Values on disk, fewer than are read at one time.
const ON_DISK: usize = 20;

/// Of keys in memory behind them: so many polls.
const BATCHES: usize = 60;

#[test]
fn reads_begin_before_all_of_memory_was_asked() {
    let mut bench = Bench::with(1, config(64));
    let cache = bench.cache();
    let keys: Vec<String> = (0..ON_DISK).map(|it| it.to_string()).collect();
    for key in &keys {
        bench.run(cache.put("a", key, made(key, &[]))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    bench.run(cache.put("a", "held", "in memory")).unwrap();
    let before = cache.stats().l2_reads();
    let others = std::iter::repeat_n("held", BATCHES * BATCH_ENTRIES);
    let asked: Vec<&str> = keys.iter().map(String::as_str).chain(others).collect();
    let mut call = pin!(cache.get_many("a", &asked));
    let mut context = Context::from_waker(Waker::noop());
    let (is_pending, work) = measured(|| call.as_mut().poll(&mut context).is_pending());
    assert!(is_pending && work.entries <= BATCH_ENTRIES + ON_DISK, "{}", work.entries);
    // The simulated disk has a request wait for some polls.
    for _ in 0..BATCHES - 2 {
        bench.pass(Duration::from_millis(1));
        assert!(call.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(cache.stats().l2_reads() - before, ON_DISK as u64);
    let found = bench.run(call);
    assert!(found.iter().all(Option::is_some));
    assert_eq!(found[3].as_ref().unwrap().value(), b"3");
}

#[test]
fn no_poll_hashes_more_than_a_batch_of_keys() {
    let bench = Bench::with(2, config(64));
    let cache = bench.cache();
    for length in [1000, 4096, 60_000, 65_535, 65_536] {
        let keys: Vec<Vec<u8>> = (0..300_u16)
            .map(|number| [&number.to_be_bytes()[..], &vec![7; length - 2]].concat())
            .collect();
        let mut call = pin!(cache.get_many("a", &keys));
        let mut context = Context::from_waker(Waker::noop());
        let mut polls = 0;
        loop {
            let (answer, work) = measured(|| call.as_mut().poll(&mut context));
            polls += 1;
            assert!(work.bytes <= BATCH_BYTES, "{length}: {}", work.bytes);
            if let Poll::Ready(found) = answer {
                assert!(found.len() == keys.len() && found.iter().all(Option::is_none));
                break;
            }
        }
        let hashed = if length > 65_535 { 0 } else { length * keys.len() };
        assert!(polls >= (hashed / BATCH_BYTES).max(2), "{length}: {polls} polls");
    }
}
