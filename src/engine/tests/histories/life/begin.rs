//! How the calls of a history begin.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Calls, History};
use crate::cache::BlobCache;
use crate::engine::tests::histories::budget::resize_memory;
use crate::engine::tests::histories::call::{Call, FullKey, Put, Scope, Verb, numbers_of_many};
use crate::engine::tests::histories::checker::Asked;
use crate::engine::tests::histories::fetch::{Origin, fetch};
use crate::engine::tests::histories::manner::{Manner, patient, with_waker, yields};
use crate::engine::tests::histories::many::{
    Outcome, get_many, invalidate_keys, keys, put_many, resize, sync, touch,
};
use crate::engine::tests::histories::typed;
use crate::error::CacheError;
use crate::sweep::SweepLimit;

type Mutating = BoxFuture<'static, Result<usize, CacheError>>;

impl History {
    pub(super) fn asked(&mut self) -> Asked {
        Asked { begun: self.checker.lock().tick(), clock: self.clock, life: self.life }
    }

    pub(super) fn get(&mut self, full_key: FullKey) -> BoxFuture<'static, Outcome> {
        let (asked, cache) = (self.asked(), self.cache.clone());
        if full_key.is_typed() {
            return typed::get(cache, asked, full_key);
        }
        Box::pin(async move {
            Outcome::Got(full_key, asked, cache.get(full_key.namespace(), full_key.name()).await)
        })
    }

    fn origin(&self) -> Origin {
        let (checker, clock) = (Arc::clone(&self.checker), self.config.clock.clone());
        Origin { checker, runner: Arc::new(self.simulation.task_runner()), clock }
    }

    pub(super) fn begin(&mut self, number: u32, call: &Call, calls: &mut Calls) {
        let Some(future) = self.future(number, call) else { return };
        let manner = if self.setting.is_plain { Manner::PLAIN } else { call.manner };
        let future = with_waker(future, (number, manner), &self.cache, &self.deeds);
        let what = (number, format!("{:?}", call.verb));
        calls.begin(what, future, manner.nap, self.simulation.steps());
    }

    fn future(&mut self, number: u32, call: &Call) -> Option<BoxFuture<'static, Outcome>> {
        let (cache, polls) = (self.cache.clone(), call.polls);
        Some(match call.verb.clone() {
            Verb::Get(full_key) => self.get(full_key),
            Verb::Fetch(full_key, how) => {
                fetch(cache, self.origin(), self.asked(), (full_key, how), polls)
            }
            Verb::Keys(space, prefix) => keys(cache, self.asked(), space, prefix),
            Verb::GetMany(full_keys) if full_keys[0].is_typed() => {
                typed::get_many(cache, self.asked(), full_keys)
            }
            Verb::GetMany(full_keys) => get_many(cache, self.asked(), full_keys),
            Verb::Exists(full_key) => {
                let presence = cache.exists(full_key.namespace(), full_key.name());
                Box::pin(ready(Outcome::Existed(full_key, self.asked(), presence)))
            }
            Verb::Pass(seconds) => {
                self.clock += seconds;
                self.config.clock.advance(Duration::from_secs(seconds));
                return None;
            }
            Verb::Sync => sync(cache, number % 3 == 0, self.setting.has_faults),
            Verb::Resize(_) if self.setting.is_roomy => return None,
            Verb::Resize(segments) => resize(cache, segments, self.setting.has_faults),
            Verb::ResizeMemory(bytes) => {
                resize_memory(cache, Arc::clone(&self.memory), bytes, polls)
            }
            Verb::Sweep => Box::pin(async move {
                cache.sweep_expired(SweepLimit::Entries(1000)).await;
                Outcome::Nothing
            }),
            mutation => self.mutation(number, mutation, polls),
        })
    }

    fn mutation(&mut self, number: u32, verb: Verb, polls: u32) -> BoxFuture<'static, Outcome> {
        let cache = self.cache.clone();
        let mutating = match verb {
            Verb::PutMany(items) => {
                for (full_key, put) in &items {
                    self.checker.lock().begin(put.number, Scope::Key(*full_key), Some(put.clone()));
                }
                return put_many(cache, self.asked(), items, polls);
            }
            Verb::InvalidateKeys(full_keys) => {
                let numbers: Vec<_> = numbers_of_many(number).zip(full_keys).collect();
                for (number, full_key) in &numbers {
                    self.checker.lock().begin(*number, Scope::Key(*full_key), None);
                }
                return invalidate_keys(cache, self.asked(), numbers, polls);
            }
            Verb::Touch(full_key, how) => {
                self.checker.lock().begin_touch(number, full_key, how);
                let (of, touched) = ((number, self.asked()), (full_key, how));
                if full_key.is_typed() {
                    return typed::touch(cache, of, touched, polls);
                }
                return touch(cache, of, touched, polls);
            }
            Verb::Put(full_key, put) => {
                self.checker.lock().begin(number, Scope::Key(full_key), Some(put.clone()));
                putting(cache, full_key, put)
            }
            Verb::Invalidate(scope) => {
                self.checker.lock().begin(number, scope, None);
                Box::pin(async move { scope.invalidate(&cache).await })
            }
            Verb::Expire(scope) => {
                self.checker.lock().begin_expiry(number, scope);
                Box::pin(async move { scope.expire(&cache).await })
            }
            verb => unreachable!("{verb:?} is no mutation"),
        };
        let asked = self.asked();
        Box::pin(async move { Outcome::Mutated(number, asked, patient(mutating, polls).await) })
    }
}

fn putting(cache: BlobCache, full_key: FullKey, put: Put) -> Mutating {
    let point = put.is_fill.then(|| cache.read_point());
    let turns = if put.is_fill { put.number % 16 } else { 0 };
    Box::pin(async move {
        let blob = put.blob();
        let blob = if let Some(it) = point { blob.read_at(it) } else { blob };
        // Reading the value of a fill takes time.
        yields(turns).await;
        let put = if full_key.is_typed() {
            typed::put(&cache, full_key, blob).await
        } else {
            cache.put(full_key.namespace(), full_key.name(), blob).await
        };
        put.map(|()| 0)
    })
}
