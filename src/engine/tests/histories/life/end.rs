//! How the calls of a history end, and are judged.

use super::History;
use crate::engine::tests::histories::call::FullKey;
use crate::engine::tests::histories::checker::{Asked, Effect};
use crate::engine::tests::histories::fetch::{fetched, found};
use crate::engine::tests::histories::many::Outcome;
use crate::engine::tests::histories::typed::{self, ValueHit};
use crate::error::CacheError;
use crate::hit::{BlobCacheHit, CachePresence};

impl History {
    pub(super) fn end(&mut self, outcome: Outcome) -> Result<(), String> {
        self.hear()?;
        match outcome {
            Outcome::Nothing => Ok(()),
            Outcome::Wrong(what) => Err(what),
            Outcome::Each(outcomes) => outcomes.into_iter().try_for_each(|it| self.end(it)),
            Outcome::Existed(full_key, asked, CachePresence::Present) => {
                self.checker.lock().existed(full_key, asked)
            }
            Outcome::Existed(..) => Ok(()),
            Outcome::Unlisted(full_key, asked) => self.checker.lock().unlisted(full_key, asked),
            Outcome::Got(full_key, asked, hit) => self.got(full_key, asked, hit),
            Outcome::GotTyped(full_key, asked, hit) => self.got_typed(full_key, asked, hit),
            Outcome::Fetched(number, full_key, asked, answer) => {
                let (of, answer) = ((number, full_key, asked), (answer, self.clock));
                fetched(&mut self.checker.lock(), &mut self.tally, of, answer)
            }
            Outcome::Touched(number, asked, result) => {
                self.tally.touched += u64::from(result == Some(Ok(true)));
                self.checker.lock().touched(
                    number,
                    asked,
                    result,
                    (self.clock, self.setting.has_faults),
                )
            }
            Outcome::Resized(Ok(changed)) => {
                let is_smaller = changed.check()?;
                self.tally.budgets += 1;
                self.tally.budgets_smaller += u64::from(is_smaller);
                Ok(())
            }
            Outcome::Resized(Err(CacheError::Closed)) => Ok(()),
            Outcome::Resized(Err(error)) => Err(format!("a change of memory fails: {error}")),
            Outcome::Mutated(number, asked, result) => self.mutated(number, asked, result),
        }
    }

    fn got(
        &mut self,
        full_key: FullKey,
        asked: Asked,
        hit: Option<BlobCacheHit>,
    ) -> Result<(), String> {
        self.tally.gets += 1;
        hit.iter().for_each(|hit| self.tally.hit(hit));
        let found = hit.map(|hit| found(&hit, asked.clock)).transpose()?;
        let mut checker = self.checker.lock();
        if let Some(found) = found {
            self.tally.left += u64::from(checker.has_left(found.number));
            self.tally.defaults += u64::from(checker.is_default(found.number));
        }
        checker.got(full_key, asked, found)
    }

    fn got_typed(
        &mut self,
        full_key: FullKey,
        asked: Asked,
        hit: Option<ValueHit>,
    ) -> Result<(), String> {
        let Some(hit) = hit else {
            self.tally.gets += 1;
            return self.checker.lock().missed_typed(full_key, asked);
        };
        self.tally.typed += 1;
        self.got(full_key, asked, Some(typed::checked(&hit, None)?))
    }

    fn mutated(
        &mut self,
        number: u32,
        asked: Asked,
        result: Option<Result<usize, CacheError>>,
    ) -> Result<(), String> {
        let mut checker = self.checker.lock();
        let effect = match result {
            Some(Err(CacheError::VersionMismatch { existing, .. })) => {
                return checker.mismatched(number, asked, existing, self.clock);
            }
            Some(Err(CacheError::L2Io { .. })) if self.setting.has_faults => {
                Effect::CertainInLife(self.life)
            }
            Some(Err(CacheError::VersionUnknown { .. })) if self.setting.has_faults => Effect::None,
            // In force from its first poll, if the log has room.
            None if self.setting.is_roomy && checker.is_invalidation(number) => {
                Effect::CertainInLife(self.life)
            }
            Some(Err(CacheError::TooManyNamespaces { max: 1 })) => Effect::None,
            // It may have taken effect before the close.
            None | Some(Err(CacheError::Closed)) => Effect::Possible,
            Some(Err(error)) => return Err(format!("call {number} fails: {error}")),
            Some(Ok(count)) => {
                let is_over_namespaces = count > 0 && checker.is_over_namespaces(number);
                self.tally.over_namespaces += u64::from(is_over_namespaces);
                Effect::Certain
            }
        };
        self.tally.dropped += u64::from(result.is_none());
        checker.end(number, effect, self.clock);
        Ok(())
    }
}
