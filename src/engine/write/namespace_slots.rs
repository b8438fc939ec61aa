//! `NamespaceSlots`: finds a slot for a namespace. If none is free, a namespace without live
//! entries gives its own.
//!
//! Each namespace knows a time after which none of its entries is alive. That time is late if a
//! longer-lived entry was overwritten or removed; then a sweep tells, which every refused caller
//! helps on.

use std::sync::Arc;

use crate::batch::yield_now;
use crate::clock::Clock;
use crate::commit_lock::CommitLock;
use crate::config::BlobCacheConfig;
use crate::engine::background::sweep::Sweeping;
use crate::engine::disk_tier::DiskTier;
use crate::engine::invalidate::blocked::Blocked;
use crate::engine::invalidate::flush::Flushes;
use crate::engine::parts::Parts;
use crate::error::CacheError;
use crate::namespace::{Generation, Namespaces, Searched};

pub(crate) struct NamespaceSlots {
    config: Arc<BlobCacheConfig>,
    clock: Clock,
    commit_lock: Arc<CommitLock>,
    namespaces: Arc<Namespaces>,
    disk: Arc<DiskTier>,
    flushes: Arc<Flushes>,
    sweeping: Arc<Sweeping>,
}

impl NamespaceSlots {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self {
            config: parts.config.clone(),
            clock: parts.clock.clone(),
            commit_lock: parts.commit_lock.clone(),
            namespaces: parts.namespaces.clone(),
            disk: parts.disk.clone(),
            flushes: Arc::new(Flushes::new(parts)),
            sweeping: Arc::new(Sweeping::new(parts)),
        }
    }

    /// The namespace's generation, begun if there is none.
    pub(crate) async fn find_or_begin(&self, name: &str) -> Result<Arc<Generation>, CacheError> {
        let number = || self.disk.next_generation_number();
        let mut is_swept = false;
        // Bounded: a search or a sweep in batches in each turn.
        loop {
            if let Some(generation) = self.namespaces.find_or_begin(name, &self.commit_lock, number)
            {
                return Ok(generation);
            }
            if self.give_up_a_slot().await? {
                continue;
            }
            if is_swept || !self.sweep_for_a_slot().await {
                return Err(CacheError::TooManyNamespaces { max: self.config.max_namespaces });
            }
            is_swept = true;
        }
    }

    /// False if no namespace is known to have no live entries.
    async fn give_up_a_slot(&self) -> Result<bool, CacheError> {
        let now = self.clock.timestamp();
        let Some(mut search) = self.namespaces.search(now) else { return Ok(false) };
        // Bounded: a batch in each turn, then a yield.
        loop {
            match self.namespaces.search_on(&mut search, now, &self.commit_lock) {
                Searched::Found(generation) => {
                    if self.give_up(&generation).await? {
                        return Ok(true);
                    }
                }
                Searched::SoFar => {}
                Searched::InVain => return Ok(false),
            }
            yield_now().await;
        }
    }

    /// Ends a namespace without live entries. False if it has some again.
    async fn give_up(&self, generation: &Arc<Generation>) -> Result<bool, CacheError> {
        let mut ticket = None;
        // Bounded: a wait in each turn.
        loop {
            match self.flushes.try_give_up(generation) {
                Ok((is_given_up, _)) => return Ok(is_given_up),
                Err(Blocked::Closed) => return Err(CacheError::Closed),
                Err(Blocked::NoRoom | Blocked::TooMany) => match self.disk.l2() {
                    Some(l2) => ticket = Some(l2.log.room(0, ticket).await),
                    None => yield_now().await,
                },
            }
        }
    }

    /// Sweeps to the end of a round, if one is under way or due. True if so.
    async fn sweep_for_a_slot(&self) -> bool {
        if !self.sweeping.is_round_due() {
            return false;
        }
        // Bounded: a batch in each turn, then a yield.
        while !self.commit_lock.is_closed() && !self.sweeping.run_background_batch() {
            yield_now().await;
        }
        true
    }
}
