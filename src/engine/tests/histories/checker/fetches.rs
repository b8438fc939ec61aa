//! Values that tasks fetch: read when the fetch is called, and stored at any time after that.

use super::{Asked, Checker, Effect, NEVER, Scope};
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

    /// The call of a fetch was answered.
    pub(in super::super) fn was_answered(&mut self, number: u32, clock: u64) {
        let now = self.tick();
        self.answered.insert(number, (now, clock));
    }

    /// A call was given the error of a fetch. What that had seen must not have changed before the
    /// call.
    pub(in super::super) fn was_given_error(
        &self,
        number: u32,
        full_key: FullKey,
        asked: Asked,
    ) -> Result<(), String> {
        let failed = &self.mutations[self.full_keys[&number]];
        if failed.full_key() != Some(full_key) {
            return Err(format!("a fetch of {full_key:?} is given the error of {failed:?}"));
        }
        // Once the call that has failed was answered, its error is given only while it is held.
        let answered = self.answered.get(&number).filter(|(tick, _)| *tick < asked.begun);
        let pause =
            self.fetch_policies[full_key.space].retry_after.map_or(0, |pause| pause.as_secs());
        if let Some((_, clock)) = answered.filter(|(_, clock)| asked.clock >= clock + pause) {
            return Err(format!(
                "a fetch of {full_key:?}, {asked:?}, is given the error of {failed:?}, whose call \
                 was answered at {clock}"
            ));
        }
        // An error has no labels.
        let changed = self.mutations.iter().find(|other| {
            let covers = match other.scope {
                Scope::Tag(..)
                | Scope::TagEverywhere(_)
                | Scope::Dependency(..)
                | Scope::DependencyEverywhere(_) => false,
                _ => other.covers(failed),
            };
            covers
                && other.touch.is_none()
                && other.begun > failed.begun
                && other.ended < asked.begun
                && other.is_certain(asked.life)
        });
        match changed {
            Some(changed) => Err(format!(
                "a fetch of {full_key:?}, {asked:?}, is given the error of {failed:?}, behind \
                 {changed:?}"
            )),
            None => Ok(()),
        }
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

    pub(in super::super) fn may_time_out(&self, full_key: FullKey) -> bool {
        self.fetch_policies[full_key.space].hard_timeout.is_some()
    }

    /// Whether another fetch policy than that of its namespace would be the cache's.
    pub(in super::super) fn has_own_policy(&self, full_key: FullKey) -> bool {
        full_key.space != 0 && self.fetch_policies[full_key.space] != self.fetch_policies[0]
    }
}
