//! What holds where nothing is evicted: misses need a reason, and one of two versions wins.

use super::{Asked, Checker, Effect, Mutation};
use crate::engine::tests::histories::call::FullKey;

impl Checker {
    /// If nothing is evicted, a miss needs a reason as well. The caller can decode the values of
    /// some numbers.
    pub(super) fn missed(
        &mut self,
        full_key: FullKey,
        asked: Asked,
        decodes: impl Fn(u32) -> bool,
    ) -> Result<(), String> {
        if !self.is_roomy || self.is_closed {
            let is_told = self.missed_told(full_key, asked, decodes)?;
            self.misses_told += u64::from(is_told);
            return Ok(());
        }
        let mut lasting = self.lasting(full_key, asked, decodes);
        match lasting.find(|put| self.stands(put, self.now)) {
            Some(put) => Err(format!("a get of {full_key:?}, {asked:?}, misses {put:?}")),
            None => Ok(()),
        }
    }

    /// Puts that have certainly taken effect before a read, and have no ttl.
    pub(super) fn lasting(
        &self,
        full_key: FullKey,
        asked: Asked,
        decodes: impl Fn(u32) -> bool,
    ) -> impl Iterator<Item = &Mutation> {
        self.mutations.iter().filter(move |mutation| {
            mutation.full_key() == Some(full_key)
                && mutation.effect == Effect::Certain
                && mutation.ended < asked.begun
                && decodes(mutation.number)
                && mutation.put.as_ref().is_some_and(|put| put.ttl.is_none())
        })
    }

    /// Whether no other mutation can have touched the put until then.
    pub(super) fn stands(&self, put: &Mutation, until: u64) -> bool {
        !self.mutations.iter().any(|other| {
            other.number != put.number
                && other.effect != Effect::None
                && other.begun < until
                && other.ended > put.begun
                && other.covers(put)
        })
    }

    /// Of concurrent puts with one version for one key, exactly one wins.
    pub(in super::super) fn check_races(&self) -> Result<(), String> {
        let versioned = |mutation: &&Mutation| {
            mutation.effect == Effect::Certain
                && mutation
                    .put
                    .as_ref()
                    .is_some_and(|put| put.version.is_some() && put.ttl.is_none())
        };
        let puts: Vec<&Mutation> = self.mutations.iter().filter(versioned).collect();
        for (at, first) in puts.iter().enumerate() {
            for second in &puts[at + 1..] {
                let version = |put: &Mutation| put.put.as_ref().and_then(|put| put.version);
                let is_ordered = first.ended < second.begun;
                let is_race = first.full_key() == second.full_key()
                    && (version(first) == version(second)
                        || (is_ordered && version(first) > version(second)));
                let span = (first.begun.min(second.begun), first.ended.max(second.ended));
                let is_alone = |other: &Mutation| {
                    other.number == first.number
                        || other.number == second.number
                        || other.effect == Effect::None
                        || other.begun > span.1
                        || other.ended < span.0
                        || !other.covers(first)
                };
                if self.is_roomy && is_race && self.mutations.iter().all(is_alone) {
                    return Err(format!("both have won: {first:?} and {second:?}"));
                }
            }
        }
        Ok(())
    }
}
