//! A get: what is known of the object, then its blocks, and both anew if the object has changed.

use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;

use super::answer::Answer;
use super::ask::Ask;
use super::blocks::Blocks;
use super::error::{Failure, not_found, own};
use super::moment::Moment;
use super::object_store::path::Path;
use super::object_store::{Error, GetOptions, GetRange, GetResult, Result};
use super::opening::Opening;
use super::{Core, get_result};
use crate::failpoint::{Failpoint, failpoint};

/// An answer is begun, and once begun anew.
const ATTEMPTS_MAX: usize = 2;

impl Core {
    pub(crate) async fn get(
        self: &Arc<Self>,
        location: &Path,
        options: GetOptions,
    ) -> Result<GetResult> {
        let is_odd = options.range.as_ref().is_some_and(is_odd);
        if !is_odd && !self.unsettled.holds(location.as_ref()) {
            let attempt = |began| self.attempt(location, &options, began);
            let answer = self.begun_anew(location, options.version.as_deref(), attempt).await?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
        }
        // As if there were no cache.
        self.counts.count_passed();
        self.inner.get_opts(location, options).await
    }

    /// An answer, which is begun anew if the object has changed; None if it cannot be cached.
    pub(crate) async fn begun_anew<T, A>(
        &self,
        location: &Path,
        version: Option<&str>,
        attempt: impl Fn(Moment) -> A,
    ) -> Result<Option<T>>
    where
        A: Future<Output = Result<T, Failure>>,
    {
        let began = self.moment();
        // Bounded: by the constant.
        for _ in 0..ATTEMPTS_MAX {
            match attempt(began).await {
                Ok(answer) => return Ok(Some(answer)),
                Err(Failure::Inner(error) | Failure::OfObject { error, .. }) => {
                    return Err(own(error));
                }
                Err(Failure::Uncached) => break,
                Err(Failure::Changed) => {
                    self.counts.begun_anew.add(1);
                    self.refresh(location, version).await;
                }
            }
        }
        Ok(None)
    }

    async fn attempt(
        self: &Arc<Self>,
        location: &Path,
        options: &GetOptions,
        began: Moment,
    ) -> Result<GetResult, Failure> {
        let (block, most) = (self.settings.block_bytes, self.settings.request_bytes_max);
        let opening = Opening {
            core: self,
            location,
            version: options.version.as_deref(),
            ask: Ask::of(options, block, most),
            extensions: &options.extensions,
            began,
        };
        let found = match opening.found().await {
            // The error may be about the range alone, and preconditions come first: the inner store
            // judges both. An outage costs a second request.
            Err(Failure::OfObject { range: Some(_), .. }) if has_preconditions(options) => {
                return Err(Failure::Uncached);
            }
            found => found?,
        };
        let is_known_now = found.meta.is_after(began);
        let Some(object) = found.meta.object else { return Err(not_found(location).into()) };
        let meta = object.meta(location);
        match options.check_preconditions(&meta) {
            // Its caller may have heard of a newer version than the cache.
            Err(Error::Precondition { .. })
                if !is_known_now && !failpoint(Failpoint::StaleRefusal) =>
            {
                return Err(Failure::Changed);
            }
            judged => judged?,
        }
        let range = match &options.range {
            None => 0..object.size,
            // The inner store says what is wrong with it.
            Some(_) if object.size == 0 => return Err(Failure::Uncached),
            Some(range) => range.as_range(object.size).map_err(|_| Failure::Uncached)?,
        };
        let attributes = object.attributes();
        if options.head {
            return Ok(get_result(stream::empty().boxed(), meta, range, attributes));
        }
        let blocks = Blocks {
            core: Arc::clone(self),
            location: location.clone(),
            policy: self.policy_of_blocks(location, options.version.as_deref(), &object),
            object: Arc::new(object),
            version: options.version.clone(),
            extensions: options.extensions.clone(),
        };
        let answer = Answer::begin(blocks.clone(), range.clone(), found.hand).await?;
        self.read_ahead(blocks, &range);
        Ok(get_result(answer.into_stream(), meta, range, attributes))
    }

    /// In a task, so that nobody waits for it.
    fn read_ahead(&self, blocks: Blocks, range: &Range<u64>) {
        let most = self.settings.read_ahead;
        let Some(spawner) = self.spawner.as_ref().filter(|_| most > 0) else { return };
        let Blocks { location, object, .. } = &blocks;
        let Some(request) = self.ahead.after(location.as_ref(), range, most, object.size) else {
            return;
        };
        let span = object.blocks_of(&request.range);
        spawner.spawn(Box::pin(async move {
            // Whoever wants these blocks meets the failure again.
            let _ = blocks.prefetch(span).await;
            // The request ends here, or when the task is dropped.
            drop(request);
        }));
    }
}

fn has_preconditions(options: &GetOptions) -> bool {
    options.if_match.is_some()
        || options.if_none_match.is_some()
        || options.if_modified_since.is_some()
        || options.if_unmodified_since.is_some()
}

/// Ranges of no bytes, in the words of which stores differ.
fn is_odd(range: &GetRange) -> bool {
    range.is_valid().is_err() || matches!(range, GetRange::Suffix(0))
}
