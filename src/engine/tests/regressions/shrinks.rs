//! Files that become shorter while the cache is open, and what that may cost others.

use std::cell::Cell;
use std::time::Duration;

use futures::future::{join, join_all};

use crate::cache::BlobCache;
use crate::engine::tests::bench::{Bench, config, made};
use crate::io::{Disk, Fault, OperationKind};
use crate::stats::L2State;

const BLOCK: u64 = 4096;
const FRONT: u64 = 8192;

/// Where the log ends in the file.
fn end_of_log(cache: &BlobCache) -> u64 {
    let l2 = cache.engine.parts.disk.l2().unwrap();
    l2.file_offset(l2.log.tail())
}

/// Puts values until the log ends in a place behind the first five, in the given part of it.
fn fill(bench: &mut Bench, segment: u64, part: std::ops::Range<u64>) -> Vec<String> {
    let (cache, mut keys) = (bench.cache(), Vec::new());
    for number in 0..2000 {
        let data = end_of_log(&cache) - FRONT;
        if data / segment >= 5 && part.contains(&(data % segment)) {
            return keys;
        }
        let (key, value) = (number.to_string(), "v".repeat(3000));
        bench.put(&key, &value, &[]);
        keys.push(key);
    }
    panic!("the log does not end there");
}

/// Nothing behind the end of the log is read, and a header is not needed; and an idle cache changes
/// its size at once.
#[test]
fn bad_sectors_without_records_cost_an_idle_cache_that_shrinks_nothing() {
    const SEGMENT: u64 = 64 << 10;
    for seed in 0..10 {
        let mut bench = Bench::with(seed, config(64));
        let keys = fill(&mut bench, SEGMENT, 8 << 10..40 << 10);
        let cache = bench.cache();
        let end = end_of_log(&cache).next_multiple_of(BLOCK);
        let start = FRONT + (end - FRONT) / SEGMENT * SEGMENT;
        let bad = if seed % 2 == 0 { end..start + SEGMENT } else { start..start + BLOCK };
        bench.disk.plan(|plan| plan.unreadable = bad);
        let begun = bench.simulation.elapsed();
        bench.run(cache.set_l2_bytes_max(4 * SEGMENT)).unwrap();
        assert_eq!(bench.simulation.elapsed(), begun, "it has waited for something");
        assert_eq!(bench.disk.length(), FRONT + 4 * SEGMENT);
        let stats = cache.stats();
        let tries = if seed % 2 == 0 { 0 } else { 3 };
        assert_eq!((stats.l2_state(), stats.l2_io_errors()), (L2State::Healthy, tries));
        drop(cache);
        has_newest(&mut bench, &keys);
        bench.config.l2_bytes_max = 4 * SEGMENT;
        bench.kill();
        has_newest(&mut bench, &keys);
    }
}

/// One of a sealed segment costs the records that it has, and no others.
#[test]
fn a_bad_sector_of_a_sealed_segment_that_is_moved_costs_what_lies_there() {
    const SEGMENT: u64 = 64 << 10;
    for seed in 0..10 {
        let mut bench = Bench::with(seed, config(64));
        let keys = fill(&mut bench, SEGMENT, 8 << 10..40 << 10);
        let cache = bench.cache();
        let start = FRONT + (end_of_log(&cache) - FRONT) / SEGMENT * SEGMENT;
        // In the segment before that, which lies behind the new end, too.
        let bad = start - SEGMENT + 5 * BLOCK;
        bench.disk.plan(|plan| plan.unreadable = bad..bad + BLOCK);
        bench.run(cache.set_l2_bytes_max(4 * SEGMENT)).unwrap();
        assert_eq!(cache.stats().l2_state(), L2State::Healthy);
        drop(cache);
        let found = keys.iter().filter(|key| bench.get(key).is_some()).count();
        let lost = keys.iter().rev().take(found + 3).filter(|key| bench.get(key).is_none());
        assert!((1..=3).contains(&lost.count()), "seed {seed}");
        has_newest(&mut bench, &keys);
    }
}

/// It has the new size all the same: a superblock says so before the file is cut.
#[test]
fn a_file_that_cannot_be_cut_is_longer_until_the_next_open() {
    const SEGMENT: u64 = 64 << 10;
    for cuts in 0..4 {
        let fault = if cuts % 2 == 0 { Fault::NoSpace } else { Fault::Io };
        let mut bench = Bench::with(cuts, config(64));
        let keys = fill(&mut bench, SEGMENT, 8 << 10..40 << 10);
        let cache = bench.cache();
        bench.disk.fail(OperationKind::Resize, cuts, fault, true);
        bench.run(cache.set_l2_bytes_max(4 * SEGMENT)).unwrap();
        assert_eq!(bench.disk.length(), FRONT + (8 - cuts) * SEGMENT, "{cuts} cuts are made");
        let stats = cache.stats();
        assert_eq!(
            (stats.l2_state(), stats.l2_bytes_max()),
            (L2State::Healthy, FRONT + 4 * SEGMENT)
        );
        has_newest(&mut bench, &keys);
        let newest: Vec<_> = (0..60).map(|number| format!("more{number}")).collect();
        newest.iter().for_each(|key| bench.put(key, &"v".repeat(3000), &[]));
        assert!(cache.stats().l2_reclaimed_segments() > stats.l2_reclaimed_segments());
        has_newest(&mut bench, &newest);
        drop(cache);
        bench.disk.heal();
        bench.config.l2_bytes_max = 4 * SEGMENT;
        bench.kill();
        // As if an image lay there: piece by piece.
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.disk.length(), FRONT + 4 * SEGMENT, "the open cuts it");
        has_newest(&mut bench, &newest);
        let cache = bench.cache();
        bench.run(cache.set_l2_bytes_max(6 * SEGMENT)).unwrap();
        assert_eq!(bench.disk.length(), FRONT + 6 * SEGMENT);
        has_newest(&mut bench, &newest);
    }
}

fn has_newest(bench: &mut Bench, keys: &[String]) {
    for key in &keys[keys.len() - 2..] {
        assert!(bench.get(key).is_some(), "{key}");
    }
}

/// A segment that is being written is copied beside the writes, but for its last pieces.
#[test]
fn puts_do_not_wait_for_a_segment_to_be_copied() {
    const SEGMENT: u64 = 512 << 10;
    for seed in 0..4 {
        let config = crate::config::BlobCacheConfig {
            l2_bytes_max: 8 * SEGMENT,
            l2_segment_bytes: 512 << 10,
            ..config(64)
        };
        let mut bench = Bench::with(seed, config);
        let keys = fill(&mut bench, SEGMENT, 300 << 10..400 << 10);
        let (cache, disk) = (bench.cache(), bench.disk.clone());
        let from = end_of_log(&cache);
        let (mut most, mut puts) = (0, 0);
        let putting = async {
            while end_of_log(&cache) > FRONT + 4 * SEGMENT {
                let begun = disk.begun().0;
                cache.put("a", "beside", made("v", &[])).await.unwrap();
                cache.sync().await.unwrap();
                most = most.max(disk.begun().0 - begun);
                puts += 1;
            }
        };
        let setting = cache.set_l2_bytes_max(4 * SEGMENT);
        let (set, ()) = bench.simulation.block_on(join(setting, putting)).unwrap();
        set.unwrap();
        assert!(from > FRONT + 4 * SEGMENT && puts > 10, "{puts}");
        // The whole segment takes twice as many as it has pieces: 74 and more.
        assert!(most < 40, "{most} requests in one put");
        assert_eq!(bench.disk.length(), FRONT + 4 * SEGMENT);
        drop(cache);
        bench.config.l2_bytes_max = 4 * SEGMENT;
        bench.kill();
        has_newest(&mut bench, &keys);
        assert!(bench.get("beside").is_some());
    }
}

/// Its steps are taken between frames, not between segments.
#[test]
fn a_file_becomes_shorter_beside_writes_without_a_pause() {
    const SEGMENT: u64 = 512 << 10;
    let config = crate::config::BlobCacheConfig {
        l2_bytes_max: 8 * SEGMENT,
        l2_segment_bytes: 512 << 10,
        ..config(64)
    };
    for seed in 0..3 {
        let mut bench = Bench::with(seed, config.clone());
        fill(&mut bench, SEGMENT, 100 << 10..400 << 10);
        bench.disk.plan(|plan| (plan.delay_polls_min, plan.delay_polls_max) = (40, 60));
        let (cache, is_over) = (bench.cache(), Cell::new(false));
        let end = || cache.engine.parts.disk.l2().unwrap().log.tail().value();
        let begun = end();
        let writers = (0..12).map(|writer| {
            let (cache, is_over) = (&cache, &is_over);
            async move {
                // Overwrites wait until they are written, so that a frame is always ready.
                while !is_over.get() {
                    let put = made("v", &[]);
                    cache.put("a", format!("writer {writer}"), put).await.unwrap();
                }
            }
        });
        let setting = async {
            cache.set_l2_bytes_max(4 * SEGMENT).await.unwrap();
            is_over.set(true);
        };
        let both = join(setting, join_all(writers));
        bench.simulation.block_on(both).unwrap();
        let written = end() - begun;
        assert!(written < SEGMENT, "{written} bytes of others");
        assert_eq!(bench.disk.length(), FRONT + 4 * SEGMENT);
    }
}
