//! A cache that keeps numbers, and loses in a crash what was not on file.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::CacheError;
use tokio::time::{Instant, sleep, sleep_until};

use crate::failpoint::{Failpoint, failpoint};
use crate::invalidation::{Invalidation, Scope};
use crate::local::Local;
use crate::position::{Place, Saved};

pub(super) const KEYS: usize = 10;

/// A version of each key's value at the origin.
pub(super) type Versions = [u64; KEYS];

#[derive(Debug, Clone)]
enum Operation {
    Put(usize, u64),
    Forget(Vec<usize>),
    Save(Vec<u8>),
}

#[derive(Debug, Default)]
struct State {
    log: Vec<Operation>,
    on_file: usize,
    values: [Option<u64>; KEYS],
    /// The number of operations when the key was invalidated last.
    forgotten: [usize; KEYS],
    saved: Option<Vec<u8>>,
    open_until: Duration,
}

impl State {
    fn run(&mut self, operation: Operation) {
        self.log.push(operation.clone());
        match operation {
            Operation::Put(key, version) => self.values[key] = Some(version),
            Operation::Save(bytes) => self.saved = Some(bytes),
            Operation::Forget(keys) => {
                for key in keys {
                    self.values[key] = None;
                    self.forgotten[key] = self.log.len();
                }
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct SimulatedStore {
    state: Arc<Mutex<State>>,
    random: Arc<Mutex<StdRng>>,
    begun: Instant,
    /// What a write takes, at most.
    disk_ms: u64,
    /// A node that sleeps does nothing before.
    asleep_until: Arc<Mutex<Instant>>,
}

/// The keys that an invalidation covers: keys are `0` to `9`, tags `0` and `1` for even and odd.
pub(super) fn covered(invalidation: &Invalidation) -> Vec<usize> {
    let number = |text: &[u8]| usize::from(text[0] - b'0');
    match &invalidation.scope {
        Scope::Key(_, key) | Scope::Prefix(_, key) => vec![number(key)],
        Scope::Tags(_, tags) | Scope::Dependencies(_, tags) => {
            (0..KEYS).filter(|key| key % 2 == number(tags[0].as_bytes())).collect()
        }
        Scope::Namespace(_) | Scope::All => (0..KEYS).collect(),
    }
}

impl SimulatedStore {
    pub(super) fn new(begun: Instant, disk_ms: u64, seed: u64) -> Self {
        Self {
            state: Arc::default(),
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            begun,
            disk_ms,
            asleep_until: Arc::new(Mutex::new(begun)),
        }
    }

    /// What the next life finds: all that was on file, and some of what was not.
    pub(super) fn crash(&self) {
        let mut state = self.state.lock();
        let kept = self.random.lock().random_range(state.on_file..=state.log.len());
        let log: Vec<_> = state.log.drain(..kept).collect();
        *state = State::default();
        // Bounded: by what was there before.
        log.into_iter().for_each(|operation| state.run(operation));
        state.on_file = state.log.len();
    }

    pub(super) fn sleep_for(&self, time: Duration) {
        *self.asleep_until.lock() = Instant::now() + time;
    }

    pub(super) async fn awake(&self) {
        let until = *self.asleep_until.lock();
        sleep_until(until).await;
    }

    /// A hit, if the gate is open.
    pub(super) fn get(&self, key: usize) -> Option<u64> {
        self.is_open().then(|| self.state.lock().values[key])?
    }

    pub(super) fn read_point(&self) -> usize {
        self.state.lock().log.len()
    }

    pub(super) fn put(&self, key: usize, version: u64, read_at: usize) {
        let mut state = self.state.lock();
        if state.forgotten[key] <= read_at || failpoint(Failpoint::FillPastPoint) {
            state.run(Operation::Put(key, version));
        }
    }

    async fn record(&self, operation: Operation) {
        let end = {
            let mut state = self.state.lock();
            state.run(operation);
            state.log.len()
        };
        let time = self.random.lock().random_range(0..=self.disk_ms);
        sleep(Duration::from_millis(time)).await;
        self.awake().await;
        let mut state = self.state.lock();
        state.on_file = state.on_file.max(end);
    }
}

impl Local for SimulatedStore {
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn open_until(&self, until: Duration) {
        self.state.lock().open_until = until;
    }

    fn close_gate(&self) {
        self.open_until(Duration::ZERO);
    }

    fn is_open(&self) -> bool {
        self.now() < self.state.lock().open_until
    }

    async fn apply(&self, invalidation: &Invalidation) -> Result<usize, CacheError> {
        self.record(Operation::Forget(covered(invalidation))).await;
        Ok(1)
    }

    async fn flush(&self) -> Result<(), CacheError> {
        self.record(Operation::Forget((0..KEYS).collect())).await;
        Ok(())
    }

    fn saved(&self) -> Option<Place> {
        let saved = self.state.lock().saved.clone()?;
        Some(Saved::decode(&saved)?.place)
    }

    async fn save(&self, place: &Place) -> Result<(), CacheError> {
        let saved = Saved { place: place.clone(), governed: 0 };
        self.record(Operation::Save(saved.encode())).await;
        Ok(())
    }
}
