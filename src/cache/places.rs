//! Places of namespaces: where all are taken, those that hold nothing alive give theirs.
//!
//! Of each namespace it is known from when on nothing in it is alive, so that it can be told
//! without a look at its entries. That is too late where an entry that would have lived for longer
//! has been overwritten or removed; then a sweep finds out, which every caller who is refused may
//! help on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::cache::durability::Acknowledgement;
use crate::cache::invalidate::{Attempt, Hindrance};
use crate::cache::shared::Shared;
use crate::counters::Event;
use crate::error::CacheError;
use crate::l2::{Change, NamedGeneration, Record};
use crate::namespace::{Namespace, Searched};
use crate::step::pause;

/// The least time between two lines in the log that say the same.
const TELL_PAUSE: Duration = Duration::from_secs(60);

impl Shared {
    /// The name's generation, begun if there is none.
    pub(super) async fn find_or_begin(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<Arc<Namespace>, CacheError> {
        let number = || self.next_generation();
        let mut is_swept = false;
        // Bounded: a search or a sweep in steps in each turn.
        loop {
            if let Some(namespace) = self.namespaces.find_or_begin(name, &self.order, number) {
                return Ok(namespace);
            }
            if self.give_up_a_place().await? {
                continue;
            }
            if is_swept || !self.sweep_for_a_place().await {
                return Err(CacheError::TooManyNamespaces { max: self.config.max_namespaces });
            }
            is_swept = true;
        }
    }

    /// False where no namespace is known to hold nothing that is alive.
    async fn give_up_a_place(self: &Arc<Self>) -> Result<bool, CacheError> {
        let now = self.clock.timestamp();
        let Some(mut search) = self.namespaces.search(now) else { return Ok(false) };
        // Bounded: a step in each turn, then a pause.
        loop {
            match self.namespaces.search_on(&mut search, now, &self.order) {
                Searched::Found(namespace) => {
                    if self.give_up(&namespace).await? {
                        return Ok(true);
                    }
                }
                Searched::SoFar => {}
                Searched::InVain => return Ok(false),
            }
            pause().await;
        }
    }

    /// Ends a namespace that was found over. False where it is not any more.
    async fn give_up(self: &Arc<Self>, namespace: &Arc<Namespace>) -> Result<bool, CacheError> {
        let mut place = None;
        // Bounded: a wait in each turn.
        loop {
            match self.try_give_up(namespace) {
                Ok((is_given_up, _)) => return Ok(is_given_up),
                Err(Hindrance::Closed) => return Err(CacheError::Closed),
                Err(Hindrance::NoRoom | Hindrance::TooMany) => match self.l2() {
                    Some(l2) => place = Some(l2.log.room(0, place).await),
                    None => pause().await,
                },
            }
        }
    }

    /// Where it has slots, what they shadow on file must not come back: then it is flushed, by one
    /// record.
    fn try_give_up(self: &Arc<Self>, namespace: &Arc<Namespace>) -> Attempt<bool> {
        let generation = self.next_generation();
        let named = NamedGeneration { name: namespace.name(), generation };
        let record = Record::NamespaceFlush { namespace: named };
        let change = Change::NamespaceFlush { namespace: named };
        let mut expired = 0;
        let given_up = self.namespaces.flush(namespace.name(), &self.order, |section, held| {
            if section.is_closed() {
                return Err(Hindrance::Closed);
            }
            let is_over = namespace.is_over(self.clock.timestamp());
            if !is_over || !held.is_some_and(|held| Arc::ptr_eq(held, namespace)) {
                return Ok(false);
            }
            if !namespace.index().is_empty() {
                let recorded = self.record(&record, &change)?;
                let end = recorded.map(|dealt| dealt.end);
                self.is_flush_unrecorded.fetch_or(end.is_none(), Ordering::Relaxed);
                // Bounded: one.
                end.into_iter().for_each(|end| self.flushed_until(end));
                section.sequence(recorded.map(|dealt| dealt.position.value()));
                self.slots.fetch_sub(namespace.index().len(), Ordering::Relaxed);
            }
            expired = namespace.held();
            Ok(true)
        })?;
        self.counters.add(Event::Expiration, expired as u64);
        let is_given_up = given_up.is_some();
        if expired > 0 {
            self.rules.sweep_ended();
        }
        // Bounded: one.
        given_up.into_iter().for_each(|generation| self.free(generation));
        Ok((is_given_up, Acknowledgement::Now))
    }

    /// A fetched value could not be stored, and its caller is not told why. Where all places are
    /// taken that goes on for as long as nobody does anything about it: so it is logged.
    pub(super) fn tell_not_stored(&self, error: &CacheError) {
        if !matches!(error, CacheError::TooManyNamespaces { .. }) {
            return;
        }
        let now = Instant::now();
        let mut told = self.told.lock();
        if told.is_none_or(|told| now.duration_since(told) >= TELL_PAUSE) {
            *told = Some(now);
            drop(told);
            log::warn!("fetched values are not stored: {error}");
        }
    }

    /// Sweeps for what has ended, up to the end of a round, if one is under way or due. True where
    /// that was so.
    async fn sweep_for_a_place(&self) -> bool {
        if !self.is_round_due() {
            return false;
        }
        // Bounded: a step in each turn, then a pause.
        while !self.order.is_closed() && !self.sweep_some() {
            pause().await;
        }
        true
    }
}
