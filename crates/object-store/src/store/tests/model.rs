//! A model: random gets, writes through the store and past it, failures, and callers that go away,
//! in several tasks at once. Each answer must be one state of its path, whole: the present one, or
//! one that was present after the call began, or one that was replaced past the store no longer ago
//! than is permitted, and not before a write through the store returned. A version that is asked
//! for by name is that one, and preconditions are judged by such a state.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures::future::{Either, select};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{BlobCache, BlobCacheConfig, Clock};

use super::history::{History, Life, Manners};
use super::object_store::path::Path;
use super::object_store::{Error, GetRange, ObjectStore, ObjectStoreExt, Result};
use super::told::{Told, Wanted, is_failure, is_of_range};
use super::{CachedObjectStore, KIB, content};

const TASKS: u64 = 5;
const CALLS: u32 = 60;
const PATHS: u64 = 3;

/// What a case is like.
#[derive(Debug, Clone, Copy)]
struct Case {
    staleness: Duration,
    is_immutable: bool,
    has_absences: bool,
    unknown: Duration,
    has_disk: bool,
    manners: Manners,
}

impl Case {
    fn new(random: &mut StdRng) -> Self {
        let is_immutable = random.random_range(0..5) == 0;
        let staleness = [0, 5, 1000][random.random_range(0..3)];
        let unknown = if is_immutable { 600 } else { [0, 600][random.random_range(0..2)] };
        Self {
            staleness: Duration::from_secs(staleness),
            is_immutable,
            has_absences: random.random_range(0..2) == 0,
            unknown: Duration::from_secs(unknown),
            has_disk: random.random_range(0..4) == 0,
            manners: Manners {
                failures: [0, 0, 3][random.random_range(0..3)],
                turns: [1, 8, 40][random.random_range(0..3)],
                has_e_tags: random.random_range(0..3) > 0,
                has_versions: random.random_range(0..3) == 0,
            },
        }
    }
}

/// What writes through the store have made sure of.
#[derive(Debug, Default)]
struct Sure {
    /// When a write returned, and the state that was present before it or is its own.
    returned: Vec<(u64, usize)>,
    /// Since when the path is not cached, as the outcome of a write is unknown.
    uncached: Option<u64>,
}

/// All that a task needs.
#[derive(Clone)]
struct World {
    store: CachedObjectStore,
    history: History,
    clock: Clock,
    case: Case,
    sure: Arc<Mutex<HashMap<Path, Sure>>>,
}

/// When a call began.
#[derive(Debug, Clone, Copy)]
struct Began {
    tick: u64,
    time: SystemTime,
}

impl World {
    fn begin(&self) -> Began {
        let time = self.clock.now();
        Began { tick: self.history.tick(), time }
    }

    /// The states that an answer may be.
    fn permitted(&self, path: &Path, began: Began) -> Vec<Life> {
        let sure = self.sure.lock().unwrap();
        let sure = sure.get(path);
        let returned = sure.map_or(&[][..], |sure| &sure.returned);
        let barrier = returned.iter().filter(|(tick, _)| *tick < began.tick);
        let barrier = barrier.map(|(_, state)| *state).max().unwrap_or(0);
        let uncached = sure.and_then(|sure| sure.uncached);
        let is_uncached = uncached.is_some_and(|tick| tick < began.tick);
        let lives = self.history.lives(path);
        let is_permitted = |(number, life): &(usize, Life)| {
            let Some(next) = lives.get(number + 1) else { return true };
            let is_recent = self.case.is_immutable && life.object.is_some()
                || began.time < next.time + self.case.staleness;
            next.tick > began.tick || (!is_uncached && *number >= barrier && is_recent)
        };
        lives.iter().cloned().enumerate().filter(is_permitted).map(|(_, life)| life).collect()
    }

    fn check(&self, path: &Path, began: Began, told: &Told, wanted: &Wanted, asked: &str) {
        let permitted = match (wanted, told) {
            (Wanted::Version(life), _) => vec![life.clone()],
            // What is known of the object refuses no caller: it may have heard of a newer one.
            (_, Told::Refused) => self.present(path, began),
            _ => self.permitted(path, began),
        };
        assert!(
            permitted.iter().any(|life| told.is_of(life, wanted)),
            "{asked} of {path} at {began:?}, {wanted:?}, was told {told:?}, of {permitted:?}; {:?}",
            self.history.lives(path)
        );
    }

    /// The states that were present at some time since a call began.
    fn present(&self, path: &Path, began: Began) -> Vec<Life> {
        let lives = self.history.lives(path);
        let has_ended =
            |number: usize| lives.get(number + 1).is_some_and(|next| next.tick <= began.tick);
        let present = lives.iter().cloned().enumerate().filter(|(number, _)| !has_ended(*number));
        present.map(|(_, life)| life).collect()
    }
}

/// A future, or None when it has not ended after so many turns.
async fn unless_dropped<T>(turns: Option<u32>, call: impl Future<Output = T>) -> Option<T> {
    let Some(turns) = turns else { return Some(call.await) };
    let patience = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    match select(std::pin::pin!(call), std::pin::pin!(patience)).await {
        Either::Left((answer, _)) => Some(answer),
        Either::Right(_) => None,
    }
}

/// What a caller of this path may insist on.
fn wanted(world: &World, random: &mut StdRng, path: &Path) -> Wanted {
    let Manners { has_e_tags, has_versions, .. } = world.case.manners;
    let lives: Vec<_> = world.history.lives(path);
    let mut objects: Vec<_> = lives.into_iter().filter(|life| life.object.is_some()).collect();
    let Some(newest) = objects.pop() else { return Wanted::Any };
    let older =
        (!objects.is_empty()).then(|| objects.swap_remove(random.random_range(0..objects.len())));
    let life = if random.random_range(0..2) == 0 { older.unwrap_or(newest) } else { newest };
    let e_tag = life.e_tag().unwrap().to_owned();
    match random.random_range(0..8) {
        0 if has_e_tags => Wanted::Match(e_tag),
        1 if has_e_tags => Wanted::Other(e_tag),
        2 if has_versions => Wanted::Version(life),
        _ => Wanted::Any,
    }
}

async fn read(world: &World, random: &mut StdRng, path: &Path) {
    let place = |random: &mut StdRng| random.random_range(0..420) * KIB + random.random_range(0..9);
    let (one, other) = (place(random), place(random));
    let bounded = one.min(other)..one.max(other) + 1;
    let kind = random.random_range(0..8);
    let turns = (random.random_range(0..6) == 0).then(|| random.random_range(0..60));
    let began = world.begin();
    if kind == 0 {
        let ranges = [bounded.clone(), one..one + 10, other..other + 70_000];
        let call = unless_dropped(turns, world.store.get_ranges(path, &ranges)).await;
        let told = match call {
            None => return,
            Some(Ok(parts)) => Told::Pieces(None, ranges.into_iter().zip(parts).collect()),
            Some(Err(Error::NotFound { .. })) => Told::Absent,
            Some(Err(error)) if is_failure(&error) => return,
            Some(Err(error)) => {
                assert!(is_of_range(&error), "{error:?}");
                Told::Invalid(one.max(other))
            }
        };
        return world.check(path, began, &told, &Wanted::Any, "get_ranges");
    }
    let wanted = wanted(world, random, path);
    let (range, is_head) = match kind {
        1 => (None, true),
        2 => (None, false),
        3 => (Some(GetRange::Offset(one)), false),
        4 => (Some(GetRange::Suffix(one + 1)), false),
        _ => (Some(GetRange::Bounded(bounded)), false),
    };
    let asked = format!("{range:?} {is_head}");
    let options = wanted.options().with_range(range.clone()).with_head(is_head);
    let call = async {
        let answer = world.store.get_opts(path, options).await;
        Told::by(answer, range.as_ref(), is_head, world.case.manners).await
    };
    if let Some(Some(told)) = unless_dropped(turns, call).await {
        world.check(path, began, &told, &wanted, &asked);
    }
}

/// Carries out a write through the store, and notes what is sure from then on.
async fn write(
    world: &World,
    paths: &[Path],
    turns: Option<u32>,
    call: impl Future<Output = Result<()>>,
) {
    let before: Vec<_> = paths.iter().map(|path| world.history.lives(path).len() - 1).collect();
    let result = unless_dropped(turns, call).await;
    let tick = world.history.tick();
    let is_unknown = match &result {
        None => true,
        Some(Err(error)) => is_failure(error),
        Some(Ok(())) => false,
    };
    // Of a write that has succeeded the effect is a state that began during it.
    let own = usize::from(matches!(result, Some(Ok(()))));
    let mut sure = world.sure.lock().unwrap();
    for (path, before) in paths.iter().zip(before) {
        let sure = sure.entry(path.clone()).or_default();
        if result.is_some() {
            sure.returned.push((tick, before + own));
        }
        if is_unknown && !world.case.unknown.is_zero() {
            sure.uncached.get_or_insert(tick);
        }
    }
}

async fn step(world: &World, random: &mut StdRng, seed: u64) {
    let path = Path::from(format!("{}", random.random_range(0..PATHS)));
    let other = Path::from(format!("{}", random.random_range(0..PATHS)));
    let length = random.random_range(1..7) * 64 * KIB + random.random_range(0..3) * 8 + 8;
    let turns = (random.random_range(0..8) == 0).then(|| random.random_range(0..20));
    let store = &world.store;
    let may_go_past = !world.case.is_immutable;
    match random.random_range(0..40) {
        0..=2 => {
            let put = async { store.put(&path, content(seed, length).into()).await.map(drop) };
            write(world, std::slice::from_ref(&path), turns, put).await;
        }
        3 => {
            let upload = async {
                let mut upload = store.put_multipart(&path).await?;
                upload.put_part(content(seed, length).into()).await?;
                upload.complete().await.map(drop)
            };
            write(world, std::slice::from_ref(&path), turns, upload).await;
        }
        4 => write(world, std::slice::from_ref(&path), turns, store.delete(&path)).await,
        5 if path != other => {
            write(world, std::slice::from_ref(&other), turns, store.copy(&path, &other)).await;
        }
        6 if path != other => {
            let paths = [path.clone(), other.clone()];
            write(world, &paths, turns, store.rename(&path, &other)).await;
        }
        7..=9 if may_go_past => world.history.put_past(&path, content(seed, length)),
        10 if may_go_past => world.history.delete_past(&path),
        11..=13 => world.clock.advance(Duration::from_secs(random.random_range(0..4))),
        _ => read(world, random, &path).await,
    }
}

pub(super) async fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let case = Case::new(&mut random);
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let folder = tempfile::tempdir().unwrap();
    let config = BlobCacheConfig::builder().clock(clock.clone()).l1_bytes_max(1 << 20);
    let config = config.spawner(tokio::runtime::Handle::current());
    let config = match case.has_disk {
        true => config.l2_path(folder.path()).l2_bytes_max(16 << 20),
        false => config,
    };
    let cache = BlobCache::open(config.build().unwrap()).await.unwrap();
    let history = History::new(clock.clone(), random.random(), case.manners);
    let builder = CachedObjectStore::builder(Arc::new(history.clone()), &cache, "objects");
    let mut builder = builder
        .block_bytes(64 * KIB)
        .request_bytes_max([64, 128, 1024][random.random_range(0..3)] * KIB)
        .requests_max(random.random_range(1..4))
        .read_ahead([0, 256 * KIB][random.random_range(0..2)])
        .staleness(case.staleness)
        .unknown_writes(case.unknown);
    if case.is_immutable {
        builder = builder.immutable(|_| true);
    }
    if case.has_absences {
        builder = builder.absences(case.staleness);
    }
    let store = builder.build().unwrap();
    let world = World { store, history, clock, case, sure: Arc::default() };
    let tasks = (1..=TASKS).map(|task| {
        let (world, mut random) = (world.clone(), StdRng::seed_from_u64(random.random()));
        tokio::spawn(async move {
            for call in 0..CALLS {
                step(&world, &mut random, task << 16 | u64::from(call)).await;
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        if let Err(error) = task.await {
            println!("TAMIS_SEED={seed}: {case:?}");
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn each_answer_is_one_version_and_not_too_old() {
    let cases = number("TAMIS_CASES").unwrap_or(60);
    let seeds = match number("TAMIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => rand::random::<u32>().into()..u64::MAX,
    };
    for seed in seeds.take(usize::try_from(cases).unwrap()) {
        // One thread for half of them: a seed runs the same way again.
        let mut runtime = match seed % 2 {
            0 => tokio::runtime::Builder::new_current_thread(),
            _ => tokio::runtime::Builder::new_multi_thread(),
        };
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(run(seed));
    }
}
