//! `put_many`: puts of many keys, in order, with one wait for the acknowledgement of all.
//!
//! Each has a section of its own: a section locks the table of its key in memory, and none locks
//! two. The sections are a small part of a put; what takes time is the wait.

use std::sync::Arc;

use crate::batch::{Pacer, PollShare, yield_now};
use crate::engine::acknowledge::Acknowledgements;
use crate::engine::write::put::Puts;
use crate::error::CacheError;
use crate::key::NamespaceRef;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;
use crate::wake::discard;

/// Entries that a put may visit, to make room and to help pending invalidations.
const ENTRIES_VISITED: usize = 32;

/// A value is copied, and compressed or hashed.
const BYTES_FACTOR: usize = 2;

pub(crate) async fn put_many<K: AsRef<[u8]>>(
    puts: &Arc<Puts>,
    namespace: NamespaceRef<'_>,
    mut items: Vec<(K, BlobCachePut)>,
    of_handle: Option<&BlobCachePolicy>,
) -> Vec<Result<(), CacheError>> {
    let mut stored = Vec::with_capacity(items.len());
    let (mut all, mut steps) = (Acknowledgements::default(), Pacer::at_once());
    let mut share = PollShare::begin();
    for (key, put) in &mut items {
        steps.entries(ENTRIES_VISITED).await;
        if share.is_used_up_by(BYTES_FACTOR * put.value.as_slice().len()) {
            yield_now().await;
            share = PollShare::begin();
        }
        stored.push(match puts.store_by_policy(namespace, key.as_ref(), put, of_handle).await {
            Ok(written) => {
                let acknowledgement = puts.tidy_up(written).await;
                all.add(acknowledgement);
                Ok(acknowledgement)
            }
            Err(error) => Err(error),
        });
    }
    // Freed here and not at the end, when the answer waits.
    discard(items);
    let earlier = puts.acknowledger.earlier();
    let together = puts.acknowledger.acknowledge_all(earlier, all).await;
    let mut answers = Vec::with_capacity(stored.len());
    for one in stored {
        steps.entry().await;
        answers.push(match one {
            Ok(_) if together.is_ok() => Ok(()),
            // Some may have what they wait for on file.
            Ok(acknowledgement) => {
                puts.acknowledger.acknowledge_behind(earlier, acknowledgement).await
            }
            Err(error) => Err(error),
        });
    }
    answers
}
