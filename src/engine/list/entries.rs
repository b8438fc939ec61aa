//! `EntryWalk`: lists the entries that only memory can tell of, in the order of its lists. An entry
//! that is replaced keeps its place there, so none is passed over because it was put again.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::engine::list::judge::{Judge, Listed};
use crate::entry::Entry;
use crate::key::KeyHash;
use crate::keys::KeyEntry;
use crate::l1::{Cursor, L1};
use crate::sequence::Sequence;

pub(super) struct EntryWalk {
    /// None at the end.
    cursor: Option<Cursor>,
    /// A batch, by hash: entries would keep their values alive.
    found: VecDeque<KeyHash>,
    /// See [`L1::moves`], when it began.
    moves: u64,
    /// Only entries after this one.
    after: Option<Sequence>,
}

impl EntryWalk {
    pub(super) fn new(l1: &L1, after: Option<Sequence>) -> Self {
        let (cursor, found) = (Some(Cursor::default()), VecDeque::new());
        Self { cursor, found, moves: l1.moves(), after }
    }

    /// Whether it may have passed over keys, whose entries went to another list.
    pub(super) fn has_passed_over(&self, l1: &L1) -> bool {
        self.moves != l1.moves()
    }

    /// The next entry. `is_listed`: the walk over the records has listed it.
    pub(super) async fn next(
        &mut self,
        (l1, judge, listed): (&L1, &Judge, &Listed),
        is_listed: impl Fn(&Entry) -> bool + Send,
        steps: &mut Pacer,
    ) -> Option<KeyEntry> {
        loop {
            steps.entry().await;
            let Some(hash) = self.found.pop_front() else {
                steps.entries(BATCH_ENTRIES).await;
                self.visit(l1, listed)?;
                continue;
            };
            let held = judge.held(&listed.generation, hash);
            let is_wanted = |entry: &Arc<Entry>| {
                entry.key.starts_with(&listed.prefix)
                    && self.after.is_none_or(|after| entry.sequence() > after)
            };
            let held = held.filter(is_wanted);
            let entry = held.filter(|entry| !is_listed(entry));
            if let Some(entry) = entry.and_then(|entry| judge.entry(&entry)) {
                return Some(entry);
            }
        }
    }

    fn visit(&mut self, l1: &L1, listed: &Listed) -> Option<()> {
        let mut found = Vec::new();
        self.cursor = l1.visit(self.cursor?, BATCH_ENTRIES, &mut found);
        let is_of = |entry: &&Arc<Entry>| {
            Arc::ptr_eq(&entry.generation, &listed.generation)
                && entry.key.starts_with(&listed.prefix)
        };
        // Bounded: by a batch.
        self.found.extend(found.iter().filter(is_of).map(|entry| entry.hash));
        Some(())
    }
}
