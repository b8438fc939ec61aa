//! Regressions, each with the smallest case that shows the fault.

mod comes_back;
mod counts;
mod expiries;
mod flipped;
mod forked;
mod index_budget;
mod leaving;
mod over_namespaces;
mod restart;
mod shrinks;
mod sizes;
mod syncs;
mod torn;
mod touches;
mod turned_off;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join};

use super::bench::{Bench, config, made, opening};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::{DiskSetup, Identity, geometry, in_memory, open_on};
use crate::io::{SimulatedDisk, Simulation, TaskEnd, TaskRunner};
use crate::modes::{CrashSafety, L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

#[test]
fn a_second_tag_invalidation_that_finds_nothing() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &["t"]);
    let cache = bench.cache.clone();
    assert!(cache.invalidate_tags("a", &["t"]).now_or_never().is_none(), "waits for its record");
    // Another caller, the same tag: returns Ok at once.
    let second = cache.invalidate_tags("a", &["t"]);
    bench.simulation.block_on(second).unwrap().unwrap();
    drop(cache);
    bench.kill();
    assert_eq!(bench.get("k"), None, "stale after kill -9");
}

#[test]
fn key_invalidation_over_a_slot_marked_dead_by_a_label() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &["t"]);
    let cache = bench.cache.clone();
    assert!(cache.invalidate_tags("a", &["t"]).now_or_never().is_none());
    bench.simulation.block_on(cache.invalidate_key("a", "k")).unwrap().unwrap();
    drop(cache);
    bench.kill();
    assert_eq!(bench.get("k"), None, "stale after kill -9");
}

#[test]
fn prefix_and_tag_invalidation_behind_an_unwritten_flush() {
    for tag in [false, true] {
        let mut bench = Bench::new(1);
        bench.put("k", "old", &["t"]);
        let cache = bench.cache.clone();
        assert!(cache.invalidate_namespace("a").now_or_never().is_none());
        if tag {
            bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap().unwrap();
        } else {
            bench.simulation.block_on(cache.invalidate_prefix("a", "k")).unwrap().unwrap();
        }
        drop(cache);
        bench.kill();
        assert_eq!(bench.get("k"), None, "stale after kill -9, tag {tag}");
    }
}

#[test]
fn key_invalidation_after_a_passing_read_fault() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    bench.disk.plan(|plan| plan.read_bit_flip = 1.0);
    let mut misses = 0;
    while bench.cache.stats().l2_corruptions() == 0 && misses < 1000 {
        assert_eq!(bench.get("k").filter(|value| value != "old"), None);
        misses += 1;
    }
    assert!(bench.cache.stats().l2_corruptions() > 0);
    bench.disk.plan(|plan| plan.read_bit_flip = 0.0);
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.invalidate_key("a", "k")).unwrap().unwrap();
    bench.simulation.block_on(cache.close()).unwrap().unwrap();
    bench.reopen();
    assert_eq!(bench.get("k"), None, "stale after a clean close");
}

#[test]
fn tag_invalidation_after_a_passing_read_fault() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &["t"]);
    bench.disk.plan(|plan| plan.read_bit_flip = 1.0);
    while bench.cache.stats().l2_corruptions() == 0 {
        bench.get("k");
    }
    bench.disk.plan(|plan| plan.read_bit_flip = 0.0);
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap().unwrap();
    bench.simulation.block_on(cache.close()).unwrap().unwrap();
    bench.reopen();
    assert_eq!(bench.get("k"), None, "stale after a clean close");
}

#[test]
fn damage_of_the_last_frame_of_a_clean_tail() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    bench.put("k", "new", &[]);
    let tail = bench.cache.engine.parts.disk.l2().unwrap().log.tail();
    let offset = bench.cache.engine.parts.disk.l2().unwrap().file_offset(tail);
    let cache = bench.cache.clone();
    bench.simulation.block_on(cache.close()).unwrap().unwrap();
    bench.disk.flip_bit(offset - 12, 3);
    bench.reopen();
    assert_ne!(bench.get("k").as_deref(), Some("old"), "stale after a clean close and bit rot");
}

#[test]
fn a_refused_put_returns_ok_before_the_refusing_mutation_is_on_file() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    let cache = bench.cache.clone();
    let point = cache.read_point();
    assert!(cache.put("a", "k", made("new", &[])).now_or_never().is_none());
    let refused = cache.put("a", "k", made("newer", &[]).read_at(point));
    bench.simulation.block_on(refused).unwrap().unwrap();
    drop(cache);
    bench.kill();
    assert_ne!(bench.get("k").as_deref(), Some("old"), "stale after kill -9");
}

#[test]
fn a_wakeup_for_room_is_missed() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &[]);
    let engine = Arc::clone(&bench.cache.engine);
    let log = &engine.parts.disk.l2().unwrap().log;
    let generation = engine.parts.namespaces.find("a").unwrap();
    let change = crate::l2::Change::Tombstone { namespace: generation.named(), hash: 7 };
    let place = bench.run(log.room(0, None));
    loop {
        let draft =
            crate::engine::write::commit::tombstone(&generation, crate::key::KeyHash(7)).unwrap();
        if log.append(draft, &change).is_err() {
            break;
        }
    }
    // The caller's thread sleeps here, between append and room, while the writer continues.
    let runner = bench.simulation.task_runner();
    bench.simulation.block_on(runner.sleep(Duration::from_secs(5))).unwrap();
    let room = bench.simulation.block_on(log.room(0, Some(place)));
    assert!(room.is_some(), "there is room, but no wakeup");
}

#[test]
fn damage_within_an_unclean_tail_leaks_slots() {
    let mut bench = Bench::new(1);
    let start = bench.cache.engine.parts.disk.l2().unwrap().log.tail();
    for number in 0..10 {
        bench.put(&format!("k{number}"), "value", &["t"]);
    }
    let offset = bench.cache.engine.parts.disk.l2().unwrap().file_offset(start);
    bench.simulation.kill();
    bench.disk = bench.disk.kill();
    bench.disk.flip_bit(offset + 40, 1);
    bench.reopen();
    println!(
        "recovered {} dropped {}",
        bench.cache.stats().recovery_records(),
        bench.cache.stats().recovery_dropped()
    );
    for number in 0..400 {
        bench.put(&format!("other{}", number % 20), &"x".repeat(3000), &[]);
    }
    let before = bench.cache.stats().l2_entries();
    for number in 0..10 {
        assert_eq!(bench.get(&format!("k{number}")), None);
    }
    let stats = bench.cache.stats();
    println!(
        "{before} entries, {} corruptions, labels {}",
        stats.l2_corruptions(),
        stats.memory_labels_bytes()
    );
    assert_eq!(before, 20, "slots of records that are no longer on file");
}

#[test]
fn a_second_kill_during_recovery_loses_everything() {
    let mut lost = Vec::new();
    for polls in 0..400 {
        let mut bench = Bench::new(1);
        bench.put("k", "value", &[]);
        bench.simulation.kill();
        bench.disk = bench.disk.kill();
        {
            let mut open = Box::pin(opening(&bench.simulation, &bench.disk, &bench.config));
            let mut left = polls;
            let some = std::future::poll_fn(|context| {
                if left == 0 {
                    return std::task::Poll::Ready(false);
                }
                left -= 1;
                open.as_mut().poll(context).map(|_| true)
            });
            if bench.simulation.block_on(some).unwrap() {
                break;
            }
            bench.simulation.kill();
            bench.disk = bench.disk.kill();
        }
        bench.reopen();
        if bench.get("k").is_none() {
            lost.push((polls, bench.cache.stats().recovery_dropped()));
        }
    }
    assert!(lost.is_empty(), "forgotten when killed after so many polls: {lost:?}");
}

#[test]
fn a_fresh_put_after_a_flush_that_the_device_refused() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &["t"]);
    bench.disk.fail(crate::io::OperationKind::Write, 0, crate::io::Fault::NoSpace, true);
    let cache = bench.cache.clone();
    assert!(bench.simulation.block_on(cache.put("a", "x", made("x", &[]))).unwrap().is_ok());
    assert!(bench.simulation.block_on(cache.sync()).unwrap().is_err());
    assert!(bench.simulation.block_on(cache.invalidate_namespace("a")).unwrap().is_err());
    let put = bench.simulation.block_on(cache.put("a", "k", made("new", &[]))).unwrap();
    drop(cache);
    bench.kill();
    assert!(put.is_err() || bench.get("k").as_deref() != Some("old"), "{put:?}, then stale");
}

#[test]
fn a_second_tag_invalidation_on_a_failed_device() {
    let mut bench = Bench::new(1);
    bench.put("k", "old", &["t"]);
    bench.disk.fail(crate::io::OperationKind::Write, 0, crate::io::Fault::NoSpace, true);
    let cache = bench.cache.clone();
    assert!(bench.simulation.block_on(cache.put("a", "x", made("x", &[]))).unwrap().is_ok());
    assert!(bench.simulation.block_on(cache.sync()).unwrap().is_err());
    assert!(bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap().is_err());
    let second = bench.simulation.block_on(cache.invalidate_tags("a", &["t"])).unwrap();
    drop(cache);
    bench.kill();
    assert!(second.is_err() || bench.get("k").is_none(), "{second:?}, then stale");
}

/// A task runner that drops every scan instead of running it.
struct Scanless(Arc<dyn TaskRunner>);

impl TaskRunner for Scanless {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskEnd {
        let task = if name == "prefix scan" { Box::pin(async {}) } else { task };
        self.0.spawn(name, task)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }
}

#[test]
fn a_failed_scan_leaves_no_entry_of_its_namespace_and_no_waiting_call() {
    let config = config(4096);
    let disk = SimulatedDisk::new(1, geometry(&config).unwrap().file_bytes());
    let mut simulation = Simulation::new(1);
    let runner = Arc::new(Scanless(Arc::new(simulation.task_runner())));
    let setup = DiskSetup {
        disk: Arc::new(disk.clone()),
        runner,
        file: None,
        boot_id: [0; 16],
        identity: Identity::of(0),
        void_mark: None,
    };
    let opening = open_on(config.clone(), geometry(&config).unwrap(), setup);
    let cache = BlobCache { engine: simulation.block_on(opening).unwrap().unwrap() };
    let mut bench = Bench { simulation, disk, config, cache };
    bench.put("a/1", "covered", &[]);
    bench.put("b/1", "who knows", &[]);
    let cache = bench.cache.clone();
    let mut run = |call| bench.simulation.block_on(call).unwrap();
    assert_eq!(run(Box::pin(cache.invalidate_prefix("a", "a/"))).unwrap(), 0);
    assert!(!cache.engine.parts.pending.any_pending(), "the invalidation was withdrawn");
    assert_eq!((bench.get("a/1"), bench.get("b/1")), (None, None));
    bench.put("b/1", "new", &[]);
    assert_eq!(bench.get("b/1").as_deref(), Some("new"));
    bench.simulation.block_on(cache.close()).unwrap().unwrap();
}

#[test]
fn concurrent_prefix_invalidations_share_scans() {
    let mut bench = Bench::new(1);
    for number in 0..40 {
        bench.put(&format!("{number}/key"), "value", &[]);
    }
    let cache = bench.cache.clone();
    let before = cache.stats().l2_reads();
    let prefixes: Vec<_> = (0..30).map(|number| format!("{number}/")).collect();
    let calls = prefixes.iter().map(|prefix| cache.invalidate_prefix("a", prefix));
    let removed = bench.simulation.block_on(futures::future::join_all(calls)).unwrap();
    assert!(removed.iter().all(|removed| *removed == Ok(1)), "{removed:?}");
    // At most two scans of at most eight segments, with two reads for each directory.
    let reads = cache.stats().l2_reads() - before;
    assert!(reads <= 32, "{reads} reads for 30 prefixes");
    assert_eq!((bench.get("29/key"), bench.get("30/key").as_deref()), (None, Some("value")));
}

#[test]
fn empty_tables_are_freed() {
    let cache = BlobCache { engine: in_memory(BlobCacheConfig::default()) };
    let run = futures::executor::block_on::<BoxFuture<'_, _>>;
    for number in 0..100_000u32 {
        run(Box::pin(cache.put("n", number.to_le_bytes(), "value"))).unwrap();
    }
    assert!(cache.engine.parts.l1.capacity() >= 100_000);
    futures::executor::block_on(cache.invalidate_all()).unwrap();
    for _ in 0..10_000 {
        run(Box::pin(cache.put("n", "key", "value"))).unwrap();
    }
    assert_eq!(cache.stats().entries(), 1);
    assert!(
        cache.engine.parts.l1.capacity() < 50_000,
        "room for {}",
        cache.engine.parts.l1.capacity()
    );
}

#[test]
fn an_invalidation_dropped_while_puts_wait_for_room_is_in_force() {
    let mut bench = Bench::new(1);
    for key in ["key", "tagged", "p/1"] {
        bench.put(key, "old", if key == "tagged" { &["t"] } else { &[] });
    }
    let cache = bench.cache.clone();
    // Nothing is written meanwhile.
    let crowd = made(&"x".repeat(2000), &[]);
    let fits = |number: &u32| {
        let put = cache.put("a", format!("crowd{number}"), crowd.clone()).now_or_never();
        put.map(Result::unwrap).is_some()
    };
    let puts = (0..).take_while(fits).count();
    assert!((10..1000).contains(&puts), "{puts}");
    assert!(cache.invalidate_key("a", "key").now_or_never().is_none(), "waits for its record");
    assert!(cache.invalidate_tags("a", &["t"]).now_or_never().is_none());
    assert!(cache.invalidate_prefix("a", "p/").now_or_never().is_none());
    for key in ["key", "tagged", "p/1"] {
        assert_eq!(bench.get(key), None, "{key}");
    }
}

#[test]
fn postings_are_removed_with_a_segment_whose_directory_is_lost() {
    let mut bench = Bench::new(1);
    bench.put("k", &"x".repeat(2000), &["t"]);
    let cache = bench.cache.clone();
    let held = cache.stats().memory_labels_bytes();
    assert!(held > 0);
    let file = geometry(&bench.config).unwrap().file_bytes();
    for number in 0.. {
        assert!(number < 1000, "the first segment is never reclaimed");
        bench.put(&number.to_string(), &"x".repeat(2000), &[]);
        if cache.stats().l2_corruptions() > 0 {
            break;
        }
        // The end of the first segment cannot be read, whatever it contains.
        let first_end = file - 8 * (64 << 10) + (64 << 10);
        bench.disk.overwrite(first_end - 4096, &[0; 4096]);
    }
    assert_eq!(cache.stats().memory_labels_bytes(), 0);
    assert_eq!(bench.get("k"), None);
}

#[test]
fn a_damaged_body_is_counted_once() {
    let mut bench = Bench::new(1);
    bench.put("k", &"valuable".repeat(100), &[]);
    let file = geometry(&bench.config).unwrap().file_bytes();
    let image = bench.disk.snapshot(0, usize::try_from(file).unwrap());
    let place = image.windows(8).position(|bytes| bytes == b"valuable").unwrap();
    bench.disk.flip_bit(place as u64, 3);
    for _ in 0..2 {
        assert_eq!(bench.get("k"), None);
        assert_eq!(bench.cache.stats().l2_corruptions(), 1);
    }
}
