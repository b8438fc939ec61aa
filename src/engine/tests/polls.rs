//! No poll is long: the most entries and bytes in one poll of each method and task.

use std::fmt::Write as _;

use futures::StreamExt;

use super::bench::Bench;
use crate::batch::{BATCH_BYTES, BATCH_ENTRIES};
use crate::config::BlobCacheConfig;
use crate::engine::open::geometry;
use crate::io::Longest;
use crate::keys::KeysQuery;
use crate::meter::{Work, measured};
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::sweep::SweepLimit;

/// A poll may begin with the rest of another batch, and visits whole tables of the index. The
/// writer's task frees a segment beside the frame that it encodes.
const ENTRIES_MAX: usize = 7 * BATCH_ENTRIES;

/// A batch, plus a record's header and its directory entry.
const BYTES_MAX: usize = BATCH_BYTES + (64 << 10);

const RECORDS: usize = 10_000;

#[derive(Default)]
struct Table(Vec<(&'static str, Longest)>);

impl Table {
    fn add(&mut self, verb: &'static str, bench: &mut Bench) {
        self.0.push((verb, bench.simulation.longest()));
    }

    fn shown(&self) -> String {
        let mut text = format!("{:32}{:>10}{:>10}{:>10}{:>10}\n", "", "entries", "bytes", "", "");
        for (verb, Longest { root, task }) in &self.0 {
            let (entries, bytes) = (root.entries, root.bytes);
            let _ = write!(text, "{verb:32}{entries:>10}{bytes:>10}");
            let _ = writeln!(text, "{:>10}{:>10} (tasks)", task.entries, task.bytes);
        }
        text
    }

    fn assert_bounded(&self) {
        let shown = self.shown();
        println!("{shown}");
        let is_short = |work: Work| work.entries <= ENTRIES_MAX && work.bytes <= BYTES_MAX;
        for (verb, Longest { root, task }) in &self.0 {
            assert!(is_short(*root) && is_short(*task), "{verb}\n{shown}");
        }
    }
}

fn config() -> BlobCacheConfig {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 20)
        .l2_path("simulated")
        .l2_bytes_max(8 * (16 << 20))
        .l2_segment_bytes(16 << 20)
        .max_namespaces(6000)
        .l2_compression(L2Compression::Off)
        .build()
        .unwrap()
}

fn tagged(value: Vec<u8>) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
    BlobCachePut::new(value).with_tags(["t", "u"]).with_dependencies(["d"]).with_policy(policy)
}

fn on_disk_only(bytes: usize) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(vec![7; bytes]).with_policy(policy)
}

fn fill(bench: &mut Bench, namespace: &str) {
    let cache = bench.cache();
    for number in 0..RECORDS {
        let key = format!("p/{number}");
        bench.run(cache.put(namespace, &key, tagged(vec![1; 100]))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    bench.simulation.longest();
}

/// The verbs for many keys, with values of 100 bytes to 300 KiB, on disk and in memory.
fn add_many(table: &mut Table, bench: &mut Bench) {
    let cache = bench.cache();
    let all: Vec<_> = (0..RECORDS).map(|number| format!("p/{number}")).collect();
    let hits = bench.run(cache.get_many("a", &all));
    assert!(hits.iter().all(Option::is_some));
    table.add("get_many from memory", bench);
    for (verb, bytes, count) in [
        ("100 B", 100, 1000),
        ("4000 B", 4000, 1000),
        ("100 KiB", 100 << 10, 100),
        ("300 KiB", 300 << 10, 50),
    ] {
        let keys: Vec<_> = (0..count).map(|number| format!("{number}")).collect();
        let puts = keys.iter().map(|key| (key, on_disk_only(bytes)));
        let stored = bench.run(cache.put_many("b", puts));
        assert!(stored.iter().all(Result::is_ok));
        table.add(["put_many, ", verb].concat().leak(), bench);
        bench.run(cache.sync()).unwrap();
        bench.simulation.longest();
        let hits = bench.run(cache.get_many("b", &keys));
        assert!(hits.iter().flatten().count() == count, "{verb}");
        table.add(["get_many on disk, ", verb].concat().leak(), bench);
        assert_eq!(bench.run(cache.invalidate_keys("b", &keys)), Ok(count));
        table.add(["invalidate_keys, ", verb].concat().leak(), bench);
    }
}

/// Listings of keys in memory, by a tag, on disk, and with the details of their records.
fn add_keys(table: &mut Table, bench: &mut Bench) {
    let cache = bench.cache();
    for number in 0..RECORDS {
        bench.run(cache.put("c", format!("p/{number}"), on_disk_only(100))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    bench.simulation.longest();
    let all = KeysQuery::default();
    for (verb, space, query) in [
        ("keys in memory", "a", all.clone()),
        ("keys by tag", "a", all.clone().tags(["t"])),
        ("keys on disk", "c", all.clone()),
        ("keys on disk, with details", "c", all.details()),
        ("keys on disk, a prefix", "c", "p/".into()),
    ] {
        assert_eq!(bench.run(cache.keys(space, query).count()), RECORDS, "{verb}");
        table.add(verb, bench);
    }
}

#[test]
fn of_no_method_is_long() {
    let mut table = Table::default();
    let mut bench = Bench::with(1, config());
    fill(&mut bench, "a");
    for (verb, bytes) in [("put, 100 B", 100), ("put, 300 KiB", 300 << 10), ("put, 8 MiB", 8 << 20)]
    {
        let cache = bench.cache();
        // Such a vector has too much spare capacity, so it is copied.
        let mut value = Vec::with_capacity(2 * bytes);
        value.resize(bytes, 7);
        bench.run(cache.put("b", "k", tagged(value))).unwrap();
        table.add(verb, &mut bench);
    }
    let cache = bench.cache();
    assert!(bench.run(cache.get("a", "p/7")).is_some());
    table.add("get from memory", &mut bench);
    for (verb, bytes) in [("get, 100 B on disk", 100), ("get, 8 MiB on disk", 8 << 20)] {
        bench.run(cache.put("b", "k", on_disk_only(bytes))).unwrap();
        bench.simulation.longest();
        assert!(bench.run(cache.get("b", "k")).is_some());
        table.add(verb, &mut bench);
    }
    assert_eq!(bench.run(cache.invalidate_key("b", "k")), Ok(1));
    table.add("invalidate_key", &mut bench);
    add_many(&mut table, &mut bench);
    add_keys(&mut table, &mut bench);
    assert_eq!(bench.run(cache.invalidate_tags("a", &["t"])), Ok(RECORDS));
    table.add("invalidate_tags", &mut bench);
    fill(&mut bench, "a");
    assert_eq!(bench.run(cache.invalidate_dependencies("a", &["d"])), Ok(RECORDS));
    table.add("invalidate_dependencies", &mut bench);
    fill(&mut bench, "a");
    assert_eq!(bench.run(cache.invalidate_prefix("a", "p/")), Ok(RECORDS));
    table.add("invalidate_prefix", &mut bench);
    fill(&mut bench, "a");
    assert_eq!(bench.run(cache.invalidate_namespace("a")), Ok(true));
    table.add("invalidate_namespace", &mut bench);
    fill(&mut bench, "a");
    bench.run(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
    table.add("sweep_expired", &mut bench);
    bench.run(cache.sync()).unwrap();
    table.add("sync", &mut bench);
    let ((), work) = measured(|| drop(cache.stats()));
    table.0.push(("stats", Longest { root: work, task: Work::default() }));
    bench.run(cache.close()).unwrap();
    table.add("close", &mut bench);
    drop(cache);
    bench.reopen();
    table.add("open", &mut bench);
    let cache = bench.cache();
    for number in 0..5000 {
        bench.run(cache.put(&format!("n{number}"), "k", tagged(vec![1; 100]))).unwrap();
    }
    bench.simulation.longest();
    bench.run(cache.invalidate_all()).unwrap();
    table.add("invalidate_all, 5,000 namespaces", &mut bench);
    fill(&mut bench, "a");
    let last = std::mem::replace(&mut bench.cache, Bench::new(2).cache);
    drop(cache);
    let ((), work) = measured(|| drop(last));
    table.0.push(("drop of the last handle", Longest { root: work, task: Work::default() }));
    table.assert_bounded();
}

/// Every slot and posting before the segment is looked at, since its records are unknown.
#[test]
fn reclaiming_a_segment_without_its_directory_goes_in_batches() {
    let mut table = Table::default();
    let mut bench = Bench::with(2, config());
    fill(&mut bench, "a");
    let cache = bench.cache();
    let file = geometry(&bench.config).unwrap().file_bytes();
    let first_end = file - 8 * (16 << 20) + (16 << 20);
    for number in 0.. {
        assert!(number < 100, "the first segment is never reclaimed");
        bench.run(cache.put("b", format!("{number}"), on_disk_only(8 << 20))).unwrap();
        bench.run(cache.sync()).unwrap();
        if cache.stats().l2_corruptions() > 0 {
            break;
        }
        bench.disk.overwrite(first_end - 4096, &[0; 4096]);
        bench.simulation.longest();
    }
    table.add("reclaim without a directory", &mut bench);
    assert!(cache.stats().l2_entries() < RECORDS, "{} slots", cache.stats().l2_entries());
    table.assert_bounded();
}
