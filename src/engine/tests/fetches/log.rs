//! `Log`: what has happened in a case, and whether a value may be given to a call.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::FetchError;
use crate::hit::BlobCacheHit;
use crate::stats::BlobCacheStats;

pub(super) const KEYS: u8 = 4;

#[derive(Clone, Debug)]
pub(super) enum Scope {
    Key(u8),
    Prefix(u8),
    Tag(u8),
    Space,
    All,
}

#[derive(Clone, Debug)]
pub(super) struct Value {
    pub(super) key: u8,
    pub(super) tags: Vec<u8>,
    /// When it was read at its origin; for a plain put, when that returned.
    pub(super) read: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) scope: Scope,
    pub(super) begun: u64,
    pub(super) ended: u64,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) now: u64,
    pub(super) values: Vec<Value>,
    pub(super) mutations: Vec<Mutation>,
    /// Fetches in progress.
    pub(super) running: [u32; KEYS as usize],
    /// Fetches that began beside another one of their key. A panic in a fetch would be contained.
    pub(super) beside: u64,
    pub(super) tally: Tally,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) given: u64,
    pub(super) joined: u64,
    pub(super) stale: u64,
    pub(super) absent: u64,
    pub(super) failed: u64,
    pub(super) refused: u64,
    pub(super) refreshes: u64,
    pub(super) beside: u64,
    pub(super) spawned: u64,
    pub(super) not_spawned: u64,
    pub(super) ahead: u64,
    pub(super) soft: u64,
}

impl Tally {
    pub(super) fn add(&mut self, case: &Self, stats: &BlobCacheStats) {
        self.given += case.given;
        self.joined += stats.flights_joined();
        self.stale += case.stale;
        self.absent += case.absent;
        self.failed += case.failed;
        self.refused += stats.stale_sets_refused();
        self.refreshes += case.refreshes;
        self.spawned += stats.fetches_spawned();
        self.not_spawned += stats.fetches_not_spawned();
        self.ahead += stats.refreshes_ahead();
        self.soft += stats.soft_timeouts();
    }
}

impl Log {
    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn value(&mut self, key: u8, tags: Vec<u8>, read: Option<u64>) -> usize {
        self.values.push(Value { key, tags, read });
        self.values.len() - 1
    }

    pub(super) fn check_answer(
        &mut self,
        key: u8,
        begun: u64,
        answer: Result<BlobCacheHit, FetchError<usize>>,
    ) {
        match answer {
            Ok(hit) => self.check(key, begun, &hit),
            Err(error) => self.check_error(key, begun, &error),
        }
    }

    pub(super) fn check(&mut self, key: u8, begun: u64, hit: &BlobCacheHit) {
        let number: usize = hit.content_metadata()["number"].parse().unwrap();
        self.check_read(key, begun, number, |tags, tag| tags.contains(&tag));
        self.tally.given += 1;
        self.tally.stale += u64::from(hit.is_stale());
        self.tally.absent += u64::from(hit.is_absent());
    }

    /// What it says may be wrong after any mutation: it has no labels.
    pub(super) fn check_error(&mut self, key: u8, begun: u64, error: &FetchError<usize>) {
        if let FetchError::Fetch(number) = error {
            self.check_read(key, begun, **number, |_, _| true);
        }
        self.tally.failed += 1;
    }

    /// Nothing that ended before the call began may replace what was read.
    fn check_read(&self, key: u8, begun: u64, number: usize, has: impl Fn(&[u8], u8) -> bool) {
        let value = &self.values[number];
        assert_eq!(value.key, key, "a value of another key");
        let newer = self.mutations.iter().find(|mutation| {
            mutation.ended < begun
                && value.read.is_some_and(|read| mutation.begun > read)
                && match mutation.scope {
                    Scope::Key(key) => value.key == key,
                    Scope::Prefix(high) => value.key / 2 == high,
                    Scope::Tag(tag) => has(&value.tags, tag),
                    Scope::Space | Scope::All => true,
                }
        });
        assert!(newer.is_none(), "call at {begun} is given {number} {value:?}, behind {newer:?}");
    }
}

pub(super) struct Running(pub(super) Arc<Mutex<Log>>, pub(super) u8);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().running[usize::from(self.1)] -= 1;
    }
}
