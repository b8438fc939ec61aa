//! Stores that are opened with other sizes than before, against a naive model: grown, shrunk, with
//! other segments, after closes, kills and power losses, and cut at every moment of such an open.
//!
//! Puts and invalidations are synced, so each hit must be the latest value of its key, whatever the
//! sizes. A larger store keeps everything. A smaller one keeps the newest records: whatever is
//! older than one that is lost may be lost, and nothing else.
//!
//! `TAMIS_RUNS` sets the number of runs of each test; `TAMIS_SEED` runs one alone.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a panic fails the test")]

mod beside;
mod size;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::size::{KILL, POWER, SEGMENT, Setting, Size, config};
use super::bench::{opening_as, seeds_of};
use crate::CacheError;
use crate::cache::BlobCache;
use crate::engine::Engine;
use crate::engine::open::{Identity, geometry};
use crate::failpoint::{Failpoint, plant};
use crate::io::{End, SimulatedDisk, Simulation, TaskRunner};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const KEYS: u8 = 24;

/// Polls of one open, which is then taken to hang.
const POLLS_MAX: u32 = 50_000;

fn value(number: u32, length: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(length.max(4)).collect()
}

/// The latest of each key, and when it was put. Absent: it was invalidated, or seen to be lost.
type Latest = BTreeMap<u8, u32>;

#[derive(Debug, Default)]
struct Tally {
    opens: u64,
    grown: u64,
    shrunk: u64,
    /// While the cache was open.
    changed: u64,
    /// Opens that found fewer entries than there were.
    lossy: u64,
    moments: u64,
    hits: u64,
    anew: u64,
    images: u64,
}

struct Laboratory {
    setting: Setting,
    random: StdRng,
    simulation: Simulation,
    disk: SimulatedDisk,
    size: Size,
    /// Of the store, which keeps them whatever its size.
    segment_bytes: u64,
    cache: Option<BlobCache>,
    latest: Latest,
    numbers: u32,
    boot: u8,
    tally: Tally,
}

fn opening(
    simulation: &Simulation,
    disk: &SimulatedDisk,
    (setting, size): (Setting, Size),
    boot: u8,
) -> impl Future<Output = Result<Arc<Engine>, CacheError>> + use<> {
    opening_as(simulation, disk, &config(setting, size), (boot, Identity::of(7)))
}

impl Laboratory {
    fn new(seed: u64, setting: Setting) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = Size { segment_bytes: SEGMENT, ..Size::draw(&mut random) };
        let bytes = geometry(&config(setting, size)).unwrap().file_bytes();
        let disk = SimulatedDisk::new(seed, bytes);
        let mut simulation = Simulation::new(seed);
        let opened = simulation.block_on(opening(&simulation, &disk, (setting, size), 0));
        let cache = Some(BlobCache { engine: opened.unwrap().unwrap() });
        Self {
            setting,
            random,
            simulation,
            disk,
            size,
            segment_bytes: size.segment_bytes,
            cache,
            latest: Latest::new(),
            numbers: 0,
            boot: 0,
            tally: Tally::default(),
        }
    }

    fn cache(&self) -> BlobCache {
        self.cache.clone().unwrap()
    }

    /// Some synced mutations. What reclaim has taken is lost already.
    fn work(&mut self) {
        let cache = self.cache();
        for _ in 0..self.random.random_range(1..30) {
            let key = self.random.random_range(0..KEYS);
            if self.random.random_bool(0.15) {
                let done = cache.invalidate_key("a", [key]);
                self.simulation.block_on(done).unwrap().unwrap();
                self.latest.remove(&key);
                continue;
            }
            self.numbers += 1;
            let length = self.random.random_range(4..12_000);
            self.simulation.block_on(put_one(&cache, key, self.numbers, length)).unwrap();
            self.latest.insert(key, self.numbers);
        }
        self.simulation.block_on(cache.sync()).unwrap().unwrap();
        self.settle();
        self.latest = find_all(&mut self.simulation, &cache, &self.latest).unwrap();
    }

    /// Has the writer end what it does, such as to reclaim a segment.
    fn settle(&mut self) {
        let runner = self.simulation.task_runner();
        self.simulation.block_on(runner.sleep(Duration::from_secs(5))).unwrap();
    }

    /// Ends the process. Returns whether contents have to be there afterwards.
    fn end(&mut self) -> bool {
        let cache = self.cache.take().unwrap();
        // Damage to the last frame of a store that was not closed looks like a crash.
        let way = if self.setting.is_damaged { 0 } else { self.random.random_range(0..3) };
        let keeps = match way {
            0 => {
                self.simulation.block_on(cache.close()).unwrap().unwrap();
                true
            }
            _ if self.setting.end == End::Process => {
                self.simulation.kill();
                self.disk = self.disk.kill();
                true
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
                self.setting.crash_safety == CrashSafety::Power
            }
        };
        keeps && self.setting.crash_safety != CrashSafety::Cold
    }

    /// Opens with another size, cut at each of its moments, then wholly.
    fn reopen(&mut self, keeps: bool) -> Result<(), String> {
        let to = Size::draw(&mut self.random);
        let disk = self.disk.clone();
        let opening = opening(&self.simulation, &disk, (self.setting, to), self.boot);
        let engine = self.cut(to, opening)?.map_err(|error| error.to_string())?;
        let cache = BlobCache { engine };
        self.check_size(&cache, to)?;
        self.count(&cache, to);
        let store = cache.engine.parts.disk.l2().unwrap().geometry();
        self.segment_bytes = store.segment_bytes().into();
        self.cache = Some(cache);
        let before = std::mem::replace(&mut self.size, to);
        self.check(keeps, before)?;
        self.tally.hits += self.latest.len() as u64;
        Ok(())
    }

    /// Changes the size of the open cache, cut at each of its moments, or beside puts.
    fn change(&mut self) -> Result<(), String> {
        let cache = self.cache();
        let mut to = Size::draw(&mut self.random);
        to.segment_bytes = self.segment_bytes;
        let setting = cache.set_l2_bytes_max(to.bytes());
        if self.random.random_bool(0.3) {
            let numbers = self.numbers + 1..self.numbers + 1 + self.random.random_range(1..40);
            self.numbers = numbers.end;
            let keys = numbers.clone().map(|number| (number % u32::from(KEYS)) as u8);
            self.latest.extend(keys.zip(numbers.clone()));
            let puts = async {
                for number in numbers {
                    put_one(&cache, (number % u32::from(KEYS)) as u8, number, 6000).await;
                }
            };
            let both = futures::future::join(setting, puts);
            let (set, ()) = self.simulation.block_on(both).ok_or("a change hangs")?;
            set.map_err(|error| error.to_string())?;
        } else {
            self.cut(to, setting)?.map_err(|error| error.to_string())?;
        }
        self.check_size(&cache, to)?;
        self.tally.changed += 1;
        let before = std::mem::replace(&mut self.size, to);
        self.simulation.block_on(cache.sync()).unwrap().unwrap();
        self.settle();
        let newest = self.latest.iter().max_by_key(|(_, number)| **number);
        let newest = newest.map(|(key, number)| (*key, *number));
        self.check(to.bytes() < before.bytes(), before)?;
        match newest.filter(|(key, _)| !self.latest.contains_key(key)) {
            Some(newest) => Err(format!("{newest:?}, the newest, is lost by a change")),
            None => Ok(()),
        }
    }

    /// Whether the newest value is there after an end of the process, with a size.
    fn keeps_newest(&self, size: Size) -> bool {
        let Setting { crash_safety, end, is_damaged } = self.setting;
        let is_warm = match crash_safety {
            CrashSafety::Power => true,
            CrashSafety::Process => end == End::Process,
            CrashSafety::Cold => false,
        };
        is_warm && !is_damaged && 4 * self.segment_bytes <= size.bytes()
    }

    /// Runs something to its end. What may be left at each of its moments is opened.
    fn cut<T>(&mut self, to: Size, work: impl Future<Output = T>) -> Result<T, String> {
        let (setting, disk) = (self.setting, self.disk.clone());
        let (mut work, mut done) = (pin!(work), None);
        self.simulation.limit_steps(2);
        let mut moment = disk.moment();
        for polls in 0..POLLS_MAX {
            let ended = self.simulation.block_on(work.as_mut());
            if disk.moment() != moment {
                moment = disk.moment();
                self.tally.moments += 1;
                let seed = u64::from(self.numbers) * 100_003 + u64::from(polls);
                let left = disk.outcomes(setting.end).drawn(seed);
                let size = [self.size, to, Size::draw(&mut self.random)];
                let size = size[self.random.random_range(0..3)];
                let keeps = self.keeps_newest(to) && self.keeps_newest(size);
                survive(seed, left, (setting, size, keeps), (self.boot, &self.latest))
                    .map_err(|what| format!("{:?} to {to:?}, cut: {what}", self.size))?;
            }
            if ended.is_some() {
                done = ended;
                break;
            }
        }
        self.simulation.limit_steps(u64::MAX);
        done.ok_or_else(|| format!("{:?} to {to:?} hangs", self.size))
    }

    fn count(&mut self, cache: &BlobCache, to: Size) {
        let Tally { opens, grown, shrunk, anew, images, .. } = &mut self.tally;
        *opens += 1;
        *grown += u64::from(to.bytes() > self.size.bytes());
        *shrunk += u64::from(to.bytes() < self.size.bytes());
        *anew += u64::from(cache.stats().recovery_records() == 0);
        *images += u64::from(cache.stats().recovery_from_image());
    }

    /// The file has the size that was asked for.
    fn check_size(&self, cache: &BlobCache, to: Size) -> Result<(), String> {
        let store = cache.engine.parts.disk.l2().unwrap();
        let (file, length) = (store.file_bytes(), crate::io::Disk::length(&self.disk));
        let segment = u64::from(store.geometry().segment_bytes());
        if file != 8192 + to.bytes() / segment * segment {
            return Err(format!("{to:?} has {file} bytes"));
        }
        let image = cache.stats().recovery_from_image();
        if length < file || (length > file && !image && to != self.size) {
            return Err(format!("{to:?}: the file has {length} bytes, and {file} are needed"));
        }
        Ok(())
    }

    /// Reads all keys. The newest must be there, and all of them if the store has grown.
    fn check(&mut self, keeps: bool, before: Size) -> Result<(), String> {
        let cache = self.cache();
        let found = find_all(&mut self.simulation, &cache, &self.latest)?;
        let newest_lost = self.latest.iter().filter(|(key, _)| !found.contains_key(key));
        let newest_lost = newest_lost.map(|(_, &number)| number).max();
        let grows = self.size.bytes() >= before.bytes();
        let keeps = keeps && !self.setting.is_damaged;
        if let (Some(lost), true) = (newest_lost, keeps) {
            self.tally.lossy += 1;
            let older = found.values().min().copied().unwrap_or(u32::MAX);
            if older < lost {
                return Err(format!("value {lost} is lost, and {older} is not"));
            }
            if grows {
                return Err(format!("{before:?} to {:?}: {lost} is lost", self.size));
            }
        }
        self.latest = found;
        Ok(())
    }

    fn damage(&mut self) {
        let length = crate::io::Disk::length(&self.disk);
        for _ in 0..self.random.random_range(0..3) {
            let segment = self.random.random_range(0..(length - 8192) / SEGMENT) * SEGMENT;
            let offset = self.random.random_range(0..[4096, SEGMENT][usize::from(segment > 9)]);
            self.disk.flip_bit(8192 + segment + offset, self.random.random_range(0..8));
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..5 {
            self.work();
            if self.random.random_bool(0.5) {
                self.change()?;
            }
            let keeps = self.end();
            if self.setting.is_damaged {
                self.damage();
            }
            self.reopen(keeps)?;
        }
        Ok(())
    }
}

async fn put_one(cache: &BlobCache, key: u8, number: u32, length: usize) {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let put = BlobCachePut::new(value(number, length)).with_policy(policy);
    cache.put("a", [key], put).await.unwrap();
}

/// The values that are there. Each must be the latest of its key.
fn find_all(
    simulation: &mut Simulation,
    cache: &BlobCache,
    latest: &Latest,
) -> Result<Latest, String> {
    let mut found = Latest::new();
    for key in 0..KEYS {
        let hit = simulation.block_on(cache.get("a", [key])).ok_or("a get hangs")?;
        let Some(hit) = hit else { continue };
        let number = u32::from_le_bytes(*hit.value().first_chunk().ok_or("too short")?);
        if hit.value() != value(number, hit.value().len()) {
            return Err(format!("key {key}: a mixture of values"));
        }
        if latest.get(&key) != Some(&number) {
            return Err(format!("key {key} has value {number}, not {:?}", latest.get(&key)));
        }
        found.insert(key, number);
    }
    Ok(found)
}

/// The next processes find nothing that is stale: one that reads, writes and ends, and another.
fn survive(
    seed: u64,
    disk: SimulatedDisk,
    (setting, size, keeps): (Setting, Size, bool),
    (boot, latest): (u8, &Latest),
) -> Result<(), String> {
    let boot = boot + u8::from(setting.end == End::Machine);
    let mut simulation = Simulation::new(seed);
    let opened = simulation.block_on(opening(&simulation, &disk, (setting, size), boot));
    let engine = opened.ok_or("an open hangs")?.map_err(|error| error.to_string())?;
    let cache = BlobCache { engine };
    let newest = latest.iter().max_by_key(|(_, number)| **number);
    let mut latest = find_all(&mut simulation, &cache, latest)?;
    if let Some((key, number)) = newest.filter(|(key, _)| keeps && !latest.contains_key(key)) {
        return Err(format!("key {key}: value {number}, the newest of all, is lost"));
    }
    if seed % 4 > 0 {
        return Ok(());
    }
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..random.random_range(1..6) {
        let (key, number) = (random.random_range(0..KEYS), 1 << 30 | number);
        simulation.block_on(put_one(&cache, key, number, 8000)).ok_or("a put hangs")?;
        latest.insert(key, number);
    }
    simulation.block_on(cache.sync()).ok_or("a sync hangs")?.unwrap();
    simulation.kill();
    let disk = disk.outcomes(setting.end).drawn(seed);
    let (boot, size) = (boot + u8::from(setting.end == End::Machine), Size::draw(&mut random));
    let simulation = &mut Simulation::new(seed);
    let opened = simulation.block_on(opening(simulation, &disk, (setting, size), boot));
    let engine = opened.ok_or("an open hangs")?.map_err(|error| error.to_string())?;
    find_all(simulation, &BlobCache { engine }, &latest).map(drop)
}

fn run(seed: u64, setting: Setting) -> (Result<(), String>, Tally) {
    let mut laboratory = Laboratory::new(seed, setting);
    let result = laboratory.run();
    (result, laboratory.tally)
}

fn laboratory(setting: Setting) {
    let seeds = seeds_of(5);
    let (runs, mut all) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        let (result, tally) = run(seed, setting);
        if let Err(what) = result {
            panic!("TAMIS_SEED={seed} {setting:?}: {what}");
        }
        all.opens += tally.opens;
        all.grown += tally.grown;
        all.changed += tally.changed;
        all.shrunk += tally.shrunk;
        all.lossy += tally.lossy;
        all.moments += tally.moments;
        all.hits += tally.hits;
        all.anew += tally.anew;
        all.images += tally.images;
    }
    println!("{setting:?}, {runs} runs: {all:?}");
    assert!(all.changed >= runs, "{all:?}");
    assert!(all.grown >= runs && all.shrunk >= runs && all.moments >= 50 * runs, "{all:?}");
    let is_cold = setting.crash_safety == CrashSafety::Cold;
    assert!(is_cold || (all.hits >= 4 * runs && all.images > 0), "{all:?}");
    assert!(is_cold || setting.is_damaged || all.lossy > 0, "{all:?}");
    assert!(!is_cold || all.hits == 0, "{all:?}");
}

#[test]
fn power_mode_survives_a_power_loss_at_any_moment_of_a_change_of_size() {
    laboratory(POWER);
}

#[test]
fn process_mode_survives_a_kill_at_any_moment_of_a_change_of_size() {
    laboratory(KILL);
}

#[test]
fn process_mode_begins_anew_after_a_power_loss_while_its_size_changes() {
    laboratory(Setting { end: End::Machine, ..KILL });
}

#[test]
fn cold_mode_begins_anew_with_every_size() {
    laboratory(Setting { crash_safety: CrashSafety::Cold, ..KILL });
}

#[test]
fn damage_is_never_served_whatever_the_sizes() {
    laboratory(Setting { is_damaged: true, ..KILL });
    laboratory(Setting { is_damaged: true, ..POWER });
}

/// Planted bugs: the number of seeds until each is found.
#[test]
fn planted_bugs_of_a_change_of_size_are_found() {
    let bugs = [(Failpoint::HeaderMovedFirst, POWER), (Failpoint::ShrunkBeforeMoved, KILL)];
    for (bug, setting) in bugs {
        let _planted = plant(bug);
        let found = (0..400).find_map(|seed| {
            let run = std::panic::catch_unwind(|| run(seed, setting).0);
            run.unwrap_or_else(|_| Err("a panic".into())).err().map(|what| (seed, what))
        });
        let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {} runs: {what}", seed + 1);
    }
}
