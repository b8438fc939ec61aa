//! Threads that call every method concurrently on a few keys and record their calls.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CacheError, CachePresence,
    L1Admission, L2Compression, L2PromotionPolicy, SweepLimit,
};

use crate::cases::for_each_round;
use crate::history::{Call, Event, FullKey, History, Labels, Put, Scope, Tickets};

const THREADS: u32 = 3;
const CALLS: u64 = 250;

const NAMESPACES: [&str; 2] = ["m", "n"];
const KEYS: [&str; 3] = ["a/1", "a/2", "b"];
const PREFIXES: [&str; 3] = ["a/", "", "b"];
const LABELS: [&str; 2] = ["red", "blue"];

/// Entries that only lengthen walks over all entries to several batches.
const BALLAST: u32 = 1500;

#[derive(Debug, Clone, Copy)]
struct Setting {
    l1_bytes_max: usize,
    key_hash_bits: u32,
    /// With a disk tier of a few hundred KiB, reclaimed all the time.
    has_disk: bool,
}

/// Totals of all rounds.
#[derive(Debug, Default)]
struct Tally {
    calls: u64,
    gets: u64,
    hits: u64,
    evictions: u64,
    refused: u64,
    mismatches: u64,
    disk_hits: u64,
    reclaimed: u64,
    promoted: u64,
}

/// One thread of a round.
struct Worker<'a> {
    cache: &'a BlobCache,
    tickets: &'a Tickets,
    random: StdRng,
    thread: u64,
    /// Flushes would remove the ballast.
    has_ballast: bool,
    has_disk: bool,
    value_bytes_max: usize,
    point: Option<(tamis::ReadPoint, u64)>,
    calls: Vec<Call>,
}

/// Polls without being woken, before a thread sleeps between its polls: the disk needs the cores.
const EAGER_POLLS: usize = 100;

/// Polls to the end, or at most that many times; other threads may run in between.
fn drive<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    for poll in 0..polls {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return Some(output),
            Poll::Pending if poll < EAGER_POLLS => thread::yield_now(),
            Poll::Pending => thread::park_timeout(Duration::from_millis(1)),
        }
    }
    None
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A value that contains its number throughout.
fn bytes_of(value: u64, length: usize) -> Vec<u8> {
    let number = value.to_le_bytes();
    let mut bytes = vec![number[0] ^ number[1]; length];
    bytes[..number.len()].copy_from_slice(&number);
    bytes
}

impl Worker<'_> {
    fn work(mut self) -> Vec<Call> {
        for number in 0..CALLS {
            let full_key = self.full_key();
            match self.random.random_range(0..100) {
                0..35 => self.put(full_key, self.thread * CALLS + number + 1),
                35..80 => self.get(full_key),
                80..84 => self.exists(full_key),
                84..89 => self.take_point(),
                _ => self.invalidate(full_key),
            }
            if self.random.random_bool(0.02) {
                thread::yield_now();
            }
        }
        self.calls
    }

    fn full_key(&mut self) -> FullKey {
        let namespace = NAMESPACES[self.random.random_range(0..NAMESPACES.len())];
        FullKey { namespace, key: KEYS[self.random.random_range(0..KEYS.len())] }
    }

    fn label(&mut self) -> &'static str {
        LABELS[self.random.random_range(0..LABELS.len())]
    }

    /// Usually enough polls for any call, sometimes too few.
    fn polls(&mut self) -> usize {
        if self.random.random_bool(0.2) { 1 } else { 1_000_000 }
    }

    fn note(&mut self, start: u64, event: Event) {
        let end = self.tickets.draw();
        self.calls.push(Call { start, end, event });
    }

    fn take_point(&mut self) {
        let point = self.cache.read_point();
        self.point = Some((point, self.tickets.draw()));
    }

    fn put(&mut self, full_key: FullKey, value: u64) {
        let bytes = bytes_of(value, self.random.random_range(8..self.value_bytes_max));
        let labels = Labels {
            tag: self.random.random_bool(0.5).then(|| self.label()),
            dependency: self.random.random_bool(0.3).then(|| self.label()),
        };
        let version = self.random.random_bool(0.2).then(|| self.random.random_range(0..100));
        let is_never = self.random.random_bool(if self.has_disk { 0.5 } else { 0.05 });
        let mut policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
        policy = version.map_or(policy.clone(), |version| policy.version(version));
        if is_never {
            policy = policy.l1_admission(L1Admission::Never);
        }
        let mut put = BlobCachePut::new(Bytes::from(bytes))
            .with_tags(labels.tag)
            .with_dependencies(labels.dependency)
            .with_policy(policy);
        let point = self.point.filter(|_| self.random.random_bool(0.4));
        if let Some((point, _)) = point {
            put = put.read_at(point);
        }
        let polls = self.polls();
        let start = self.tickets.draw();
        let result = drive(self.cache.put(full_key.namespace, full_key.key, put), polls);
        let read_at = point.map(|(_, ticket)| ticket);
        let is_certain = read_at.is_none() && result.is_some();
        let is_held = !is_never || self.has_disk;
        match result {
            Some(Err(CacheError::VersionMismatch { existing, attempted })) => {
                assert!(existing >= attempted && version == Some(attempted));
                self.note(start, Event::Mismatch(full_key, existing));
            }
            Some(Err(error)) => panic!("unexpected error: {error}"),
            Some(Ok(())) if !is_held && is_certain => {
                self.note(start, Event::Invalidation(Scope::Key(full_key)));
            }
            _ if !is_held => self.note(start, Event::PossibleRemoval(full_key)),
            _ => {
                let put = Put { full_key, value, labels, version, read_at, is_certain };
                self.note(start, Event::Put(put));
            }
        }
    }

    fn get(&mut self, full_key: FullKey) {
        let start = self.tickets.draw();
        let hit = block_on(self.cache.get(full_key.namespace, full_key.key));
        let found = hit.map(|hit| {
            let number = hit.value().first_chunk().expect("no value is shorter");
            let number = u64::from_le_bytes(*number);
            assert!(hit.value() == bytes_of(number, hit.value().len()), "a mixture of values");
            number
        });
        self.note(start, Event::Get(full_key, found));
    }

    fn exists(&mut self, full_key: FullKey) {
        let start = self.tickets.draw();
        let presence = self.cache.exists(full_key.namespace, full_key.key);
        if presence != CachePresence::MaybePresent {
            self.note(start, Event::Exists(full_key, presence == CachePresence::Present));
        }
    }

    /// In force from the first poll: the record is right even if the call was dropped.
    fn invalidate(&mut self, full_key: FullKey) {
        let (cache, namespace, mut polls) = (self.cache, full_key.namespace, self.polls());
        if self.has_disk {
            // The log may have no room in the first poll.
            polls = usize::MAX;
        }
        let label = self.label();
        let prefix = PREFIXES[self.random.random_range(0..PREFIXES.len())];
        let draw = self.random.random_range(0..if self.has_ballast { 36 } else { 40 });
        let start = self.tickets.draw();
        let cover = match draw {
            0..10 => {
                let removed = drive(cache.invalidate_key(namespace, full_key.key), polls);
                assert!(matches!(removed, Some(Ok(0 | 1))));
                Scope::Key(full_key)
            }
            10..20 => {
                drive(cache.invalidate_prefix(namespace, prefix), polls);
                Scope::Prefix(namespace, prefix)
            }
            20..30 => {
                drive(cache.invalidate_tags(namespace, &[label]), polls);
                Scope::Tag(namespace, label)
            }
            30..36 => {
                drive(cache.invalidate_dependencies(namespace, &[label]), polls);
                Scope::Dependency(namespace, label)
            }
            36..39 => {
                drive(cache.invalidate_namespace(namespace), polls);
                Scope::Namespace(namespace)
            }
            _ => {
                drive(cache.invalidate_all(), polls);
                Scope::All
            }
        };
        self.note(start, Event::Invalidation(cover));
    }
}

fn round(setting: Setting, seed: u64, tally: &mut Tally) {
    let is_tiny = setting.l1_bytes_max < 1 << 20;
    let has_ballast = !is_tiny && !setting.has_disk && setting.key_hash_bits == 64 && seed % 2 == 0;
    let config = BlobCacheConfig::builder()
        .l1_bytes_max(setting.l1_bytes_max)
        .key_hash_bits(setting.key_hash_bits)
        .shard_count(if seed % 3 == 1 { 1 } else { 4 });
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let config = match setting.has_disk {
        true => config
            .l2_path(folder.path())
            .l2_bytes_max(512 << 10)
            .l2_segment_bytes(64 << 10)
            .l2_promotion_policy(if seed % 2 == 0 {
                L2PromotionPolicy::Immediate
            } else {
                L2PromotionPolicy::OnSecondHit
            })
            // Compressed, most values would be tiny, and no segment would be reclaimed.
            .l2_compression(if seed % 4 == 3 { L2Compression::On } else { L2Compression::Off }),
        false => config,
    };
    let config = config.build().expect("in its range");
    let cache = block_on(BlobCache::open(config)).expect("it opens");
    for number in 0..if has_ballast { BALLAST } else { 0 } {
        let put = BlobCachePut::new("").with_tags((seed % 4 == 0).then_some(LABELS[0]));
        block_on(cache.put("n", format!("ballast/{number}"), put)).expect("there is room");
    }
    let (tickets, barrier) = (Tickets::default(), Barrier::new(THREADS as usize));
    let work = |thread: u64| {
        let worker = Worker {
            cache: &cache,
            tickets: &tickets,
            random: StdRng::seed_from_u64(seed * u64::from(THREADS) + thread),
            thread,
            has_ballast,
            has_disk: setting.has_disk,
            value_bytes_max: match (is_tiny, seed % 3) {
                (true, _) => 30_000,
                // Sometimes more than one poll copies.
                (false, 0) => 600 << 10,
                (false, _) => 2000,
            },
            point: None,
            calls: Vec::new(),
        };
        barrier.wait();
        worker.work()
    };
    let is_over = AtomicBool::new(false);
    let calls = thread::scope(|scope| {
        let (work, cache, is_over) = (&work, &cache, &is_over);
        if seed % 2 == 1 {
            scope.spawn(move || sweep_until(is_over, cache));
        }
        let threads: Vec<_> =
            (0..u64::from(THREADS)).map(|thread| scope.spawn(move || work(thread))).collect();
        let calls: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        let calls = calls.into_iter().map(|calls| calls.expect("a thread has failed"));
        calls.collect::<Vec<_>>().concat()
    });
    count(&cache, &calls, tally);
    let history = History::new(calls);
    let forgets = is_tiny || setting.key_hash_bits < 64;
    let misses = if forgets { Ok(()) } else { history.check_misses() };
    if let Err(what) = history.check().and(misses) {
        panic!("{what}");
    }
    leave_nothing(&cache);
}

/// Sweeps step by step, concurrently with the invalidations.
fn sweep_until(is_over: &AtomicBool, cache: &BlobCache) {
    while !is_over.load(Ordering::Relaxed) {
        block_on(cache.sweep_expired(SweepLimit::Entries(1)));
    }
}

fn count(cache: &BlobCache, calls: &[Call], tally: &mut Tally) {
    let count = |of: fn(&Event) -> bool| calls.iter().filter(|call| of(&call.event)).count() as u64;
    let gets = count(|event| matches!(event, Event::Get(..)));
    let hits = count(|event| matches!(event, Event::Get(_, Some(_))));
    let mismatches = count(|event| matches!(event, Event::Mismatch(..)));
    let stats = cache.stats();
    assert_eq!((stats.hits(), stats.hits() + stats.misses()), (hits, gets));
    assert_eq!(stats.version_mismatches(), mismatches);
    assert!(stats.l2_bytes_max() > 0 || stats.memory_buffers_bytes() == 0);
    tally.disk_hits += stats.l2_hits();
    tally.reclaimed += stats.l2_reclaimed_segments();
    tally.promoted += stats.promotion_completed();
    tally.calls += calls.len() as u64;
    tally.gets += gets;
    tally.hits += hits;
    tally.mismatches += mismatches;
    tally.evictions += stats.evictions();
    tally.refused += stats.stale_sets_refused();
}

/// Every held entry can be found, and all are gone after `invalidate_all`.
fn leave_nothing(cache: &BlobCache) {
    for _ in 0..200 {
        block_on(cache.invalidate_key("elsewhere", "nothing")).expect("it is open");
    }
    for namespace in NAMESPACES {
        let present =
            KEYS.iter().filter(|key| cache.exists(namespace, key) == CachePresence::Present);
        let present = present.count();
        let ballast = (0..BALLAST).filter(|number| {
            cache.exists(namespace, format!("ballast/{number}")) == CachePresence::Present
        });
        let held = cache.namespace_stats(namespace).map_or(0, |stats| stats.entries());
        assert_eq!(held, present + ballast.count(), "entries of {namespace}");
    }
    assert_eq!(block_on(cache.close()), Ok(()));
    let stats = cache.stats();
    assert_eq!((stats.entries(), stats.bytes_in_use(), stats.memory_labels_bytes()), (0, 0, 0));
}

fn run(name: &str, setting: Setting, default_rounds: u64, hits_percent_min: u64) {
    let mut tally = Tally::default();
    let rounds = for_each_round(default_rounds, |seed| round(setting, seed, &mut tally));
    println!("{name}: {rounds:?} rounds, {tally:?}");
    if rounds.is_some_and(|rounds| rounds >= 20) {
        assert!(tally.hits * 100 >= tally.gets * hits_percent_min, "hits are too few");
        assert!(tally.refused > 0 && tally.mismatches > 0);
        assert_eq!(tally.evictions > 0, setting.l1_bytes_max < 1 << 20, "evictions");
        assert_eq!(tally.disk_hits > 100 && tally.reclaimed > 100, setting.has_disk);
        assert_eq!(tally.promoted > 0, setting.has_disk);
    }
}

#[test]
fn no_call_sees_an_older_value_with_room_for_all() {
    run("roomy", Setting { l1_bytes_max: 64 << 20, key_hash_bits: 64, has_disk: false }, 80, 30);
}

#[test]
fn no_call_sees_an_older_value_in_a_tiny_cache() {
    run("tiny", Setting { l1_bytes_max: 64 << 10, key_hash_bits: 64, has_disk: false }, 80, 20);
}

#[test]
fn no_call_sees_an_older_value_among_colliding_keys() {
    run(
        "roomy, 8 bits",
        Setting { l1_bytes_max: 64 << 20, key_hash_bits: 8, has_disk: false },
        50,
        30,
    );
    run(
        "roomy, 2 bits",
        Setting { l1_bytes_max: 64 << 20, key_hash_bits: 2, has_disk: false },
        50,
        10,
    );
}

#[test]
fn no_call_sees_an_older_value_among_colliding_keys_in_a_tiny_cache() {
    run(
        "tiny, 8 bits",
        Setting { l1_bytes_max: 64 << 10, key_hash_bits: 8, has_disk: false },
        50,
        20,
    );
    run(
        "tiny, 2 bits",
        Setting { l1_bytes_max: 64 << 10, key_hash_bits: 2, has_disk: false },
        50,
        10,
    );
}

#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn no_call_sees_an_older_value_on_a_tiny_disk() {
    let setting = |key_hash_bits| Setting { l1_bytes_max: 64 << 10, key_hash_bits, has_disk: true };
    run("disk", setting(64), 24, 20);
    run("disk, 8 bits", setting(8), 20, 20);
    run("disk, 2 bits", setting(2), 20, 10);
}
