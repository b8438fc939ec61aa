//! `Census`: the descriptors and threads of this process, and the live bytes of its allocator.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Far longer than the threads take that free what a cache leaves.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

static LIVE: AtomicI64 = AtomicI64::new(0);

/// The system's allocator with a count of live bytes.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: usize, sign: i64) {
    LIVE.fetch_add(i64::try_from(bytes).unwrap_or(0) * sign, Ordering::Relaxed);
}

// SAFETY: every call is passed unchanged to `System`, which upholds the contract of `GlobalAlloc`;
// the count is a separate atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's guarantees for this very call.
        unsafe { System.dealloc(block, layout) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Census {
    /// What each descriptor is of, sorted.
    descriptors: Vec<String>,
    /// Their names, sorted.
    threads: Vec<String>,
}

/// What there is of each entry of a directory of this process; what has gone meanwhile is not.
fn listed(directory: &str, look: impl Fn(&std::path::Path) -> Option<String>) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut listed: Vec<_> = entries.filter_map(|entry| look(&entry.ok()?.path())).collect();
    listed.sort();
    listed
}

impl Census {
    pub(super) fn now() -> Self {
        // Not the one that lists the others.
        let target = |path: &std::path::Path| {
            let target = fs::read_link(path).ok()?.to_string_lossy().into_owned();
            let is_own = target.starts_with("/proc/") && target.ends_with("/fd");
            (!is_own).then_some(target)
        };
        let name = |path: &std::path::Path| {
            Some(fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned())
        };
        Self {
            descriptors: listed("/proc/self/fd", target),
            threads: listed("/proc/self/task", name),
        }
    }

    /// Waits until this process has exactly these again; otherwise what it has.
    pub(super) fn returns_within(&self, patience: Duration) -> Result<(), Self> {
        let end = Instant::now() + patience;
        loop {
            let now = Self::now();
            if now == *self {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(now);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn returns(&self, after: &str) {
        if let Err(left) = self.returns_within(PATIENCE) {
            panic!("after {after}: {left:?}, before: {self:?}");
        }
    }
}

/// Live bytes of the allocator; of a process at rest.
pub(super) fn live() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

/// Seconds since the epoch by which the present step must be over.
static DEADLINE: AtomicU64 = AtomicU64::new(u64::MAX);

fn seconds() -> u64 {
    static BEGUN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_secs()
}

/// From here on the process aborts if no further step begins within twice the patience.
pub(super) fn step(what: &str) {
    static WATCH: std::sync::Once = std::sync::Once::new();
    static WHAT: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    what.clone_into(&mut WHAT.lock().unwrap());
    DEADLINE.store(seconds() + 2 * PATIENCE.as_secs(), Ordering::Relaxed);
    WATCH.call_once(|| {
        let watch = || loop {
            thread::sleep(Duration::from_millis(200));
            if seconds() > DEADLINE.load(Ordering::Relaxed) {
                let what = WHAT.lock().unwrap();
                // Past the capture of output, which an abort would lose.
                _ = writeln!(std::io::stderr(), "{what} does not end");
                std::process::abort();
            }
        };
        thread::Builder::new().name("watch".to_owned()).spawn(watch).unwrap();
        // A thread names itself.
        while !Census::now().threads.iter().any(|name| name == "watch") {
            thread::yield_now();
        }
    });
}
