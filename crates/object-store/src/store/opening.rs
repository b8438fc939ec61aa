//! `Opening`: finds out about an object, from the cache or by the request that brings blocks along.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures::StreamExt;
use tamis::{BlobCachePolicy, BlobCachePut, CacheTier, TypedPut};

use super::Core;
use super::ask::Ask;
use super::error::{Failure, ended_early};
use super::hand::{Hand, Rest};
use super::meta::{Found, Meta};
use super::moment::Moment;
use super::object::{Object, within};
use super::object_store::path::Path;
use super::object_store::{Error, Extensions, GetOptions, GetResult};
use crate::failpoint::{Failpoint, failpoint};
use crate::keys::Keys;

/// How often what others have fetched may turn out to be too old for this caller.
const LOOKS_MAX: usize = 3;

pub(crate) struct Opening<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) location: &'a Path,
    pub(crate) version: Option<&'a str>,
    pub(crate) ask: Ask,
    pub(crate) extensions: &'a Extensions,
    /// When the caller came.
    pub(crate) began: Moment,
}

impl Opening<'_> {
    /// What is known of the object, recently enough for this caller, or else is found out now.
    pub(crate) async fn found(&self) -> Result<Found, Failure> {
        let key = self.core.keys.meta(self.location.as_ref(), self.version);
        // Bounded: by the constant.
        for _ in 0..LOOKS_MAX {
            let hit = match self.core.metas.get_or_fetch(&key, || self.open()).await {
                Ok(hit) => hit,
                Err(error) => match Failure::from(error) {
                    // A flight that began before this caller came knows of no later object, and an
                    // error of a range is that of a caller with another one.
                    Failure::OfObject { asked, ref range, .. }
                        if !asked.is_after(self.began)
                            || (range.is_some()
                                && *range != self.ask.range()
                                && !failpoint(Failpoint::ErrorOfRangeShared)) =>
                    {
                        continue;
                    }
                    failure => return Err(failure),
                },
            };
            // A flight that began before this caller came may be too old for it; so may what was
            // cached when more was permitted.
            let is_held = hit.tier() != CacheTier::Fetched;
            match hit.into_value() {
                Some(found) if self.is_recent(&found.meta) => return Ok(found),
                _ if is_held => self.core.refresh(self.location, self.version).await,
                _ => {}
            }
        }
        Err(Failure::Uncached)
    }

    fn is_recent(&self, meta: &Meta) -> bool {
        if meta.is_after(self.began) || failpoint(Failpoint::EarlierFetchTaken) {
            return true;
        }
        // By the clock, which may be a tick behind: without staleness it says nothing.
        match self.permitted(meta) {
            None => true,
            Some(Duration::ZERO) => false,
            Some(permitted) => {
                let now = self.began.time;
                meta.is_within(now.checked_sub(permitted).unwrap_or(UNIX_EPOCH)..=now)
            }
        }
    }

    /// How old it may be; None if there is no limit.
    fn permitted(&self, meta: &Meta) -> Option<Duration> {
        let settings = &self.core.settings;
        match meta.object {
            None => Some(settings.absence.unwrap_or_default()),
            Some(_) if self.core.is_immutable(self.location) => None,
            Some(_) => Some(settings.staleness),
        }
    }

    /// Asks the inner store. Who waits for this fetch is given what it finds without the hand.
    async fn open(&self) -> Result<TypedPut<Found>, Failure> {
        let (core, point, asked) = (self.core, self.core.blobs.read_point(), self.core.moment());
        // After the fetch's read point, which `get_or_fetch` takes before it calls this.
        if core.unsettled.holds(self.location.as_ref()) {
            return Err(Failure::Uncached);
        }
        let prior = self.prior().await;
        let held = prior.as_ref().filter(|prior| self.is_mostly_held(prior));
        let is_conditional = held.is_some();
        let options = GetOptions {
            if_none_match: held.and_then(Object::strong_e_tag).map(str::to_owned),
            range: self.ask.range(),
            version: self.version.map(str::to_owned),
            head: self.ask == Ask::Head,
            extensions: self.extensions.clone(),
            ..GetOptions::default()
        };
        core.counts.inner_gets.add(1);
        let answer = core.inner.get_opts(self.location, options).await;
        let asked = if failpoint(Failpoint::AgedFromAnswer) { core.moment() } else { asked };
        match (answer, prior) {
            (Ok(result), prior) => {
                core.counts.metas_fetched.add(1);
                let object = self.object(&result, prior.as_ref()).ok_or(Failure::Uncached)?;
                let is_known = prior.is_some_and(|prior| prior.generation == object.generation);
                let hand = self.take(result, &object).await?;
                let meta = Meta::new(asked, Some(object));
                if !is_known {
                    self.keep_prior(&meta, point).await;
                }
                Ok(self.put(Found { meta, hand }, asked))
            }
            (Err(Error::NotModified { .. }), Some(prior)) if is_conditional => {
                core.counts.metas_confirmed.add(1);
                let meta = Meta::new(asked, Some(prior));
                Ok(self.put(Found { meta, hand: None }, asked))
            }
            (Err(Error::NotFound { .. }), _)
                if core.settings.absence.is_some() && self.version.is_none() =>
            {
                Ok(self.put(Found { meta: Meta::new(asked, None), hand: None }, asked))
            }
            (Err(error), _) => {
                // A store may not have ranges of every kind.
                let is_of_range =
                    matches!(error, Error::Generic { .. } | Error::NotSupported { .. });
                let range = if is_of_range { self.ask.range() } else { None };
                Err(Failure::OfObject { error: Arc::new(error), asked, range })
            }
        }
    }

    /// What was known before, if the inner store can tell whether it is still so.
    async fn prior(&self) -> Option<Object> {
        if self.version.is_some() {
            return None;
        }
        let found = self.core.metas.get(self.core.keys.prior(self.location.as_ref())).await?;
        let object = found.into_value()?.meta.object?;
        let is_alike = object.block_bytes == self.core.settings.block_bytes;
        (is_alike && object.strong_e_tag().is_some()).then_some(object)
    }

    async fn keep_prior(&self, meta: &Meta, point: tamis::ReadPoint) {
        let is_useful = self.version.is_none()
            && !self.core.is_immutable(self.location)
            && meta.object.as_ref().is_some_and(|object| object.strong_e_tag().is_some());
        if is_useful {
            let found = Found { meta: meta.clone(), hand: None };
            let put = TypedPut::new(found).with_policy(BlobCachePolicy::default()).read_at(point);
            // Without it the next fetch is unconditional.
            let _ = self.core.metas.put(self.core.keys.prior(self.location.as_ref()), put).await;
        }
    }

    /// Whether the cache has more than half of the blocks that the request is about: then it is
    /// better to ask whether the object has changed than for its bytes.
    fn is_mostly_held(&self, prior: &Object) -> bool {
        let blocks = self.ask.blocks_of(prior);
        let window = self.core.settings.window(prior.block_bytes);
        let blocks = blocks.start..blocks.end.min(blocks.start.saturating_add(window));
        let count = blocks.end - blocks.start;
        let is_held = |index: &u64| {
            self.core.blobs.exists(Keys::block(&prior.generation, *index)).may_exist()
        };
        // Bounded: by the blocks of one request.
        blocks.filter(is_held).count() as u64 * 2 > count
    }

    /// The version that an answer is of; with the generation of the prior one, if it is that. None
    /// if the answer is not what was asked for, or cannot be cached.
    fn object(&self, result: &GetResult, prior: Option<&Object>) -> Option<Object> {
        let (meta, range) = (&result.meta, &result.range);
        // A store without versions answers what it has now.
        if self.version.is_some() && meta.version.as_deref() != self.version {
            return None;
        }
        let is_sound = range.start <= range.end && range.end <= meta.size;
        let is_asked = self.ask == Ask::Head || range.end - range.start <= self.ask.bytes_max();
        let is_whole = self.ask != Ask::Whole || *range == (0..meta.size);
        if !(is_sound && is_asked && is_whole) {
            return None;
        }
        let block_bytes = self.core.settings.block_bytes;
        let mut object = Object::new(meta, &result.attributes, block_bytes)?;
        let is_same = |prior: &&Object| prior.is(meta) || failpoint(Failpoint::GenerationReused);
        if let Some(prior) = prior.filter(is_same) {
            object.generation = prior.generation;
        }
        Some(object)
    }

    /// Puts the blocks of an answer, and keeps them for who has asked.
    async fn take(&self, result: GetResult, object: &Object) -> Result<Option<Hand>, Failure> {
        if self.ask == Ask::Head {
            return Ok(None);
        }
        let Range { start, end } = result.range;
        let window = self.core.settings.window(object.block_bytes);
        if self.ask == Ask::Whole && object.blocks() > window {
            let mut rest = Rest::new(result.into_stream().fuse().boxed());
            let mut blocks = Vec::new();
            // Bounded: by the blocks of one request.
            for index in 0..window {
                blocks.push(rest.block(object, index).await?);
            }
            self.store(object, 0, &blocks).await;
            return Ok(Some(Hand { first: 0, blocks: blocks.into(), rest: Some(rest) }));
        }
        let bytes = result.bytes().await?;
        if bytes.len() != within(end - start) {
            return Err(ended_early().into());
        }
        let (first, blocks) = object.whole_blocks(start, &bytes);
        self.store(object, first, &blocks).await;
        Ok(Some(Hand { first, blocks: blocks.into(), rest: None }))
    }

    /// What the cache does not take, the next caller fetches.
    async fn store(&self, object: &Object, first: u64, blocks: &[bytes::Bytes]) {
        let policy = self.core.policy_of_blocks(self.location, self.version, object);
        // Bounded: by the blocks of one request.
        let puts = (first..).zip(blocks).map(|(index, block)| {
            self.core.counts.inner_bytes.add(block.len() as u64);
            let put = BlobCachePut::new(block.clone()).with_policy(policy.clone());
            (Keys::block(&object.generation, index), put)
        });
        self.core.blobs.put_many(puts).await;
    }

    fn put(&self, found: Found, asked: Moment) -> TypedPut<Found> {
        let mut policy = BlobCachePolicy::default();
        match self.permitted(&found.meta) {
            // It is for those who wait for it now.
            Some(Duration::ZERO) => policy = policy.max_blob_bytes(0),
            Some(permitted) => {
                if let Some(end) = asked.time.checked_add(permitted) {
                    policy = policy.expires_at(end);
                }
            }
            None => {}
        }
        let put = TypedPut::new(found).with_policy(policy);
        match self.version {
            None => put,
            Some(_) => put.with_dependencies([self.core.keys.label(self.location.as_ref())]),
        }
    }
}
