//! `Blocks`: those of one version of one object, from the cache, or fetched in runs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::{self, StreamExt};
use tamis::BlobCachePolicy;

use super::Core;
use super::batch::Batch;
use super::error::{Failure, ended_early};
use super::object::{Object, within};
use super::object_store::path::Path;
use super::object_store::{Error, Extensions, GetOptions, GetRange};
use crate::failpoint::{Failpoint, failpoint};
use crate::keys::Keys;

#[derive(Clone)]
pub(crate) struct Blocks {
    pub(crate) core: Arc<Core>,
    pub(crate) location: Path,
    pub(crate) object: Arc<Object>,
    /// Some if it was asked for by name.
    pub(crate) version: Option<String>,
    pub(crate) extensions: Extensions,
    pub(crate) policy: BlobCachePolicy,
}

impl Blocks {
    /// Blocks in ascending order, all in memory at once: at most a window of them.
    pub(crate) async fn load(&self, indices: &[u64]) -> Result<Vec<Bytes>, Failure> {
        let mut found = self.look(indices).await;
        // Bounded: by a window, here and below.
        let missing = indices.iter().zip(&found).filter(|(_, block)| block.is_none());
        let missing: Vec<u64> = missing.map(|(index, _)| *index).collect();
        if !missing.is_empty() {
            let fetched = self.fetch(&missing).await?;
            let gaps = found.iter_mut().filter(|block| block.is_none());
            for (gap, block) in gaps.zip(fetched) {
                *gap = Some(block);
            }
        }
        found.into_iter().collect::<Option<_>>().ok_or_else(|| ended_early().into())
    }

    /// Fetches what the cache does not have, and gives nothing back.
    pub(crate) async fn prefetch(&self, span: Range<u64>) -> Result<(), Failure> {
        let is_missing = |index: &u64| {
            let key = Keys::block(&self.object.generation, *index);
            !self.core.blobs.exists(key).may_exist()
        };
        // Bounded: by what may be read ahead; one request is in memory at a time.
        let missing: Vec<u64> = span.filter(is_missing).collect();
        for run in self.runs_of(&missing) {
            self.core.counts.blocks_ahead.add(run.end - run.start);
            self.clone().fetch_run(run).await?;
        }
        Ok(())
    }

    async fn look(&self, indices: &[u64]) -> Vec<Option<Bytes>> {
        let generation = &self.object.generation;
        // Bounded: by a window, here and below.
        let keys: Vec<_> = indices.iter().map(|index| Keys::block(generation, *index)).collect();
        let hits = self.core.blobs.get_many(&keys).await;
        let found = hits.into_iter().zip(indices).map(|(hit, index)| {
            let block = hit?.into_bytes();
            (block.len() == self.length_of(*index)).then_some(block)
        });
        let found: Vec<_> = found.collect();
        let count = found.iter().flatten().count() as u64;
        self.core.counts.blocks_found.add(count);
        self.core.counts.blocks_missed.add(found.len() as u64 - count);
        found
    }

    fn length_of(&self, index: u64) -> usize {
        let range = self.object.bytes_of(&(index..index + 1));
        within(range.end - range.start)
    }

    async fn fetch(&self, missing: &[u64]) -> Result<Vec<Bytes>, Failure> {
        let runs = self.runs_of(missing);
        if let [run] = runs.as_slice() {
            return self.clone().fetch_run(run.clone()).await;
        }
        let at_once = self.core.settings.requests_max;
        // A run that has not begun has claimed no blocks, so that nobody waits for it.
        let fetches = runs.into_iter().map(|run| self.clone().fetch_run(run));
        stream::iter(fetches).buffered(at_once).try_concat().await
    }

    /// Of a request's size at the most.
    fn runs_of(&self, indices: &[u64]) -> Vec<Range<u64>> {
        runs_of(indices, self.core.settings.window(self.object.block_bytes))
    }

    /// Each block is a flight that others may join; those that nobody else has are one request.
    async fn fetch_run(self, run: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        let first = run.start;
        let blocks = Batch::fetch(self.clone(), run).await?;
        let mut indexed = (first..).zip(&blocks);
        if indexed.all(|(index, block)| block.len() == self.length_of(index)) {
            Ok(blocks)
        } else {
            Err(ended_early().into())
        }
    }

    /// One request to the inner store, for blocks of this version or of none.
    pub(crate) async fn request(self, run: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        let range = self.object.bytes_of(&run);
        let options = GetOptions {
            if_match: self.object.strong_e_tag().map(str::to_owned),
            range: Some(GetRange::Bounded(range.clone())),
            version: self.version.clone(),
            extensions: self.extensions.clone(),
            ..GetOptions::default()
        };
        self.core.counts.inner_gets.add(1);
        let result = match self.core.inner.get_opts(&self.location, options).await {
            Ok(result) => result,
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                return Err(Failure::Changed);
            }
            Err(error) if self.has_changed(&error).await => return Err(Failure::Changed),
            Err(error) => return Err(error.into()),
        };
        // Not every store heeds `if_match`, and not every object has an e-tag.
        let is_of = self.object.is_of(&result.meta) || failpoint(Failpoint::BlocksUnchecked);
        if !is_of || result.range != range {
            return Err(Failure::Changed);
        }
        let bytes = result.bytes().await?;
        if bytes.len() != within(range.end - range.start) {
            return Err(ended_early().into());
        }
        self.core.counts.inner_bytes.add(bytes.len() as u64);
        Ok(self.object.whole_blocks(range.start, &bytes).1)
    }

    /// Whether an error may be due to a change, which a request without an e-tag does not tell: the
    /// object that is there now may not have such a range.
    async fn has_changed(&self, error: &Error) -> bool {
        if self.object.strong_e_tag().is_some() || !matches!(error, Error::Generic { .. }) {
            return false;
        }
        let options = GetOptions {
            head: true,
            version: self.version.clone(),
            extensions: self.extensions.clone(),
            ..GetOptions::default()
        };
        self.core.counts.inner_gets.add(1);
        match self.core.inner.get_opts(&self.location, options).await {
            Ok(result) => !self.object.is_of(&result.meta),
            Err(error) => matches!(error, Error::NotFound { .. }),
        }
    }
}

/// Neighbours become runs of up to `most`.
pub(crate) fn runs_of(indices: &[u64], most: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    // Bounded: by the indices.
    for &index in indices {
        match runs.last_mut() {
            Some(run) if run.end == index && run.end - run.start < most => run.end += 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_runs_of_a_requests_size() {
        assert_eq!(runs_of(&[], 4), []);
        assert_eq!(runs_of(&[3, 5], 4), [3..4, 5..6]);
        assert_eq!(runs_of(&[0, 1, 2, 3, 4, 6, 7], 4), [0..4, 4..5, 6..8]);
        assert_eq!(runs_of(&[0, 1], 1), [0..1, 1..2]);
    }
}
