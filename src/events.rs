//! `BlobCacheEvents`: tells one listener what becomes of entries, and holds up nobody for it.
//!
//! Events are told where they happen, often under locks: a copy of the key goes into a bounded
//! queue, or is counted as lost if that is full. A thread of the listener's own wakes it, so that
//! its waker runs under no lock and on no thread that others need. Without a listener, telling is
//! one load; a hit in memory tells nothing at all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::{fmt, io, mem, thread};

use futures::{Stream, StreamExt};

use crate::entry::Entry;
use crate::hit::CacheTier;
use crate::io::BLOCK_BYTES;
use crate::l2::Slot;
use crate::monitor::Monitor;
use crate::wake::{discard, wake};

/// Events that wait for the listener.
const EVENTS_MAX: usize = 4096;

/// Bytes of those, with their keys and names.
const BYTES_MAX: usize = 1 << 20;

/// The queue, which is allocated whole.
const QUEUE_BYTES: usize = EVENTS_MAX * size_of::<BlobCacheEvent>();

/// What the allocator adds to a key and a name.
const OVERHEAD_BYTES: usize = 32;

/// Something that became of an entry, of a namespace, or of the events themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobCacheEvent {
    /// Something became of one entry.
    Entry(EntryEvent),
    /// A namespace was flushed, or all were if `namespace` is None.
    Flushed {
        /// Its name.
        namespace: Option<Box<str>>,
        /// Its entries, as [`entries_flushed`](crate::BlobCacheStats::entries_flushed) counts them.
        entries: u64,
    },
    /// A namespace whose entries had all expired has given its place to another.
    NamespaceExpired {
        /// Its name.
        namespace: Box<str>,
        /// Its entries, which count as expired.
        entries: u64,
    },
    /// The first event of a listener above a disk tier: what the open found there.
    Recovered {
        /// Live records.
        records: u64,
        /// Segments dropped because of damage in or behind them, or because fewer fit. Their keys
        /// are not known.
        segments_dropped: u64,
    },
    /// So many events were lost here, because the listener was too slow.
    Lost(u64),
}

/// What became of one entry.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, BlobCacheEvent, CacheTier, EntryChange};
/// let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20).build()?;
/// let cache = BlobCache::open(config).await?;
/// let mut events = cache.events()?;
/// for page in 0..20 {
///     cache.put("pages", format!("/{page}"), vec![0; 100_000]).await?;
/// }
/// // Memory has no room for all of them, and there is no disk tier.
/// let Some(BlobCacheEvent::Entry(event)) = events.next().await else { panic!() };
/// assert_eq!(event.change(), EntryChange::Evicted { on_disk: false });
/// assert_eq!((event.namespace(), event.key()), ("pages", Some(b"/0".as_slice())));
/// assert_eq!(event.tier(), CacheTier::L1);
/// assert!(event.bytes() > Some(100_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryEvent {
    change: EntryChange,
    namespace: Box<str>,
    key: Option<Box<[u8]>>,
    bytes: Option<usize>,
    tier: CacheTier,
}

/// The change of an entry, and its cause. Each is counted by a figure of
/// [`BlobCacheStats`](crate::BlobCacheStats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryChange {
    /// It left memory to make room, or found none (`evictions`).
    Evicted {
        /// Whether the disk tier has it still.
        on_disk: bool,
    },
    /// It was found past its ttl and stale window, or past its idle ttl (`expirations`).
    Expired {
        /// Whether it was the idle ttl.
        idle: bool,
    },
    /// An invalidation of its key, prefix, tag or dependency has removed it (`invalidations`).
    Invalidated,
    /// A put of its key has replaced it (`replacements`).
    Replaced,
    /// A touch has renewed its deadlines (`touches`).
    Touched,
    /// The disk tier dropped it, and memory did not hold it: its segment was reused or is damaged.
    /// With the evicted ones that are not on disk, these are `forgotten`.
    Dropped,
    /// It was read from disk, and is in memory now as well (`promotion_completed`).
    Promoted,
    /// Its segment was reused, and its record written again (`l2_reinserted`).
    Reinserted,
}

impl EntryEvent {
    /// What became of it.
    #[must_use]
    pub fn change(&self) -> EntryChange {
        self.change
    }

    /// The name of its namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its key. None for entries that were only on disk where their record need not be read, since
    /// memory keeps no keys of those, and for the empty key there.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// Its size. In memory: what it counted against the budget. On disk: the blocks of its record.
    /// None if that is not known without reading it.
    #[must_use]
    pub fn bytes(&self) -> Option<usize> {
        self.bytes
    }

    /// The tier that it left, for [`Promoted`](EntryChange::Promoted) that it came into, or for
    /// [`Touched`](EntryChange::Touched) that it is in: memory, if it is in both.
    #[must_use]
    pub fn tier(&self) -> CacheTier {
        self.tier
    }
}

/// Who an event is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) bytes: Option<usize>,
    pub(crate) tier: CacheTier,
}

/// The events of a cache, a [`Stream`]: see [`BlobCache::events`](crate::BlobCache::events).
#[must_use = "events are told while this lives"]
pub struct BlobCacheEvents {
    events: Events,
    number: u64,
}

/// A handle to the channel of a cache.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Changed under the lock.
    is_listened: AtomicBool,
    /// Wakes the thread that wakes the listener.
    channel: Monitor<Channel>,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

#[derive(Default)]
struct Channel {
    queue: VecDeque<BlobCacheEvent>,
    /// Lost since the last event in the queue.
    lost: u64,
    /// The number of the latest listener.
    listener: u64,
    /// Set while the listener waits.
    waker: Option<Waker>,
    /// The cache has ended.
    is_closed: bool,
}

impl Events {
    /// Tells what became of an entry. Locks may be held.
    #[inline]
    pub(crate) fn tell<'a>(&self, change: EntryChange, about: impl FnOnce() -> About<'a>) {
        if self.is_listened() {
            let about = about();
            self.push(about.name_bytes(), || BlobCacheEvent::Entry(about.changed(change)));
        }
    }

    /// Likewise of a namespace.
    #[inline]
    pub(crate) fn tell_of_all(&self, event: impl FnOnce() -> BlobCacheEvent) {
        if self.is_listened() {
            self.push(0, event);
        }
    }

    #[inline]
    fn is_listened(&self) -> bool {
        self.0.is_listened.load(Ordering::Relaxed)
    }

    /// `names`: the least bytes of its names. What finds no room allocates nothing.
    #[cold]
    fn push(&self, names: usize, event: impl FnOnce() -> BlobCacheEvent) {
        if !self.has_room(&mut self.0.channel.lock(), names + OVERHEAD_BYTES) {
            return;
        }
        let event = event();
        let bytes = event.bytes();
        let mut channel = self.0.channel.lock();
        if !self.has_room(&mut channel, bytes) {
            // Its names are freed without the lock.
            drop(channel);
            return;
        }
        let lost = mem::take(&mut channel.lost);
        if lost > 0 {
            channel.queue.push_back(BlobCacheEvent::Lost(lost));
        }
        channel.queue.push_back(event);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.note_change(&channel);
    }

    /// Whether an event is to be told. One that finds no room is counted.
    fn has_room(&self, channel: &mut Channel, bytes: usize) -> bool {
        if channel.listener == 0 || channel.is_closed || !self.is_listened() {
            return false;
        }
        // The second place is for the count of what was lost before.
        let has_room = channel.queue.len() + 2 <= EVENTS_MAX
            && bytes + self.0.bytes.load(Ordering::Relaxed) <= BYTES_MAX;
        if !has_room {
            channel.lost += 1;
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            self.note_change(channel);
        }
        has_room
    }

    fn note_change(&self, channel: &Channel) {
        if channel.waker.is_some() {
            self.0.channel.wake_all();
        }
    }

    /// The listener from now on; an earlier one ends. `first`: its first event.
    pub(crate) fn listen(&self, first: Option<BlobCacheEvent>) -> io::Result<BlobCacheEvents> {
        self.listen_on(first, |work| {
            thread::Builder::new().name("tamis-events".into()).spawn(work).map(drop)
        })
    }

    fn listen_on(
        &self,
        first: Option<BlobCacheEvent>,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<BlobCacheEvents> {
        let mut queue = VecDeque::with_capacity(EVENTS_MAX);
        let bytes = QUEUE_BYTES + first.as_ref().map_or(0, BlobCacheEvent::bytes);
        // Bounded: one.
        queue.extend(first);
        // The thread first: if there is none, the earlier listener stays.
        let (sender, number) = mpsc::channel();
        let events = self.clone();
        spawn(Box::new(move || {
            if let Ok(number) = number.recv() {
                events.wake_listener(number);
            }
        }))?;
        let (number, before) = {
            let mut channel = self.0.channel.lock();
            channel.listener += 1;
            channel.lost = 0;
            self.0.bytes.store(bytes, Ordering::Relaxed);
            self.0.is_listened.store(!channel.is_closed, Ordering::Relaxed);
            let before = (mem::replace(&mut channel.queue, queue), channel.waker.take());
            (channel.listener, before)
        };
        let listening = BlobCacheEvents { events: self.clone(), number };
        sender.send(number).map_err(io::Error::other)?;
        self.0.channel.wake_all();
        // The earlier listener learns of its end, and will not be told what waited for it.
        let (before, waker) = before;
        let lost = before.iter().filter(|event| event.counts_as_lost()).count();
        self.0.lost.fetch_add(lost as u64, Ordering::Relaxed);
        drop(before);
        if let Some(waker) = waker {
            wake(waker);
        }
        Ok(listening)
    }

    /// The thread of a listener: wakes it until it ends.
    fn wake_listener(&self, number: u64) {
        let mut channel = self.0.channel.lock();
        // Bounded: a wait in each turn, or a call of the waker, which the listener leaves anew.
        while channel.is_of(number) {
            let is_due = !channel.queue.is_empty() || channel.lost > 0 || channel.is_closed;
            match channel.waker.take_if(|_| is_due) {
                Some(waker) => (channel, ()) = channel.unlocked(|| wake(waker)),
                None if channel.is_closed => return,
                None => channel = channel.wait(),
            }
        }
    }

    /// The cache has ended: the listener ends once it has read what is there.
    pub(crate) fn close(&self) {
        let mut channel = self.0.channel.lock();
        channel.is_closed = true;
        self.0.is_listened.store(false, Ordering::Relaxed);
        self.0.channel.wake_all();
    }

    /// Events that no listener will be told.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Memory of the queue and of the events that wait.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl Channel {
    fn is_of(&self, number: u64) -> bool {
        self.listener == number
    }
}

impl BlobCacheEvent {
    /// Whether nobody learns of it if it is not read: a next listener is told anew what the open
    /// found, and what was lost is counted already.
    fn counts_as_lost(&self) -> bool {
        !matches!(self, Self::Lost(_) | Self::Recovered { .. })
    }

    /// Its memory besides its place in the queue.
    fn bytes(&self) -> usize {
        let names = match self {
            Self::Entry(event) => {
                event.namespace.len() + event.key.as_ref().map_or(0, |key| key.len())
            }
            Self::Flushed { namespace: Some(namespace), .. }
            | Self::NamespaceExpired { namespace, .. } => namespace.len(),
            Self::Flushed { namespace: None, .. } | Self::Recovered { .. } => 0,
            // Nothing more is charged for what is lost.
            Self::Lost(_) => return 0,
        };
        names + OVERHEAD_BYTES
    }
}

impl About<'_> {
    fn name_bytes(&self) -> usize {
        self.namespace.len() + self.key.map_or(0, <[u8]>::len)
    }

    fn changed(self, change: EntryChange) -> EntryEvent {
        let Self { namespace, key, bytes, tier } = self;
        let key = key.map(Into::into);
        EntryEvent { change, namespace: namespace.into(), key, bytes, tier }
    }
}

impl<'a> About<'a> {
    /// Of an entry in memory.
    pub(crate) fn of(entry: &'a Entry) -> Self {
        let (namespace, key) = (entry.generation.name(), Some(&*entry.key));
        Self { namespace, key, bytes: Some(entry.charge), tier: CacheTier::L1 }
    }

    /// Of a record that memory does not hold. The key is empty if it is not known.
    pub(crate) fn on_disk(namespace: &'a str, key: &'a [u8], slot: Option<Slot>) -> Self {
        let bytes = slot.map(|slot| usize::from(slot.blocks) * BLOCK_BYTES);
        let key = (!key.is_empty()).then_some(key);
        Self { namespace, key, bytes, tier: CacheTier::L2 }
    }
}

impl BlobCacheEvents {
    /// The next event; None once the cache is closed or dropped, or has another listener. A future
    /// that is dropped loses no event.
    pub async fn next(&mut self) -> Option<BlobCacheEvent> {
        StreamExt::next(self).await
    }
}

impl Stream for BlobCacheEvents {
    type Item = BlobCacheEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BlobCacheEvent>> {
        // A waker is the caller's code: cloned and dropped without the lock.
        let waker = context.waker().clone();
        let shared = &self.events.0;
        let mut channel = shared.channel.lock();
        let is_mine = channel.is_of(self.number);
        let (answer, unused) = if !is_mine {
            (Poll::Ready(None), Some(waker))
        } else if let Some(event) = channel.queue.pop_front() {
            shared.bytes.fetch_sub(event.bytes(), Ordering::Relaxed);
            (Poll::Ready(Some(event)), Some(waker))
        } else if channel.lost > 0 {
            let lost = mem::take(&mut channel.lost);
            (Poll::Ready(Some(BlobCacheEvent::Lost(lost))), Some(waker))
        } else if channel.is_closed {
            (Poll::Ready(None), Some(waker))
        } else {
            (Poll::Pending, channel.waker.replace(waker))
        };
        drop(channel);
        discard(unused);
        answer
    }
}

impl Drop for BlobCacheEvents {
    fn drop(&mut self) {
        let shared = &self.events.0;
        let mut channel = shared.channel.lock();
        if !channel.is_of(self.number) {
            return;
        }
        // Ends its thread.
        channel.listener += 1;
        shared.is_listened.store(false, Ordering::Relaxed);
        shared.bytes.store(0, Ordering::Relaxed);
        let left = (mem::take(&mut channel.queue), channel.waker.take());
        drop(channel);
        shared.channel.wake_all();
        discard(left);
    }
}

impl fmt::Debug for BlobCacheEvents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("BlobCacheEvents")
            .field("bytes", &self.events.memory_bytes())
            .field("lost", &self.events.lost())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
