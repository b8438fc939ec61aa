//! A scene: a new cache, some values in it, and threads that call it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::UNIX_EPOCH;

use shuttle::future::{block_on, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};
use tamis_tiers::{
    BackgroundSweep, BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, CachePresence,
    Clock, L1Admission, L2Compression, L2PromotionPolicy, ReadPoint, SweepLimit, audit,
    open_on_disk, settle,
};

use crate::history::{Call, Event, FullKey, History, Labels, Put, Scope, Tickets};

const NAMESPACES: [&str; 2] = ["m", "n"];
const KEYS: [&str; 3] = ["a/1", "a/2", "b"];
const PREFIXES: [&str; 3] = ["a/", "", "b"];
const LABELS: [&str; 2] = ["red", "blue"];

/// What an entry is charged where memory has room for two.
const CHARGE: usize = 30_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiers {
    /// Memory with room for all.
    Roomy,
    /// Memory with room for two entries.
    Tiny,
    /// The same above a disk with room for all.
    Disk,
}

/// What the calls of a scene are like. Few kinds of calls on one key meet more often than all kinds
/// on all keys; so each scene leaves some out.
#[derive(Debug, Clone, Copy)]
struct Manner {
    /// How often each method is called.
    calls: [u32; 7],
    /// The same of the scopes of invalidations.
    scopes: [u32; 6],
    focus: FullKey,
    /// The chance of a call to be about the key in focus.
    focused: f64,
    labels: usize,
    /// The chance of an entry to have a tag.
    tagged: f64,
    /// The chance of an invalidation to be dropped after its first poll.
    dropped: f64,
}

impl Manner {
    fn of_scripts() -> Self {
        Self { focused: 1.0, labels: 1, tagged: 1.0, ..Self::any() }
    }

    fn any() -> Self {
        Self {
            calls: some_of([20, 30, 3, 5, 5, 3, 30]),
            scopes: some_of([5, 5, 6, 2, 2, 1]),
            focus: FullKey { namespace: any(&NAMESPACES), key: any(&KEYS) },
            focused: any(&[0.7, 1.0]),
            labels: thread_rng().gen_range(1..=LABELS.len()),
            tagged: any(&[0.5, 1.0]),
            dropped: any(&[0.0, 0.2, 0.7]),
        }
    }
}

/// Leaves out most of them.
fn some_of<const COUNT: usize>(weights: [u32; COUNT]) -> [u32; COUNT] {
    let some = weights.map(|weight| if thread_rng().gen_bool(0.4) { weight } else { 0 });
    if some.iter().all(|weight| *weight == 0) { weights } else { some }
}

fn by_weight(weights: &[u32]) -> usize {
    let mut drawn = thread_rng().gen_range(0..weights.iter().sum());
    let is_it = |weight: &u32| {
        let is_below = drawn < *weight;
        drawn = drawn.saturating_sub(*weight);
        is_below
    };
    weights.iter().position(is_it).expect("it is below the sum")
}

/// A call of a script. Its key is that in focus, with a tag, unless it says otherwise.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Put,
    /// Of another key, or of a third one.
    PutElsewhere(usize),
    Get,
    Fetch,
    TakePoint,
    Invalidate(Kind),
    /// Dropped after its first poll: it has returned, and others remove what it covers.
    Begin(Kind),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Key,
    Prefix,
    Tag,
    Dependency,
    Namespace,
    All,
}

use Step::{Begin, Fetch as Ask, Get, Invalidate, PutElsewhere, TakePoint};

/// The calls of each thread.
pub(crate) type Script = &'static [&'static [Step]];

/// Calls that meet closely: the more calls there are, the more seldom a schedule stops one of them
/// between two certain steps of it.
pub(crate) const SCRIPTS: &[Script] = &[
    &[&[Get], &[Step::Put]],
    &[&[Get, Get], &[Step::Put], &[PutElsewhere(1)]],
    &[&[Get], &[Begin(Kind::Tag), PutElsewhere(1)]],
    &[&[Get], &[Begin(Kind::Prefix), PutElsewhere(1)]],
    &[&[Get, Get], &[Invalidate(Kind::Tag)]],
    &[&[Get, Get], &[Invalidate(Kind::Prefix)]],
    &[&[Get, Get], &[Invalidate(Kind::Key)]],
    &[&[Get], &[Step::Put, Get], &[Invalidate(Kind::Namespace)]],
    &[&[Step::Put, Get], &[Invalidate(Kind::Namespace)]],
    &[&[Step::Put, Get], &[Invalidate(Kind::All)]],
    &[&[TakePoint, Step::Put, Get], &[Invalidate(Kind::Key)]],
    &[&[Step::Put], &[PutElsewhere(1), Get], &[PutElsewhere(2)]],
    &[&[Get], &[Get], &[Step::Put, Get]],
    &[&[Get, Get], &[Invalidate(Kind::Key), Get]],
    &[&[Ask, Get], &[Invalidate(Kind::Tag), Ask]],
];

/// What all threads of a scene share.
struct World {
    cache: BlobCache,
    tiers: Tiers,
    tickets: Tickets,
    calls: std::sync::Mutex<Vec<Call>>,
    fetches: std::sync::Mutex<Vec<Fetch>>,
}

/// A value that a caller fetched, or was given, in a call of `get_or_fetch`.
struct Fetch {
    call: Call,
    full_key: FullKey,
    value: u64,
}

struct Worker {
    world: Arc<World>,
    point: Option<(ReadPoint, u64)>,
    manner: Manner,
}

fn config(tiers: Tiers) -> BlobCacheConfig {
    let config = BlobCacheConfig::builder()
        .clock(Clock::manual(UNIX_EPOCH))
        .background_sweep(BackgroundSweep::Off)
        .shard_count(thread_rng().gen_range(1..3))
        .l1_bytes_max(if tiers == Tiers::Roomy { 1 << 20 } else { 64 << 10 });
    let config = match tiers {
        Tiers::Roomy => config,
        Tiers::Tiny | Tiers::Disk => config.l1_charge(|_, _| CHARGE),
    };
    let config = match tiers {
        Tiers::Roomy | Tiers::Tiny => config,
        Tiers::Disk => config
            .l2_path("simulated")
            .l2_bytes_max(6 * (64 << 10))
            .l2_segment_bytes(64 << 10)
            .l2_promotion_policy(L2PromotionPolicy::Immediate)
            .l2_compression(L2Compression::Off),
    };
    config.build().expect("it is within bounds")
}

/// Polls a call once, and drops it.
fn once<F: Future>(call: F) -> Option<F::Output> {
    let polled = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
    match polled {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn any<T: Copy>(of: &[T]) -> T {
    of[thread_rng().gen_range(0..of.len())]
}

fn value_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("each value is a number"))
}

impl World {
    fn note(&self, start: u64, event: Event) {
        let end = self.tickets.draw();
        self.calls.lock().expect("no thread panics").push(Call { start, end, event });
    }
}

impl Worker {
    fn new(world: &Arc<World>, manner: Manner) -> Self {
        Self { world: Arc::clone(world), point: None, manner }
    }

    fn full_key(&self) -> FullKey {
        if thread_rng().gen_bool(self.manner.focused) {
            return self.manner.focus;
        }
        FullKey { namespace: any(&NAMESPACES), key: any(&KEYS) }
    }

    fn label(&self) -> &'static str {
        any(&LABELS[..self.manner.labels])
    }

    fn step(&mut self, step: Step) {
        let focus = self.manner.focus;
        match step {
            Step::Put => self.put(focus),
            PutElsewhere(other) => {
                let place = KEYS.iter().position(|key| *key == focus.key).unwrap_or(0);
                self.put(FullKey { key: KEYS[(place + other) % KEYS.len()], ..focus });
            }
            Get => self.get(focus),
            Ask => self.fetch(focus),
            TakePoint => self.take_point(),
            Invalidate(kind) => self.invalidate(focus, kind, false),
            Begin(kind) => self.invalidate(focus, kind, true),
        }
    }

    fn call(&mut self) {
        let full_key = self.full_key();
        match by_weight(&self.manner.calls) {
            0 => self.put(full_key),
            1 => self.get(full_key),
            2 => self.exists(full_key),
            3 => self.take_point(),
            4 => self.fetch(full_key),
            5 => drop(block_on(self.world.cache.sweep_expired(SweepLimit::Entries(1)))),
            _ => {
                const KINDS: [Kind; 6] = [
                    Kind::Key,
                    Kind::Prefix,
                    Kind::Tag,
                    Kind::Dependency,
                    Kind::Namespace,
                    Kind::All,
                ];
                let is_dropped = thread_rng().gen_bool(self.manner.dropped);
                self.invalidate(full_key, KINDS[by_weight(&self.manner.scopes)], is_dropped);
            }
        }
    }

    fn take_point(&mut self) {
        let point = self.world.cache.read_point();
        self.point = Some((point, self.world.tickets.draw()));
    }

    fn put(&mut self, full_key: FullKey) {
        let labels = Labels {
            tag: thread_rng().gen_bool(self.manner.tagged).then(|| self.label()),
            dependency: thread_rng().gen_bool(0.2).then(|| self.label()),
        };
        let is_never =
            thread_rng().gen_bool(if self.world.tiers == Tiers::Disk { 0.2 } else { 0.1 });
        let admission = if is_never { L1Admission::Never } else { L1Admission::Always };
        let World { cache, tickets, .. } = &*self.world;
        let start = tickets.draw();
        let value = start;
        let mut put = BlobCachePut::new(value.to_le_bytes().to_vec())
            .with_tags(labels.tag)
            .with_dependencies(labels.dependency)
            .with_policy(BlobCachePolicy::default().l1_admission(admission));
        let point = self.point.take().filter(|_| thread_rng().gen_bool(0.7));
        if let Some((point, _)) = point {
            put = put.read_at(point);
        }
        let putting = cache.put(full_key.namespace, full_key.key, put);
        let is_dropped = thread_rng().gen_bool(0.1);
        let result = if is_dropped { once(putting) } else { Some(block_on(putting)) };
        assert!(!matches!(result, Some(Err(_))), "{result:?}");
        let read_at = point.map(|(_, ticket)| ticket);
        let is_certain = read_at.is_none() && result.is_some();
        let is_held = !is_never || self.world.tiers == Tiers::Disk;
        let event = match (is_held, is_certain) {
            (true, _) => {
                Event::Put(Put { full_key, value, labels, version: None, read_at, is_certain })
            }
            (false, true) => Event::Invalidation(Scope::Key(full_key)),
            (false, false) => Event::PossibleRemoval(full_key),
        };
        self.world.note(start, event);
    }

    fn get(&self, full_key: FullKey) {
        let start = self.world.tickets.draw();
        let hit = block_on(self.world.cache.get(full_key.namespace, full_key.key));
        self.world.note(start, Event::Get(full_key, hit.map(|hit| value_of(hit.value()))));
    }

    fn exists(&self, full_key: FullKey) {
        let start = self.world.tickets.draw();
        let presence = self.world.cache.exists(full_key.namespace, full_key.key);
        if presence != CachePresence::MaybePresent {
            self.world.note(start, Event::Exists(full_key, presence == CachePresence::Present));
        }
    }

    fn fetch(&self, full_key: FullKey) {
        let World { cache, tickets, calls, fetches, .. } = &*self.world;
        let start = tickets.draw();
        let put = std::sync::Mutex::new(None);
        let fetch = || async {
            let read_at = tickets.draw();
            yield_now().await;
            let (start, labels) = (tickets.draw(), Labels::default());
            let (value, read_at) = (start, Some(read_at));
            let made = Put { full_key, value, labels, version: None, read_at, is_certain: false };
            *put.lock().expect("no thread panics") = Some((start, made));
            Ok::<_, Infallible>(
                BlobCachePut::new(value.to_le_bytes().to_vec())
                    .with_policy(BlobCachePolicy::default().l1_admission(L1Admission::Always)),
            )
        };
        let hit = block_on(cache.get_or_fetch(full_key.namespace, full_key.key, fetch));
        let value = value_of(hit.expect("no fetch fails").value());
        let end = tickets.draw();
        if let Some((start, put)) = put.into_inner().expect("no thread panics") {
            let call = Call { start, end, event: Event::Put(put) };
            calls.lock().expect("no thread panics").push(call);
        }
        let call = Call { start, end, event: Event::Get(full_key, Some(value)) };
        fetches.lock().expect("no thread panics").push(Fetch { call, full_key, value });
    }

    /// In force from the first poll, even if the call is dropped: the log has room.
    fn invalidate(&self, full_key: FullKey, kind: Kind, is_dropped: bool) {
        fn carry_out<F: Future>(call: F, is_dropped: bool) {
            if is_dropped {
                drop(once(call));
            } else {
                drop(block_on(call));
            }
        }
        let World { cache, tickets, .. } = &*self.world;
        let (namespace, label, prefix) = (full_key.namespace, self.label(), any(&PREFIXES));
        let start = tickets.draw();
        let scope = match kind {
            Kind::Key => {
                carry_out(cache.invalidate_key(namespace, full_key.key), is_dropped);
                Scope::Key(full_key)
            }
            Kind::Prefix => {
                carry_out(cache.invalidate_prefix(namespace, prefix), is_dropped);
                Scope::Prefix(namespace, prefix)
            }
            Kind::Tag => {
                carry_out(cache.invalidate_tags(namespace, &[label]), is_dropped);
                Scope::Tag(namespace, label)
            }
            Kind::Dependency => {
                carry_out(cache.invalidate_dependencies(namespace, &[label]), is_dropped);
                Scope::Dependency(namespace, label)
            }
            Kind::Namespace => {
                carry_out(cache.invalidate_namespace(namespace), is_dropped);
                Scope::Namespace(namespace)
            }
            Kind::All => {
                carry_out(cache.invalidate_all(), is_dropped);
                Scope::All
            }
        };
        self.world.note(start, Event::Invalidation(scope));
    }
}

/// Threads that run a script.
fn scripted(world: &Arc<World>, manner: Manner, script: Script) -> Vec<JoinHandle<()>> {
    let spawn = |steps: &&'static [Step]| {
        let (mut worker, steps) = (Worker::new(world, manner), *steps);
        thread::spawn(move || steps.iter().for_each(|step| worker.step(*step)))
    };
    script.iter().map(spawn).collect()
}

/// Threads whose calls are drawn.
fn drawn(world: &Arc<World>, manner: Manner) -> Vec<JoinHandle<()>> {
    let calls = any(&[2, 2, 3, 4]);
    let spawn = |_| {
        let mut worker = Worker::new(world, manner);
        thread::spawn(move || (0..calls).for_each(|_| worker.call()))
    };
    (0..any(&[2, 2, 3, 4])).map(spawn).collect()
}

/// Runs a scene under the schedule of the caller.
pub(crate) fn scene(tiers: Tiers, script: Option<Script>) {
    let cache = block_on(async {
        match tiers {
            Tiers::Disk => open_on_disk(config(tiers), 0).await,
            Tiers::Roomy | Tiers::Tiny => BlobCache::open(config(tiers)).await.expect("it opens"),
        }
    });
    let (tickets, calls, fetches) = Default::default();
    let world = Arc::new(World { cache, tiers, tickets, calls, fetches });
    let manner = if script.is_some() { Manner::of_scripts() } else { Manner::any() };
    let mut first = Worker::new(&world, manner);
    first.put(manner.focus);
    (0..thread_rng().gen_range(0..3)).for_each(|_| first.put(first.full_key()));
    if tiers == Tiers::Disk && thread_rng().gen_bool(0.7) {
        // They push it out of memory.
        (1..3).for_each(|other| first.step(PutElsewhere(other)));
    }
    let threads = match script {
        Some(script) => scripted(&world, manner, script),
        None => drawn(&world, manner),
    };
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    block_on(settle(&world.cache));
    let held = audit(&world.cache, &NAMESPACES);
    for namespace in NAMESPACES {
        KEYS.iter().for_each(|key| first.get(FullKey { namespace, key }));
    }
    drop(first);
    let World { cache, calls, fetches, .. } =
        Arc::into_inner(world).expect("the threads have ended");
    let closed = block_on(cache.close());
    let stats = cache.stats();
    drop(cache);
    assert_eq!(held, Ok(()));
    let calls = calls.into_inner().expect("no thread panics");
    check_fetches(&fetches.into_inner().expect("no thread panics"), &calls);
    let history = History::new(calls);
    let misses = if tiers == Tiers::Tiny { Ok(()) } else { history.check_misses() };
    if let Err(what) = history.check().and(misses) {
        panic!("{what}");
    }
    assert_eq!(closed, Ok(()));
    assert_eq!((stats.entries(), stats.bytes_in_use(), stats.memory_labels_bytes()), (0, 0, 0));
    assert_eq!(stats.l2_reclaimed_segments(), 0, "the disk has room for all");
}

/// A caller may be given a value that was fetched before a mutation if it came before that had
/// returned.
fn check_fetches(fetches: &[Fetch], calls: &[Call]) {
    for Fetch { call, full_key, value } in fetches {
        let of = calls.iter().find_map(|of| match of.event {
            Event::Put(put) if put.value == *value => Some((of, put)),
            _ => None,
        });
        let (of, put) = of.unwrap_or_else(|| panic!("{call:?}: a value that was never put"));
        assert_eq!(put.full_key, *full_key, "{call:?} has the value of another key");
        assert!(of.start < call.end, "{call:?} has a value before it was put");
        let since = put.read_at.unwrap_or(of.end);
        let ends = |other: &&Call| {
            other.start > since && other.end < call.start && other.event.ends(*full_key, put.labels)
        };
        if let Some(reason) = calls.iter().find(ends) {
            panic!("{call:?}\nwas given what\n{of:?}\nhas put, in spite of\n{reason:?}");
        }
    }
}
