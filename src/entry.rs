//! `Entry`: a blob in memory with its metadata.

use std::collections::BTreeMap;
use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::footprint::{POSTING_BYTES, TABLE_SLOT_BYTES, allocation, metadata};
use crate::hits::Hits;
use crate::key::{HashedKey, KeyHash, LabelHash, StoredKey};
use crate::l2::Position;
use crate::label_texts::LabelTexts;
use crate::modes::L1Admission;
use crate::namespace::Generation;
use crate::policy::{Freshness, Lifetime, end_of_window};
use crate::sequence::Sequence;

/// Fixed overhead of an entry: itself with the two counts of its `Arc`, a slot of the lookup table,
/// a node of its SIEVE list, and the shared header of its value.
pub(crate) const ENTRY_BYTES: usize =
    allocation(size_of::<Entry>() + 16) + TABLE_SLOT_BYTES + 24 + allocation(24);

/// Of common processors.
const CACHE_LINE_BYTES: usize = 64;

static NO_METADATA: BTreeMap<String, String> = BTreeMap::new();

/// Fields are in the order in which a hit reads them.
#[repr(C)]
pub(crate) struct Entry {
    pub(crate) node: ListNode,
    pub(crate) hits: Hits,
    pub(crate) priority: u8,
    pub(crate) admission: L1Admission,
    /// Bit set of [`Mark`]s. All but `Expired` are set before other threads see the entry.
    marks: AtomicU8,
    /// Changed only when the entry becomes stale before its time.
    expires: AtomicU64,
    /// Rare fields, boxed to keep entries without them small.
    extras: Option<Box<Extras>>,
    pub(crate) generation: Arc<Generation>,
    pub(crate) key: StoredKey,
    /// Its allocation is exact and already shared, so that a clone does not allocate.
    pub(crate) value: Bytes,
    pub(crate) hash: KeyHash,
    sequence: AtomicU64,
    pub(crate) written: Timestamp,
    pub(crate) charge: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Read from its record, not in L1.
    FromDisk = 1,
    /// Fetched for waiting callers, in no tier.
    Fetched = 2,
    /// A cached absence.
    Absent = 4,
    /// Stale before its time.
    Expired = 128,
    /// The disk tier accepted its record.
    Recorded = 8,
    /// The value's allocation has no other bytes, and its clones copy nothing.
    Exact = 16,
    /// Fetched, and its codec could not encode it: it has no value.
    Unencoded = 32,
    /// Its postings count as memory's: it has no record, or that has left the log.
    LabelsAbove = 64,
}

#[derive(Debug)]
pub(crate) struct Extras {
    pub(crate) content_metadata: BTreeMap<String, String>,
    pub(crate) labels: Box<[LabelHash]>,
    texts: LabelTexts,
    pub(crate) version: Option<u64>,
    stale_serve: u64,
    idle_ttl: u64,
    /// When its time began: at its put, or at a touch.
    begun: Timestamp,
    last_access: AtomicU64,
}

impl Extras {
    /// None if there are none.
    pub(crate) fn new(
        content_metadata: BTreeMap<String, String>,
        (labels, texts): (Box<[LabelHash]>, LabelTexts),
        version: Option<u64>,
        life: &Lifetime,
    ) -> Option<Box<Self>> {
        let extras = Self { content_metadata, labels, texts, version, ..Self::of(life) };
        extras.boxed(life)
    }

    /// Those of a lifetime alone.
    fn of(life: &Lifetime) -> Self {
        Self {
            content_metadata: BTreeMap::new(),
            labels: Box::default(),
            texts: LabelTexts::default(),
            version: None,
            stale_serve: life.stale_serve,
            idle_ttl: life.idle_ttl,
            begun: life.written,
            last_access: AtomicU64::new(life.written.0),
        }
    }

    fn boxed(self, life: &Lifetime) -> Option<Box<Self>> {
        let plain = self.content_metadata.is_empty()
            && self.labels.is_empty()
            && self.version.is_none()
            && self.stale_serve == 0
            && self.idle_ttl == u64::MAX
            && self.begun == life.written;
        (!plain).then(|| Box::new(self))
    }

    pub(crate) fn twin(&self, life: &Lifetime) -> Option<Box<Self>> {
        let (content_metadata, labels) = (self.content_metadata.clone(), self.labels.clone());
        let (texts, version, begun) = (self.texts.clone(), self.version, self.begun);
        let extras = Self { content_metadata, labels, texts, version, begun, ..Self::of(life) };
        extras.boxed(life)
    }

    fn bytes(&self) -> usize {
        allocation(size_of::<Self>())
            + metadata(&self.content_metadata)
            + allocation(size_of_val(&*self.labels))
            + allocation(self.texts.bytes())
            + self.labels.len() * POSTING_BYTES
    }
}

impl Entry {
    /// An entry whose sequence, value and list node are still to be set.
    pub(crate) fn new(
        generation: Arc<Generation>,
        key: HashedKey<'_>,
        life: &Lifetime,
        (priority, admission): (u8, L1Admission),
        extras: Option<Box<Extras>>,
    ) -> Self {
        Self {
            hash: key.hash,
            sequence: AtomicU64::new(0),
            generation,
            key: key.bytes.into(),
            value: Bytes::new(),
            written: life.written,
            expires: AtomicU64::new(life.expires.0),
            extras,
            charge: 0,
            priority,
            admission,
            marks: AtomicU8::new(0),
            hits: Hits::default(),
            node: ListNode::none(),
        }
    }

    /// A copy of this entry, which was read from disk, for memory: with its own value, not visited.
    pub(crate) fn promoted(&self, value: Bytes, charge: usize) -> Self {
        let life = self.life();
        let extras = self.extras.as_ref().and_then(|extras| extras.twin(&life));
        let (generation, kind) = (Arc::clone(&self.generation), (self.priority, self.admission));
        let mut entry = Self::new(generation, self.hashed_key(), &life, kind, extras);
        (entry.value, entry.charge) = (value, charge);
        if self.is(Mark::Absent) {
            entry.mark(Mark::Absent);
        }
        entry.mark(Mark::Recorded);
        entry.set_sequence(self.sequence());
        entry.accessed_like(self);
        entry
    }

    /// A copy of this entry, which is in memory, that has the deadlines of another life from its
    /// beginning on: still without charge, sequence and accesses.
    pub(crate) fn renewed(&self, life: &Lifetime) -> Self {
        let life = Lifetime { written: self.written, ..*life };
        let extras = match &self.extras {
            Some(extras) => extras.twin(&life),
            None => Extras::new(BTreeMap::new(), Default::default(), None, &life),
        };
        let (generation, kind) = (Arc::clone(&self.generation), (self.priority, self.admission));
        let mut entry = Self::new(generation, self.hashed_key(), &life, kind, extras);
        entry.value = self.value.clone();
        // Bounded: by the marks.
        [Mark::Absent, Mark::Recorded, Mark::Exact].into_iter().for_each(|mark| {
            if self.is(mark) {
                entry.mark(mark);
            }
        });
        entry
    }

    /// Whether it has the deadlines of that life, or, stale before its time, no later ones.
    pub(crate) fn lives(&self, life: &Lifetime) -> bool {
        let own = self.life();
        let is_same =
            own.expires == life.expires || (self.is(Mark::Expired) && own.expires <= life.expires);
        is_same && (own.stale_serve, own.idle_ttl) == (life.stale_serve, life.idle_ttl)
    }

    pub(crate) fn expires(&self) -> Timestamp {
        Timestamp(self.expires.load(Ordering::Relaxed))
    }

    /// It is stale since then, whatever the clock says; without a stale window it is gone. True if
    /// it was to be fresh for longer. Only the earliest time counts.
    pub(crate) fn expire(&self, since: Timestamp) -> bool {
        let since = if self.stale_serve().is_none() { 0 } else { since.0.min(u64::MAX - 1) };
        let before = self.expires.fetch_min(since, Ordering::Relaxed);
        // Release: who sees the mark sees the time.
        let marks = self.marks.fetch_or(Mark::Expired as u8, Ordering::Release);
        marks & Mark::Expired as u8 == 0 && before > since
    }

    /// The same entry elsewhere is stale since then.
    pub(crate) fn expire_like(&self, other: &Self) {
        if other.is(Mark::Expired) {
            self.expire(other.expires());
        }
    }

    pub(crate) fn footprint(key: &[u8], value: &[u8], extras: Option<&Extras>) -> usize {
        let extras = extras.map_or(0, Extras::bytes);
        let key = allocation(StoredKey::heap_bytes(key));
        ENTRY_BYTES + key + allocation(value.len()) + extras
    }

    pub(crate) fn hashed_key(&self) -> HashedKey<'_> {
        HashedKey { bytes: &self.key, hash: self.hash }
    }

    #[inline]
    pub(crate) fn is_of(&self, namespace: &str, key: &[u8]) -> bool {
        *self.key == *key && self.generation.name() == namespace
    }

    /// The mutation that put it. Changed in sections: at the put, and when reinserted.
    pub(crate) fn sequence(&self) -> Sequence {
        Sequence(self.sequence.load(Ordering::Relaxed))
    }

    /// Whether the record at `position` put this entry.
    pub(crate) fn is_at(&self, position: Position) -> bool {
        self.sequence().0 == position.value()
    }

    pub(crate) fn set_sequence(&self, sequence: Sequence) {
        self.sequence.store(sequence.0, Ordering::Relaxed);
    }

    pub(crate) fn is(&self, mark: Mark) -> bool {
        self.marks.load(Ordering::Relaxed) & mark as u8 != 0
    }

    pub(crate) fn mark(&self, mark: Mark) {
        self.marks.store(self.marks.load(Ordering::Relaxed) | mark as u8, Ordering::Relaxed);
    }

    /// The same for one that others may mark at the same time.
    pub(crate) fn mark_shared(&self, mark: Mark) {
        self.marks.fetch_or(mark as u8, Ordering::Relaxed);
    }

    /// False once it was removed or its namespace flushed, and never true again.
    pub(crate) fn is_held(&self) -> bool {
        self.node.is_linked() && !self.generation.has_ended()
    }

    pub(crate) fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    pub(crate) fn into_extras(self) -> Option<Box<Extras>> {
        self.extras
    }

    pub(crate) fn content_metadata(&self) -> &BTreeMap<String, String> {
        self.extras.as_ref().map_or(&NO_METADATA, |extras| &extras.content_metadata)
    }

    pub(crate) fn labels(&self) -> &[LabelHash] {
        self.extras.as_ref().map_or(&[], |extras| &extras.labels)
    }

    pub(crate) fn label_texts(&self) -> Option<&LabelTexts> {
        self.extras.as_ref().map(|extras| &extras.texts)
    }

    pub(crate) fn version(&self) -> Option<u64> {
        self.extras.as_ref().and_then(|extras| extras.version)
    }

    /// When the time began that ends as it expires: at its put, or at the last touch.
    pub(crate) fn begun(&self) -> Timestamp {
        self.extras.as_ref().map_or(self.written, |extras| extras.begun)
    }

    /// Its time has begun anew.
    pub(crate) fn begin_at(&mut self, begun: Timestamp) {
        if begun != self.begun() {
            let life = self.life();
            self.extras.get_or_insert_with(|| Box::new(Extras::of(&life))).begun = begun;
        }
    }

    /// Nanoseconds; None without a stale window.
    pub(crate) fn stale_serve(&self) -> Option<u64> {
        self.extras.as_ref().map(|extras| extras.stale_serve).filter(|window| *window > 0)
    }

    /// Nanoseconds; None without an idle ttl.
    pub(crate) fn idle_ttl(&self) -> Option<u64> {
        self.extras.as_ref().map(|extras| extras.idle_ttl).filter(|ttl| *ttl < u64::MAX)
    }

    /// Whether it never expires, so that no clock needs to be read.
    pub(crate) fn is_endless(&self) -> bool {
        self.expires() == Timestamp::NEVER
            && self.extras.as_ref().is_none_or(|extras| extras.idle_ttl == u64::MAX)
    }

    /// When it expires for certain, however often it is accessed.
    pub(crate) fn window_end(&self) -> Option<Timestamp> {
        let end = || end_of_window(self.expires(), self.stale_serve().unwrap_or(0));
        (self.expires() != Timestamp::NEVER).then(end)
    }

    /// When it expires unless it is accessed before.
    pub(crate) fn ends(&self) -> Timestamp {
        self.life().ends(self.last_access().unwrap_or(self.written))
    }

    pub(crate) fn life(&self) -> Lifetime {
        let extras = self.extras.as_ref();
        let (stale_serve, idle_ttl) =
            extras.map_or((0, u64::MAX), |extras| (extras.stale_serve, extras.idle_ttl));
        Lifetime { written: self.written, expires: self.expires(), stale_serve, idle_ttl }
    }

    /// Whether nothing but the end of its ttl decides about it.
    #[inline]
    pub(crate) fn has_only_a_ttl(&self) -> bool {
        self.extras.is_none()
    }

    pub(crate) fn freshness(&self, now: Timestamp) -> Freshness {
        let is_expired = self.marks.load(Ordering::Acquire) & Mark::Expired as u8 != 0;
        let life = self.life();
        // A clock that has stepped back makes nothing fresh that was made stale.
        let now = if is_expired { now.max(life.expires) } else { now };
        life.freshness(now, self.last_access().unwrap_or(now))
    }

    /// Reads the start of the value and its header. Freeing them needs that memory, and so does the
    /// next entry, to which the allocator is likely to give it: one wait for all of it, during
    /// other accesses of the caller up to its next locked instruction.
    pub(crate) fn prefetch_value(&self) {
        let lines = self.value.iter().step_by(CACHE_LINE_BYTES).take(4);
        // Bounded: four.
        let read = lines.fold(0, |all, byte| all ^ byte);
        black_box((self.value.is_unique(), read));
    }

    /// Records an access; the latest time counts if the clock steps back. False without an idle
    /// ttl.
    ///
    /// SeqCst together with the list node: either the reader sees the entry unlinked, or the
    /// evictor sees the new access time.
    pub(crate) fn accessed(&self, at: Timestamp) -> bool {
        let extras = self.extras.as_ref().filter(|extras| extras.idle_ttl != u64::MAX);
        if let Some(extras) = extras {
            if extras.last_access.load(Ordering::Relaxed) < at.0 {
                extras.last_access.fetch_max(at.0, Ordering::SeqCst);
                self.outlast(extras.idle_ttl);
            }
        }
        extras.is_some()
    }

    /// Extends the namespace's lifetime, a shared word: so with slack, not at each access.
    fn outlast(&self, idle_ttl: u64) {
        let end = self.ends();
        if self.generation.alive_until() < end {
            self.generation.outlives(Timestamp(end.0.saturating_add(idle_ttl / 8)));
        }
    }

    pub(crate) fn accessed_like(&self, other: &Self) {
        other.last_access().inspect(|at| _ = self.accessed(*at));
    }

    /// None without an idle ttl.
    pub(crate) fn last_access(&self) -> Option<Timestamp> {
        let extras = self.extras.as_ref().filter(|extras| extras.idle_ttl != u64::MAX)?;
        Some(Timestamp(extras.last_access.load(Ordering::SeqCst)))
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Entry")
            .field("namespace", &self.generation.name())
            .field("key", &self.key.escape_ascii().to_string())
            .field("bytes", &self.value.len())
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

/// An entry's node in its SIEVE list. Changed under that list's lock only: once from none to a node
/// and once back. Read without the lock: see [`Entry::accessed`].
#[derive(Debug)]
pub(crate) struct ListNode(AtomicU32);

impl ListNode {
    const NONE: u32 = u32::MAX;

    fn none() -> Self {
        Self(AtomicU32::new(Self::NONE))
    }

    pub(crate) fn is_linked(&self) -> bool {
        self.0.load(Ordering::SeqCst) != Self::NONE
    }

    pub(crate) fn link(&self, node: u32) {
        self.0.store(node, Ordering::Release);
    }

    /// The node that was held; None if another caller has unlinked it.
    pub(crate) fn unlink(&self) -> Option<u32> {
        let node = self.0.load(Ordering::Relaxed);
        self.0.store(Self::NONE, Ordering::SeqCst);
        (node != Self::NONE).then_some(node)
    }
}
