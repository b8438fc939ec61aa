//! `Batch`: a run of blocks, fetched with as few requests as others leave to it.
//!
//! Each block of the run is a flight of its own, since another answer may be fetching some of them.
//! A flight that this batch leads claims its block; when all flights have had their turn, claims of
//! neighbours become one request. So it is when a leader elsewhere goes away, and its blocks
//! come to this batch later.
//!
//! A request is polled by all flights that wait for it, and by nothing else. If the batch is no
//! longer polled, the cache notices that its flights were woken for nothing, and the next caller
//! that waits for such a block fetches it. Nothing is claimed that has no request under way.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared, try_join_all};
use parking_lot::Mutex;
use tamis::BlobCachePut;

use super::blocks::{Blocks, runs_of};
use super::error::Failure;
use super::object::within;
use crate::keys::Keys;

type Request = Shared<BoxFuture<'static, Result<Arc<Vec<Bytes>>, Failure>>>;

pub(crate) struct Batch {
    blocks: Blocks,
    state: Mutex<State>,
}

/// Bounded: by the blocks of a run.
#[derive(Default)]
struct State {
    claimed: Vec<u64>,
    requests: Vec<(Range<u64>, Request)>,
    waiting: Vec<Waker>,
}

impl Batch {
    pub(crate) async fn fetch(blocks: Blocks, run: Range<u64>) -> Result<Vec<Bytes>, Failure> {
        let batch = Arc::new(Self { blocks, state: Mutex::default() });
        // Bounded: by the run.
        let flights = run.map(|index| Arc::clone(&batch).flight(index));
        let mut flights = try_join_all(flights).boxed();
        poll_fn(|context| {
            // Bounded: by the blocks, each of which is claimed at most once.
            loop {
                match flights.poll_unpin(context) {
                    Poll::Pending if batch.send() => {}
                    answer => return answer,
                }
            }
        })
        .await
    }

    async fn flight(self: Arc<Self>, index: u64) -> Result<Bytes, Failure> {
        let key = Keys::block(&self.blocks.object.generation, index);
        let fetch = || {
            self.state.lock().claimed.push(index);
            Arc::clone(&self).block(index)
        };
        let hit = self.blocks.core.blobs.get_or_fetch(key, fetch).await?;
        Ok(hit.into_bytes())
    }

    async fn block(self: Arc<Self>, index: u64) -> Result<BlobCachePut, Failure> {
        let (first, request) = poll_fn(|context| self.poll_request(index, context)).await;
        let blocks = request.await?;
        let block = blocks.get(within(index - first)).cloned().unwrap_or_default();
        Ok(BlobCachePut::new(block).with_policy(self.blocks.policy.clone()))
    }

    /// The request that has the block, with the index of its first.
    fn poll_request(&self, index: u64, context: &Context<'_>) -> Poll<(u64, Request)> {
        let waker = context.waker().clone();
        let mut state = self.state.lock();
        let request = state.requests.iter().find(|(run, _)| run.contains(&index));
        if let Some((run, request)) = request {
            return Poll::Ready((run.start, request.clone()));
        }
        state.waiting.push(waker);
        Poll::Pending
    }

    /// Makes requests of what is claimed. False if nothing is.
    fn send(&self) -> bool {
        let waiting = {
            let mut state = self.state.lock();
            if state.claimed.is_empty() {
                return false;
            }
            let mut claimed = std::mem::take(&mut state.claimed);
            claimed.sort_unstable();
            // Bounded: by the run, which is of a request's size.
            for run in runs_of(&claimed, u64::MAX) {
                let request = self.blocks.clone().request(run.clone());
                let request = request.map(|answer| answer.map(Arc::new)).boxed().shared();
                state.requests.push((run, request));
            }
            std::mem::take(&mut state.waiting)
        };
        // Not under the lock: wakers are others' code.
        for waker in waiting {
            waker.wake();
        }
        true
    }
}
