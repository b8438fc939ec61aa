//! Values that tasks fetch: read when the fetch is called, and stored at any time after that.

use super::{Checker, Effect, NEVER, Scope};
use crate::engine::tests::histories::call::{FullKey, Put};

impl Checker {
    /// The origin is read.
    pub(in super::super) fn begin_fetch(&mut self, full_key: FullKey, put: Put) {
        let number = put.number;
        self.begin(number, Scope::Key(full_key), Some(put));
        let mutation = &mut self.mutations[self.full_keys[&number]];
        (mutation.is_fetch, mutation.known) = (true, mutation.begun);
    }

    /// The origin has answered: the deadlines count from now.
    pub(in super::super) fn fetched(&mut self, number: u32, clock: u64) {
        self.mutations[self.full_keys[&number]].clock = Some(clock);
    }

    pub(in super::super) fn failed(&mut self, number: u32, clock: u64) {
        self.end(number, Effect::None, clock);
    }

    /// A caller has the value: it is stored, or will not be.
    pub(in super::super) fn given(&mut self, number: u32, clock: u64) {
        let is_open = |at: &usize| self.mutations[*at].ended == NEVER;
        if self.full_keys.get(&number).is_some_and(is_open) {
            self.end(number, Effect::Possible, clock);
        }
    }

    /// The caller of a fetch has gone, if there was a fetch.
    pub(in super::super) fn left(&mut self, number: u32) {
        self.left.insert(number);
    }

    pub(in super::super) fn has_left(&self, number: u32) -> bool {
        self.left.contains(&number)
    }
}
