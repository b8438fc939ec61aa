//! `Parts`: the state of one cache, shared by its owners.
//! Each guards itself. An owner's fields tell which parts it can change.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::access_times::AccessTimes;
use crate::clock::Clock;
use crate::codec::Codecs;
use crate::commit_lock::CommitLock;
use crate::config::{BlobCacheConfig, cores};
use crate::counters::Counters;
use crate::disk_admission::{self, DiskAdmission};
use crate::disposal::Freeing;
use crate::engine::acknowledge::Acknowledger;
use crate::engine::background::deadlines::Deadlines;
use crate::engine::background::filter_signal::FilterSignal;
use crate::engine::background::promotion_queue::Promotions;
use crate::engine::background::sweep_progress::SweepProgress;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::disk_tier::{DiskTier, Tier};
use crate::engine::fetch::held::HeldErrors;
use crate::engine::fetch::outcome::FlightOutcome;
use crate::engine::fetch::rests::Rests;
use crate::engine::fetch::tasks::FetchTasks;
use crate::engine::fetch::told::Told;
use crate::engine::index_budget::{ACCESSES_SHARE, EXPIRIES_SHARE, IndexBudget, RENEWALS_SHARE};
use crate::engine::read::read_limit::Reads;
use crate::engine::write::copy_limit;
use crate::events::Events;
use crate::flight::Flights;
use crate::key::KeyHasher;
use crate::l1::L1;
use crate::l2::{L2, SavedPositions};
use crate::latency::Latencies;
use crate::limiter::Limiter;
use crate::moment::Moment;
use crate::namespace::Namespaces;
use crate::pending::PendingInvalidations;
use crate::renewals::Renewals;
use crate::timer::Timer;

/// Enough that callers of different keys seldom share a lock.
const FLIGHT_TABLES: usize = 64;

pub(crate) struct Parts {
    pub(crate) config: Arc<BlobCacheConfig>,
    pub(crate) hasher: KeyHasher,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) commit_lock: Arc<CommitLock>,
    pub(crate) namespaces: Arc<Namespaces>,
    pub(crate) pending: Arc<PendingInvalidations>,
    pub(crate) l1: Arc<L1>,
    pub(crate) access_times: Arc<AccessTimes>,
    /// Since when records are stale before their time.
    pub(crate) expiry_times: Arc<AccessTimes>,
    /// Of records that were touched.
    pub(crate) renewals: Arc<Renewals>,
    pub(crate) copies: Arc<Limiter>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) codecs: Arc<Codecs>,
    /// Fetches under way. A caller that came before the moment of completion shares the value.
    pub(crate) flights: Arc<Flights<FlightOutcome, Moment>>,
    /// Of fetches that failed a moment ago.
    pub(crate) held_errors: Arc<HeldErrors>,
    pub(crate) rests: Arc<Rests>,
    /// Fetches in tasks.
    pub(crate) fetch_tasks: Arc<FetchTasks>,
    pub(crate) told: Arc<Told>,
    pub(crate) timer: Timer,
    pub(crate) promotions: Arc<Promotions>,
    pub(crate) filters: Arc<FilterSignal>,
    pub(crate) records_expired: Arc<Wakeup>,
    pub(crate) disk: Arc<DiskTier>,
    pub(crate) disk_admission: Arc<DiskAdmission>,
    pub(crate) budget: Arc<IndexBudget>,
    pub(crate) acknowledger: Arc<Acknowledger>,
    pub(crate) deadlines: Arc<Deadlines>,
    pub(crate) sweep_progress: Arc<SweepProgress>,
    /// What flushes have left.
    pub(crate) freeing: Arc<Freeing>,
    pub(crate) latencies: Arc<Latencies>,
    pub(crate) events: Events,
    /// The lock comes after the commit lock.
    pub(crate) positions: Arc<Mutex<SavedPositions>>,
}

impl Parts {
    pub(crate) fn new(
        config: BlobCacheConfig,
        hasher: KeyHasher,
        tier: Option<Tier>,
        timer: &Timer,
    ) -> Self {
        let instance = RandomState::new().build_hasher().finish();
        // Sixteen bytes for each 2 KiB of budget, and a quarter of that for labels: one percent.
        // With fewer than some thousand, colliding keys would reject each other's fills.
        let watermarks = (config.l1_bytes_max / 2048).clamp(1 << 12, 1 << 17).next_power_of_two();
        let l1 = L1::new(config.l1_bytes_max, config.shard_count, config.quotas.in_memory());
        let access_times = Arc::new(AccessTimes::new(config.l2_index_bytes_max / ACCESSES_SHARE));
        let expiry_times = Arc::new(AccessTimes::new(config.l2_index_bytes_max / EXPIRIES_SHARE));
        let renewals = Arc::new(Renewals::new(config.l2_index_bytes_max / RENEWALS_SHARE));
        let copies = copy_limit::limiter(config.l1_bytes_max, tier.is_some(), timer);
        let pending = Arc::new(PendingInvalidations::default());
        let freeing = Arc::<Freeing>::default();
        let disk = Arc::new(DiskTier::new(tier, config.l2_path.clone()));
        let admission = disk.l2().map(|l2| disk_admission::Settings {
            policy: config.l2_admission,
            disk_bytes: l2.geometry().file_bytes(),
            index_bytes_max: config.l2_index_bytes_max,
            write_amplification_pct_max: config.l2_write_amplification_pct_max,
            rate: config.l2_write_rate_max,
            clock: config.clock.clone(),
        });
        let disk_admission = Arc::new(DiskAdmission::new(admission, &freeing));
        Self {
            hasher,
            clock: config.clock.clone(),
            counters: Counters::new(cores()),
            commit_lock: Arc::new(CommitLock::new(instance, watermarks)),
            namespaces: Arc::new(Namespaces::new(
                config.max_namespaces,
                config.quotas.clone(),
                config.namespaces.gates(),
            )),
            l1: Arc::new(l1),
            copies: Arc::new(copies),
            reads: Arc::new(Reads::new(config.l2_read_bytes_max, timer)),
            codecs: Arc::new(Codecs::new(cores())),
            flights: Arc::new(Flights::new(FLIGHT_TABLES, timer.clone())),
            held_errors: Arc::default(),
            rests: Arc::new(Rests::new()),
            fetch_tasks: Arc::new(FetchTasks::new(
                config.spawner.clone(),
                config.spawned_fetches_max,
            )),
            told: Arc::default(),
            timer: timer.clone(),
            promotions: Arc::new(Promotions::new(config.promotion_queue_max, config.l1_bytes_max)),
            filters: Arc::default(),
            records_expired: Arc::default(),
            budget: Arc::new(IndexBudget::new(
                config.l2_index_bytes_max,
                [&access_times, &expiry_times].map(Arc::clone),
                Arc::clone(&renewals),
                disk.l2().map(L2::outlines),
                Arc::clone(&disk_admission),
                Arc::clone(&freeing),
            )),
            acknowledger: Arc::new(Acknowledger::new(config.crash_safety, Arc::clone(&disk))),
            deadlines: Arc::new(Deadlines::new(config.clock.clone(), Arc::clone(&pending))),
            sweep_progress: Arc::default(),
            latencies: Arc::default(),
            events: Events::default(),
            positions: Arc::default(),
            disk_admission,
            access_times,
            expiry_times,
            renewals,
            pending,
            disk,
            freeing,
            config: Arc::new(config),
        }
    }
}
