//! `History`: lives of a cache over one disk, several calls at a time, each ending in a close, a
//! kill or a power loss. The same seed gives the same history.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::call::{Call, Cover, Place, Put, SPACES, Verb, label};
use super::checker::{Asked, Checker, Effect, Found};
use super::setting::Setting;
use super::tally::Tally;
use crate::cache::BlobCache;
use crate::cache::open::{Identity, Medium, geometry};
use crate::cache::shared::Shared;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::hit::{BlobCacheHit, CachePresence, CacheTier};
use crate::io::{Fault, Lane, OperationKind, SimulatedDisk, Simulation};
use crate::step::pause;
use crate::sweep::SweepLimit;

/// The numbers of the calls of each life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) lives: Vec<Vec<u32>>,
}

/// A life's calls are numbered from a multiple of this.
const LIFE: u32 = 1000;

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut life = |number: u32| {
            let first = number * LIFE;
            (first..first + random.random_range(1..200)).collect()
        };
        Self { seed, lives: (0..8).map(&mut life).collect() }
    }

    pub(super) fn calls(&self) -> usize {
        self.lives.iter().map(Vec::len).sum()
    }
}

/// A call that has ended.
enum Outcome {
    Mutated(u32, Asked, Option<Result<(), CacheError>>),
    Got(Place, Asked, Option<BlobCacheHit>),
    Existed(Place, Asked, CachePresence),
    Nothing,
}

type Calls = FuturesUnordered<BoxFuture<'static, Outcome>>;

pub(super) struct History {
    seed: u64,
    setting: Setting,
    random: StdRng,
    simulation: Simulation,
    disk: SimulatedDisk,
    config: BlobCacheConfig,
    cache: BlobCache,
    clock: u64,
    boot: u8,
    life: u32,
    pub(super) checker: Checker,
    pub(super) tally: Tally,
}

/// `None` once it has been polled so often without an end; it is dropped then.
async fn patient<T>(future: impl Future<Output = T> + Send, mut polls: u32) -> Option<T> {
    let mut future = Some(Box::pin(future));
    poll_fn(|context| {
        let Some(running) = &mut future else { return Poll::Ready(None) };
        match Pin::as_mut(running).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 0 => {
                future = None;
                Poll::Ready(None)
            }
            Poll::Pending => {
                polls -= 1;
                Poll::Pending
            }
        }
    })
    .await
}

impl History {
    pub(super) fn new(seed: u64, setting: Setting) -> Self {
        let config = setting.config(seed);
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let mut simulation = Simulation::new(seed);
        let opening = opening(seed, &simulation, &disk, &config, 0);
        let cache = BlobCache { shared: simulation.block_on(opening).unwrap().unwrap() };
        Self {
            seed,
            setting,
            random: StdRng::seed_from_u64(seed),
            simulation,
            disk,
            config,
            cache,
            clock: 0,
            boot: 0,
            life: 0,
            checker: Checker::new(setting.is_roomy),
            tally: Tally::default(),
        }
    }

    /// Lives through a plan.
    pub(super) fn run(&mut self, plan: &Plan) -> Result<(), String> {
        for (number, life) in (0..).zip(&plan.lives) {
            self.life = number;
            self.random = StdRng::seed_from_u64(plan.seed.wrapping_add(u64::from(number)) ^ 0x5eed);
            self.live(life)?;
        }
        self.checker.check_races()
    }

    fn live(&mut self, numbers: &[u32]) -> Result<(), String> {
        self.begin_disk();
        let mut calls = Calls::new();
        // Most lives end soon after some request to the disk, wherever that falls, or while a
        // superblock is being written.
        let begun = self.disk.begun();
        let last = match self.random.random_range(0..4) {
            0 => (u64::MAX, begun.1 + self.random.random_range(1..40)),
            1 => (begun.0 + self.random.random_range(0..600), u64::MAX),
            _ => (u64::MAX, u64::MAX),
        };
        let is_last = |disk: &SimulatedDisk| {
            let begun = disk.begun();
            begun.0 >= last.0 || begun.1 >= last.1
        };
        let mut grace = self.random.random_range(0..8);
        for &number in numbers {
            let call = Call::draw(self.seed, number);
            while calls.len() >= call.width && !is_last(&self.disk) {
                self.step(&mut calls, 4)?;
            }
            if is_last(&self.disk) && !self.setting.is_roomy {
                if grace == 0 {
                    break;
                }
                grace -= 1;
            }
            self.tally.calls += 1;
            self.begin(number, &call, &mut calls);
            if call.waits {
                let lane = self.simulation.lane();
                let waiting = lane.sleep(Duration::from_millis(700));
                self.drive(waiting).ok_or("time stands still")?;
            }
            self.step(&mut calls, call.patience)?;
        }
        if self.random.random_bool(0.5) {
            self.end_faults();
        }
        self.die(calls)?;
        self.reopen()?;
        // Nobody else is there now: what is found is what the disk has. What is read gets a second
        // chance, so not everything is.
        let share = [0.0, 0.5, 1.0][self.random.random_range(0..3)];
        for place in Place::all() {
            if !self.random.random_bool(share) {
                continue;
            }
            let get = self.get(place);
            let outcome = self.drive(get).ok_or("a get hangs")?;
            let is_hit = matches!(&outcome, Outcome::Got(_, _, Some(_)));
            self.tally.hits_after_open += u64::from(is_hit);
            self.end(outcome)?;
        }
        Ok(())
    }

    /// Polls until a call ends, or for so long.
    fn step(&mut self, calls: &mut Calls, patience: u32) -> Result<(), String> {
        let step = patient(calls.next(), patience);
        match self.drive(step).ok_or("all calls hang")?.flatten() {
            Some(outcome) => self.end(outcome),
            None => Ok(()),
        }
    }

    /// Runs a future, and all tasks beside it. None where they wait for each other.
    fn drive<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        self.simulation.block_on(future)
    }

    fn asked(&mut self) -> Asked {
        Asked { begun: self.checker.tick(), clock: self.clock, life: self.life }
    }

    fn get(&mut self, place: Place) -> BoxFuture<'static, Outcome> {
        let (asked, cache) = (self.asked(), self.cache.clone());
        Box::pin(async move {
            Outcome::Got(place, asked, cache.get(place.namespace(), place.name()).await)
        })
    }

    fn begin(&mut self, number: u32, call: &Call, calls: &mut Calls) {
        let cache = self.cache.clone();
        let mutation: BoxFuture<'static, Result<(), CacheError>> = match call.verb.clone() {
            Verb::Get(place) => return calls.push(self.get(place)),
            Verb::Exists(place) => {
                let asked = self.asked();
                let presence = cache.exists(place.namespace(), place.name());
                let existed = std::future::ready(Outcome::Existed(place, asked, presence));
                return calls.push(Box::pin(existed));
            }
            Verb::Pass(seconds) => {
                self.clock += seconds;
                return self.config.clock.advance(Duration::from_secs(seconds));
            }
            Verb::Sync => {
                return calls.push(Box::pin(async move {
                    // What it says of a device that fails is not judged here.
                    let _ = cache.sync().await;
                    Outcome::Nothing
                }));
            }
            Verb::Sweep => {
                return calls.push(Box::pin(async move {
                    cache.sweep_expired(SweepLimit::Entries(1000)).await;
                    Outcome::Nothing
                }));
            }
            Verb::Put(place, put) => {
                self.checker.begin(number, Cover::Key(place), Some(put.clone()));
                let mut blob = put.blob();
                if put.is_fill {
                    blob = blob.read_at(cache.read_point());
                }
                Box::pin(async move {
                    // What is filled in takes its time to be read.
                    for _ in 0..if put.is_fill { number % 16 } else { 0 } {
                        pause().await;
                    }
                    cache.put(place.namespace(), place.name(), blob).await
                })
            }
            Verb::Invalidate(cover) => {
                self.checker.begin(number, cover, None);
                Box::pin(async move { invalidate(&cache, cover).await })
            }
        };
        let (asked, polls) = (self.asked(), call.polls);
        calls.push(Box::pin(async move {
            Outcome::Mutated(number, asked, patient(mutation, polls).await)
        }));
    }

    fn end(&mut self, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Nothing => Ok(()),
            Outcome::Existed(place, asked, CachePresence::Present) => {
                self.checker.existed(place, asked)
            }
            Outcome::Existed(..) => Ok(()),
            Outcome::Got(place, asked, hit) => {
                self.tally.gets += 1;
                let found = hit.map(|hit| self.found(&hit)).transpose()?;
                self.checker.got(place, asked, found)
            }
            Outcome::Mutated(number, asked, result) => {
                let effect = match result {
                    Some(Err(CacheError::VersionMismatch { existing, .. })) => {
                        return self.checker.mismatched(number, asked, existing, self.clock);
                    }
                    Some(Err(CacheError::L2Io { .. })) if self.setting.has_faults => {
                        Effect::CertainInLife(self.life)
                    }
                    Some(Err(CacheError::VersionUnknown { .. })) if self.setting.has_faults => {
                        Effect::None
                    }
                    // In force from its first poll on, where the log has room.
                    None if self.setting.is_roomy && self.checker.is_invalidation(number) => {
                        Effect::CertainInLife(self.life)
                    }
                    // It may have taken effect before the close came.
                    None | Some(Err(CacheError::Closed)) => Effect::Possible,
                    Some(Err(error)) => return Err(format!("call {number} fails: {error}")),
                    Some(Ok(())) => Effect::Certain,
                };
                self.tally.dropped += u64::from(result.is_none());
                self.checker.end(number, effect, self.clock);
                Ok(())
            }
        }
    }

    fn found(&mut self, hit: &BlobCacheHit) -> Result<Found, String> {
        match hit.tier() {
            CacheTier::L1 => self.tally.hits_l1 += 1,
            _ => self.tally.hits_l2 += 1,
        }
        let number = Put::number_of(hit.value()).ok_or("a mixture of values")?;
        Ok(Found { number, version: hit.version(), is_stale: hit.is_stale() })
    }

    /// The process ends, in one way or another, with what it is doing.
    fn die(&mut self, mut calls: Calls) -> Result<(), String> {
        let way = if self.setting.is_roomy { 0 } else { self.random.random_range(0..4) };
        let stats = self.cache.stats();
        match way {
            0 => {
                let cache = self.cache.clone();
                self.checker.is_closed = true;
                // What is under way goes on beside it.
                let left = calls.by_ref().collect::<Vec<_>>();
                let both = futures::future::join(cache.close(), left);
                let (closed, left) = self.drive(both).ok_or("close hangs")?;
                if closed.is_err() && !self.setting.has_faults {
                    return Err(format!("close fails: {closed:?}"));
                }
                left.into_iter().try_for_each(|outcome| self.end(outcome))?;
                // Its tasks come to their ends, as closing a file waits for.
                let lane = self.simulation.lane();
                self.drive(lane.sleep(Duration::from_secs(5))).ok_or("time stands still")?;
                self.simulation.kill();
                self.disk.settle();
            }
            1 | 2 => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        drop(calls);
        if let Some(panic) = self.simulation.panics().first() {
            return Err(format!("a task has panicked: {panic}"));
        }
        self.tally.take(&stats);
        let how = ["close", "kill", "kill", "power loss"][way];
        self.checker.end_life(self.clock, format!("{how}, {:?}", stats.l2_state()));
        // Calls that came after the close belong to the life that has ended.
        self.life += 1;
        Ok(())
    }

    fn reopen(&mut self) -> Result<(), String> {
        self.end_faults();
        if !self.setting.is_roomy && self.random.random_bool(0.3) {
            // Another end soon after, in the middle of recovery.
            let polls = self.random.random_range(0..60);
            let opening = self.opening();
            let opened = self.drive(patient(opening, polls)).ok_or("open hangs")?;
            drop(opened);
            self.simulation.kill();
            if self.random.random_bool(0.5) {
                self.disk = self.disk.kill();
            } else {
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        if self.setting.has_faults && self.random.random_bool(0.3) {
            // What cannot be read is lost for good, or it is opened in vain.
            self.disk.plan(|plan| plan.read_failure = 0.1);
        }
        let opening = self.opening();
        let mut opened = self.drive(opening).ok_or("open hangs")?;
        self.end_faults();
        if opened.is_err() && self.setting.has_faults {
            let opening = self.opening();
            opened = self.drive(opening).ok_or("open hangs")?;
        }
        let shared = opened.map_err(|error| format!("open fails: {error}"))?;
        self.cache = BlobCache { shared };
        self.checker.is_closed = false;
        self.tally.recovered += self.cache.stats().recovery_records();
        Ok(())
    }

    fn opening(&self) -> impl Future<Output = Result<Arc<Shared>, CacheError>> + Send + use<> {
        opening(self.seed, &self.simulation, &self.disk, &self.config, self.boot)
    }

    fn begin_disk(&mut self) {
        let random = &mut self.random;
        let delay = [2, 8, 60][random.random_range(0..3)];
        self.disk.plan(|plan| plan.delay_polls_max = delay);
        if !self.setting.has_faults {
            return;
        }
        if random.random_bool(0.2) {
            let fault = [Fault::Io, Fault::NoSpace][random.random_range(0..2)];
            let kind = [OperationKind::Write, OperationKind::Sync][random.random_range(0..2)];
            self.disk.fail(kind, random.random_range(0..80), fault, true);
        }
        let (write, sync) = (random.random_bool(0.3), random.random_bool(0.1));
        let (flip, read) = (random.random_bool(0.5), random.random_bool(0.3));
        self.disk.plan(|plan| {
            plan.write_failure = if write { 0.1 } else { 0.0 };
            plan.sync_failure = if sync { 0.1 } else { 0.0 };
            plan.read_bit_flip = if flip { 0.2 } else { 0.0 };
            plan.read_failure = if read { 0.1 } else { 0.0 };
        });
    }

    fn end_faults(&mut self) {
        self.disk.heal();
        self.disk.plan(|plan| {
            plan.write_failure = 0.0;
            plan.sync_failure = 0.0;
            plan.read_bit_flip = 0.0;
            plan.read_failure = 0.0;
        });
    }
}

async fn invalidate(cache: &BlobCache, cover: Cover) -> Result<(), CacheError> {
    match cover {
        Cover::Key(place) => cache.invalidate_key(place.namespace(), place.name()).await.map(drop),
        Cover::Prefix(space, first) => {
            cache.invalidate_prefix(SPACES[space], [first]).await.map(drop)
        }
        Cover::Tag(space, tag) => {
            cache.invalidate_tags(SPACES[space], &[&label(tag)]).await.map(drop)
        }
        Cover::Dependency(space, on) => {
            cache.invalidate_dependencies(SPACES[space], &[&label(on)]).await.map(drop)
        }
        Cover::Space(space) => cache.invalidate_namespace(SPACES[space]).await.map(drop),
        Cover::All => cache.invalidate_all().await,
    }
}

fn opening(
    seed: u64,
    simulation: &Simulation,
    disk: &SimulatedDisk,
    config: &BlobCacheConfig,
    boot: u8,
) -> impl Future<Output = Result<Arc<Shared>, CacheError>> + Send + use<> {
    let medium = Medium {
        disk: Arc::new(disk.clone()),
        lane: Arc::new(simulation.lane()),
        file: None,
        boot_id: [boot; 16],
        identity: Identity::of(seed),
    };
    Shared::open_on(config.clone(), geometry(config).unwrap(), medium)
}
