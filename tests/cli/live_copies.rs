//! `backup --live`: a store is copied while its owner writes, reclaims and resizes it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use tamis::{BlobCache, BlobCachePut};

use super::stores::{self, SEGMENT_BYTES};
use super::{folder, tamis};

const KEYS: u64 = 40;

/// Mutations that a segment has room for, with those in flight: they may lie behind the last sealed
/// one.
const UNSEALED: u64 = 200;

/// The numbers at which a key is invalidated instead of put.
fn is_invalidation(number: u64) -> bool {
    number % 7 == 3
}

fn value(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(usize::try_from(63 + number % 400).unwrap())
}

/// One mutation after the other, each with its number. The size of the file changes now and then.
fn mutate(cache: &BlobCache, begun: &AtomicU64, is_over: &AtomicBool) {
    block_on(async {
        for number in 0_u64.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            begun.store(number, Ordering::SeqCst);
            let key = (number % KEYS).to_string();
            if is_invalidation(number) {
                cache.invalidate_key("space", key).await.unwrap();
            } else {
                let put = BlobCachePut::new(value(number)).with_tags(["tag"]);
                cache.put("space", key, put).await.unwrap();
            }
            if number % 4000 == 3999 {
                let segments = [16, 9, 20, 12][usize::try_from(number / 4000 % 4).unwrap()];
                cache.set_l2_bytes_max(segments * SEGMENT_BYTES).await.unwrap();
            }
        }
    });
}

/// Ends the writer whatever becomes of the test.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a copy holds must have been put, and nothing that was done before may be missing but what
/// was not sealed. Returns the number of entries.
fn check(copy: &Path, (before, after): (u64, u64)) -> u64 {
    tamis(["verify", copy.to_str().unwrap()]).expect(0);
    let cache = stores::open(copy);
    let mut found = 0;
    for key in 0..KEYS {
        let Some(hit) = block_on(cache.get("space", key.to_string())) else { continue };
        let number = u64::from_le_bytes(*hit.value().first_chunk().unwrap());
        assert!(hit.value() == value(number), "{key}: a mixture of values");
        assert!(number % KEYS == key && !is_invalidation(number), "{key} has {number}");
        assert!(number <= after, "{number} of {after} was never put");
        // Mutations of a key are `KEYS` numbers apart.
        assert!(number + KEYS + UNSEALED > before, "{number} is out of date at {before}");
        found += 1;
    }
    stores::close(&cache);
    found
}

#[test]
fn a_copy_of_a_store_that_is_written_is_its_state_at_a_seal() {
    let (folder, parent) = (folder(), folder());
    let cache = stores::open(folder.path());
    let (begun, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut copies, mut found, mut moving) = (0, 0, 0);
    thread::scope(|scope| {
        let _over = Over(&is_over);
        let writer = scope.spawn(|| mutate(&cache, &begun, &is_over));
        let now = || begun.load(Ordering::SeqCst);
        while now() < 500 && !writer.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        for number in 0.. {
            // Longer on a machine that does other work.
            let is_enough =
                copies > 10 && now() > 4000 && cache.stats().l2_reclaimed_segments() > 20;
            let seconds = if is_enough { 8 } else { 60 };
            if start.elapsed() > Duration::from_secs(seconds) || writer.is_finished() {
                break;
            }
            let to = parent.path().join(number.to_string());
            let [from, target] = [folder.path(), &to].map(|path| path.to_str().unwrap());
            let before = now();
            let made = tamis(["backup", "--live", "--json", from, target]);
            let after = now();
            if made.code == 3 && made.stdout.contains("\"moving\"") {
                moving += 1;
                continue;
            }
            if copies == 0 && made.code == 3 && made.stdout.contains("\"nothing_sealed\"") {
                continue;
            }
            let told = made.expect(0).json();
            assert!(told["copy"]["segments"].as_u64().unwrap() >= 1, "{told}");
            found += check(&to, (before, after));
            copies += 1;
            std::fs::remove_dir_all(to).unwrap();
        }
    });
    let put = begun.load(Ordering::SeqCst);
    let figures = format!("{put} mutations, {copies} copies, {found} found, {moving} moving");
    println!("{figures}");
    assert!(cache.stats().l2_reclaimed_segments() > 20 && put > 4000, "{figures}");
    assert!(copies > 10 && found > 10 * copies && moving < copies, "{figures}");
    stores::close(&cache);
    tamis(["verify", folder.path().to_str().unwrap()]).expect(0);
}
