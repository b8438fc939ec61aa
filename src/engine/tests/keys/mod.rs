//! Listings against what gets find, in both tiers: through evictions, reclaim, dropped
//! invalidations, expiries, closes and kills. While nothing changes they are exact; while others
//! put and invalidate, each key that has an entry all the while is listed.
//!
//! `TAMIS_RUNS` sets the number of seeds, `TAMIS_SEED` runs one alone.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod laboratory;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Poll;

use futures::StreamExt;
use rand::RngExt;

use self::laboratory::{Laboratory, PREFIXES, Setting, Step, keys_of, tag};
use crate::batch::yield_now;
use crate::engine::tests::bench::seeds_of;
use crate::failpoint::{Failpoint, plant};
use crate::keys::{KeyEntry, KeysQuery};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const PLAIN: Setting =
    Setting { key_hash_bits: 64, is_roomy: false, is_held: false, has_disk: true };

const HELD: Setting = Setting { is_held: true, ..PLAIN };

const ROOMY: Setting = Setting { is_roomy: true, ..PLAIN };

const SETTINGS: [Setting; 5] = [
    PLAIN,
    HELD,
    ROOMY,
    Setting { key_hash_bits: 8, ..PLAIN },
    Setting { has_disk: false, is_roomy: true, ..PLAIN },
];

/// What a query asks for: a prefix, tags, and details.
#[derive(Debug, Clone)]
struct Asked {
    prefix: &'static [u8],
    tags: Option<Vec<u8>>,
    is_detailed: bool,
}

impl Asked {
    fn draw(laboratory: &mut Laboratory) -> Self {
        let random = &mut laboratory.random;
        let prefix = PREFIXES[random.random_range(0..PREFIXES.len())];
        let tags = (0..random.random_range(0..4)).map(|_| random.random_range(0..4)).collect();
        let tags = random.random_bool(0.3).then_some(tags);
        Self { prefix, tags, is_detailed: random.random_bool(0.3) }
    }

    fn query(&self) -> KeysQuery {
        let mut query = KeysQuery::from(self.prefix);
        if let Some(tags) = &self.tags {
            query = query.tags(tags.iter().map(|it| tag(*it)));
        }
        if self.is_detailed { query.details() } else { query }
    }

    fn matches(&self, key: &[u8], tags: &[u8]) -> bool {
        let wanted = self.tags.as_ref();
        key.starts_with(self.prefix)
            && wanted.is_none_or(|it| it.iter().any(|it| tags.contains(it)))
    }
}

/// Compares a listing with gets, while nothing else goes on.
fn check(laboratory: &mut Laboratory) {
    laboratory.settle();
    let space = laboratory.space();
    let asked = Asked::draw(laboratory);
    let keys = laboratory.cache().keys(space, asked.query());
    let listed: Vec<KeyEntry> = laboratory.bench.run(keys.collect());
    let hits = laboratory.hits(space);
    let expected: BTreeMap<_, _> = hits
        .iter()
        .filter(|(key, hit)| asked.matches(key, &laboratory.put_of(hit.value()).tags))
        .collect();
    let names: BTreeSet<&[u8]> = listed.iter().map(KeyEntry::key).collect();
    let shown = |keys: &[u8]| keys.escape_ascii().to_string();
    let told = || listed.iter().map(|it| shown(it.key())).collect::<Vec<_>>();
    assert_eq!(names.len(), listed.len(), "{space:?}, {asked:?}: twice: {:?}", told());
    let missing = expected.keys().filter(|key| !names.contains(key.as_slice()));
    let missing: Vec<_> = missing.map(|key| shown(key)).collect();
    assert!(missing.is_empty(), "{space:?}, {asked:?}: missing {missing:?} of {:?}", told());
    for entry in &listed {
        let hit = expected.get(&entry.key().to_vec());
        let hit = hit.unwrap_or_else(|| {
            panic!("{space:?}, {asked:?}: {} is listed, and not found", shown(entry.key()))
        });
        let put = laboratory.put_of(hit.value());
        assert_eq!(entry.version(), hit.version(), "{asked:?}");
        assert!(entry.bytes() > 0);
        assert!(entry.has_details() || !(asked.is_detailed || asked.tags.is_some()));
        assert!(entry.is_stale().is_none_or(|is_stale| is_stale == hit.is_stale()), "{asked:?}");
        assert!(entry.gone_at() >= hit.expires_at());
        if entry.has_details() {
            assert_eq!(entry.is_stale(), Some(hit.is_stale()));
            assert_eq!(entry.written_at(), Some(hit.written_at()));
            assert_eq!(entry.expires_at(), hit.expires_at());
            assert_eq!(entry.stale_window_remaining(), hit.stale_window_remaining());
            assert!(entry.tags().eq(put.tags.iter().map(|it| tag(*it))));
            assert!(entry.dependencies().eq(put.dependency().iter().map(String::as_str)));
        }
    }
    laboratory.tally.listed += listed.len();
    laboratory.tally.checks += 1;
}

fn quiet(seed: u64, setting: Setting) -> Laboratory {
    let mut laboratory = Laboratory::new(seed, setting);
    for _ in 0..300 {
        let step = Step::draw(&mut laboratory);
        laboratory.run(step);
        if laboratory.random.random_bool(0.1) {
            check(&mut laboratory);
        }
    }
    check(&mut laboratory);
    laboratory
}

#[test]
fn a_listing_is_exact_while_nothing_changes() {
    for setting in SETTINGS {
        let mut all = [0; 5];
        for seed in seeds_of(40) {
            let lived = catch_unwind(AssertUnwindSafe(|| quiet(seed, setting)));
            let Ok(laboratory) = lived else { panic!("TAMIS_SEED={seed} of {setting:?} fails") };
            let tally = laboratory.tally;
            let figures =
                [tally.checks, tally.listed, tally.kills, tally.reclaimed, tally.reinserted];
            all.iter_mut().zip(figures).for_each(|(all, figure)| *all += figure);
        }
        println!("{setting:?}: checks, listed, kills, reclaimed, reinserted: {all:?}");
        if seeds_of(40).count() >= 20 {
            assert!(all[1] > 2 * all[0], "{all:?}");
            let is_full = setting.has_disk && !setting.is_roomy;
            assert!(!setting.has_disk || all[2] > 100, "{all:?}");
            assert!(!is_full || all[3] > 300, "{all:?}");
            assert!(!is_full || (all[4] > 100) != setting.is_held, "{all:?}");
        }
    }
}

/// A listing, with calls between its polls.
fn under_writes(seed: u64, setting: Setting) -> Result<usize, String> {
    let mut laboratory = Laboratory::new(seed, setting);
    for _ in 0..laboratory.random.random_range(20..250) {
        let step = Step::draw(&mut laboratory);
        laboratory.run(step);
    }
    laboratory.settle();
    let space = laboratory.space();
    let asked = Asked::draw(&mut laboratory);
    let hits = laboratory.hits(space);
    let mut ever: BTreeSet<Vec<u8>> = hits.keys().cloned().collect();
    let mut lasting: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for (key, hit) in hits {
        let put = laboratory.put_of(hit.value());
        if asked.matches(&key, &put.tags) {
            lasting.insert(key, put.number);
        }
    }
    let mut stream = laboratory.cache().keys(space, asked.query());
    let (mut listed, mut put) = (Vec::new(), BTreeSet::new());
    let pace = laboratory.random.random_range(1..40);
    for turn in 0.. {
        let polled = laboratory.bench.run(async {
            yield_now().await;
            poll_fn(|context| Poll::Ready(stream.poll_next_unpin(context))).await
        });
        match polled {
            Poll::Ready(Some(entry)) => {
                if !ever.contains(entry.key()) {
                    let key = entry.key().escape_ascii();
                    return Err(format!("{key} is listed, and was never there"));
                }
                listed.push(entry.into_key());
            }
            Poll::Ready(None) => break,
            Poll::Pending => {}
        }
        assert!(turn < 200_000, "it does not end");
        // Now and then so many that segments are reclaimed between two polls.
        let count = match laboratory.random.random_range(0..20 * pace) {
            0 => laboratory.random.random_range(20..100),
            1..20 => 1,
            _ => 0,
        };
        for _ in 0..if turn < 2000 { count } else { 0 } {
            let step = Step::draw_mutation(&mut laboratory);
            if let Some((key, tags)) = step.put_into(space) {
                put.insert(key.to_vec());
                ever.insert(key.to_vec());
                lasting.retain(|it, _| it != key || asked.matches(key, tags));
            }
            laboratory.run(step.clone());
            let cache = laboratory.cache();
            let is_there = |key: &Vec<u8>| cache.exists(space, key).may_exist();
            lasting.retain(|key, _| is_there(key) && !step.ends(space, key));
        }
    }
    laboratory.settle();
    let after = laboratory.numbers(space);
    // One that is as it was has been there all the while; where nothing is lost, a newer one too.
    lasting
        .retain(|key, number| after.get(key).is_some_and(|now| now == number || setting.is_roomy));
    if let Some(key) = lasting.keys().find(|key| !listed.contains(key)) {
        return Err(format!("{asked:?}: {} was there, and is not listed", key.escape_ascii()));
    }
    let mut once = BTreeSet::new();
    let twice = listed.into_iter().find(|key| !put.contains(key) && !once.insert(key.clone()));
    // Reclaim may append a record again that was listed.
    match twice.filter(|_| setting.is_roomy) {
        Some(key) => Err(format!("{asked:?}: {} is listed twice", key.escape_ascii())),
        None => Ok(lasting.len()),
    }
}

#[test]
fn a_listing_under_writes_has_all_that_stays_and_nothing_that_never_was() {
    for setting in SETTINGS {
        let mut lasting = 0;
        for seed in seeds_of(60) {
            match under_writes(seed, setting) {
                Ok(count) => lasting += count,
                Err(what) => panic!("TAMIS_SEED={seed} of {setting:?} fails: {what}"),
            }
        }
        assert!(lasting as u64 > 2 * seeds_of(60).end, "{setting:?}: {lasting}");
    }
}

/// While a listing is in the first segment, the log comes round. What reclaim appends again was
/// there all the while. Gives the keys that stayed, and those that were listed.
fn overtaken() -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let mut laboratory = Laboratory::new(2, PLAIN);
    let cache = laboratory.cache();
    let put = |laboratory: &mut Laboratory, space, key: &[u8], bytes| {
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let put = BlobCachePut::new(vec![0; bytes]).with_policy(policy);
        laboratory.bench.run(cache.put(space, key, put)).unwrap();
    };
    // More than a segment, and then all that the log has room for.
    keys_of().for_each(|key| put(&mut laboratory, "a", &key, 1200));
    laboratory.settle();
    for _ in 0..2 {
        assert_eq!(laboratory.hits("a").len(), keys_of().count(), "all are in use");
    }
    let mut stream = cache.keys("a", "");
    let first = laboratory.bench.run(stream.next()).unwrap();
    let begun = cache.stats().l2_reclaimed_segments();
    for number in 0u32.. {
        if cache.stats().l2_reclaimed_segments() >= begun + 4 {
            break;
        }
        assert!(number < 1000, "no segment is reclaimed");
        put(&mut laboratory, "ab", &number.to_le_bytes(), 3000);
    }
    let rest: Vec<KeyEntry> = laboratory.bench.run(stream.collect());
    let listed = [first].into_iter().chain(rest).map(KeyEntry::into_key).collect();
    laboratory.settle();
    (laboratory.hits("a").into_keys().collect(), listed)
}

#[test]
fn a_listing_that_reclaim_overtakes_has_what_was_appended_again() {
    let (stayed, listed) = overtaken();
    assert!(stayed.len() > 5, "{} are left", stayed.len());
    let missing: Vec<_> = stayed.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let _planted = plant(Failpoint::ListedGone);
    let (stayed, listed) = overtaken();
    assert!(!stayed.is_subset(&listed), "ListedGone is not found");
}

/// The first seed that finds the bug.
fn found(failpoint: Failpoint, seeds: u64, fails: impl Fn(u64) -> bool) {
    let _planted = plant(failpoint);
    let found = (0..seeds).find(|seed| fails(*seed));
    println!("{failpoint:?}: found by seed {found:?}");
    assert!(found.is_some(), "{failpoint:?} is not found in {seeds} seeds");
}

fn fails_quiet(seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| quiet(seed, PLAIN))).is_err()
}

#[test]
fn a_listing_that_does_not_ask_the_slot() {
    found(Failpoint::ListedUnchecked, 20, fails_quiet);
}

#[test]
fn a_listing_that_forgets_what_it_has_listed() {
    found(Failpoint::ListedTwice, 20, fails_quiet);
}

#[test]
fn a_listing_ends_with_the_cache_and_with_its_namespace() {
    let mut laboratory = Laboratory::new(1, PLAIN);
    let cache = laboratory.cache();
    let fill = |laboratory: &mut Laboratory| {
        for key in keys_of() {
            laboratory.bench.run(cache.put("a", &key, "value")).unwrap();
        }
    };
    let count = |laboratory: &mut Laboratory, space| {
        let keys = laboratory.cache().keys(space, "");
        laboratory.bench.run(keys.count())
    };
    fill(&mut laboratory);
    assert_eq!(count(&mut laboratory, "a"), keys_of().count());
    assert_eq!(count(&mut laboratory, "never put into"), 0);
    let mut flushed = cache.keys("a", "");
    assert!(laboratory.bench.run(flushed.next()).is_some());
    assert_eq!(laboratory.bench.run(cache.invalidate_namespace("a")), Ok(true));
    fill(&mut laboratory);
    assert_eq!(laboratory.bench.run(flushed.next()), None, "what was there is gone");
    assert_eq!(count(&mut laboratory, "a"), keys_of().count());
    let (mut begun, mut new) = (cache.keys("a", ""), cache.keys("a", ""));
    assert!(laboratory.bench.run(begun.next()).is_some());
    laboratory.bench.run(cache.close()).unwrap();
    assert_eq!(laboratory.bench.run(begun.next()), None);
    assert_eq!(laboratory.bench.run(begun.next()), None, "again");
    assert_eq!(laboratory.bench.run(new.next()), None);
}
