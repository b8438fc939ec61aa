//! Changes of size beside puts and invalidations, some of them overtaken by another size, cut at
//! any moment. The next process has the old size, the new one or any other. It finds of each key
//! the latest value, that of a call under way, or none; a later one finds nothing else.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::size::{KILL, POWER, SEGMENT, Setting, Size, config};
use super::{KEYS, POLLS_MAX, opening, put_one, value};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::engine::open::geometry;
use crate::engine::tests::bench::seeds_of;
use crate::failpoint::{Failpoint, plant};
use crate::io::{Disk, End, SimulatedDisk, Simulation};
use crate::stats::L2State;

/// Records that certainly fit one segment with the newest one that was synced.
const UNSYNCED_MAX: u32 = 2;

/// What is known of the values.
#[derive(Clone, Debug, Default)]
struct Model {
    latest: BTreeMap<u8, u32>,
    /// A key, and the value that it will have.
    under_way: Option<(u8, Option<u32>)>,
    /// The last value that was synced.
    synced: Option<(u8, u32)>,
    numbers: u32,
}

impl Model {
    fn begin(&mut self, key: u8, number: Option<u32>) {
        self.under_way = Some((key, number));
        self.synced = self.synced.filter(|(synced, _)| *synced != key);
    }

    fn end(&mut self) {
        match self.under_way.take() {
            Some((key, Some(number))) => _ = self.latest.insert(key, number),
            Some((key, None)) => _ = self.latest.remove(&key),
            None => {}
        }
    }

    fn allows(&self, key: u8, number: u32) -> bool {
        self.latest.get(&key) == Some(&number) || self.under_way == Some((key, Some(number)))
    }

    /// A value that has to be there after any end of the process that the store survives.
    fn kept(&self) -> Option<(u8, u32)> {
        self.synced.filter(|(_, number)| self.numbers - number <= UNSYNCED_MAX)
    }
}

#[derive(Debug, Default)]
struct Tally {
    changes: u64,
    overtaken: u64,
    moments: u64,
    hits: u64,
    kept: u64,
}

struct World {
    setting: Setting,
    random: StdRng,
    simulation: Simulation,
    disk: SimulatedDisk,
    size: Size,
    cache: BlobCache,
    model: Rc<RefCell<Model>>,
    boot: u8,
    tally: Tally,
}

fn draw(random: &mut StdRng) -> Size {
    Size { segments: random.random_range(4..16), segment_bytes: SEGMENT }
}

fn open(
    simulation: &mut Simulation,
    disk: &SimulatedDisk,
    setting: (Setting, Size),
    boot: u8,
) -> Result<BlobCache, String> {
    let opened = simulation.block_on(opening(simulation, disk, setting, boot));
    let engine = opened.ok_or("an open hangs")?.map_err(|error| error.to_string())?;
    Ok(BlobCache { engine })
}

fn find(
    simulation: &mut Simulation,
    cache: &BlobCache,
    model: &Model,
) -> Result<BTreeMap<u8, u32>, String> {
    let mut found = BTreeMap::new();
    for key in 0..KEYS {
        let hit = simulation.block_on(cache.get("a", [key])).ok_or("a get hangs")?;
        let Some(hit) = hit else { continue };
        let number = u32::from_le_bytes(*hit.value().first_chunk().ok_or("too short")?);
        if hit.value() != value(number, hit.value().len()) {
            return Err(format!("key {key}: a mixture of values"));
        }
        if !model.allows(key, number) {
            return Err(format!("key {key} has value {number}: {model:?}"));
        }
        found.insert(key, number);
    }
    Ok(found)
}

/// Puts and invalidations, one after the other.
async fn mutate(cache: &BlobCache, model: &RefCell<Model>, mut random: StdRng) {
    // With small values the log stays in the segment that has to be moved.
    let bytes_max = [100, 9000][random.random_range(0..2)];
    for _ in 0..random.random_range(0..40) {
        let key = random.random_range(0..KEYS);
        if random.random_bool(0.2) {
            model.borrow_mut().begin(key, None);
            cache.invalidate_key("a", [key]).await.unwrap();
            model.borrow_mut().end();
            continue;
        }
        let number = model.borrow().numbers + 1;
        model.borrow_mut().numbers = number;
        model.borrow_mut().begin(key, Some(number));
        put_one(cache, key, number, random.random_range(4..bytes_max)).await;
        model.borrow_mut().end();
        if random.random_bool(0.5) {
            cache.sync().await.unwrap();
            model.borrow_mut().synced = Some((key, number));
        }
    }
}

/// Sets one size after the other, the second maybe before the first is there.
async fn resize(cache: &BlobCache, first: Size, second: Option<(Size, u32)>) {
    let overtaking = async {
        let Some((size, polls)) = second else { return };
        for _ in 0..polls {
            yield_now().await;
        }
        cache.set_l2_bytes_max(size.bytes()).await.unwrap();
    };
    let (first, ()) = futures::join!(cache.set_l2_bytes_max(first.bytes()), overtaking);
    first.unwrap();
}

impl World {
    fn new(seed: u64, setting: Setting) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = draw(&mut random);
        let bytes = geometry(&config(setting, size)).unwrap().file_bytes();
        let (disk, mut simulation) = (SimulatedDisk::new(seed, bytes), Simulation::new(seed));
        let cache = open(&mut simulation, &disk, (setting, size), 0).unwrap();
        let (model, tally) = (Rc::default(), Tally::default());
        Self { setting, random, simulation, disk, size, cache, model, boot: 0, tally }
    }

    /// Changes the size beside mutations.
    fn change(&mut self) -> Result<(), String> {
        let (cache, disk) = (self.cache.clone(), self.disk.clone());
        let first = draw(&mut self.random);
        let second = (self.random.random_bool(0.4))
            .then(|| (draw(&mut self.random), self.random.random_range(0..300)));
        let last = second.map_or(first, |(size, _)| size);
        let model = Rc::clone(&self.model);
        let mutations = mutate(&cache, &model, StdRng::seed_from_u64(self.random.random()));
        let mut work = pin!(futures::future::join(resize(&cache, first, second), mutations));
        self.simulation.limit_steps(2);
        let mut moment = disk.moment();
        let mut is_done = false;
        for polls in 0..POLLS_MAX {
            is_done = self.simulation.block_on(work.as_mut()).is_some();
            if disk.moment() != moment && self.random.random_bool(0.06) {
                moment = disk.moment();
                self.tally.moments += 1;
                let sizes = [self.size, first, last, draw(&mut self.random)];
                let size = sizes[self.random.random_range(0..4)];
                let known = model.borrow().clone();
                let told = format!("{:?} to {first:?} to {second:?}, cut at {polls}", self.size);
                self.cut(size, &known).map_err(|what| format!("{told}, {size:?}: {what}"))?;
            }
            if is_done {
                break;
            }
        }
        self.simulation.limit_steps(u64::MAX);
        if !is_done {
            return Err(format!("{:?} to {first:?} to {second:?} hangs", self.size));
        }
        let (stats, segments) = (cache.stats(), last.bytes() + 8192);
        if stats.l2_state() != L2State::Healthy || stats.l2_bytes_max() != segments {
            return Err(format!(
                "{:?}, {}, not {segments}",
                stats.l2_state(),
                stats.l2_bytes_max()
            ));
        }
        if disk.length() != segments && self.tally.changes > 0 {
            return Err(format!("the file has {} bytes, not {segments}", disk.length()));
        }
        self.size = last;
        self.tally.changes += 1;
        self.tally.overtaken += u64::from(second.is_some());
        Ok(())
    }

    /// What is left if the process or the machine ends now.
    fn cut(&mut self, size: Size, model: &Model) -> Result<(), String> {
        let seed = self.random.random();
        let left = self.disk.outcomes(self.setting.end).drawn(seed);
        let is_damaged = self.setting.is_damaged && self.random.random_bool(0.7);
        if is_damaged {
            // The header of the segment in which the log ends.
            let l2 = self.cache.engine.parts.disk.l2().unwrap();
            let tail = l2.file_offset(l2.log.tail()) - 8192;
            left.flip_bit(8192 + tail / SEGMENT * SEGMENT, self.random.random_range(0..8));
        }
        let boot = self.boot + u8::from(self.setting.end == End::Machine);
        let mut simulation = Simulation::new(seed);
        let cache = open(&mut simulation, &left, (self.setting, size), boot)?;
        let mut found = find(&mut simulation, &cache, model)?;
        self.tally.hits += found.len() as u64;
        if let Some((key, number)) = model.kept().filter(|_| !self.setting.is_damaged) {
            self.tally.kept += 1;
            if found.get(&key) != Some(&number) {
                return Err(format!("{key}: {number} was synced, and is lost: {model:?}"));
            }
        }
        if seed % 3 > 0 {
            return Ok(());
        }
        for number in 0..self.random.random_range(1..6) {
            let (key, number) = (self.random.random_range(0..KEYS), 1 << 30 | number);
            simulation.block_on(put_one(&cache, key, number, 8000)).ok_or("a put hangs")?;
            found.insert(key, number);
        }
        simulation.block_on(cache.sync()).ok_or("a sync hangs")?.unwrap();
        simulation.kill();
        let left = left.outcomes(self.setting.end).drawn(seed);
        let boot = boot + u8::from(self.setting.end == End::Machine);
        let mut simulation = Simulation::new(seed);
        let other = (self.setting, draw(&mut self.random));
        let cache = open(&mut simulation, &left, other, boot)?;
        let model = Model { latest: found, ..Model::default() };
        find(&mut simulation, &cache, &model).map(drop)
    }

    /// Ends the process, and begins the next one with another size.
    fn reopen(&mut self) -> Result<(), String> {
        match self.random.random_range(0..3) {
            0 => {
                let cache = self.cache.clone();
                self.simulation.block_on(cache.close()).ok_or("a close hangs")?.unwrap();
            }
            _ if self.setting.end == End::Process => {
                self.simulation.kill();
                self.disk = self.disk.kill();
            }
            _ => {
                self.simulation.kill();
                self.disk = self.disk.crash();
                self.boot += 1;
            }
        }
        self.size = draw(&mut self.random);
        let of = (self.setting, self.size);
        self.cache = open(&mut self.simulation, &self.disk, of, self.boot)?;
        let mut model = self.model.borrow_mut();
        model.latest = find(&mut self.simulation, &self.cache, &model)?;
        model.synced = None;
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            for _ in 0..self.random.random_range(1..4) {
                self.change()?;
            }
            let found = find(&mut self.simulation, &self.cache, &self.model.borrow())?;
            self.model.borrow_mut().latest = found;
            self.reopen()?;
        }
        Ok(())
    }
}

fn run(seed: u64, setting: Setting) -> (Result<(), String>, Tally) {
    let mut world = World::new(seed, setting);
    let result = world.run();
    (result, world.tally)
}

fn laboratory(setting: Setting) {
    let seeds = seeds_of(8);
    let (runs, mut all) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        let (result, tally) = run(seed, setting);
        if let Err(what) = result {
            panic!("TAMIS_SEED={seed} {setting:?}: {what}");
        }
        all.changes += tally.changes;
        all.overtaken += tally.overtaken;
        all.moments += tally.moments;
        all.hits += tally.hits;
        all.kept += tally.kept;
    }
    println!("{setting:?}, {runs} runs: {all:?}");
    assert!(all.changes >= 4 * runs && all.overtaken >= runs, "{all:?}");
    assert!(all.moments >= 20 * runs && all.hits >= all.moments, "{all:?}");
    assert!(setting.is_damaged || all.kept >= runs, "{all:?}");
}

#[test]
fn power_mode_survives_a_power_loss_while_sizes_change_beside_mutations() {
    laboratory(POWER);
}

#[test]
fn process_mode_survives_a_kill_while_sizes_change_beside_mutations() {
    laboratory(KILL);
}

#[test]
fn a_damaged_header_brings_nothing_back_while_sizes_change_beside_mutations() {
    for setting in [KILL, POWER] {
        laboratory(Setting { is_damaged: true, ..setting });
    }
}

/// Planted bugs: the number of seeds until each is found.
#[test]
fn planted_bugs_of_a_change_beside_mutations_are_found() {
    let damaged = Setting { is_damaged: true, ..KILL };
    let bugs = [
        (Failpoint::HeaderMovedFirst, POWER),
        (Failpoint::CopiedUnsynced, POWER),
        (Failpoint::ShrunkBeforeMoved, KILL),
        (Failpoint::MovedHeaderLeft, damaged),
    ];
    for (bug, setting) in bugs {
        let _planted = plant(bug);
        let found = (0..200).find_map(|seed| {
            let run = std::panic::catch_unwind(|| run(seed, setting).0);
            run.unwrap_or_else(|_| Err("a panic".into())).err().map(|what| (seed, what))
        });
        let (seed, what) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {} runs: {what}", seed + 1);
    }
}
