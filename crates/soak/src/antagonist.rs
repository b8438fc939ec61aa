//! `Antagonist`: threads that burn all cores, and one that writes and syncs a file.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::Failure;

const FILE_BYTES: u64 = 64 << 20;
const PIECE: usize = 256 << 10;

/// Runs until it is dropped.
pub(crate) struct Antagonist {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Antagonist {
    pub(crate) fn start(folder: &Path) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism()?.get();
        let mut threads: Vec<_> = (0..cores)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || burn(&stop))
            })
            .collect();
        let file = File::create(folder.join("antagonist"))?;
        let stopped = Arc::clone(&stop);
        threads.push(thread::spawn(move || write(&file, &stopped)));
        Ok(Self { stop, threads })
    }

    /// The threads and descriptors that it has.
    pub(crate) fn resources(&self) -> (usize, usize) {
        (self.threads.len(), 1)
    }
}

impl Drop for Antagonist {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that has panicked bothers nobody any more.
            let _ = thread.join();
        }
    }
}

fn burn(stop: &AtomicBool) {
    let mut number = 1u64;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

/// Each piece of the file in turn, with a sync after each eighth one.
fn write(file: &File, stop: &AtomicBool) {
    let piece = vec![7; PIECE];
    let places = (0..FILE_BYTES / PIECE as u64).cycle();
    for (count, place) in (1u64..).zip(places) {
        let written = file.write_all_at(&piece, place * PIECE as u64);
        if stop.load(Ordering::Relaxed) || written.is_err() {
            return;
        }
        if count % 8 == 0 && file.sync_data().is_err() {
            return;
        }
    }
}
