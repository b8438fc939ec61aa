//! Listings while others write, step by step.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::laboratory::{Laboratory, keys_of};
use super::{HELD, Setting};
use crate::failpoint::{Failpoint, plant};
use crate::keys::{BlobCacheKeys, KeysQuery};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

const IN_MEMORY: Setting = Setting { has_disk: false, is_roomy: true, ..HELD };

fn put(laboratory: &mut Laboratory, key: (&str, &str), tags: &[&str], priority: u8) {
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always).priority(priority);
    let made = BlobCachePut::new("value").with_tags(tags.iter().copied()).with_policy(policy);
    let cache = laboratory.cache();
    laboratory.bench.run(cache.put(key.0, key.1, made)).unwrap();
}

/// How often each key comes, with a call after each.
fn counted(
    laboratory: &mut Laboratory,
    mut keys: BlobCacheKeys,
    mut between: impl FnMut(&mut Laboratory, usize),
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for number in 0.. {
        assert!(number < 20_000, "it does not end");
        let Some(entry) = laboratory.bench.run(keys.next()) else { break };
        *counts.entry(String::from_utf8(entry.into_key()).unwrap()).or_default() += 1;
        between(laboratory, number);
    }
    counts
}

/// Between two looks at the postings all are replaced that were met.
fn quiet_among_many() -> usize {
    let mut laboratory = Laboratory::new(1, IN_MEMORY);
    let put_many = |laboratory: &mut Laboratory| {
        for number in 0..300 {
            put(laboratory, ("a", &number.to_string()), &["t"], 128);
        }
    };
    put(&mut laboratory, ("a", "quiet"), &["t"], 128);
    put_many(&mut laboratory);
    let keys = laboratory.cache().keys("a", KeysQuery::default().tags(["t"]));
    let counts = counted(&mut laboratory, keys, |laboratory, number| {
        if number % 100 == 0 {
            put_many(laboratory);
        }
    });
    counts["quiet"]
}

#[test]
fn a_listing_by_tag_that_is_slower_than_the_puts_ends_and_repeats_no_quiet_key() {
    assert_eq!(quiet_among_many(), 1);
    let _planted = plant(Failpoint::ListedAgain);
    assert!(quiet_among_many() > 1, "ListedAgain is not found");
}

/// A key with the one tag gets the other one, too, once the first key with that is listed.
fn has_moved(one: &str, other: &str) -> bool {
    let mut laboratory = Laboratory::new(1, IN_MEMORY);
    put(&mut laboratory, ("a", "moves"), &[one], 128);
    put(&mut laboratory, ("a", "first"), &[other], 128);
    let keys = laboratory.cache().keys("a", KeysQuery::default().tags([one, other]));
    let counts = counted(&mut laboratory, keys, |laboratory, number| {
        if number == 0 {
            put(laboratory, ("a", "moves"), &[one, other], 128);
        }
    });
    counts.contains_key("moves")
}

#[test]
fn a_key_that_gets_an_earlier_tag_than_the_one_under_way_is_listed() {
    // The order of their hashes counts.
    let both = || [has_moved("s", "t"), has_moved("t", "s")];
    assert_eq!(both(), [true; 2]);
    let _planted = plant(Failpoint::ListedByEarlier);
    // The hashes are random.
    assert!((0..64).any(|_| both() != [true; 2]), "ListedByEarlier is not found");
}

/// Others change the priority of a key of theirs.
fn most_often_beside_others() -> usize {
    let mut laboratory = Laboratory::new(1, IN_MEMORY);
    for number in 0..50 {
        put(&mut laboratory, ("a", &number.to_string()), &[], 128);
    }
    let keys = laboratory.cache().keys("a", "");
    let counts = counted(&mut laboratory, keys, |laboratory, number| {
        let priority = if number % 2 == 0 { 127 } else { 129 };
        put(laboratory, ("ab", "k"), &[], priority);
    });
    assert_eq!(counts.len(), 50);
    counts.into_values().max().unwrap()
}

#[test]
fn a_quiet_key_in_memory_comes_once_while_others_put() {
    assert_eq!(most_often_beside_others(), 1);
    let _planted = plant(Failpoint::ListedTwice);
    assert!(most_often_beside_others() > 1, "ListedTwice is not found");
}

/// The log loses all of it after the first key. Memory holds it.
fn listed_of_lost() -> usize {
    let mut laboratory = Laboratory::new(2, HELD);
    let cache = laboratory.cache();
    let put = |laboratory: &mut Laboratory, space, key: &[u8]| {
        let put = BlobCachePut::new(vec![0; 1200])
            .with_policy(BlobCachePolicy::default().l1_admission(L1Admission::Always));
        laboratory.bench.run(cache.put(space, key, put)).unwrap();
    };
    keys_of().for_each(|key| put(&mut laboratory, "a", &key));
    laboratory.settle();
    let mut keys = cache.keys("a", "");
    assert!(laboratory.bench.run(keys.next()).is_some());
    let begun = cache.stats().l2_reclaimed_segments();
    for number in 0u32.. {
        if cache.stats().l2_reclaimed_segments() >= begun + 4 {
            break;
        }
        assert!(number < 1000, "no segment is reclaimed");
        put(&mut laboratory, "ab", &number.to_le_bytes());
    }
    1 + laboratory.bench.run(keys.count())
}

#[test]
fn a_key_in_memory_is_listed_though_its_record_leaves_the_log_before_its_turn() {
    assert_eq!(listed_of_lost(), keys_of().count());
    let _planted = plant(Failpoint::ListedUnheld);
    assert!(listed_of_lost() < keys_of().count(), "ListedUnheld is not found");
}
