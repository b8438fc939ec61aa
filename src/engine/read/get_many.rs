//! `get_many`: the gets of many keys. Memory answers in turn; the reads from disk go to the device
//! together, and are completed in any order.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;

use crate::batch::{Pacer, PollShare};
use crate::engine::read::get::{FromDisk, Gets, is_too_long};
use crate::failpoint::{Failpoint, failpoint};
use crate::hit::BlobCacheHit;
use crate::io::together;
use crate::key::NamespaceRef;
use crate::meter;

/// Reads of one call that are under way. A device is busy with fewer; with more, those of others
/// would find the rings full.
const READS_MAX: usize = 64;

/// That many complete before others take their places, so that these go together as well.
const READS_RENEWED: usize = 16;

pub(crate) async fn get_many<K: AsRef<[u8]>>(
    gets: &Gets,
    namespace: NamespaceRef<'_>,
    keys: &[K],
) -> Vec<Option<BlobCacheHit>> {
    let count = |hit: Option<&BlobCacheHit>| gets.count_found(namespace, hit);
    look_up(gets, namespace, keys, &count).await
}

/// The same, without counting hits and misses.
pub(crate) async fn find_many<K: AsRef<[u8]>>(
    gets: &Gets,
    namespace: NamespaceRef<'_>,
    keys: &[K],
) -> Vec<Option<BlobCacheHit>> {
    look_up(gets, namespace, keys, &|_| ()).await
}

/// Notes each answer, in any order.
async fn look_up<K: AsRef<[u8]>>(
    gets: &Gets,
    namespace: NamespaceRef<'_>,
    keys: &[K],
    note: Note<'_>,
) -> Vec<Option<BlobCacheHit>> {
    let mut found = Vec::with_capacity(keys.len());
    let (mut window, mut steps) = (Window::new(note), Pacer::at_once());
    for (number, key) in keys.iter().enumerate() {
        let key = key.as_ref();
        let hashed = if is_too_long(key) { 0 } else { key.len() };
        // Bounded: by the reads under way: a poll that has no room for a key has completed some.
        while steps.is_full() || window.has_no_room_for(hashed) {
            window.next_poll(&mut found).await;
            steps = Pacer::at_once();
        }
        steps.entry().await;
        meter::bytes(hashed);
        match gets.answer::<false>(namespace, key) {
            Ok(answer) => {
                note(answer.as_ref());
                found.push(answer);
            }
            Err(read) => {
                found.push(None);
                window.begin(number, read);
                if window.reads.len() == READS_MAX {
                    window.complete(READS_MAX - READS_RENEWED, &mut found).await;
                }
            }
        }
    }
    window.complete(0, &mut found).await;
    found
}

type Note<'a> = &'a (dyn Fn(Option<&BlobCacheHit>) + Sync);

/// Reads under way.
struct Window<'a> {
    note: Note<'a>,
    reads: FuturesUnordered<Numbered<'a>>,
    /// Of the poll.
    share: Arc<Mutex<PollShare>>,
}

impl<'a> Window<'a> {
    /// In the first poll of a call.
    fn new(note: Note<'a>) -> Self {
        let share = Arc::new(Mutex::new(PollShare::begin()));
        Self { note, reads: FuturesUnordered::new(), share }
    }

    fn begin(&self, number: usize, read: FromDisk<'a>) {
        self.reads.push(Numbered { number, read, share: Arc::clone(&self.share) });
    }

    /// Whether this poll has handled too much to hash so many bytes more.
    fn has_no_room_for(&self, bytes: usize) -> bool {
        self.share.lock().is_used_up_by(bytes)
    }

    /// Ends this poll. All are driven at its end and at the beginning of the next: they go to the
    /// device while memory is asked, and those that are done free their part of the read budget.
    async fn next_poll(&mut self, found: &mut [Option<BlobCacheHit>]) {
        let mut is_next = false;
        poll_fn(|context| {
            if is_next {
                *self.share.lock() = PollShare::begin();
            }
            let _ = together(|| self.poll_complete(0, found, context));
            if is_next {
                return Poll::Ready(());
            }
            is_next = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Drives all, until no more than `left` are under way.
    async fn complete(&mut self, left: usize, found: &mut [Option<BlobCacheHit>]) {
        let mut is_same_poll = true;
        poll_fn(|context| {
            if !is_same_poll {
                *self.share.lock() = PollShare::begin();
            }
            is_same_poll = false;
            together(|| self.poll_complete(left, found, context))
        })
        .await;
    }

    fn poll_complete(
        &mut self,
        left: usize,
        found: &mut [Option<BlobCacheHit>],
        context: &mut Context<'_>,
    ) -> Poll<()> {
        // Bounded: by the window. Each read is polled once in a poll, and waits if it has to.
        while self.reads.len() > left {
            let Some((number, hit)) = ready!(self.reads.poll_next_unpin(context)) else { break };
            (self.note)(hit.as_ref());
            let misplaced = usize::from(failpoint(Failpoint::ManyMisplaced));
            if let Some(place) = found.get_mut(number ^ misplaced) {
                *place = hit;
            }
        }
        Poll::Ready(())
    }
}

/// The read for the key of that number.
struct Numbered<'a> {
    number: usize,
    read: FromDisk<'a>,
    share: Arc<Mutex<PollShare>>,
}

impl Future for Numbered<'_> {
    type Output = (usize, Option<BlobCacheHit>);

    /// Waits for the next poll if the others leave too little of the batch of this one. The read
    /// itself ends a poll after a batch.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { number, read, share } = self.get_mut();
        let is_full = share.lock().is_used_up_by(read.bytes);
        if is_full {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let hit = ready!(read.future.as_mut().poll(context));
        Poll::Ready((*number, hit))
    }
}
