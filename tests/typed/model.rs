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

#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    Fresh,
    Stale,
    Gone,
}

/// A value, and when it is stale and gone. Times are seconds.
#[derive(Debug, Clone, Copy)]
struct Entry {
    held: Held,
    stale: u64,
    window: u64,
    /// It was made stale before its time.
    is_expired: bool,
}

type Model = HashMap<u8, Entry>;

const KEYS: u8 = 8;
const TTL: u64 = 50;

#[derive(Debug, Default)]
struct Tally {
    touched: u64,
    expired: u64,
    /// Hits on stale values, and values of calls for many.
    stale: u64,
    many: u64,
}

struct Case {
    cache: BlobCache,
    numbers: TypedNamespace<u64, Numbers>,
    model: Model,
    now: u64,
    undecoded: u64,
    misses: u64,
    fetches: u64,
    tally: Tally,
    /// The clock is the system's, and no time passes by the model.
    is_on_disk: bool,
}

impl Entry {
    fn life(&self, now: u64) -> Life {
        if now >= self.stale + self.window {
            Life::Gone
        } else if now >= self.stale {
            Life::Stale
        } else {
            Life::Fresh
        }
    }
}

impl Case {
    fn new(cache: BlobCache, numbers: TypedNamespace<u64, Numbers>, model: Model) -> Self {
        let is_on_disk = cache.stats().l2_bytes_max() > 0;
        let (tally, now) = (Tally::default(), 0);
        let (undecoded, misses, fetches) = (0, 0, 0);
        Self { cache, numbers, model, now, undecoded, misses, fetches, tally, is_on_disk }
    }

    /// The entry of a key that has one.
    fn live(&self, key: u8) -> Option<Entry> {
        self.model.get(&key).copied().filter(|entry| entry.life(self.now) != Life::Gone)
    }

    fn set(&mut self, key: u8, held: Held) {
        let stale = self.now + TTL;
        self.model.insert(key, Entry { held, stale, window: 0, is_expired: false });
    }

    fn step(&mut self, random: &mut StdRng, number: u64) {
        let key = random.random_range(0..KEYS);
        match random.random_range(0..16) {
            0 => {
                let (held, put) = drawn(random, key, number);
                block_on(self.numbers.put([key], put)).unwrap();
                self.set(key, held);
            }
            1 => {
                block_on(self.numbers.namespace().put([key], "no number")).unwrap();
                self.set(key, Held::Other);
            }
            2 => {
                let removed = block_on(self.numbers.invalidate_key([key])).unwrap();
                self.check_count(key, removed, self.live(key).is_some());
                self.model.remove(&key);
            }
            3 => {
                block_on(self.numbers.invalidate_tags(&[(key % 3).to_string()])).unwrap();
                self.model.retain(|of, entry| of % 3 != key % 3 || entry.held == Held::Other);
            }
            4 => self.put_many(random, number),
            5 | 6 => self.get_many(random),
            7 | 8 => self.touch(random, key),
            9 => {
                let expired = block_on(self.numbers.expire_key([key])).unwrap();
                let is_fresh = self.live(key).is_some_and(|it| it.life(self.now) == Life::Fresh);
                self.check_count(key, expired, is_fresh);
                self.expire(|of, _| of == key);
            }
            10 => {
                block_on(self.numbers.expire_tags(&[(key % 3).to_string()])).unwrap();
                self.expire(|of, held| of % 3 == key % 3 && held != Held::Other);
            }
            11..13 => {
                let found = block_on(self.numbers.get([key]));
                self.judge(key, found.as_ref());
            }
            _ => self.fetch(random, key, number),
        }
    }

    /// What a touch has ended on disk counts until it is read.
    fn check_count(&self, key: u8, counted: usize, expected: bool) {
        let is_uncertain = self.is_on_disk && self.model.contains_key(&key);
        assert!(counted == usize::from(expected) || (is_uncertain && counted == 1), "{key}");
    }

    fn expire(&mut self, covers: impl Fn(u8, Held) -> bool) {
        let now = self.now;
        for entry in self.model.iter_mut().filter(|(key, entry)| covers(**key, entry.held)) {
            let entry = entry.1;
            (entry.is_expired, entry.stale) = (true, entry.stale.min(now));
            self.tally.expired += 1;
        }
    }

    fn put_many(&mut self, random: &mut StdRng, number: u64) {
        let mut puts: Vec<(u8, Held, TypedPut<u64>)> = Vec::new();
        for place in 0..random.random_range(0..5) {
            let key = random.random_range(0..KEYS);
            let (held, put) = drawn(random, key, number + (place + 1) * 1_000_000);
            puts.push((key, held, put));
        }
        let items = puts.iter().map(|(key, _, put)| ([*key], put.clone()));
        let results = block_on(self.numbers.put_many(items));
        assert!(results.len() == puts.len() && results.iter().all(Result::is_ok), "{results:?}");
        // Of two for one key the later one stays.
        for (key, held, _) in puts {
            self.set(key, held);
        }
    }

    fn get_many(&mut self, random: &mut StdRng) {
        let keys: Vec<u8> =
            (0..random.random_range(0..6)).map(|_| random.random_range(0..KEYS)).collect();
        let named: Vec<[u8; 1]> = keys.iter().map(|key| [*key]).collect();
        let found = block_on(self.numbers.get_many(&named));
        assert_eq!(found.len(), keys.len());
        for (key, found) in keys.into_iter().zip(found) {
            self.judge(key, found.as_ref());
            self.tally.many += u64::from(found.is_some());
        }
    }

    /// Whatever the value is: it is not decoded.
    fn touch(&mut self, random: &mut StdRng, key: u8) {
        let (ttl, window) = if self.is_on_disk {
            (random.random_range(0..2) * 3600, random.random_range(0..2) * 3600)
        } else {
            (random.random_range(0..60), random.random_range(0..2) * 30)
        };
        let policy = BlobCachePolicy::default().ttl(seconds(ttl)).stale_serve(seconds(window));
        let touched = block_on(self.numbers.touch([key], &policy)).unwrap();
        assert_eq!(touched, self.live(key).is_some_and(|entry| !entry.is_expired));
        if touched {
            let stale = self.now + ttl;
            self.model.entry(key).and_modify(|entry| *entry = Entry { stale, window, ..*entry });
            self.tally.touched += 1;
        }
    }

    fn fetch(&mut self, random: &mut StdRng, key: u8, number: u64) {
        let (held, put) = drawn(random, key, number);
        // A stale value is fetched anew.
        let fresh = self.expect(key).filter(|(_, life)| *life == Life::Fresh);
        self.misses += u64::from(fresh.is_none());
        let fetch = move || async move { Ok::<_, std::io::Error>(put) };
        let found = block_on(self.numbers.get_or_fetch([key], fetch)).unwrap();
        if fresh.is_none() {
            self.fetches += 1;
            self.set(key, held);
        }
        assert_eq!(held_by(&found), fresh.map_or(held, |(held, _)| held));
        assert!(!found.is_stale());
    }

    /// What a call is to find. Counts what does not decode.
    fn expect(&mut self, key: u8) -> Option<(Held, Life)> {
        let entry = self.live(key)?;
        self.undecoded += u64::from(entry.held == Held::Other);
        Some((entry.held, entry.life(self.now))).filter(|(held, _)| *held != Held::Other)
    }

    fn judge(&mut self, key: u8, found: Option<&TypedHit<u64>>) {
        let expected = self.expect(key);
        self.misses += u64::from(expected.is_none());
        let life = |hit: &TypedHit<u64>| if hit.is_stale() { Life::Stale } else { Life::Fresh };
        assert_eq!(found.map(|hit| (held_by(hit), life(hit))), expected, "{key}");
        self.tally.stale += u64::from(expected.is_some_and(|(_, life)| life == Life::Stale));
    }

    fn check(&self, seed: u64) {
        let stats = self.cache.stats();
        let counted = (stats.values_undecoded(), stats.misses(), stats.fetches());
        assert_eq!(counted, (self.undecoded, self.misses, self.fetches), "seed {seed}");
    }
}

/// A value, or an absence.
fn drawn(random: &mut StdRng, key: u8, number: u64) -> (Held, TypedPut<u64>) {
    let is_absent = random.random_bool(0.2);
    let value = (!is_absent).then_some(number);
    let held = value.map_or(Held::Absence, Held::Number);
    (held, TypedPut::from(value).with_tags([(key % 3).to_string()]))
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
    let mut sum = Tally::default();
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = clock();
        let cache = open(&clock);
        let numbers = typed(&cache);
        let mut case = Case::new(cache, numbers, Model::new());
        for number in 0..200 {
            case.step(&mut random, number);
            if random.random_bool(0.1) {
                let by = random.random_range(1..30);
                clock.advance(seconds(by));
                case.now += by;
            }
            case.check(seed);
        }
        assert!(case.undecoded > 0 && case.fetches > 0);
        sum.touched += case.tally.touched;
        sum.expired += case.tally.expired;
        sum.stale += case.tally.stale;
        sum.many += case.tally.many;
    }
    println!("{sum:?}");
    assert!(sum.touched > 200 * 5 && sum.expired > 200 * 5, "{sum:?}");
    assert!(sum.stale > 100 && sum.many > 200 * 5, "{sum:?}");
}

/// No time passes but a touch may end an entry; the process ends now and then.
#[test]
#[cfg_attr(not(all(feature = "disk", target_os = "linux")), ignore = "needs a disk tier")]
fn on_disk_every_answer_equals_the_maps_over_restarts() {
    let mut touched = 0;
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut model = Model::new();
        for life in 0..4 {
            let cache = disk(folder.path());
            // Half of the lives read all from disk.
            let policy =
                BlobCachePolicy::default().ttl(seconds(3600)).l1_admission(if life % 2 == 0 {
                    tamis::L1Admission::Never
                } else {
                    tamis::L1Admission::Auto
                });
            let name = cache.namespace("below").with_policy(policy);
            let numbers = name.typed(Numbers::default());
            let mut case = Case::new(cache, numbers, model);
            for number in 0..200 {
                case.step(&mut random, life * 1000 + number);
                case.check(seed);
            }
            block_on(case.cache.close()).unwrap();
            touched += case.tally.touched;
            model = case.model;
        }
    }
    assert!(touched > 3 * 4 * 5, "{touched}");
}
