//! The input is a script of damage to a good store, which is then opened and used: every hit is a
//! value that was once put under its key, and what is lost is counted.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::source::Source;
use super::value::{FullKey, number_of, tag, value};
use super::world::{End, SEGMENT_BYTES, SEGMENTS, World, config};
use crate::error::CacheError;
use crate::io::{Disk, SimulatedDisk};
use crate::modes::{CrashSafety, L1Admission};
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const SECTOR: usize = 512;
const BLOCK: usize = 4096;
const SEGMENT: usize = SEGMENT_BYTES as usize;

/// The superblocks.
const FRONT: usize = 2 * BLOCK;

/// More than the opens of the good stores.
const OPENS: u8 = 100;

/// Steps of damage, at most.
const STEPS: usize = 16;

/// What was put under a key, by number: the length of the value.
type Puts = BTreeMap<FullKey, BTreeMap<u32, usize>>;

/// A store as a process has left it.
struct Image {
    file: Vec<u8>,
    is_closed: bool,
    /// The last value of each key that has one.
    latest: BTreeMap<FullKey, u32>,
}

/// A store at three times: two were closed, the last one was killed; each is newer.
struct Images {
    images: [Image; 3],
    puts: Puts,
}

static IMAGES: LazyLock<Images> = LazyLock::new(images);

fn images() -> Images {
    let mut world = World::new(1, config(CrashSafety::Process, 64));
    let (mut puts, mut latest, mut number) = (Puts::new(), BTreeMap::new(), 0);
    let images = [(300, End::Close), (60, End::Close), (40, End::Kill)].map(|(calls, end)| {
        for _ in 0..calls {
            number += 1;
            call(&mut world, number, &mut puts, &mut latest);
        }
        let synced = world.cache.clone();
        world.run(synced.sync()).expect("the disk has no faults");
        world.end(end);
        let length = usize::try_from(world.disk.length()).expect("it fits memory");
        let file = world.disk.snapshot(0, length);
        world.begin().expect("a good store");
        Image { file, is_closed: end == End::Close, latest: latest.clone() }
    });
    Images { images, puts }
}

/// A put, or sometimes an invalidation, as the number says.
fn call(world: &mut World, number: u32, puts: &mut Puts, latest: &mut BTreeMap<FullKey, u32>) {
    let cache = world.cache.clone();
    let drawn = number.wrapping_mul(0x9E37_79B9).to_le_bytes();
    let full_key = FullKey::of(drawn[3]);
    let (namespace, key) = (full_key.namespace(), full_key.name());
    if drawn[2] < 16 {
        world.run(cache.invalidate_key(namespace, key)).expect("the disk has no faults");
        latest.remove(&full_key);
    } else if drawn[2] < 20 {
        world.run(cache.invalidate_prefix(namespace, [key[0]])).expect("the disk has no faults");
        latest.retain(|of, _| of.space != full_key.space || of.name()[0] != key[0]);
    } else {
        let length = 8 + usize::from(drawn[1]) * if drawn[0] < 40 { 24 } else { 4 };
        let put = put(number, length).with_tags([tag(drawn[0] % 3)]);
        world.run(cache.put(namespace, key, put)).expect("it has room");
        puts.entry(full_key).or_default().insert(number, length);
        latest.insert(full_key, number);
    }
}

fn put(number: u32, length: usize) -> BlobCachePut {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    BlobCachePut::new(value(number, length)).with_policy(policy)
}

/// What a script may have done.
#[derive(Default)]
struct Damage {
    /// The superblocks are as they were.
    is_behind_front: bool,
    /// Bytes of an earlier time are there.
    has_old: bool,
    /// Also in place of a superblock: then the log may continue where it has been before.
    has_old_front: bool,
}

/// What became of damaged stores.
#[derive(Debug, Default, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "tests read all of it"))]
pub(super) struct Tally {
    pub(super) refused: u64,
    pub(super) opened: u64,
    pub(super) hits: u64,
    /// Keys that had a value.
    pub(super) missing: u64,
    /// Stores of which something is missing, and of these the ones that counted a loss.
    pub(super) poorer: u64,
    pub(super) poorer_and_counted: u64,
}

/// Any bytes, as a script.
pub(super) fn store(bytes: &[u8]) {
    let _tally = damaged(bytes);
}

/// The same, and tells what became of the store.
pub(super) fn damaged(bytes: &[u8]) -> Tally {
    let images = &*IMAGES;
    let mut source = Source::new(bytes);
    let number = usize::from(source.below(3));
    let image = &images.images[number];
    let mut file = image.file.clone();
    let mut damage = Damage { is_behind_front: true, ..Damage::default() };
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        step(&mut source, &mut file, &images.images[..=number], &mut damage);
    }
    let disk = SimulatedDisk::new(1, file.len() as u64);
    disk.overwrite(0, &file);
    disk.plan(|plan| plan.delay_polls_max = 1);
    let world = match World::on(disk, 1, config(CrashSafety::Process, 64), OPENS) {
        Ok(world) => world,
        Err(CacheError::L2Format { .. } | CacheError::L2Damaged { .. }) => {
            return Tally { refused: 1, ..Tally::default() };
        }
        Err(error) => panic!("the open fails: {error}"),
    };
    check(world, image, &images.puts, &damage)
}

fn step(source: &mut Source<'_>, file: &mut Vec<u8>, images: &[Image], damage: &mut Damage) {
    let kind = source.below(10);
    if file.is_empty() {
        return;
    }
    // Most places are few: the superblocks, the ends of segments, the image behind them.
    let end = FRONT + SEGMENTS as usize * SEGMENT;
    let at = match source.below(4) {
        0 => source.place(FRONT.min(file.len())),
        1 => {
            let back = 1 + source.place(BLOCK);
            let segment_end = FRONT + (1 + source.place(SEGMENTS as usize)) * SEGMENT;
            (segment_end - back).min(file.len() - 1)
        }
        2 if file.len() > end => end + source.place(file.len() - end),
        _ => source.place(file.len()),
    };
    damage.is_behind_front &= at >= FRONT;
    let sector = at / SECTOR * SECTOR;
    match kind {
        0..3 => file[at] ^= 1 << source.below(8),
        3 => file[at] = source.byte(),
        4 => fill(file, sector..sector + SECTOR * (1 + usize::from(source.below(32))), 0),
        5 => fill(file, sector..sector + SECTOR, source.byte()),
        6 => {
            let other = source.place(file.len()) / SECTOR * SECTOR;
            damage.is_behind_front &= other >= FRONT;
            for offset in 0..SECTOR {
                file.swap(sector + offset, other + offset);
            }
        }
        7 => {
            damage.is_behind_front = false;
            file.truncate(at / BLOCK * BLOCK);
        }
        8 => {
            let length = file.len() + BLOCK * usize::from(source.below(8));
            file.resize(length, source.byte());
        }
        _ => {
            damage.has_old = true;
            damage.has_old_front |= at < FRONT;
            let old = &images[usize::from(source.byte()) % images.len()].file;
            let unit = [SECTOR, BLOCK, SEGMENT][usize::from(source.below(3))];
            let start =
                if at < FRONT { at / BLOCK * BLOCK } else { FRONT + (at - FRONT) / unit * unit };
            let end = (start + unit).min(file.len()).min(old.len());
            if start < end {
                file[start..end].copy_from_slice(&old[start..end]);
            }
        }
    }
}

fn fill(file: &mut [u8], range: std::ops::Range<usize>, byte: u8) {
    let end = range.end.min(file.len());
    file[range.start..end].fill(byte);
}

fn check(mut world: World, image: &Image, puts: &Puts, damage: &Damage) -> Tally {
    // After a kill the end of the log may look as if it had never been written.
    let is_strict = image.is_closed && !damage.has_old;
    let mut tally = Tally { opened: 1, ..Tally::default() };
    for full_key in FullKey::all() {
        let latest = image.latest.get(&full_key);
        match get(&mut world, full_key) {
            Some((number, length)) => {
                let once = puts.get(&full_key).and_then(|puts| puts.get(&number));
                assert_eq!(once, Some(&length), "a hit of {full_key:?}");
                assert!(!is_strict || latest == Some(&number), "{full_key:?} is stale");
                tally.hits += 1;
            }
            None => tally.missing += u64::from(latest.is_some()),
        }
    }
    let stats = world.cache.stats();
    let counted = stats.l2_corruptions() + stats.recovery_dropped();
    tally.poorer = u64::from(tally.missing > 0);
    tally.poorer_and_counted = u64::from(tally.missing > 0 && counted > 0);
    let is_counted = tally.poorer == tally.poorer_and_counted;
    assert!(is_counted || !is_strict || !damage.is_behind_front, "silent loss: {tally:?}");
    go_on(world, puts, damage);
    tally
}

fn get(world: &mut World, full_key: FullKey) -> Option<(u32, usize)> {
    let cache = world.cache.clone();
    let hit = world.run(cache.get(full_key.namespace(), full_key.name()))?;
    Some((number_of(hit.value()).expect("a value of one put"), hit.value().len()))
}

/// The store goes on: what is put from now on is found, or missing.
fn go_on(mut world: World, puts: &Puts, damage: &Damage) {
    let new = |full_key: FullKey| (1_000_000 + u32::from(full_key.key), 900);
    let is_new = |full_key: FullKey| full_key.key % 2 == 0;
    for full_key in FullKey::all().filter(|full_key| is_new(*full_key)) {
        let (cache, (number, length)) = (world.cache.clone(), new(full_key));
        let put = put(number, length);
        let done = world.run(cache.put(full_key.namespace(), full_key.name(), put));
        done.expect("the disk has no faults");
    }
    for end in [End::Kill, End::Close] {
        world.end(end);
        world.begin().expect("it was opened before");
        for full_key in FullKey::all() {
            let Some(found) = get(&mut world, full_key) else { continue };
            if is_new(full_key) && found == new(full_key) {
                continue;
            }
            let once = puts.get(&full_key).and_then(|puts| puts.get(&found.0));
            assert_eq!(once, Some(&found.1), "a hit of {full_key:?}");
            assert!(!is_new(full_key) || damage.has_old_front, "{full_key:?} is stale");
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, RngExt, SeedableRng};

    use super::*;

    /// The figures of many scripts.
    #[test]
    fn damage_is_survived_and_counted() {
        let cases = std::env::var("TAMIS_CASES").map_or(300, |cases| cases.parse().unwrap());
        let first = std::env::var("TAMIS_SEED").map_or(0, |seed| seed.parse().unwrap());
        let mut sum = Tally::default();
        for seed in first..first + cases {
            let mut random = StdRng::seed_from_u64(seed);
            let mut script = vec![0; random.random_range(6..40)];
            random.fill_bytes(&mut script);
            let tally = std::panic::catch_unwind(|| damaged(&script));
            let Ok(tally) = tally else { panic!("TAMIS_SEED={seed}: {script:02x?}") };
            sum.refused += tally.refused;
            sum.opened += tally.opened;
            sum.hits += tally.hits;
            sum.missing += tally.missing;
            sum.poorer += tally.poorer;
            sum.poorer_and_counted += tally.poorer_and_counted;
        }
        println!("{cases} stores: {sum:?}");
        if cases >= 300 {
            assert!(sum.opened > sum.refused && sum.hits > sum.missing, "{sum:?}");
            assert!(sum.poorer_and_counted > sum.poorer / 2, "{sum:?}");
        }
    }

    #[test]
    fn the_undamaged_stores_have_nearly_all_they_were_given() {
        for (number, image) in IMAGES.images.iter().enumerate() {
            let disk = SimulatedDisk::new(1, image.file.len() as u64);
            disk.overwrite(0, &image.file);
            let mut world = World::on(disk, 1, config(CrashSafety::Process, 64), OPENS).unwrap();
            let found = image.latest.iter().filter(|(full_key, number)| {
                get(&mut world, **full_key).is_some_and(|(found, _)| found == **number)
            });
            let found = found.count();
            assert!(2 * image.latest.len() >= FullKey::all().count());
            assert_eq!(found, image.latest.len(), "image {number}");
        }
    }
}
