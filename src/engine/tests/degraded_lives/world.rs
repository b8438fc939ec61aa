//! `World`: a simulated disk and a void mark, and processes in a row that can or cannot open it.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::engine::cover::Cover;
use crate::engine::open::{DiskSetup, Identity, WithoutDisk, geometry, open_on, open_without};
use crate::error::CacheError;
use crate::io::{DiskError, MarkLeft, MarkRequest, SimulatedDisk, Simulation, VoidMark};
use crate::modes::{CrashSafety, L2Compression};
use crate::stats::L2State;

pub(super) const MODES: [CrashSafety; 3] =
    [CrashSafety::Cold, CrashSafety::Process, CrashSafety::Power];

/// A mark that survives the process, and how attempts to leave it end.
#[derive(Default)]
pub(super) struct TestMark(Mutex<(bool, Leaving)>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Leaving {
    #[default]
    Works,
    Fails,
    InUse,
}

impl TestMark {
    pub(super) fn set(&self, leaving: Leaving) {
        self.0.lock().1 = leaving;
    }

    pub(super) fn is_left(&self) -> bool {
        self.0.lock().0
    }
}

impl VoidMark for TestMark {
    fn leave(&self, MarkRequest { done, .. }: MarkRequest) {
        let left = {
            let mut state = self.0.lock();
            match state.1 {
                Leaving::Works => {
                    state.0 = true;
                    Ok(MarkLeft::Durably)
                }
                Leaving::Fails => Err(DiskError::Unavailable { reason: "planned".to_owned() }),
                Leaving::InUse => Ok(MarkLeft::InUse),
            }
        };
        done(left);
    }

    fn remove(&self) -> io::Result<()> {
        self.0.lock().0 = false;
        Ok(())
    }
}

/// Drops a future after so many polls.
pub(super) async fn patient<T>(future: impl Future<Output = T>, polls: u32) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = polls;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
        std::task::Poll::Pending => {
            // Polled beside all tasks, unless it has all the time.
            if polls < u32::MAX {
                context.waker().wake_by_ref();
            }
            left -= 1;
            std::task::Poll::Pending
        }
    })
    .await
}

/// The processes, and what they share.
pub(super) struct World {
    pub(super) simulation: Simulation,
    pub(super) disk: SimulatedDisk,
    pub(super) config: BlobCacheConfig,
    pub(super) mark: Arc<TestMark>,
    pub(super) boot: u8,
    identity: u8,
}

impl World {
    pub(super) fn new(seed: u64, crash_safety: CrashSafety) -> Self {
        let config = BlobCacheConfig::builder()
            .l1_bytes_max(64 << 10)
            .l2_path("simulated")
            .l2_required(false)
            .l2_bytes_max(8 * (32 << 10))
            .l2_segment_bytes(32 << 10)
            .l2_compression(L2Compression::Off)
            .crash_safety(crash_safety)
            .build()
            .unwrap();
        let disk = SimulatedDisk::new(seed, geometry(&config).unwrap().file_bytes());
        let (simulation, mark) = (Simulation::new(seed), Arc::default());
        Self { simulation, disk, config, mark, boot: 0, identity: 0 }
    }

    pub(super) fn next_identity(&mut self) -> Identity {
        self.identity += 1;
        Identity { store_id: [self.identity; 16], hash_key: self.identity.into() }
    }

    pub(super) fn setup(&mut self) -> impl Fn() -> DiskSetup + Send + Sync + use<> {
        let (disk, runner) = (self.disk.clone(), self.simulation.task_runner());
        let (mark, boot, identity) = (Arc::clone(&self.mark), self.boot, self.next_identity());
        move || {
            let dynamic: Arc<dyn VoidMark> = Arc::<TestMark>::clone(&mark);
            DiskSetup {
                disk: Arc::new(disk.clone()),
                runner: Arc::new(runner.clone()),
                file: None,
                boot_id: [boot; 16],
                identity,
                void_mark: Some(dynamic).filter(|_| mark.is_left()),
            }
        }
    }

    pub(super) fn open(&mut self) -> BlobCache {
        let opening = open_on(self.config.clone(), geometry(&self.config).unwrap(), self.setup()());
        BlobCache { engine: self.simulation.block_on(opening).unwrap().unwrap() }
    }

    /// A process whose open is dropped after so many polls.
    pub(super) fn open_half(&mut self, polls: u32) {
        let opening = open_on(self.config.clone(), geometry(&self.config).unwrap(), self.setup()());
        drop(self.simulation.block_on(patient(opening, polls)));
        self.simulation.kill();
        self.disk = self.disk.kill();
    }

    pub(super) fn open_without(&mut self) -> BlobCache {
        let mark: Arc<dyn VoidMark> = Arc::<TestMark>::clone(&self.mark);
        let without = WithoutDisk {
            error: CacheError::L2Locked { path: "simulated".into() },
            cover: Cover::trying_always(mark),
            identity: self.next_identity(),
            simulated: Some(Arc::new(self.simulation.task_runner())),
        };
        BlobCache { engine: open_without(self.config.clone(), without).unwrap() }
    }

    pub(super) fn reopen(&mut self, cache: &BlobCache) -> Result<(), CacheError> {
        let setup = self.setup();
        self.simulation.block_on(cache.engine.reopen_on(setup)).expect("it ends")
    }

    pub(super) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        self.simulation.block_on(future).expect("it ends")
    }

    pub(super) fn kill(&mut self) {
        self.simulation.kill();
        self.disk = self.disk.kill();
    }
}

pub(super) fn is_degraded(cache: &BlobCache) -> bool {
    matches!(cache.stats().l2_state(), L2State::Degraded { .. })
}
