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

/// Of those that are added meanwhile it visits so many, and as many as the namespace had before.
const ADDED: usize = 4096;

pub(super) struct LabelWalk {
    /// Sorted, without duplicates.
    labels: Vec<LabelHash>,
    /// Up to which sequence the postings of each were listed: those of later ones are newer.
    reached: Vec<Option<Sequence>>,
    /// The label that is under way, and whether its walk is over.
    number: usize,
    is_over: bool,
    /// The last sequence when it began.
    begun: Sequence,
    /// The postings that it met last, and those of them that are still to be listed.
    met: Vec<Posting>,
    found: VecDeque<Posting>,
    /// How many that were added since it still visits. None until the label is under way.
    left: Option<usize>,
}

impl LabelWalk {
    /// `labels`: sorted, without duplicates.
    pub(super) fn new(labels: Vec<LabelHash>, commit_lock: &CommitLock) -> Self {
        let (begun, reached) = (commit_lock.section().last_sequence(), vec![None; labels.len()]);
        let (met, found) = (Vec::new(), VecDeque::new());
        Self { labels, reached, number: 0, is_over: false, begun, met, found, left: None }
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
            if self.is_listed(posting, commit_lock, (listed, steps)).await {
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

    /// Whether an earlier label has listed the entry of a posting. A put that came after the walk
    /// of that label was over has not been listed by it.
    async fn is_listed(
        &self,
        Posting { key, sequence }: Posting,
        commit_lock: &CommitLock,
        (listed, steps): (&Listed, &mut Pacer),
    ) -> bool {
        let earlier = self.labels.get(..self.number).unwrap_or_default();
        if earlier.is_empty() || failpoint(Failpoint::ListedTwice) {
            return false;
        }
        // A section for each: the chain of a bucket may be long.
        let labels = listed.generation.labels(&mut commit_lock.section()).of(key, sequence);
        steps.entries(labels.len().min(BATCH_ENTRIES)).await;
        let has_listed = |number: usize| {
            let reached = self.reached.get(number).copied().flatten();
            reached >= Some(sequence) || failpoint(Failpoint::ListedByEarlier)
        };
        // Bounded: by the labels of one entry.
        labels.iter().any(|label| earlier.binary_search(label).is_ok_and(has_listed))
    }

    /// Takes the next postings. None at the end.
    fn visit(&mut self, commit_lock: &CommitLock, listed: &Listed) -> Option<()> {
        if self.is_over {
            self.number += 1;
            (self.is_over, self.left) = (false, None);
            self.met.clear();
        }
        let label = *self.labels.get(self.number)?;
        let reached = self.reached.get_mut(self.number)?;
        let mut met = Vec::with_capacity(POSTINGS);
        let count = {
            let mut section = commit_lock.section();
            let postings = listed.generation.labels(&mut section);
            postings.oldest(label, (&self.met, Sequence(u64::MAX)), POSTINGS, &mut met);
            postings.len()
        };
        let left = self.left.get_or_insert(count + ADDED);
        let before = *reached;
        // If all that it met last are gone, it is at the oldest again, and passes over those that
        // it has met before.
        let is_new = |posting: &&Posting| {
            Some(posting.sequence) > before || failpoint(Failpoint::ListedAgain)
        };
        // Bounded: by a batch.
        for posting in met.iter().filter(is_new) {
            *left = left.saturating_sub(usize::from(posting.sequence > self.begun));
            *reached = Some(posting.sequence).max(*reached);
            self.found.push_back(*posting);
        }
        self.is_over = met.len() < POSTINGS || *left == 0;
        self.met = met;
        Some(())
    }
}
