//! Bad input is an error that changes nothing: no entry, value, deadline, label or figure, no byte
//! on file, and nothing that a restart would show.
//!
//! A store that a bad call has met is compared with its twin that was left alone: at once, after a
//! kill, and after a close.

use std::time::{Duration, SystemTime};

use futures::StreamExt;

use super::{CALLS, Call, Given, Variants, beyond_limits, documented, typed, variant};
use crate::clock::Clock;
use crate::engine::tests::bench::{Bench, config};
use crate::figures::FigureUnit;
use crate::keys::{KeyEntry, KeysQuery};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;

/// Errors that say what is wrong with the arguments.
const OF_ARGUMENTS: [&str; 9] = [
    "AtIndex",
    "BlobTooLarge",
    "InvalidConfig",
    "KeyTooLarge",
    "LabelsTooLarge",
    "MetadataTooLarge",
    "NamespaceTooLarge",
    "TooManyNamespaces",
    "VersionMismatch",
];

/// A version is read from disk where memory does not know it, and a refusal is counted.
const MAY_DIFFER: [&str; 4] =
    ["l2_metadata_reads", "l2_read_bytes", "l2_reads", "version_mismatches"];

/// What a cache shows.
#[derive(Debug, PartialEq)]
struct Shown {
    entries: Vec<KeyEntry>,
    values: Vec<Option<Vec<u8>>>,
    figures: Vec<(&'static str, f64)>,
}

fn shown(bench: &mut Bench) -> Shown {
    let cache = bench.cache();
    // What has no effect writes nothing; a cache that is closed cannot.
    let _ = bench.run(cache.sync());
    let listing = cache.keys("a", KeysQuery::default().details());
    let mut entries: Vec<_> = bench.run(listing.collect());
    entries.sort_by(|one, other| one.key().cmp(other.key()));
    let values = ["k", "in memory"].map(|key| {
        let hit = bench.run(cache.get("a", key));
        hit.map(|hit| hit.into_bytes().to_vec())
    });
    let figures = cache.stats().figures();
    let figures = figures.filter(|it| it.unit() != FigureUnit::Seconds);
    let figures = figures.map(|figure| (figure.name(), figure.value()));
    let figures = figures.filter(|(name, _)| !MAY_DIFFER.contains(name)).collect();
    Shown { entries, values: values.into(), figures }
}

/// A store with an entry on disk and one in memory as well, which each call could change; then the
/// call, and what is there at once, after a kill, and after a close.
fn life(call: Option<(Call, &Given)>) -> (Option<String>, [Shown; 3]) {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
    let mut config = config(64);
    (config.clock, config.max_namespaces) = (clock, 1);
    let mut bench = Bench::with(1, config);
    let cache = bench.cache();
    let minute = Duration::from_secs(60);
    let policy = BlobCachePolicy::default().ttl(minute).stale_serve(minute).version(9);
    for (key, admission) in [("k", L1Admission::Never), ("in memory", L1Admission::Auto)] {
        let policy = policy.clone().l1_admission(admission);
        bench.run(cache.put("a", key, Given::default().put.with_policy(policy))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    let error = call.and_then(|(call, given)| bench.run(call(cache.clone(), given.clone())));
    let at_once = shown(&mut bench);
    drop(cache);
    bench.kill();
    let killed = shown(&mut bench);
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
    let closed = shown(&mut bench);
    (error.map(|error| variant(&error)), [at_once, killed, closed])
}

fn bad() -> impl Iterator<Item = Given> {
    let old = BlobCachePolicy::default().version(3);
    let old = Given { put: Given::default().put.with_policy(old), ..Given::default() };
    let another = Given { namespace: "another".into(), ..Given::default() };
    beyond_limits().into_iter().chain([old, another])
}

#[test]
fn bad_input_is_an_error_that_changes_nothing() {
    let (documented, twin) = (documented(), life(None).1);
    for &(name, call) in CALLS.iter().chain(typed::CALLS) {
        let mut met = Variants::new();
        for given in bad() {
            let (error, shown) = life(Some((call, &given)));
            // Others take effect: not every call takes all of the arguments.
            if let Some(error) = error.filter(|error| OF_ARGUMENTS.contains(&error.as_str())) {
                assert_eq!(shown, twin, "{name}: {error}");
                met.insert(error);
            }
        }
        let of_arguments = |error: &&String| OF_ARGUMENTS.contains(&error.as_str());
        let expected: Variants = documented[name].iter().filter(of_arguments).cloned().collect();
        assert_eq!(met, expected, "{name}, met and documented");
    }
}

/// So that the comparison would show it if a call with bad input did.
#[test]
fn each_call_with_good_input_changes_what_is_compared() {
    let twin = life(None).1;
    for &(name, call) in CALLS.iter().chain(typed::CALLS) {
        let (error, shown) = life(Some((call, &Given::default())));
        assert_eq!(error, None, "{name}");
        assert_ne!(shown[0], twin[0], "{name}");
    }
}
