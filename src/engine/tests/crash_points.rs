//! Every moment of a workload as the last one. At each change of what a kill or a power loss may
//! leave of the disk, some of the outcomes are opened and read: all of them if they are few.
//!
//! A run makes one call after the other, so the model knows for each key which values are right:
//! the last, or while a call is under way, also the one that it leads to. Some outcomes are cut
//! again while they are opened; others go on with further calls, and are cut a second time.
//!
//! In a store with room for everything, all that a `sync` has covered must be there: Power mode
//! keeps it over a power loss, Process mode over a kill.
//!
//! `TAMIS_RUNS` sets the number of workloads of each test; `TAMIS_SEED` runs one alone.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{opening_as, seeds_of};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::open::{Identity, geometry};
use crate::failpoint::{Failpoint, plant};
use crate::io::{End, SimulatedDisk, Simulation};
use crate::modes::{CrashSafety, L1Admission, L2Compression};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SPACES: [&str; 2] = ["a", "b"];
const KEYS: u8 = 8;
const CALLS: usize = 60;

/// Outcomes of a moment that are tried if there are more than [`FEW`].
const DRAWN: u64 = 3;

/// So many outcomes are tried one and all.
const FEW: u128 = 16;

/// Polls of one call, which is then taken to hang.
const POLLS_MAX: u32 = 50_000;

type Key = (usize, u8);

#[derive(Clone, Copy, Debug)]
struct Setting {
    crash_safety: CrashSafety,
    end: End,
    /// The disk holds everything.
    is_roomy: bool,
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Put(Key, u32, usize),
    Key(Key),
    Tag(usize, u8),
    Prefix(usize, u8),
    Flush(usize),
    ExpireKey(Key),
    /// Ends its freshness.
    TouchKey(Key),
    ExpireTag(usize, u8),
    ExpirePrefix(usize, u8),
    ExpireSpace(usize),
    Get(Key),
    Sync,
}

/// What a get may find of each key.
#[derive(Clone, Default)]
struct Truth {
    /// The values that may be found, the oldest first. None: there is none any more.
    right: BTreeMap<Key, Vec<Option<u32>>>,
    /// Keys whose value has to be found.
    certain: BTreeSet<Key>,
}

#[derive(Debug, Default)]
struct Tally {
    moments: u64,
    outcomes: u64,
    exhausted: u64,
    hits: u64,
    certain: u64,
    cut_again: u64,
    gone_on: u64,
    reclaimed: u64,
    reinserted: u64,
}

/// Of the number of a value that is found to be stale.
const STALE: u32 = 1 << 31;

fn tag_of((_, key): Key) -> u8 {
    key % 3
}

fn value(number: u32, length: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(length.max(4)).collect()
}

fn number_in(value: &[u8]) -> Option<u32> {
    let number = u32::from_le_bytes(*value.first_chunk()?);
    (value == self::value(number, value.len())).then_some(number)
}

impl Call {
    fn draw(random: &mut StdRng, number: u32) -> Self {
        let key = (random.random_range(0..SPACES.len()), random.random_range(0..KEYS));
        match random.random_range(0..100) {
            0..44 => Self::Put(key, number, random.random_range(4..12_000)),
            44..46 => Self::ExpireKey(key),
            46 => Self::TouchKey(key),
            47..48 => Self::ExpireTag(key.0, tag_of(key)),
            48..49 => Self::ExpirePrefix(key.0, key.1),
            49 => Self::ExpireSpace(key.0),
            50..64 => Self::Get(key),
            64..76 => Self::Key(key),
            76..82 => Self::Tag(key.0, tag_of(key)),
            82..86 => Self::Prefix(key.0, key.1),
            86..88 => Self::Flush(key.0),
            _ => Self::Sync,
        }
    }

    fn matches(self, key: Key) -> bool {
        match self {
            Self::Put(of, ..) | Self::Key(of) => of == key,
            Self::ExpireKey(of) | Self::TouchKey(of) => of == key,
            Self::Tag(space, tag) | Self::ExpireTag(space, tag) => {
                key.0 == space && tag_of(key) == tag
            }
            Self::Prefix(space, first) | Self::ExpirePrefix(space, first) => key == (space, first),
            Self::Flush(space) | Self::ExpireSpace(space) => key.0 == space,
            Self::Get(_) | Self::Sync => false,
        }
    }

    fn expires(self) -> bool {
        matches!(
            self,
            Self::ExpireKey(_)
                | Self::TouchKey(_)
                | Self::ExpireTag(..)
                | Self::ExpirePrefix(..)
                | Self::ExpireSpace(_)
        )
    }

    async fn make(self, cache: BlobCache) -> Result<(), String> {
        let made = match self {
            Self::Put((space, key), number, length) => {
                let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
                let policy = policy.stale_serve(Duration::from_secs(3600));
                let put = BlobCachePut::new(value(number, length)).with_policy(policy);
                let put = put.with_tags([tag_of((space, key)).to_string()]);
                cache.put(SPACES[space], [key], put).await
            }
            Self::Key((space, key)) => cache.invalidate_key(SPACES[space], [key]).await.map(drop),
            Self::Tag(space, tag) => {
                cache.invalidate_tags(SPACES[space], &[&tag.to_string()]).await.map(drop)
            }
            Self::Prefix(space, first) => {
                cache.invalidate_prefix(SPACES[space], [first]).await.map(drop)
            }
            Self::Flush(space) => cache.invalidate_namespace(SPACES[space]).await.map(drop),
            Self::ExpireKey((space, key)) => cache.expire_key(SPACES[space], [key]).await.map(drop),
            Self::TouchKey((space, key)) => {
                let policy = BlobCachePolicy::default().ttl(Duration::ZERO);
                let policy = policy.stale_serve(Duration::from_secs(3600));
                cache.touch(SPACES[space], [key], &policy).await.map(drop)
            }
            Self::ExpireTag(space, tag) => {
                cache.expire_tags(SPACES[space], &[&tag.to_string()]).await.map(drop)
            }
            Self::ExpirePrefix(space, first) => {
                cache.expire_prefix(SPACES[space], [first]).await.map(drop)
            }
            Self::ExpireSpace(space) => cache.expire_namespace(SPACES[space]).await.map(drop),
            Self::Get((space, key)) => {
                // It counts as a use, for which the record is appended again.
                drop(cache.get(SPACES[space], [key]).await);
                Ok(())
            }
            Self::Sync => cache.sync().await,
        };
        made.map_err(|error| format!("{self:?} fails: {error}"))
    }
}

impl Truth {
    fn begin(&mut self, call: Call) {
        let after = match call {
            Call::Put(_, number, _) => Some(number),
            _ => None,
        };
        for space in 0..SPACES.len() {
            for key in (0..KEYS).map(|key| (space, key)).filter(|&key| call.matches(key)) {
                let right = self.right.entry(key).or_insert_with(|| vec![None]);
                if call.expires() {
                    let fresh = right.iter().flatten().filter(|number| *number & STALE == 0);
                    let stale: Vec<_> = fresh.map(|number| Some(number | STALE)).collect();
                    right.extend(stale);
                } else {
                    right.push(after);
                }
                self.certain.remove(&key);
            }
        }
    }

    fn end(&mut self, call: Call) {
        for (&key, right) in &mut self.right {
            if call.matches(key) && call.expires() {
                right.retain(|value| value.is_none_or(|number| number & STALE != 0));
            } else if call.matches(key) {
                right.drain(..right.len() - 1);
            }
            let is_fresh = matches!(right[..], [Some(number)] if number & STALE == 0);
            if matches!(call, Call::Sync) && is_fresh {
                self.certain.insert(key);
            }
        }
    }

    /// Judges what is found, which is then the only right value.
    fn find(&mut self, key: Key, found: u32) -> Result<(), String> {
        let right = self.right.get_mut(&key);
        match right {
            Some(right) if right.contains(&Some(found)) => {
                *right = vec![Some(found)];
                Ok(())
            }
            right => Err(format!("{key:?} has value {found}, where {right:?} would be right")),
        }
    }
}

/// A store in one of its processes.
struct Life {
    simulation: Simulation,
    disk: SimulatedDisk,
    cache: BlobCache,
    truth: Truth,
    boot: u8,
}

fn config(setting: Setting) -> BlobCacheConfig {
    let segments = if setting.is_roomy { 16 } else { 4 };
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(segments * (32 << 10))
        .l2_segment_bytes(32 << 10)
        .l2_compression(L2Compression::Off)
        .crash_safety(setting.crash_safety)
        .build()
        .unwrap()
}

impl Life {
    fn open(
        (seed, setting): (u64, Setting),
        disk: SimulatedDisk,
        truth: Truth,
        boot: u8,
    ) -> Result<Self, String> {
        let mut simulation = Simulation::new(seed);
        let opening = opening_as(&simulation, &disk, &config(setting), (boot, Identity::of(7)));
        let engine = simulation.block_on(opening).ok_or("an open hangs")?;
        let cache = BlobCache { engine: engine.map_err(|error| format!("open fails: {error}"))? };
        Ok(Self { simulation, disk, cache, truth, boot })
    }

    /// Makes a call, and stops at each moment of it.
    fn call(
        &mut self,
        call: Call,
        mut at_moment: impl FnMut(&SimulatedDisk, &Truth, u8) -> Result<(), String>,
    ) -> Result<(), String> {
        self.truth.begin(call);
        let mut moment = self.disk.moment();
        let mut made = pin!(call.make(self.cache.clone()));
        // The second step lets time pass if nothing else is left to do.
        self.simulation.limit_steps(2);
        for _ in 0..POLLS_MAX {
            let ended = self.simulation.block_on(made.as_mut());
            if self.disk.moment() != moment {
                moment = self.disk.moment();
                at_moment(&self.disk, &self.truth, self.boot)?;
            }
            if let Some(ended) = ended {
                self.truth.end(call);
                return ended;
            }
        }
        Err(format!("{call:?} hangs"))
    }

    /// Reads all keys.
    fn read_all(&mut self, tally: &mut Tally, has_certain: bool) -> Result<(), String> {
        self.simulation.limit_steps(u64::MAX);
        for (space, name) in SPACES.into_iter().enumerate() {
            for key in 0..KEYS {
                let get = self.cache.clone();
                let get = get.get(name, [key]);
                let hit = self.simulation.block_on(get).ok_or("a get hangs")?;
                if let Some(hit) = &hit {
                    let number = number_in(hit.value()).ok_or("a mixture of values")?;
                    let number = number | if hit.is_stale() { STALE } else { 0 };
                    self.truth.find((space, key), number)?;
                    tally.hits += 1;
                }
                if has_certain && self.truth.certain.contains(&(space, key)) {
                    tally.certain += 1;
                    let right = &self.truth.right[&(space, key)];
                    let lost = || format!("{space}/{key}, synced as {right:?}, is lost");
                    hit.as_ref().ok_or_else(lost)?;
                }
                if hit.is_none() {
                    // What was once lost never comes back.
                    self.truth.right.insert((space, key), vec![None]);
                }
            }
        }
        Ok(())
    }
}

/// The next process after `disk`, and what it finds.
fn survive(
    (seed, setting): (u64, Setting),
    mut disk: SimulatedDisk,
    truth: &Truth,
    boot: u8,
    tally: &mut Tally,
) -> Result<(), String> {
    tally.outcomes += 1;
    let mut boot = boot + u8::from(setting.end == End::Machine);
    if seed % 8 == 1 {
        tally.cut_again += 1;
        let simulation = &mut Simulation::new(seed);
        let opening = opening_as(simulation, &disk, &config(setting), (boot, Identity::of(7)));
        simulation.limit_steps(seed / 8 % 97);
        let opened = simulation.block_on(opening);
        disk = disk.outcomes(setting.end).drawn(seed);
        drop(opened);
        boot += u8::from(setting.end == End::Machine);
    }
    let keeps = match setting.crash_safety {
        CrashSafety::Power => true,
        CrashSafety::Process => setting.end == End::Process,
        CrashSafety::Cold => false,
    };
    let mut life = Life::open((seed, setting), disk, truth.clone(), boot)?;
    life.read_all(tally, setting.is_roomy && keeps)?;
    life.truth.certain.clear();
    if seed % 5 == 1 {
        tally.gone_on += 1;
        let mut random = StdRng::seed_from_u64(seed);
        let mut left = random.random_range(1..60);
        let mut last = None;
        for number in 0..4 {
            let call = Call::draw(&mut random, 1_000_000 + number);
            life.call(call, |disk, truth, _| {
                left -= 1;
                if left == 0 {
                    last = Some((disk.outcomes(setting.end).drawn(seed), truth.clone()));
                }
                Ok(())
            })?;
        }
        let last = last
            .unwrap_or_else(|| (life.disk.outcomes(setting.end).drawn(seed), life.truth.clone()));
        let (disk, truth) = last;
        let boot = boot + u8::from(setting.end == End::Machine);
        Life::open((seed, setting), disk, truth, boot)?.read_all(tally, false)?;
    }
    Ok(())
}

/// One workload, cut at each of its moments.
fn run(seed: u64, setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let disk = SimulatedDisk::new(seed, geometry(&config(setting)).unwrap().file_bytes());
    let mut life = Life::open((seed, setting), disk, Truth::default(), 0)?;
    let (mut random, mut moments) = (StdRng::seed_from_u64(seed), 0);
    for number in 0..CALLS {
        let call = Call::draw(&mut random, number as u32);
        life.call(call, |disk, truth, boot| {
            moments += 1;
            tally.moments += 1;
            let outcomes = disk.outcomes(setting.end);
            let is_few = outcomes.count() <= FEW;
            tally.exhausted += u64::from(is_few);
            let tries = if is_few { outcomes.count() as u64 } else { DRAWN };
            (0..tries).try_for_each(|number| {
                let seed = (seed * 100_003 + moments) * 17 + number;
                let disk = match is_few {
                    true => outcomes.numbered(u128::from(number)),
                    false => outcomes.drawn(seed),
                };
                let survived = survive((seed, setting), disk, truth, boot, tally);
                survived.map_err(|what| format!("{call:?}, moment {moments}: {what}"))
            })
        })?;
    }
    let stats = life.cache.stats();
    tally.reclaimed += stats.l2_reclaimed_segments();
    tally.reinserted += stats.l2_reinserted();
    Ok(())
}

fn laboratory(setting: Setting) {
    let seeds = seeds_of(2);
    let (runs, mut tally) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        if let Err(what) = run(seed, setting, &mut tally) {
            panic!("TAMIS_SEED={seed} {setting:?}: {what}");
        }
    }
    println!("{setting:?}, {runs} workloads: {tally:?}");
    assert!(tally.moments >= runs * 50 && tally.exhausted >= runs * 20, "{tally:?}");
    let keeps = setting.crash_safety != CrashSafety::Cold
        && (setting.crash_safety, setting.end) != (CrashSafety::Process, End::Machine);
    assert!(!keeps || tally.hits >= tally.outcomes, "{tally:?}");
    let wraps = tally.reclaimed >= runs && tally.reinserted >= runs / 2;
    assert!(setting.is_roomy || wraps, "{tally:?}");
    assert!(keeps || tally.hits == 0, "{tally:?}");
    assert!(!(keeps && setting.is_roomy) || tally.certain >= tally.outcomes, "{tally:?}");
}

const POWER: Setting =
    Setting { crash_safety: CrashSafety::Power, end: End::Machine, is_roomy: false };
const KILL: Setting =
    Setting { crash_safety: CrashSafety::Process, end: End::Process, is_roomy: false };

#[test]
fn power_mode_survives_a_power_loss_at_any_moment() {
    laboratory(POWER);
}

#[test]
fn power_mode_keeps_over_a_power_loss_all_that_was_synced() {
    laboratory(Setting { is_roomy: true, ..POWER });
}

#[test]
fn process_mode_survives_a_kill_at_any_moment() {
    laboratory(KILL);
}

#[test]
fn process_mode_keeps_over_a_kill_all_that_was_synced() {
    laboratory(Setting { is_roomy: true, ..KILL });
}

#[test]
fn process_mode_begins_anew_after_a_power_loss_at_any_moment() {
    laboratory(Setting { end: End::Machine, ..KILL });
}

#[test]
fn cold_mode_begins_anew_at_any_moment() {
    for end in [End::Process, End::Machine] {
        laboratory(Setting { crash_safety: CrashSafety::Cold, end, is_roomy: false });
    }
}

/// Planted bugs: the number of outcomes until each is found.
#[test]
fn planted_bugs_are_found() {
    let bugs = [
        (Failpoint::AcknowledgedUnsynced, POWER),
        (Failpoint::AcknowledgedOutOfOrder, KILL),
        (Failpoint::TombstoneOmitted, KILL),
        (Failpoint::BootIgnored, Setting { end: End::Machine, ..KILL }),
        (Failpoint::TailAppendedAfterTear, KILL),
        (Failpoint::SlotsDroppedEarly, KILL),
    ];
    for (bug, setting) in bugs {
        let mut tally = Tally::default();
        let _planted = plant(bug);
        let found = (0..200).find_map(|seed| run(seed, setting, &mut tally).err());
        let found = found.unwrap_or_else(|| panic!("{bug:?} is not found: {tally:?}"));
        println!("{bug:?}: {} outcomes: {found}", tally.outcomes);
    }
}
