//! `Engine`: one cache, built from its parts and from the owners that work on them.
//! An owner holds the parts that it needs and the owners below it, so a call goes down once and
//! comes back once, and no owner calls up.

mod acknowledge;
mod admission;
mod background;
mod backup;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) mod census;
mod close;
mod closed_index;
mod cover;
mod disk_setup;
mod disk_tier;
mod errors;
mod eviction;
mod expired_slots;
pub(crate) mod fetch;
mod index_budget;
mod invalidate;
mod last_access;
mod list;
mod missing;
mod open;
mod parts;
pub(crate) mod read;
mod removal;
mod renewed_slots;
mod reopen;
mod reopening;
mod sizes;
mod stats;
mod status;
#[cfg(test)]
mod tests;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
mod view;
mod visibility;
pub(crate) mod write;

use std::fmt;
use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use tracing::field::display;

use self::background::expired_records::{self, ExpiredRecords};
use self::background::filter_rebuild::{self, FilterRebuild};
use self::background::log_owner::CacheLogOwner;
use self::background::promotion::{self, Promoter};
use self::background::sweep::Sweeping;
use self::backup::Backups;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) use self::backup::{no_room, open_target, target_failed, target_options};
use self::close::Closing;
use self::fetch::fetcher::Fetcher;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) use self::index_budget::CROWDED_SHARE as INDEX_CROWDED_SHARE;
use self::invalidate::Invalidations;
use self::list::Lister;
pub(crate) use self::open::open;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use self::open::{DiskSetup, Identity, geometry, open_on};
use self::parts::Parts;
use self::read::get::Gets;
use self::reopen::Reopen;
use self::reopening::Attempt;
use self::sizes::Sizes;
use self::stats::StatsReader;
use self::status::Status;
#[cfg(all(any(test, feature = "cli"), feature = "disk", target_os = "linux"))]
pub(crate) use self::view::{View, open_view};
use self::write::positions::Positions;
use self::write::put::Puts;
use self::write::touch::Touches;
use crate::config::BlobCacheConfig;
use crate::error::CacheError;
use crate::key::NamespaceRef;
use crate::l2::WriterStart;
use crate::moment::ReadPoint;
use crate::sweeper::Sweep;
use crate::telemetry::spanned;

pub(crate) struct Engine {
    gets: Gets,
    puts: Arc<Puts>,
    touches: Touches,
    positions: Positions,
    invalidations: Invalidations,
    fetcher: Arc<Fetcher>,
    lister: Arc<Lister>,
    sweeping: Arc<Sweeping>,
    stats: Arc<StatsReader>,
    status: Arc<Status>,
    closing: Closing,
    log_owner: Arc<CacheLogOwner>,
    sizes: Sizes,
    backups: Backups,
    promoter: Arc<Promoter>,
    filter_rebuild: Arc<FilterRebuild>,
    expired_records: Arc<ExpiredRecords>,
    parts: Parts,
}

impl Engine {
    fn new(parts: Parts) -> Self {
        let puts = Arc::new(Puts::new(&parts));
        let stats = Arc::new(StatsReader::new(&parts));
        Self {
            gets: Gets::new(&parts),
            touches: Touches::new(&parts),
            positions: Positions::new(&parts),
            invalidations: Invalidations::new(&parts),
            fetcher: Arc::new(Fetcher::new(&parts, Arc::clone(&puts))),
            lister: Arc::new(Lister::new(&parts)),
            sweeping: Arc::new(Sweeping::new(&parts)),
            status: Arc::new(Status::new(&parts, &stats)),
            stats,
            closing: Closing::new(&parts),
            sizes: Sizes::new(&parts),
            backups: Backups::new(&parts),
            log_owner: Arc::new(CacheLogOwner::new(&parts)),
            promoter: Arc::new(Promoter::new(&parts)),
            filter_rebuild: Arc::new(FilterRebuild::new(&parts)),
            expired_records: Arc::new(ExpiredRecords::new(&parts)),
            puts,
            parts,
        }
    }

    pub(crate) fn gets(&self) -> &Gets {
        &self.gets
    }

    pub(crate) fn puts(&self) -> &Arc<Puts> {
        &self.puts
    }

    pub(crate) fn touches(&self) -> &Touches {
        &self.touches
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    pub(crate) fn invalidations(&self) -> &Invalidations {
        &self.invalidations
    }

    pub(crate) fn fetcher(&self) -> &Arc<Fetcher> {
        &self.fetcher
    }

    pub(crate) fn lister(&self) -> &Arc<Lister> {
        &self.lister
    }

    pub(crate) fn sweeping(&self) -> &Sweeping {
        &self.sweeping
    }

    pub(crate) fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    pub(crate) fn backups(&self) -> &Backups {
        &self.backups
    }

    pub(crate) fn stats(&self) -> &StatsReader {
        &self.stats
    }

    pub(crate) async fn close(&self) -> Result<(), CacheError> {
        let path = self.config().l2_path.as_deref();
        let span = || {
            let path = path.map(|path| display(path.display()));
            tracing::info_span!(target: "tamis::close", "close", path)
        };
        spanned(span, async {
            let is_first = self.closing.end();
            let finished = self.closing.finish().await;
            if is_first { finished } else { Err(CacheError::Closed) }
        })
        .await
    }

    pub(crate) fn config(&self) -> &BlobCacheConfig {
        &self.parts.config
    }

    #[inline]
    pub(crate) fn namespace<'a>(&self, name: &'a str) -> NamespaceRef<'a> {
        self.parts.hasher.namespace(name)
    }

    pub(crate) fn read_point(&self) -> ReadPoint {
        self.parts.commit_lock.read_point()
    }

    pub(crate) async fn sync(&self) -> Result<(), CacheError> {
        self.puts.check_open()?;
        self.parts.acknowledger.sync().await
    }

    /// Opens the disk tier of a cache that runs without it, or has one that is off go on now.
    pub(crate) async fn reopen_l2(self: &Arc<Self>) -> Result<(), CacheError> {
        self.puts.check_open()?;
        let Some(path) = self.config().l2_path.as_deref() else {
            let reason = "the cache has no disk tier that could be reopened".to_owned();
            return Err(CacheError::InvalidConfig { field: "l2_path", reason });
        };
        self.reopen_by(|reopen, attempt| reopen.on_thread(path, attempt)).await
    }

    /// The same with a disk that is open.
    #[cfg(test)]
    pub(crate) async fn reopen_on(
        self: &Arc<Self>,
        setup: impl Fn() -> DiskSetup + Send + Sync,
    ) -> Result<(), CacheError> {
        let begin = |reopen: Reopen, attempt| {
            let setup = setup();
            let runner = Arc::clone(&setup.runner);
            drop(runner.spawn("reopen", Box::pin(reopen.run_on(setup, attempt))));
        };
        self.reopen_by(begin).await
    }

    async fn reopen_by(
        self: &Arc<Self>,
        begin: impl Fn(Reopen, Attempt) + Send + Sync,
    ) -> Result<(), CacheError> {
        let disk = &self.parts.disk;
        disk.check_ours()?;
        if let Some(missing) = disk.missing() {
            let reopening = Arc::clone(&missing.reopening);
            let begin = |attempt| {
                let engine = Arc::downgrade(self);
                let start = move |start| match engine.upgrade() {
                    Some(engine) => engine.start_tasks(start),
                    None => ready(()).boxed(),
                };
                begin(Reopen::new(&self.parts, Box::new(start)), attempt);
            };
            reopening.attempt(begin).await?;
        }
        let restarted = disk.restart().await;
        self.puts.check_open()?;
        restarted
    }

    fn sweep_in_background(&self) {
        let sweeping: Arc<dyn Sweep> = Arc::<Sweeping>::clone(&self.sweeping);
        self.parts.deadlines.register(&Arc::downgrade(&sweeping));
    }

    /// Starts the tasks of the disk tier, and its status socket. Asleep they keep nothing of the
    /// cache alive. Resolves once the socket can be connected to; the tasks do not wait for that.
    fn start_tasks(&self, start: WriterStart) -> BoxFuture<'static, ()> {
        let Parts { disk, promotions, filters, records_expired, .. } = &self.parts;
        let Some((l2, runner)) = disk.l2().zip(disk.tasks()) else { return ready(()).boxed() };
        let owner: Weak<CacheLogOwner> = Arc::downgrade(&self.log_owner);
        let writer = l2.writer(start, Arc::clone(runner), owner);
        // Its outcome shows in the log and in the health of the tier.
        disk.spawn("writer", Box::pin(writer.run()));
        let promoter = Arc::downgrade(&self.promoter);
        let promoting = promotion::run(Arc::clone(promotions), Arc::clone(runner), promoter);
        disk.spawn("promotion", Box::pin(promoting));
        let rebuild = Arc::downgrade(&self.filter_rebuild);
        disk.spawn("filters", Box::pin(filter_rebuild::run(Arc::clone(filters), rebuild)));
        let records = Arc::downgrade(&self.expired_records);
        let wakeup = Arc::clone(records_expired);
        if let Some(runner) = disk.search_tasks() {
            let expiring = expired_records::run(wakeup, runner, records);
            disk.spawn_search("expired records", Box::pin(expiring));
        }
        if !self.config().l2_status_socket {
            return ready(()).boxed();
        }
        let answers: Weak<Status> = Arc::downgrade(&self.status);
        disk.serve_status(answers)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closing.abandon();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Engine").field("config", self.config()).finish_non_exhaustive()
    }
}
