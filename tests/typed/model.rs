//! Random operations on typed values, and on bytes under the same keys, against a map.

use std::collections::HashMap;

use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::{BlobCache, BlobCachePolicy, TypedHit, TypedNamespace, TypedPut};

use crate::codecs::Numbers;
use crate::{clock, disk, open, seconds};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Number(u64),
    Absence,
    /// Bytes of no number.
    Other,
}

/// A value and when it is stale.
type Model = HashMap<u8, (Held, u64)>;

const TTL: u64 = 50;

struct Case {
    cache: BlobCache,
    numbers: TypedNamespace<u64, Numbers>,
    model: Model,
    /// Seconds.
    now: u64,
    undecoded: u64,
    misses: u64,
    fetches: u64,
}

impl Case {
    fn is_fresh(&self, key: u8) -> Option<Held> {
        self.model.get(&key).filter(|(_, end)| self.now < *end).map(|(held, _)| *held)
    }

    fn set(&mut self, key: u8, held: Held) {
        self.model.insert(key, (held, self.now + TTL));
    }

    fn step(&mut self, random: &mut StdRng, number: u64) {
        let key = random.random_range(0..8);
        let held = if random.random_bool(0.2) { Held::Absence } else { Held::Number(number) };
        let value = match held {
            Held::Number(number) => Some(number),
            _ => None,
        };
        let put = TypedPut::from(value).with_tags([(key % 3).to_string()]);
        match random.random_range(0..10) {
            0 => {
                block_on(self.numbers.put([key], put)).unwrap();
                self.set(key, held);
            }
            1 => {
                block_on(self.numbers.namespace().put([key], "no number")).unwrap();
                self.set(key, Held::Other);
            }
            2 => {
                let removed = block_on(self.numbers.invalidate_key([key])).unwrap();
                assert_eq!(removed, usize::from(self.is_fresh(key).is_some()));
                self.model.remove(&key);
            }
            3 => {
                block_on(self.numbers.invalidate_tags(&[(key % 3).to_string()])).unwrap();
                let is_kept = |of: u8, held: Held| of % 3 != key % 3 || held == Held::Other;
                self.model.retain(|of, (held, _)| is_kept(*of, *held));
            }
            4..7 => self.get(key),
            _ => {
                let expected = self.expect(key);
                self.misses += u64::from(expected.is_none());
                let fetch = move || async move { Ok::<_, std::io::Error>(put) };
                let found = block_on(self.numbers.get_or_fetch([key], fetch)).unwrap();
                if expected.is_none() {
                    self.fetches += 1;
                    self.set(key, held);
                }
                assert_eq!(held_by(&found), expected.unwrap_or(held));
            }
        }
    }

    /// What a call is to find. Counts what does not decode.
    fn expect(&mut self, key: u8) -> Option<Held> {
        let held = self.is_fresh(key);
        self.undecoded += u64::from(held == Some(Held::Other));
        held.filter(|held| *held != Held::Other)
    }

    fn get(&mut self, key: u8) {
        let expected = self.expect(key);
        self.misses += u64::from(expected.is_none());
        let found = block_on(self.numbers.get([key]));
        assert_eq!(found.as_ref().map(held_by), expected);
    }
}

fn held_by(hit: &TypedHit<u64>) -> Held {
    hit.value().map_or(Held::Absence, |number| Held::Number(*number))
}

fn typed(cache: &BlobCache) -> TypedNamespace<u64, Numbers> {
    let policy = BlobCachePolicy::default().ttl(seconds(TTL));
    cache.namespace("n").with_policy(policy).typed(Numbers::default())
}

#[test]
fn in_memory_every_answer_equals_the_maps() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = clock();
        let cache = open(&clock);
        let numbers = typed(&cache);
        let (model, now) = (Model::new(), 0);
        let mut case = Case { cache, numbers, model, now, undecoded: 0, misses: 0, fetches: 0 };
        for number in 0..200 {
            case.step(&mut random, number);
            if random.random_bool(0.1) {
                let by = random.random_range(1..30);
                clock.advance(seconds(by));
                case.now += by;
            }
            let stats = case.cache.stats();
            let counted = (stats.values_undecoded(), stats.misses(), stats.fetches());
            assert_eq!(counted, (case.undecoded, case.misses, case.fetches), "seed {seed}");
        }
        assert!(case.undecoded > 0 && case.fetches > 0);
    }
}

/// Nothing expires; the process ends now and then.
#[test]
fn on_disk_every_answer_equals_the_maps_over_restarts() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut model = Model::new();
        for life in 0..4 {
            let cache = disk(folder.path());
            // Half of the lives read all from disk.
            let name = cache.namespace("below").with_policy(
                BlobCachePolicy::default().l1_admission(if life % 2 == 0 {
                    tamis::L1Admission::Never
                } else {
                    tamis::L1Admission::Auto
                }),
            );
            let numbers = name.typed(Numbers::default());
            let now = 0;
            let mut case = Case { cache, numbers, model, now, undecoded: 0, misses: 0, fetches: 0 };
            for number in 0..150 {
                case.step(&mut random, life * 1000 + number);
                let stats = case.cache.stats();
                let counted = (stats.values_undecoded(), stats.misses(), stats.fetches());
                assert_eq!(counted, (case.undecoded, case.misses, case.fetches), "seed {seed}");
            }
            block_on(case.cache.close()).unwrap();
            model = case.model;
        }
    }
}
