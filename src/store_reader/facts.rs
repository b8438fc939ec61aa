//! `StoreFacts` and `StoreSegment`: what a store says of itself.

use std::path::PathBuf;
use std::time::SystemTime;

use super::error::SUPPORTED;
use crate::clock::Timestamp;
use crate::io::ReadDisk;
use crate::l2::{self, FoundFacts, FoundStore};
use crate::modes::CrashSafety;

/// What the superblock of a store says. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreFacts {
    /// The store's file.
    pub path: PathBuf,
    /// Of the store's format.
    pub format_version: u32,
    /// Random, from the creation of the store on, or since it began anew.
    pub store_id: [u8; 16],
    /// The mode of the cache that had it last.
    pub crash_safety: CrashSafety,
    /// How its last owner has left it.
    pub state: StoreState,
    /// What the next open would find.
    pub next_open: NextOpen,
    /// How often it was opened.
    pub opens: u32,
    /// When it was created. None if that was never finished.
    pub created: Option<SystemTime>,
    /// Of the file, with an image of the index behind the segments.
    pub file_bytes: u64,
    /// Of the superblocks and segments.
    pub store_bytes: u64,
    /// Of one segment.
    pub segment_bytes: u32,
    /// Segments that the file has room for.
    pub segment_count: u32,
    /// All that its log has ever taken: records, reinserted ones too, directories, and unused ends
    /// of segments. Without a clean close, up to the last segment that is sealed.
    pub log_bytes: u64,
    /// Whether the file is shown as of its last sealed segment, because an owner may write it.
    pub is_live: bool,
}

/// How the last owner of a store has left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreState {
    /// It was closed.
    Clean,
    /// It has an owner, or that was killed, or dropped it without a close.
    Unclean,
    /// It was turned off, and nothing in it may be served.
    Void,
    /// Its creation was never finished.
    Unfinished,
}

/// What the next open would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NextOpen {
    /// The entries, in any mode but `Cold`.
    Warm,
    /// Nothing: a store of the mode `Cold` always begins empty.
    EmptyCold,
    /// Nothing: the machine has been started anew since an unclean end in the mode `Process`.
    EmptyOtherBoot,
    /// Nothing: the store is void.
    EmptyVoid,
    /// Nothing: a cache that could not open the store has left a void mark beside it.
    EmptyMarked,
    /// Nothing: the store has never had anything.
    EmptyUnfinished,
}

impl NextOpen {
    /// Whether it would find the entries.
    #[must_use]
    pub fn is_warm(self) -> bool {
        self == Self::Warm
    }

    fn new(facts: &FoundFacts, is_marked: bool, boot_id: [u8; 16]) -> Self {
        if facts.is_blank {
            return Self::EmptyUnfinished;
        }
        if facts.void {
            return Self::EmptyVoid;
        }
        if is_marked {
            return Self::EmptyMarked;
        }
        match facts.crash_safety {
            l2::CrashSafety::Cold => Self::EmptyCold,
            l2::CrashSafety::Process if !facts.clean && facts.boot_id != boot_id => {
                Self::EmptyOtherBoot
            }
            l2::CrashSafety::Process | l2::CrashSafety::Power => Self::Warm,
        }
    }
}

impl StoreFacts {
    pub(super) fn new(disk: &ReadDisk, store: &FoundStore) -> Self {
        let facts = store.facts();
        let state = match facts {
            FoundFacts { is_blank: true, .. } => StoreState::Unfinished,
            FoundFacts { void: true, .. } => StoreState::Void,
            FoundFacts { clean: true, .. } => StoreState::Clean,
            _ => StoreState::Unclean,
        };
        Self {
            path: disk.path().to_owned(),
            format_version: SUPPORTED,
            store_id: facts.store_id,
            crash_safety: match facts.crash_safety {
                l2::CrashSafety::Cold => CrashSafety::Cold,
                l2::CrashSafety::Process => CrashSafety::Process,
                l2::CrashSafety::Power => CrashSafety::Power,
            },
            state,
            next_open: NextOpen::new(&facts, disk.is_marked_void(), ReadDisk::boot_id()),
            opens: facts.opens,
            created: (!facts.is_blank).then(|| Timestamp(facts.created_ns).into()),
            file_bytes: store.file_bytes(),
            store_bytes: facts.geometry.file_bytes(),
            segment_bytes: facts.geometry.segment_bytes(),
            segment_count: facts.geometry.segment_count(),
            log_bytes: facts.tail.unwrap_or_else(|| store.sealed_bytes()),
            is_live: store.has_owner(),
        }
    }
}

/// A segment in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSegment {
    /// Its number in the log, from 0 on.
    pub number: u64,
    /// The number of its place in the file, from 0 on. None if no place has its header, which is
    /// damage, or an owner has just overwritten it.
    pub place: Option<u64>,
    /// Where that place begins in the file, in bytes.
    pub offset: Option<u64>,
    /// Whether its directory is there, and it takes no more records.
    pub is_sealed: bool,
    /// Records of all kinds, live or dead. None if it is not sealed.
    pub records: Option<u64>,
    /// Bytes of its frames, which hold the records. None if it is not sealed.
    pub used_bytes: Option<u64>,
}

impl StoreSegment {
    pub(super) fn all(store: &FoundStore) -> impl Iterator<Item = Self> {
        store.segments().iter().map(|found| {
            let footer = found.footer.as_ref();
            Self {
                number: found.number.0,
                place: found.offset.map(|offset| store.place_at(offset)),
                offset: found.offset,
                is_sealed: footer.is_some(),
                records: footer.map(|footer| footer.entries.into()),
                used_bytes: footer.map(|footer| store.used_bytes(footer)),
            }
        })
    }
}
