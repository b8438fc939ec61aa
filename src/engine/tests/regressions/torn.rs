//! Torn writes after a crash, and the data kept however often it crashes.

use std::sync::Arc;

use futures::FutureExt;

use crate::batch::yield_now;
use crate::config::BlobCacheConfig;
use crate::engine::tests::bench::{Bench, made};
use crate::failpoint::{Failpoint, plant};
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, ReadRequest};
use crate::l2::{Position, SegmentNumber};
use crate::modes::{CrashSafety, L2Compression};

const BLOCK: u64 = BLOCK_BYTES as u64;

fn config(crash_safety: CrashSafety) -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(64 * (256 << 10))
        .l2_segment_bytes(256 << 10)
        .crash_safety(crash_safety)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

/// Kills a store that is one percent full again and again: each process writes one acknowledged and
/// one unacknowledged record. Returns what is missing at the end, or the first error.
fn live(lives: usize, crash_safety: CrashSafety) -> Result<(), String> {
    let mut bench = Bench::with(7, config(crash_safety));
    bench.disk.plan(|plan| plan.delay_polls_max = 6);
    for number in 0..20 {
        bench.put(&format!("kept {number}"), "kept", &[]);
    }
    for life in 0..lives {
        let (key, value) = (format!("k{}", life % 30), format!("value of {life}"));
        bench.put(&key, &value, &[]);
        let cache = bench.cache();
        // Longer than a sector, so that it can be torn, in a frame of its own.
        let torn = made(&"torn ".repeat(life % 7 * 60), &[]);
        let _ = cache.put("a", "torn", torn).now_or_never();
        let _ = cache.sync().now_or_never();
        bench.run(async {
            for _ in 0..life % 13 {
                yield_now().await;
            }
        });
        drop(cache);
        bench.kill();
        if bench.get(&key).as_ref() != Some(&value) {
            return Err(format!("{key} is missing after life {life}"));
        }
        let head = bench.cache.engine.parts.disk.l2().unwrap().log.head_segment();
        if head != SegmentNumber(0) {
            return Err(format!("the oldest segment has gone after life {life}"));
        }
    }
    let missing: Vec<_> = (0..20).filter(|it| bench.get(&format!("kept {it}")).is_none()).collect();
    let used = bench.cache.stats().l2_bytes_in_use();
    println!("{used} bytes in use after {lives} kills");
    if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing")) }
}

#[test]
fn a_thousand_kills_lose_only_unwritten_tails() {
    live(1000, CrashSafety::Process).unwrap();
    live(300, CrashSafety::Power).unwrap();
    let _planted = plant(Failpoint::TornSegmentSealed);
    println!("{}", live(1000, CrashSafety::Process).unwrap_err());
}

fn read(bench: &mut Bench, offset: u64) -> AlignedBuffer {
    let reading = bench.disk.read(ReadRequest::new(offset, BLOCK_BYTES));
    bench.run(reading).unwrap()
}

fn write(bench: &mut Bench, offset: u64, bytes: &[u8]) {
    let writing = bench.disk.write(offset, AlignedBuffer::copy_from_slice(bytes));
    bench.run(writing).0.unwrap();
}

/// A frame of one large record is torn within its body. The next process writes there exactly the
/// missing bytes, and the rest of that write is lost.
fn complete_a_frame() -> Option<String> {
    let mut bench = Bench::with(7, config(CrashSafety::Process));
    bench.put("first", "first", &[]);
    let log = Arc::clone(&bench.cache.engine.parts.disk.l2().unwrap().log);
    let frame = bench.cache.engine.parts.disk.l2().unwrap().file_offset(log.tail());
    bench.put("k", &"old ".repeat(5000), &[]);
    let lacking = (frame / BLOCK + 2) * BLOCK;
    let whole = read(&mut bench, lacking);
    write(&mut bench, lacking, &[7; BLOCK_BYTES]);
    bench.kill();
    assert_eq!(bench.get("k"), None, "it is torn");
    let cache = bench.cache();
    // There is no slot, so nothing is written or waited for.
    assert_eq!(bench.run(cache.invalidate_key("a", "k")), Ok(0));
    drop(cache);
    write(&mut bench, lacking, &whole);
    bench.kill();
    assert_eq!(bench.get("first").as_deref(), Some("first"));
    bench.get("k")
}

/// A directory is torn as its segment is sealed, and completed when it is sealed again.
fn complete_a_directory() -> Option<String> {
    let mut bench = Bench::with(7, config(CrashSafety::Process));
    let engine = Arc::clone(&bench.cache.engine);
    let log = &engine.parts.disk.l2().unwrap().log;
    let names: Vec<_> = (0..200).map(|number| format!("{number:0100}")).collect();
    for name in &names {
        bench.put(name, &"x".repeat(700), &[]);
    }
    while log.segment() == SegmentNumber(0) {
        bench.put("last", &"x".repeat(30_000), &[]);
    }
    let end =
        bench.cache.engine.parts.disk.l2().unwrap().file_offset(Position::FIRST) + (256 << 10);
    drop(engine);
    // The directory has several blocks, and the first one is lost.
    let lacking = end - 4 * BLOCK;
    let whole = read(&mut bench, lacking);
    write(&mut bench, lacking, &[7; BLOCK_BYTES]);
    // The next segment is empty, as at the time of the seal.
    let first = end + BLOCK;
    let second = read(&mut bench, first);
    assert!(second.iter().any(|byte| *byte != 0));
    write(&mut bench, first, &[0; BLOCK_BYTES]);
    bench.kill();
    assert_eq!(
        bench.cache.engine.parts.disk.l2().unwrap().log.segment(),
        SegmentNumber(0),
        "it goes on"
    );
    bench.put(&names[0], "new", &[]);
    write(&mut bench, lacking, &whole);
    bench.kill();
    bench.get(&names[0])
}

#[test]
fn torn_data_stays_torn() {
    assert_eq!(complete_a_frame(), None, "stale: it was invalidated");
    assert_eq!(complete_a_directory().as_deref(), Some("new"), "an acknowledged record is lost");
    let _planted = plant(Failpoint::TearLeft);
    assert!(complete_a_frame().is_some(), "the bug is not detected");
    assert_ne!(complete_a_directory().as_deref(), Some("new"), "the bug is not detected");
}
