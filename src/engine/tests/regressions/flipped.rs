//! One bit that flips on the way from the device, in any read of a move or of an open: what was
//! acknowledged stays as it is.

use futures::future::join;

use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::tests::bench::{Bench, config, made};
use crate::failpoint::{Failpoint, plant};
use crate::io::{Fault, OperationKind};
use crate::modes::CrashSafety;

const SEGMENT: u64 = 64 << 10;

/// A store whose last segment is half full, and ends with a removal and a value in one frame.
fn filled(seed: u64) -> Bench {
    let crash_safety = if seed % 2 == 0 { CrashSafety::Process } else { CrashSafety::Power };
    let config = BlobCacheConfig { crash_safety, ..config(64) };
    let mut bench = Bench::with(seed, config);
    bench.put("k", "old", &[]);
    for number in 0..95 {
        bench.put(&number.to_string(), &"v".repeat(3000), &[]);
    }
    let cache = bench.cache();
    let (removed, put) = bench.run(join(
        cache.invalidate_key("a", "k"),
        cache.put("a", "beside", made(&"v".repeat(3000), &[])),
    ));
    assert_eq!(removed.unwrap(), 1);
    put.unwrap();
    bench
}

/// Tells what is wrong.
fn check(bench: &mut Bench) -> Result<(), String> {
    if bench.get("k").is_some() {
        return Err("a removed entry is back".to_owned());
    }
    let newest = (80..95).map(|number| number.to_string()).chain(["beside".to_owned()]);
    let missing: Vec<_> = newest.filter(|key| bench.get(key).is_none()).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
}

fn flip(bench: &Bench, read: u64) {
    bench.disk.fail(OperationKind::Read, read, Fault::BitFlip, false);
}

/// The last segment is moved while that read flips, and the process killed.
fn moved(seed: u64, read: u64) -> Result<(), String> {
    let mut bench = filled(seed);
    let segments = |cache: &BlobCache| cache.engine.parts.disk.l2().unwrap().log.head_segment();
    let (cache, begun) = (bench.cache(), segments(&bench.cache()));
    flip(&bench, read);
    bench.run(cache.set_l2_bytes_max(4 * SEGMENT)).unwrap();
    assert!(segments(&cache) > begun, "nothing has left");
    bench.disk.heal();
    drop(cache);
    bench.config.l2_bytes_max = 4 * SEGMENT;
    bench.kill();
    check(&mut bench).map_err(|what| format!("seed {seed}, read {read} of a move: {what}"))
}

/// The process is killed, and that read of the next open flips.
fn opened(seed: u64, read: u64) -> Result<(), String> {
    let mut bench = filled(seed);
    bench.simulation.kill();
    bench.disk = bench.disk.kill();
    flip(&bench, read);
    bench.reopen();
    bench.disk.heal();
    check(&mut bench).map_err(|what| format!("seed {seed}, read {read} of an open: {what}"))
}

/// The same with frames that cross the window through which an open reads them.
fn opened_wide(seed: u64, read: u64) -> Result<(), String> {
    let config = BlobCacheConfig { l2_segment_bytes: 2 << 20, l2_bytes_max: 8 << 20, ..config(64) };
    let mut bench = Bench::with(seed, config);
    let keys: Vec<_> = (0..7).map(|number| number.to_string()).collect();
    keys.iter().for_each(|key| bench.put(key, &"v".repeat(230_000), &[]));
    bench.simulation.kill();
    bench.disk = bench.disk.kill();
    flip(&bench, read);
    bench.reopen();
    bench.disk.heal();
    match keys.iter().find(|key| bench.get(key).is_none()) {
        Some(key) => Err(format!("seed {seed}, read {read} of an open: {key} is missing")),
        None => Ok(()),
    }
}

fn each(of: impl Fn(u64, u64) -> Result<(), String>, reads: u64) -> Result<(), String> {
    (0..12).try_for_each(|seed| (0..reads).try_for_each(|read| of(seed, read)))
}

#[test]
fn of_a_move_costs_nothing() {
    each(moved, 24).unwrap();
}

#[test]
fn of_an_open_costs_nothing() {
    each(opened, 30).unwrap();
}

#[test]
fn of_an_open_with_frames_beyond_a_window_costs_nothing() {
    each(opened_wide, 16).unwrap();
}

#[test]
fn a_move_that_trusts_one_read_brings_back_what_was_removed() {
    let _planted = plant(Failpoint::CopiedUnseen);
    println!("{}", each(moved, 24).unwrap_err());
}

#[test]
fn an_open_that_trusts_one_read_brings_back_what_was_removed() {
    let _planted = plant(Failpoint::TearUnseen);
    println!("{}", each(opened, 30).unwrap_err());
    println!("{}", each(opened_wide, 16).unwrap_err());
}
