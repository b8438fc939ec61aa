//! `Outbox`: what this node has still to send, and what it has sent lately. It does no I/O.
//!
//! Invalidations are sent in order, many in one record, one record at a time. Each has a number;
//! the number of the first one that is not acknowledged tells the callers how far the server is. An
//! outbox that overflows keeps one flush for each namespace, or one of everything.

use std::collections::VecDeque;
use std::time::Duration;

use crate::failpoint::{Failpoint, failpoint};
use crate::invalidation::{BYTES_MAX, Invalidation, Scope};

/// How many bytes may wait.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Beyond it all that waits becomes a flush of everything.
const NAMESPACES_MAX: usize = 64;

/// How much of what was acknowledged is kept, and how long, in case that the server loses it.
const KEPT_BYTES_MAX: usize = 1 << 20;
const KEPT_FOR: Duration = Duration::from_secs(60);

/// What a waiting invalidation takes besides its bytes: the item, and allocations.
const ITEM_BYTES: usize = 128;

#[derive(Debug, Clone)]
struct Item {
    number: u64,
    invalidation: Invalidation,
}

impl Item {
    fn bytes(&self) -> usize {
        self.invalidation.bytes() + ITEM_BYTES
    }
}

#[derive(Debug)]
struct Kept {
    acknowledged_at: Duration,
    bytes: usize,
    invalidations: Vec<Invalidation>,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// By number.
    waiting: VecDeque<Item>,
    waiting_bytes: usize,
    /// The items of the record that is being sent.
    sending: Vec<Item>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
    last_number: u64,
    overflows: u64,
}

impl Outbox {
    /// Returns the number of the invalidation.
    pub(crate) fn push(&mut self, invalidation: Invalidation) -> u64 {
        self.last_number += 1;
        self.add(Item { number: self.last_number, invalidation });
        self.last_number
    }

    /// Everything up to this number is acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        let first = self.sending.first().or(self.waiting.front());
        first.map_or(self.last_number, |item| item.number - 1)
    }

    /// What the next record holds; empty when there is nothing to send. A record that was begun is
    /// the next one until it is acknowledged.
    pub(crate) fn next(&mut self) -> Vec<Invalidation> {
        let mut bytes = 0;
        if self.sending.is_empty() {
            // Bounded: by the bytes of one record.
            while let Some(item) = self.waiting.front() {
                bytes += item.invalidation.bytes();
                if bytes > BYTES_MAX && !self.sending.is_empty() {
                    break;
                }
                self.waiting_bytes -= item.bytes();
                self.sending.extend(self.waiting.pop_front());
            }
        }
        let invalidations = self.sending.iter().map(|item| item.invalidation.clone()).collect();
        if failpoint(Failpoint::SentOnce) {
            self.sending.clear();
        }
        invalidations
    }

    /// The record of [`next`](Self::next) is acknowledged.
    pub(crate) fn sent(&mut self, now: Duration) {
        let bytes = self.sending.iter().map(Item::bytes).sum();
        let invalidations = self.sending.drain(..).map(|item| item.invalidation).collect();
        self.kept_bytes += bytes;
        self.kept.push_back(Kept { acknowledged_at: now, bytes, invalidations });
        while let Some(first) = self.kept.front() {
            let is_old = first.acknowledged_at + KEPT_FOR < now;
            if !is_old && self.kept_bytes <= KEPT_BYTES_MAX {
                break;
            }
            self.kept_bytes -= first.bytes;
            self.kept.pop_front();
        }
    }

    /// The server may have lost what it had acknowledged: all that is kept is sent again. Returns
    /// how many invalidations.
    pub(crate) fn lost(&mut self) -> usize {
        self.kept_bytes = 0;
        let kept: Vec<_> = self.kept.drain(..).flat_map(|kept| kept.invalidations).collect();
        let count = kept.len();
        // Bounded: an overflow folds what waits.
        for invalidation in kept {
            self.push(invalidation);
        }
        count
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How often what waited was replaced by flushes.
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows
    }

    fn add(&mut self, item: Item) {
        self.waiting_bytes += item.bytes();
        self.waiting.push_back(item);
        if self.waiting_bytes > WAITING_BYTES_MAX {
            self.fold();
        }
    }

    /// Replaces what waits by flushes, which have the number of the first one.
    fn fold(&mut self) {
        self.overflows += 1;
        let Some(number) = self.waiting.front().map(|item| item.number) else { return };
        let (mut names, mut is_all) = (Vec::<String>::new(), false);
        for item in self.waiting.drain(..) {
            match item.invalidation.name() {
                Some(name) if names.iter().any(|it| it == name) => {}
                Some(name) if names.len() < NAMESPACES_MAX => names.push(name.to_owned()),
                _ => is_all = true,
            }
        }
        let flushes = if is_all {
            vec![Scope::All]
        } else {
            names.into_iter().map(Scope::Namespace).collect()
        };
        let item = |scope| Item { number, invalidation: Invalidation { scope, is_soft: false } };
        self.waiting.extend(flushes.into_iter().map(item));
        self.waiting_bytes = self.waiting.iter().map(Item::bytes).sum();
        // Long names.
        if self.waiting_bytes > WAITING_BYTES_MAX / 2 {
            self.waiting = VecDeque::from([item(Scope::All)]);
            self.waiting_bytes = self.waiting.iter().map(Item::bytes).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn large(namespace: &str) -> Invalidation {
        Invalidation::key(namespace, [0; BYTES_MAX / 2])
    }

    #[test]
    fn numbers_are_acknowledged_in_order() {
        let mut outbox = Outbox::default();
        assert_eq!((outbox.push(large("a")), outbox.push(large("b"))), (1, 2));
        assert_eq!(outbox.next(), [large("a")]);
        assert_eq!(outbox.next(), [large("a")], "until it is acknowledged");
        assert_eq!(outbox.acknowledged(), 0);
        outbox.sent(NOW);
        assert_eq!(outbox.acknowledged(), 1);
        assert_eq!(outbox.next(), [large("b")]);
        outbox.sent(NOW);
        assert_eq!(outbox.acknowledged(), 2);
        assert!(outbox.next().is_empty());
    }

    #[test]
    fn small_invalidations_share_a_record() {
        let mut outbox = Outbox::default();
        let keys: Vec<_> = (0..100_u32).map(|n| Invalidation::key("a", n.to_le_bytes())).collect();
        for key in &keys {
            outbox.push(key.clone());
        }
        assert_eq!(outbox.next(), keys);
    }

    #[test]
    fn an_overflow_becomes_one_flush_for_each_namespace() {
        let mut outbox = Outbox::default();
        outbox.push(Invalidation::key("first", "k"));
        // Bounded: twice what may wait.
        let pushed = (0..128).map(|n| outbox.push(large(["a", "b"][n % 2]))).max();
        assert!(outbox.overflows() > 0 && outbox.waiting_bytes <= WAITING_BYTES_MAX);
        let mut names = Vec::new();
        while let [.., _] = outbox.next()[..] {
            assert!(outbox.acknowledged() < 129);
            names.extend(outbox.next());
            outbox.sent(NOW);
        }
        assert_eq!(names[0], Invalidation::namespace("first"));
        assert!(names.contains(&Invalidation::namespace("a")));
        assert!(names.contains(&Invalidation::namespace("b")));
        assert_eq!(Some(outbox.acknowledged()), pushed);
    }

    #[test]
    fn an_overflow_of_many_namespaces_becomes_one_flush_of_everything() {
        let mut outbox = Outbox::default();
        for n in 0..128 {
            outbox.push(large(&n.to_string()));
        }
        assert_eq!(outbox.next()[0], Invalidation::all());
    }

    #[test]
    fn what_was_acknowledged_lately_is_sent_again_when_it_was_lost() {
        let mut outbox = Outbox::default();
        outbox.push(Invalidation::key("a", "old"));
        outbox.next();
        outbox.sent(NOW);
        outbox.push(Invalidation::key("a", "new"));
        outbox.next();
        outbox.sent(NOW + KEPT_FOR + Duration::from_secs(1));
        assert_eq!(outbox.lost(), 1);
        assert_eq!(outbox.next(), [Invalidation::key("a", "new")]);
        outbox.sent(NOW);
        assert_eq!(outbox.lost(), 1, "it was acknowledged once more");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut outbox = Outbox::default();
        // Bounded: four times what is kept.
        for _ in 0..256 {
            outbox.push(large("a"));
            outbox.next();
            outbox.sent(NOW);
        }
        assert!(outbox.kept_bytes <= KEPT_BYTES_MAX);
        assert!(outbox.lost() >= 32);
    }
}
