//! `ReadAhead`: reads the directories of segments from the newest back, ahead of their replay.
//!
//! They are read and decoded by the helpers' threads while the caller replays newer ones. Their
//! memory is bounded: they take at most one part in [`SHARE`] of the index budget, or are one.
//! Without threads nothing is read before it is asked for.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::{BoxFuture, MaybeDone, join, maybe_done};

use super::footer::Footer;
use super::format::{BLOCK_BYTES, OpenRange, SegmentNumber, StoreId};
use super::segment::SegmentHeader;
use super::segment_file::SegmentFile;
use super::segment_records::{SegmentRecords, memory_bytes};
use crate::clock::Timestamp;
use crate::helpers::Helpers;
use crate::io::AlignedBuffer;

/// Directories that are replayed may take one part in this many of the index budget.
const SHARE: usize = 16;

/// Reads of what is bad, before it counts as that: a bit may have flipped on the way.
const TRIES: usize = 2;

/// What a segment in use was found to be.
pub(super) enum Found {
    Sealed(Box<SegmentRecords>),
    /// It has a header and no good directory.
    Unsealed,
    Damaged,
}

pub(super) struct ReadAhead<'a> {
    file: &'a SegmentFile,
    store_id: StoreId,
    opens: OpenRange,
    now: Timestamp,
    helpers: &'a Helpers,
    bytes_max: usize,
    /// From here back nothing was begun. None at the beginning of the log.
    next: Option<SegmentNumber>,
    oldest: SegmentNumber,
    begun: VecDeque<Begun<'a>>,
    /// The first segment that has to wait for memory.
    waiting: Option<Begun<'a>>,
    /// Whether the order of records does not matter.
    may_be_plain: bool,
}

/// A segment that is being read.
struct Begun<'a> {
    number: SegmentNumber,
    bytes: usize,
    found: MaybeDone<BoxFuture<'a, Found>>,
}

impl<'a> ReadAhead<'a> {
    /// Reads segments from `newest` back to `oldest`.
    pub(super) fn new(
        file: &'a SegmentFile,
        (store_id, opens): (StoreId, OpenRange),
        (newest, oldest): (SegmentNumber, SegmentNumber),
        helpers: &'a Helpers,
        (now, index_bytes_max): (Timestamp, usize),
    ) -> Self {
        Self {
            file,
            store_id,
            opens,
            now,
            helpers,
            bytes_max: index_bytes_max / SHARE,
            next: Some(newest),
            oldest,
            begun: VecDeque::new(),
            waiting: None,
            may_be_plain: true,
        }
    }

    /// From now on, records are given in the order of the log.
    pub(super) fn keep_order(&mut self) {
        self.may_be_plain = false;
    }

    /// The next older segment. Calls must not skip any.
    pub(super) async fn take(&mut self, number: SegmentNumber) -> Found {
        self.begin().await;
        let Some(Begun { number: begun, mut found, .. }) = self.begun.pop_front() else {
            return Found::Damaged;
        };
        debug_assert_eq!(begun, number);
        // Meanwhile older ones go on.
        let waited = poll_fn(|context| Pin::new(&mut found).poll(context));
        self.beside(waited).await;
        Pin::new(&mut found).take_output().unwrap_or(Found::Damaged)
    }

    /// Does other work while segments are read.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.poll(context);
            work.as_mut().poll(context)
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) {
        // Bounded: by the cores.
        for begun in &mut self.begun {
            let _: Poll<()> = Pin::new(&mut begun.found).poll(context);
        }
    }

    /// Begins to read as many segments as there are threads, and one more.
    async fn begin(&mut self) {
        // Bounded: by the cores.
        while self.begun.len() <= self.helpers.count() {
            let next = match self.waiting.take() {
                Some(next) => next,
                None => match self.next.filter(|next| *next >= self.oldest) {
                    Some(number) => self.read(number).await,
                    None => return,
                },
            };
            // Bounded: by the cores.
            let bytes: usize = self.begun.iter().map(|begun| begun.bytes).sum();
            if !self.begun.is_empty() && bytes + next.bytes > self.bytes_max {
                self.waiting = Some(next);
                return;
            }
            self.begun.push_back(next);
        }
    }

    /// Begins to read a segment: looks whether it is one, and how large its directory is.
    async fn read(&mut self, number: SegmentNumber) -> Begun<'a> {
        self.next = number.0.checked_sub(1).map(SegmentNumber);
        let known = |found| Begun { number, bytes: 0, found: MaybeDone::Done(found) };
        let (file, opens) = (self.file, self.opens);
        let segment_bytes = file.geometry.segment_bytes() as usize;
        let of = (self.store_id, opens);
        let mut ends = read_ends(file, number, of).await;
        if !matches!(ends, Some((_, Some(_)))) {
            ends = read_ends(file, number, of).await.or(ends);
        }
        let Some((last, footer)) = ends else { return known(Found::Damaged) };
        let Some(footer) = footer else { return known(Found::Unsealed) };
        let length = segment_bytes - footer.start as usize;
        let (helpers, manner) = (self.helpers, (self.now, self.may_be_plain));
        let found = async move {
            let mut last = Some(last).filter(|_| length == BLOCK_BYTES);
            let place = (number, opens, file.geometry);
            // Bounded: by the tries.
            for _ in 0..TRIES {
                let image = match last.take() {
                    Some(image) => image,
                    None => match file.read(number, footer.start as usize, length).await {
                        Ok(image) => image,
                        Err(_) => return Found::Damaged,
                    },
                };
                let reading = SegmentRecords::read(image.into_bytes(), file.key, place, manner);
                match helpers.run(reading).await {
                    Some(Ok(records)) => return Found::Sealed(Box::new(records)),
                    Some(Err(_)) => {}
                    None => return Found::Damaged,
                }
            }
            Found::Unsealed
        };
        let bytes = memory_bytes(length, footer.entries);
        Begun { number, bytes, found: maybe_done(found.boxed()) }
    }
}

/// The last block of a segment, and what it says of a directory. None if it is no segment.
async fn read_ends(
    file: &SegmentFile,
    number: SegmentNumber,
    (store_id, opens): (StoreId, OpenRange),
) -> Option<(AlignedBuffer, Option<Footer>)> {
    let last = file.geometry.segment_bytes() as usize - BLOCK_BYTES;
    let (first, last) =
        join(file.read(number, 0, BLOCK_BYTES), file.read(number, last, BLOCK_BYTES)).await;
    let (first, last) = (first.ok()?, last.ok()?);
    SegmentHeader::decode(&first, store_id, number, opens).ok()?;
    let footer = Footer::decode(&last, number, opens, file.geometry).ok();
    Some((last, footer))
}
