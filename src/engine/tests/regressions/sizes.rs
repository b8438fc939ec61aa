//! Budgets that change beside puts under way.

use std::pin::pin;

use futures::FutureExt;

use crate::engine::tests::bench::{Bench, config};
use crate::l1::Room;

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
