//! A close and the next open that fail, or end at any moment.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures::FutureExt;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::bench::{Bench, made, opening, opening_as};
use super::{assert_goes_on, config, segments_end, state, worked};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::Identity;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Disk, Fault, OperationKind, Simulation};

/// A call that was dropped has left an invalidation that is not carried out yet.
fn closed_amid_an_invalidation(seed: u64) -> bool {
    let mut bench = Bench::with(seed, config());
    for number in 0..60 {
        bench.put(&format!("p/{number}"), "value", &["t"]);
    }
    let cache = bench.cache();
    let mut invalidation = Box::pin(cache.invalidate_prefix("a", "p/"));
    assert!((&mut invalidation).now_or_never().is_none());
    drop(invalidation);
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
    (0..60).any(|number| bench.get(&format!("p/{number}")).is_some())
}

#[test]
fn there_is_none_amid_an_invalidation() {
    assert!(!(0..10).any(closed_amid_an_invalidation), "stale");
    let _planted = plant(Failpoint::ImageBeforeInvalidations);
    assert!((0..10).any(closed_amid_an_invalidation), "the bug is not found");
}

/// A full or failing file system leaves a clean close, with an image or without.
#[test]
fn a_close_that_cannot_write_it_is_clean() {
    let mut without = 0;
    for (kind, fault) in [
        (OperationKind::Resize, Fault::NoSpace),
        (OperationKind::Resize, Fault::Io),
        (OperationKind::Write, Fault::NoSpace),
        (OperationKind::Write, Fault::Io),
    ] {
        for after in 0..12 {
            let mut random = StdRng::seed_from_u64(after);
            let mut bench = worked(&mut random, &config(), 400);
            bench.run(bench.cache.clone().sync()).unwrap();
            let before = state(&bench.cache);
            bench.disk.fail(kind, after, fault, false);
            bench.run(bench.cache.clone().close()).unwrap();
            bench.disk.heal();
            without += u64::from(bench.disk.length() == segments_end(&config()));
            bench.reopen();
            assert_goes_on(&before, &bench.cache, &format!("{kind:?} {after}"));
            assert_eq!(bench.cache.stats().recovery_dropped(), 0);
        }
    }
    assert!(without >= 10, "{without}");
}

/// The store is closed before its image is begun: a reboot amid it empties no store.
#[test]
fn a_machine_that_ends_amid_an_image_finds_a_closed_store() {
    let (mut by_image, mut by_directories) = (0, 0);
    for seed in 0..40_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = worked(&mut random, &config(), 200);
        bench.run(bench.cache.clone().sync()).unwrap();
        let before = state(&bench.cache);
        let (cache, disk) = (bench.cache(), bench.disk.clone());
        let (mut closing, mut more) = (pin!(cache.close()), random.random_range(0..40));
        bench.run(poll_fn(|context| {
            context.waker().wake_by_ref();
            more -= i32::from(disk.length() > segments_end(&config()));
            let closed = closing.as_mut().poll(context);
            if closed.is_ready() || more < 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        bench.simulation.kill();
        let disk = bench.disk.crash();
        let mut simulation = Simulation::new(seed);
        let opened = opening_as(&simulation, &disk, &bench.config, (1, Identity::of(0)));
        let cache = BlobCache { engine: simulation.block_on(opened).unwrap().unwrap() };
        assert_goes_on(&before, &cache, &format!("seed {seed}"));
        let is_from_image = cache.stats().recovery_from_image();
        by_image += u32::from(is_from_image);
        by_directories += u32::from(!is_from_image);
    }
    assert!(by_image > 0 && by_directories > 5, "{by_image} {by_directories}");
}

/// The process or the machine ends at any moment of a close, or of the open after it.
#[test]
fn a_close_and_an_open_may_end_at_any_moment() {
    let (mut by_image, mut by_directories, mut empty) = (0, 0, 0);
    for seed in 0..400_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut bench = worked(&mut random, &config(), 60);
        if random.random_bool(0.5) {
            // An image is there already, and cut off.
            bench.run(bench.cache.clone().close()).unwrap();
            bench.reopen();
            bench.put("another", "value", &["t"]);
        }
        bench.run(bench.cache.clone().sync()).unwrap();
        let before = state(&bench.cache);
        let cache = bench.cache();
        let is_closed = random.random_bool(0.5);
        let polls = if is_closed { u32::MAX } else { random.random_range(0..120) };
        bench.run(for_polls(cache.close(), polls));
        drop(cache);
        if is_closed {
            let opening = opening(&bench.simulation, &bench.disk, &bench.config);
            drop(bench.run(for_polls(opening, random.random_range(0..120))));
        }
        bench.simulation.kill();
        let is_crash = random.random_bool(0.5);
        bench.disk = if is_crash { bench.disk.crash() } else { bench.disk.kill() };
        let mut simulation = Simulation::new(seed);
        let boot = (u8::from(is_crash), Identity::of(0));
        let opened = opening_as(&simulation, &bench.disk, &bench.config, boot);
        let cache = BlobCache { engine: simulation.block_on(opened).unwrap().unwrap() };
        let found = state(&cache);
        match cache.stats().recovery_from_image() {
            true => by_image += 1,
            false if found.is_empty() => empty += 1,
            false => by_directories += 1,
        }
        // Process mode: after a reboot nothing or all of it.
        if !(is_crash && found.is_empty()) {
            assert_goes_on(&before, &cache, &format!("seed {seed}"));
        }
    }
    println!("{by_image} by image, {by_directories} by directories, {empty} empty");
    assert!(by_image > 20 && by_directories > 40 && empty > 20, "too few of some");
}

async fn for_polls<T>(future: impl Future<Output = T>, mut polls: u32) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        // It is polled whether it was woken or not.
        context.waker().wake_by_ref();
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[test]
fn on_a_real_file() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = folder.path().join("data");
    let config = || {
        let builder = BlobCacheConfig::builder().l2_path(folder.path()).l2_bytes_max(8 << 20);
        builder.l2_segment_bytes(1 << 20).build().unwrap()
    };
    let segments = segments_end(&config());
    for round in 0..3_u64 {
        let cache = block_on(BlobCache::open(config())).unwrap();
        assert_eq!(cache.stats().recovery_from_image(), round > 0);
        for number in 0..2000 * round {
            assert!(block_on(cache.get("a", format!("{number}"))).is_some());
        }
        for number in 2000 * round..2000 * (round + 1) {
            block_on(cache.put("a", format!("{number}"), made("value", &["t"]))).unwrap();
        }
        block_on(cache.sync()).unwrap();
        assert_eq!(path.metadata().unwrap().len(), segments, "cut off");
        block_on(cache.close()).unwrap();
        assert!(path.metadata().unwrap().len() > segments);
    }
    // Without its image it opens as well.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(segments).unwrap();
    let cache = block_on(BlobCache::open(config())).unwrap();
    assert!(!cache.stats().recovery_from_image());
    assert_eq!(cache.stats().recovery_records(), 6000);
    assert_eq!(block_on(cache.invalidate_tags("a", &["t"])), Ok(6000));
}
