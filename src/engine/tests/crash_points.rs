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
//! Where a touch may have made an entry last, everything is read again when that shows.
//!
//! `TAMIS_RUNS` sets the number of workloads of each test; `TAMIS_SEED` runs one alone.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a panic fails the test")]

mod calls;
mod truth;

use std::pin::pin;
use std::time::{Duration, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::calls::{Call, KEYS, LATER, SPACES, number_in};
use self::truth::Truth;
use super::bench::{opening_as, seeds_of};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::open::{Identity, geometry};
use crate::failpoint::{Failpoint, plant};
use crate::io::{End, SimulatedDisk, Simulation};
use crate::modes::{CrashSafety, L2Compression};

const CALLS: usize = 60;

/// Outcomes of a moment that are tried if there are more than [`FEW`].
const DRAWN: u64 = 3;

/// So many outcomes are tried one and all.
const FEW: u128 = 16;

/// Polls of one call, which is then taken to hang.
const POLLS_MAX: u32 = 50_000;

#[derive(Clone, Copy, Debug)]
struct Setting {
    crash_safety: CrashSafety,
    end: End,
    /// The disk holds everything.
    is_roomy: bool,
}

#[derive(Debug, Default)]
struct Tally {
    moments: u64,
    outcomes: u64,
    exhausted: u64,
    hits: u64,
    certain: u64,
    /// Values that were still fresh when they had been made to last, and others that were stale.
    lasting: u64,
    stale_later: u64,
    cut_again: u64,
    gone_on: u64,
    reclaimed: u64,
    reinserted: u64,
}

/// A store in one of its processes.
struct Life {
    simulation: Simulation,
    disk: SimulatedDisk,
    cache: BlobCache,
    clock: Clock,
    truth: Truth,
    boot: u8,
}

fn config(setting: Setting, clock: &Clock) -> BlobCacheConfig {
    let segments = if setting.is_roomy { 16 } else { 4 };
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(segments * (32 << 10))
        .l2_segment_bytes(32 << 10)
        .l2_compression(L2Compression::Off)
        .crash_safety(setting.crash_safety)
        .clock(clock.clone())
        .build()
        .unwrap()
}

/// Each process begins at the same time.
fn clock() -> Clock {
    Clock::manual(UNIX_EPOCH + Duration::from_secs(1_000_000))
}

impl Life {
    fn open(
        (seed, setting): (u64, Setting),
        disk: SimulatedDisk,
        truth: Truth,
        boot: u8,
    ) -> Result<Self, String> {
        let (mut simulation, clock) = (Simulation::new(seed), clock());
        let config = config(setting, &clock);
        let opening = opening_as(&simulation, &disk, &config, (boot, Identity::of(7)));
        let engine = simulation.block_on(opening).ok_or("an open hangs")?;
        let cache = BlobCache { engine: engine.map_err(|error| format!("open fails: {error}"))? };
        Ok(Self { simulation, disk, cache, clock, truth, boot })
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
                self.truth.end(call, ended?);
                return Ok(());
            }
        }
        Err(format!("{call:?} hangs"))
    }

    /// Reads all keys.
    fn read_all(&mut self, tally: &mut Tally, is_later: bool) -> Result<(), String> {
        self.simulation.limit_steps(u64::MAX);
        for (space, name) in SPACES.into_iter().enumerate() {
            for key in 0..KEYS {
                let get = self.cache.clone();
                let get = get.get(name, [key]);
                let hit = self.simulation.block_on(get).ok_or("a get hangs")?;
                let certain = self.truth.certain((space, key));
                tally.certain += u64::from(certain.is_some());
                let Some(hit) = hit else {
                    if let Some(right) = certain {
                        return Err(format!("{space}/{key}, synced as {right}, is lost"));
                    }
                    self.truth.miss((space, key));
                    continue;
                };
                let number = number_in(hit.value()).ok_or("a mixture of values")?;
                let found = (number, hit.is_stale());
                let lasts = self.truth.find((space, key), found, is_later)?;
                tally.hits += 1;
                tally.lasting += u64::from(is_later && lasts);
                tally.stale_later += u64::from(is_later && hit.is_stale());
            }
        }
        Ok(())
    }

    /// Reads all keys again, if any touch may have made a difference by then.
    fn read_later(&mut self, tally: &mut Tally) -> Result<(), String> {
        if !self.truth.has_extended() {
            return Ok(());
        }
        self.clock.advance(LATER);
        self.read_all(tally, true)
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
        let config = config(setting, &clock());
        let opening = opening_as(simulation, &disk, &config, (boot, Identity::of(7)));
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
    if !(setting.is_roomy && keeps) {
        life.truth.forgive();
    }
    life.read_all(tally, false)?;
    if seed % 5 == 1 {
        life.truth.forgive();
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
        life = Life::open((seed, setting), disk, truth, boot)?;
        life.truth.forgive();
        life.read_all(tally, false)?;
    }
    life.read_later(tally)
}

/// One workload, cut at each of its moments.
fn run(seed: u64, setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let bytes = geometry(&config(setting, &clock())).unwrap().file_bytes();
    let disk = SimulatedDisk::new(seed, bytes);
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
    assert!(!keeps || tally.lasting >= runs * 30 && tally.stale_later >= runs * 100, "{tally:?}");
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
        (Failpoint::RenewalForgotten, Setting { is_roomy: true, ..KILL }),
    ];
    for (bug, setting) in bugs {
        let mut tally = Tally::default();
        let _planted = plant(bug);
        let found = (0..200).find_map(|seed| run(seed, setting, &mut tally).err());
        let found = found.unwrap_or_else(|| panic!("{bug:?} is not found: {tally:?}"));
        println!("{bug:?}: {} outcomes: {found}", tally.outcomes);
    }
}
