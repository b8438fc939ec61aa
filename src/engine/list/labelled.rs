//! `LabelWalk`: lists what carries any of some labels, by their postings, oldest first. What is put
//! meanwhile comes last, so a walk that reaches the end has passed over nothing.

use std::collections::VecDeque;

use crate::batch::{BATCH_ENTRIES, Pacer};
use crate::commit_lock::CommitLock;
use crate::engine::list::judge::{Judge, Listed};
use crate::entry::Entry;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::LabelHash;
use crate::keys::KeyEntry;
use crate::labels::Posting;
use crate::sequence::Sequence;

/// Postings that are taken in one section.
const POSTINGS: usize = BATCH_ENTRIES / 2;

/// Of those that are added meanwhile it visits so many, and as many as there were before.
const ADDED: usize = 4096;

pub(super) struct LabelWalk {
    /// Sorted, without duplicates.
    labels: Vec<LabelHash>,
    /// The label that is under way.
    number: usize,
    /// The last sequence when it began.
    begun: Sequence,
    /// The postings that it met last, and those of them that are still to be listed.
    met: Vec<Posting>,
    found: VecDeque<Posting>,
    /// Postings that were there when it began, and that were added since.
    visited: (usize, usize),
}

impl LabelWalk {
    pub(super) fn new(mut labels: Vec<LabelHash>, commit_lock: &CommitLock) -> Self {
        labels.sort_unstable();
        labels.dedup();
        let begun = commit_lock.section().last_sequence();
        let (met, found) = (Vec::new(), VecDeque::new());
        Self { labels, number: 0, begun, met, found, visited: (0, 0) }
    }

    pub(super) async fn next(
        &mut self,
        (judge, listed): (&Judge, &Listed),
        commit_lock: &CommitLock,
        steps: &mut Pacer,
    ) -> Option<KeyEntry> {
        loop {
            steps.entry().await;
            let Some(posting) = self.found.pop_front() else {
                steps.entries(BATCH_ENTRIES).await;
                self.visit(commit_lock, listed)?;
                continue;
            };
            let now = judge.sequence(&listed.generation, posting.key);
            // Another mutation has its own posting, unless it came after the walk had begun: then
            // that one may be seen too late.
            if now.is_none_or(|now| now != posting.sequence && now <= self.begun) {
                continue;
            }
            let is_wanted = |entry: &Entry| {
                let has = |label: &LabelHash| self.labels.binary_search(label).is_ok();
                // Bounded: by the labels of one entry.
                entry.labels().iter().any(has) && entry.key.starts_with(&listed.prefix)
            };
            let found = judge.current(&listed.generation, posting.key, is_wanted).await;
            if found.is_some() {
                return found;
            }
        }
    }

    /// Takes the next postings. None at the end.
    fn visit(&mut self, commit_lock: &CommitLock, listed: &Listed) -> Option<()> {
        let label = *self.labels.get(self.number)?;
        let mut found = Vec::new();
        let mut section = commit_lock.section();
        let postings = listed.generation.labels(&mut section);
        postings.oldest(label, (&self.met, Sequence(u64::MAX)), POSTINGS, &mut found);
        let is_last = found.len() < POSTINGS;
        let (before, added) = &mut self.visited;
        // Bounded: by a batch.
        let old = found.iter().filter(|posting| posting.sequence <= self.begun).count();
        (*before, *added) = (*before + old, *added + found.len() - old);
        let is_overtaken = *added > *before + ADDED;
        self.met.clone_from(&found);
        // Entries with several of the labels are listed by the first.
        let is_first = |posting: &Posting| {
            let earlier = self.labels.get(..self.number).unwrap_or_default();
            // Bounded: by the labels of one entry.
            let mut of_entry = postings.of(posting.key, posting.sequence).into_iter();
            earlier.is_empty()
                || failpoint(Failpoint::ListedTwice)
                || !of_entry.any(|label| earlier.binary_search(&label).is_ok())
        };
        // Bounded: by a batch.
        self.found.extend(found.into_iter().filter(is_first));
        if is_last || is_overtaken {
            self.number += 1;
            self.met.clear();
            self.visited = (0, 0);
        }
        Some(())
    }
}
