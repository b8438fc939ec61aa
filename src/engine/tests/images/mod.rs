//! The image of the index: an open by it beside an open by the directories of the same store, by
//! seeds; damaged, strange and old images; what a close and the next open are interrupted by.

mod contents;
mod interrupted;
mod strange;

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, opening};
use crate::cache::BlobCache;
use crate::config::{BlobCacheConfig, BlobCacheConfigBuilder};
use crate::engine::open::geometry;
use crate::io::{Disk, SimulatedDisk, Simulation};
use crate::l2::{Position, ScanCursor};
use crate::modes::{L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SPACES: [&str; 3] = ["a", "b", "c"];

/// A namespace as the index has it: its generation; of each hash the position, the blocks, and
/// whether it is versioned and dead; of each posting the label, the key and the sequence.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plain {
    pub(super) generation: u64,
    pub(super) slots: BTreeMap<u64, (u64, u16, bool, bool)>,
    pub(super) postings: BTreeSet<(u64, u64, u64)>,
    pub(super) live: usize,
    pub(super) blocks: u64,
}

type State = BTreeMap<String, Plain>;

/// Tombstones of hashes without a slot are left out: only a replay keeps them.
fn state(cache: &BlobCache) -> State {
    let parts = &cache.engine.parts;
    let plain = |generation: &crate::namespace::Generation| {
        let (mut found, mut cursor) = (Vec::new(), Some(ScanCursor::default()));
        while let Some(from) = cursor {
            let all = Position::FIRST..Position::LAST;
            cursor = generation.index().scan(from, all, 1 << 20, &mut found);
        }
        assert_eq!(found.len(), generation.index().len());
        let mut postings = BTreeSet::new();
        let mut section = parts.commit_lock.section();
        let labels = generation.labels(&mut section);
        let (mut listed, mut cursor) = (Vec::new(), Some(Default::default()));
        while let Some(from) = cursor {
            cursor = labels.visit(from, 1 << 20, |_| true, &mut listed);
        }
        for posting in listed {
            for label in labels.of(posting.key, posting.sequence) {
                postings.insert((label.0, posting.key.0, posting.sequence.0));
                assert!(labels.has(label));
            }
        }
        assert_eq!(postings.len(), labels.len());
        let slots = found.iter().filter(|(_, slot)| !slot.is_tombstone()).map(|(hash, slot)| {
            (hash.0, (slot.position.value(), slot.blocks, slot.versioned, slot.dead))
        });
        Plain {
            generation: generation.number().0,
            slots: slots.collect(),
            postings,
            live: generation.live(),
            blocks: generation.l2_bytes() / 4096,
        }
    };
    let all = parts.namespaces.all();
    let states = all.iter().map(|it| (it.name().to_owned(), plain(it)));
    states.filter(|(_, plain)| !plain.slots.is_empty()).collect()
}

fn builder() -> BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(256 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
}

fn config() -> BlobCacheConfig {
    builder().build().unwrap()
}

fn segments_end(config: &BlobCacheConfig) -> u64 {
    geometry(config).unwrap().file_bytes()
}

/// Opens the store on a copy of `file`.
fn open_copy(file: &[u8], config: &BlobCacheConfig) -> (Simulation, SimulatedDisk, BlobCache) {
    let disk = SimulatedDisk::new(1, file.len() as u64);
    disk.overwrite(0, file);
    let mut simulation = Simulation::new(1);
    let opened = opening(&simulation, &disk, config);
    let engine = simulation.block_on(opened).unwrap().unwrap();
    (simulation, disk, BlobCache { engine })
}

/// The state after an open of a copy, and whether it was read from the image.
fn opened(file: &[u8], config: &BlobCacheConfig) -> (State, bool) {
    let (_simulation, _disk, cache) = open_copy(file, config);
    (state(&cache), cache.stats().recovery_from_image())
}

fn file(disk: &SimulatedDisk) -> Vec<u8> {
    disk.snapshot(0, usize::try_from(disk.length()).unwrap())
}

/// A cache after random calls.
fn worked(random: &mut StdRng, config: &BlobCacheConfig, calls: usize) -> Bench {
    let mut bench = Bench::with(random.random(), config.clone());
    for _ in 0..calls {
        call(random, &mut bench);
    }
    bench
}

fn call(random: &mut StdRng, bench: &mut Bench) {
    let cache = bench.cache();
    let space = SPACES[random.random_range(0..SPACES.len())];
    let key = format!("{}/{}", random.random_range(0..4), random.random_range(0..100));
    let tag = format!("t{}", random.random_range(0..20));
    match random.random_range(0..1000) {
        0..800 => {
            // Some are too large for memory, too.
            let _ = bench.run(cache.put(space, key, drawn_put(random)));
        }
        800..900 => {
            bench.run(cache.get(space, key));
        }
        900..950 => {
            bench.run(cache.invalidate_key(space, key)).unwrap();
        }
        950..980 => {
            bench.run(cache.invalidate_tags(space, &[&tag])).unwrap();
        }
        980..995 => {
            let prefix = &key[..random.random_range(1..key.len())];
            bench.run(cache.invalidate_prefix(space, prefix)).unwrap();
        }
        _ => {
            bench.run(cache.invalidate_namespace(space)).unwrap();
        }
    }
}

fn drawn_put(random: &mut StdRng) -> BlobCachePut {
    // Some fit no segment: they are in memory only, with their labels.
    let length = match random.random_range(0..100) {
        0..95 => random.random_range(0..1500),
        _ => random.random_range(1500..70_000),
    };
    let admission = [L1Admission::Always, L1Admission::Auto, L1Admission::Never];
    let policy = BlobCachePolicy::default().l1_admission(admission[random.random_range(0..3)]);
    let count = [0, 0, 1, 1, 2, 5][random.random_range(0..6)];
    let tags = (0..count).map(|_| format!("t{}", random.random_range(0..20)));
    let tags: BTreeSet<String> = tags.collect();
    BlobCachePut::new(vec![7; length]).with_tags(tags).with_policy(policy)
}

/// Closes it, half of the time while puts are under way.
fn close(random: &mut StdRng, bench: &mut Bench) {
    let cache = bench.cache();
    let busy = random.random_bool(0.5);
    let count = if busy { random.random_range(1..60) } else { 0 };
    let puts: Vec<_> =
        (0..count).map(|number| cache.put("a", format!("{number}"), drawn_put(random))).collect();
    let polls = random.random_range(0..200);
    let closing = async {
        for _ in 0..polls {
            crate::batch::yield_now().await;
        }
        cache.close().await
    };
    let (closed, _puts) = bench.run(join(closing, futures::future::join_all(puts)));
    closed.unwrap();
}

/// The cache has the records of `before`, but for those that were reclaimed, or moved then.
fn assert_goes_on(before: &State, cache: &BlobCache, what: &str) {
    let (found, l2) = (state(cache), cache.engine.parts.disk.l2().unwrap());
    let head = l2.geometry().start_of(l2.log.head_segment()).unwrap().value();
    let positions = |state: &State| -> BTreeMap<(String, u64), (u64, bool)> {
        let all = state.iter().flat_map(|(name, plain)| {
            let slots = plain.slots.iter();
            slots.map(|(hash, &(at, _, _, dead))| ((name.clone(), *hash), (at, dead)))
        });
        all.collect()
    };
    let (before, found) = (positions(before), positions(&found));
    let newest = before.values().map(|(at, _)| *at).max().unwrap_or(0);
    for (key, slot) in &before {
        let is_kept = found.get(key).is_some_and(|it| it == slot || it.0 > newest);
        assert!(is_kept || slot.0 < head, "{what}: {key:?} of {slot:?}");
    }
    assert!(found.iter().all(|(key, (at, _))| before.contains_key(key) && *at >= head), "{what}");
}

/// A closed store, the end of its segments, and what its directories say.
fn closed(seed: u64, calls: usize) -> (Vec<u8>, usize, State) {
    let mut random = StdRng::seed_from_u64(seed);
    let config = config();
    let mut bench = worked(&mut random, &config, calls);
    bench.run(bench.cache.clone().close()).unwrap();
    let whole = file(&bench.disk);
    let end = usize::try_from(segments_end(&config)).unwrap();
    assert!(whole.len() >= end + 5 * 4096, "several chunks");
    let (by_directories, _) = opened(&whole[..end], &config);
    (whole, end, by_directories)
}
