//! Copies of a store from outside, beside mutations and changes of its size. A copy holds a part of
//! the state after some of the mutations, or all of it if the log has room for everything; no byte
//! of it is damaged. It may lack what was not sealed.
//!
//! `TAMIS_RUNS` sets the number of runs of each test; `TAMIS_SEED` runs one alone.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::cell::RefCell;
use std::io;
use std::panic::catch_unwind;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join3, ready};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::backups::{
    FULL, Model, ROOMY, SEGMENT, Setting, State, Tally, check, config, empty_target, mutate,
};
use super::bench::{Bench, seeds_of};
use crate::batch::yield_now;
use crate::cache::BlobCache;
use crate::failpoint::{Failpoint, plant};
use crate::io::{
    AlignedBuffer, BLOCK_BYTES, Disk, End, LentBlocks, ReadRequest, SimulatedDisk, Simulation,
};
use crate::l2::{Checker, CopyError, FoundStore};

/// States whose mutations a segment and what is in flight may hold, at most: three values.
const UNSEALED: usize = 120;

/// The disk of an owner, as another process reads it: block after block, whatever the owner writes
/// meanwhile, and up to the end that it has by then.
struct Outside {
    disk: SimulatedDisk,
    dice: Mutex<StdRng>,
    /// What it was before the owner wrote over all that it tells of: read until other blocks are.
    old_superblock: Mutex<Option<Vec<u8>>>,
}

impl Outside {
    fn new(seed: u64, disk: SimulatedDisk) -> Self {
        let dice = Mutex::new(StdRng::seed_from_u64(seed));
        Self { disk, dice, old_superblock: Mutex::new(None) }
    }
}

/// Both copies.
const SUPERBLOCK_BYTES: usize = 2 * BLOCK_BYTES;

impl Disk for Outside {
    fn length(&self) -> u64 {
        self.disk.length()
    }

    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        self.disk.lend()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let (disk, seed) = (self.disk.clone(), self.dice.lock().random());
        let start = usize::try_from(request.offset).unwrap();
        let end = start + request.length;
        let mut old = self.old_superblock.lock();
        if end > SUPERBLOCK_BYTES {
            *old = None;
        }
        let old = old.clone();
        async move {
            let mut random = StdRng::seed_from_u64(seed);
            let mut buffer = AlignedBuffer::with_capacity(request.length);
            if let Some(old) = old {
                buffer.append(&old[start..end]);
                return Ok(buffer);
            }
            for block in (0..request.length).step_by(BLOCK_BYTES) {
                for _ in 0..random.random_range(0..8) {
                    yield_now().await;
                }
                let offset = request.offset + block as u64;
                if offset + BLOCK_BYTES as u64 > disk.length() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                buffer.append(&disk.snapshot(offset, BLOCK_BYTES));
            }
            Ok(buffer)
        }
        .boxed()
    }

    fn write(
        &self,
        _: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        ready((Err(io::ErrorKind::PermissionDenied.into()), buffer)).boxed()
    }

    fn resize(&self, _: u64) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(io::ErrorKind::PermissionDenied.into())).boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        ready(Err(io::ErrorKind::PermissionDenied.into())).boxed()
    }
}

/// Whether there was a copy. None is if nothing was sealed, or the store was too quick.
async fn copy(seed: u64, disk: SimulatedDisk, to: SimulatedDisk) -> Result<bool, String> {
    let Ok(store) = FoundStore::read(Arc::new(Outside::new(seed, disk)), true).await else {
        return Ok(false);
    };
    if !matches!(store.is_copyable().await, Ok(true)) {
        return Ok(false);
    }
    match store.copy_to(Arc::new(to), &|_, _| ()).await {
        Ok(_) => Ok(true),
        Err(CopyError::Outrun | CopyError::Source(_)) => Ok(false),
        Err(error) => Err(format!("{error:?}")),
    }
}

async fn resize(cache: &BlobCache, random: &mut StdRng, smallest: u64) {
    for _ in 0..random.random_range(0..4) {
        for _ in 0..random.random_range(0..300) {
            yield_now().await;
        }
        let segments = random.random_range(smallest..smallest + 8);
        cache.set_l2_bytes_max(segments * SEGMENT).await.unwrap();
    }
}

/// Every checksum of a copy is good.
async fn check_sums(copy: SimulatedDisk) -> Result<(), String> {
    let store = FoundStore::read(Arc::new(copy) as Arc<dyn Disk>, false).await;
    let store = store.map_err(|error| error.to_string())?;
    let checker = Checker::new(&store).await;
    for number in checker.numbers() {
        let checked = checker.check(number, &mut |_| ()).await;
        let damage = checked.map_err(|error| error.to_string())?.damage;
        if !damage.is_empty() {
            return Err(format!("{number:?} is damaged: {damage:?}"));
        }
    }
    Ok(())
}

fn run(seed: u64, setting: Setting, tally: &mut Tally) -> Result<(), String> {
    let mut random = StdRng::seed_from_u64(seed);
    let smallest = if setting.is_roomy { 48 } else { random.random_range(5..9) };
    let mut bench = Bench::with(seed, config(setting, smallest));
    let cache = bench.cache();
    let model = RefCell::new(Model { states: vec![State::new()] });
    for _ in 0..4 {
        let before = random.random_range(0..if setting.is_roomy { 60 } else { 150 });
        bench.run(mutate(&cache, &model, &mut random, before));
        let begun = model.borrow().states.len().saturating_sub(UNSEALED);
        let target = empty_target(random.random());
        let [mut others, mut sizes] = [(); 2].map(|()| StdRng::seed_from_u64(random.random()));
        let count = random.random_range(0..60);
        let (made, (), ()) = bench.run(join3(
            copy(random.random(), bench.disk.clone(), target.clone()),
            mutate(&cache, &model, &mut others, count),
            resize(&cache, &mut sizes, smallest),
        ));
        if !made? {
            continue;
        }
        tally.backups += 1;
        let left = target.outcomes(End::Machine).drawn(random.random());
        let mut simulation = Simulation::new(random.random());
        simulation.block_on(check_sums(left.clone())).ok_or("a check hangs")??;
        let known = model.borrow().clone();
        check((random.random(), &left), setting, (&known, begun), tally)?;
    }
    Ok(())
}

fn laboratory(setting: Setting) {
    let seeds = seeds_of(60);
    let (runs, mut tally) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        if let Err(what) = run(seed, setting, &mut tally) {
            panic!("TAMIS_SEED={seed} of {setting:?} fails: {what}");
        }
    }
    println!("{setting:?}, {runs} runs: {tally:?}");
    assert!(tally.backups >= runs && tally.found >= tally.backups, "{tally:?}");
}

#[test]
fn a_copy_from_outside_is_the_store_at_a_seal() {
    laboratory(ROOMY);
}

#[test]
fn a_copy_from_outside_of_a_log_that_comes_round_is_the_store_at_a_seal() {
    laboratory(FULL);
}

#[test]
fn a_segment_that_is_overwritten_while_it_is_copied_is_found() {
    let _planted = plant(Failpoint::OverwrittenCopied);
    let found = (0..300).find_map(|seed| {
        let run = catch_unwind(|| run(seed, FULL, &mut Tally::default()));
        run.unwrap_or_else(|_| Err("a panic".into())).err().map(|what| (seed, what))
    });
    let (seed, what) = found.expect("OverwrittenCopied is not found");
    println!("OverwrittenCopied: {} runs: {what:.200}", seed + 1);
}

/// The one has nothing to copy yet. The other has: it was too quick.
#[test]
fn a_store_without_a_sealed_segment_is_told_from_one_that_was_overwritten_while_it_was_read() {
    let mut bench = Bench::with(1, config(FULL, 8));
    let found = |bench: &mut Bench, old| {
        let outside = Outside::new(1, bench.disk.clone());
        *outside.old_superblock.lock() = old;
        bench.run(async {
            let store = FoundStore::read(Arc::new(outside) as Arc<dyn Disk>, true).await.unwrap();
            (store.is_copyable().await.unwrap(), store.has_moved().await.unwrap())
        })
    };
    bench.put("first", "value", &[]);
    assert_eq!(found(&mut bench, None), (false, false), "nothing is sealed");
    let write_over = |bench: &mut Bench| {
        for number in 0..120 {
            bench.put(&number.to_string(), &"v".repeat(4 << 10), &[]);
        }
    };
    write_over(&mut bench);
    assert_eq!(found(&mut bench, None), (true, false));
    let old = bench.disk.snapshot(0, SUPERBLOCK_BYTES);
    write_over(&mut bench);
    assert_eq!(found(&mut bench, Some(old)), (false, true), "overwritten meanwhile");
}
