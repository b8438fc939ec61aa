//! Settles the index of a namespace once its slots were collected, with all helpers.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::index::{Index, Settled, SpareChunks};
use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::helpers::Helpers;

/// Tables of a job: some milliseconds.
const JOB_TABLES: usize = 256;

/// The share of tables in a sample.
const SAMPLE: usize = 64;

/// Settles all tables.
///
/// # Errors
/// If a helper fails.
pub(super) async fn settle(index: Index, helpers: &Helpers) -> io::Result<(Index, Settled)> {
    let (tables, index) = (index.tables(), Arc::new(index));
    let (mut all, mut running) = (Settled::default(), FuturesUnordered::new());
    // Bounded: a job in each turn.
    for first in (0..tables).step_by(JOB_TABLES) {
        let job = settle_some(Arc::clone(&index), first..tables.min(first + JOB_TABLES));
        // To have another thread do little takes longer than to do it.
        if tables == 1 {
            add(Some(job.await), &mut all).await?;
            break;
        }
        running.push(helpers.run(job));
        if running.len() > helpers.count() {
            add(running.next().await.flatten(), &mut all).await?;
        }
    }
    // Bounded: by the cores.
    while !running.is_empty() {
        add(running.next().await.flatten(), &mut all).await?;
    }
    let index = Arc::into_inner(index).ok_or_else(failed)?;
    Ok((index, all))
}

/// Settles a sample of the tables, a part in [`SAMPLE`].
pub(super) async fn settle_sample(index: &Index, steps: &mut Pacer) -> Settled {
    let (mut settled, mut spare) = (Settled::default(), SpareChunks::default());
    for number in 0..index.tables().div_ceil(SAMPLE) {
        steps.entries(BATCH_ENTRIES).await;
        index.settle(number, &mut spare, &mut settled);
    }
    settled
}

async fn settle_some(index: Arc<Index>, tables: Range<usize>) -> (Arc<Index>, Settled) {
    let (mut settled, mut spare) = (Settled::default(), SpareChunks::default());
    let mut steps = Pacer::default();
    for number in tables {
        steps.entries(BATCH_ENTRIES).await;
        index.settle(number, &mut spare, &mut settled);
    }
    (index, settled)
}

async fn add(done: Option<(Arc<Index>, Settled)>, all: &mut Settled) -> io::Result<()> {
    let (_, settled) = done.ok_or_else(failed)?;
    all.live += settled.live;
    all.further_blocks += settled.further_blocks;
    let mut steps = Pacer::default();
    for batch in settled.shadowed.chunks(BATCH_ENTRIES) {
        steps.entries(batch.len()).await;
        all.shadowed.extend_from_slice(batch);
    }
    Ok(())
}

fn failed() -> io::Error {
    io::Error::other("the index cannot be settled")
}
