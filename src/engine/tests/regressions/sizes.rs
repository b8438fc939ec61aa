//! Sizes that an open cache cannot have, and budgets beside puts under way.

use std::pin::pin;

use futures::FutureExt;
use futures::executor::block_on;

use crate::cache::BlobCache;
use crate::engine::tests::bench::{Bench, config};
use crate::error::CacheError;
use crate::io::{Disk, Fault, OperationKind};
use crate::l1::Room;
use crate::put::BlobCachePut;
use crate::stats::L2State;

/// One file is as long as its segments, the other has something left behind them.
#[test]
fn a_larger_file_that_the_system_refuses_leaves_the_disk_tier_as_it_is() {
    let length_of = |segments: u64| 8192 + segments * (64 << 10);
    for fault in [Fault::Io, Fault::NoSpace, Fault::TooLarge] {
        for (left, calls) in [(0, 1), (4096, 3)] {
            for call in 0..calls {
                let mut bench = Bench::with(7, config(64));
                for key in 0..20 {
                    bench.put(&format!("{key}"), "value", &[]);
                }
                bench.run(bench.disk.resize(length_of(8) + left)).unwrap();
                bench.disk.fail(OperationKind::Resize, call, fault, false);
                let cache = bench.cache();
                let told = bench.run(cache.set_l2_bytes_max(16 << 16));
                let case = format!("{fault:?}, call {call} of {calls}: {told:?}");
                match told.unwrap_err() {
                    CacheError::L2Full { size, max, .. } => {
                        assert!(fault == Fault::NoSpace && size > max, "{case}");
                    }
                    CacheError::L2Io { context, .. } => {
                        assert!(fault != Fault::NoSpace && context.contains("longer"), "{case}");
                    }
                    _ => panic!("{case}"),
                }
                let stats = cache.stats();
                assert_eq!((stats.l2_state(), stats.l2_restarts()), (L2State::Healthy, 0));
                assert_eq!(stats.l2_bytes_max(), length_of(8), "{case}");
                assert!(call == 1 || bench.disk.length() <= length_of(8) + left, "{case}");
                for key in 0..20 {
                    assert!(bench.get(&format!("{key}")).is_some(), "{case}");
                }
                bench.put("more", "value", &[]);
                bench.run(cache.set_l2_bytes_max(16 << 16)).unwrap();
                assert_eq!(bench.disk.length(), length_of(16), "{case}");
                drop(cache);
                bench.config.l2_bytes_max = 16 << 16;
                bench.kill();
                for key in 0..20 {
                    assert!(bench.get(&format!("{key}")).is_some(), "{case}");
                }
            }
        }
    }
}

#[test]
fn a_smaller_memory_waits_for_puts_that_have_reserved_room_in_the_larger_one() {
    let mut bench = Bench::with(7, crate::BlobCacheConfig { l1_bytes_max: 1 << 20, ..config(64) });
    let cache = bench.cache();
    let l1 = &cache.engine.parts.l1;
    let room = Room { bytes: 100 << 10, spare: 0 };
    let reservation = l1.reserve(room, None).unwrap();
    let mut smaller = pin!(cache.set_l1_bytes_max(64 << 10));
    for _ in 0..10 {
        assert!(smaller.as_mut().now_or_never().is_none(), "its entry may come yet");
    }
    drop(reservation);
    bench.run(smaller).unwrap();
    assert!(l1.reserve(room, None).is_err());
}

/// The copy of a long value takes several polls. Asleep between them, a put keeps no room that a
/// smaller memory has to wait for, nor that others have to give way for.
#[test]
fn a_smaller_memory_does_not_wait_for_long_puts_that_sleep() {
    let l1_bytes_max = 64 << 20;
    let config = crate::BlobCacheConfig { l1_bytes_max, ..crate::BlobCacheConfig::default() };
    let cache = block_on(BlobCache::open(config)).unwrap();
    for key in 0..100u32 {
        block_on(cache.put("a", key.to_le_bytes(), vec![1; 1000])).unwrap();
    }
    let long = bytes::Bytes::from(vec![7; 6 << 20]);
    let mut asleep = pin!(cache.put("a", "long", BlobCachePut::new(long.slice(1..))));
    assert!(asleep.as_mut().now_or_never().is_none(), "it is copied in steps");
    let mut smaller = pin!(cache.set_l1_bytes_max(4 << 20));
    let ended = (0..100).find(|_| smaller.as_mut().now_or_never().is_some());
    assert!(ended.is_some(), "it waits for a call that is not polled");
    assert_eq!(cache.stats().evictions(), 0, "all of it has room");
    block_on(asleep).unwrap();
    assert!(cache.stats().l1().bytes_in_use() <= 4 << 20);
}
