//! Labels invalidated in several namespaces at one moment.

use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::join_all;

use super::super::bench::{Bench, made, two_tiers};
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::put::BlobCachePut;
use crate::scope::NamespaceScope;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn fill(bench: &mut Bench) {
    let cache = bench.cache();
    for name in NAMES {
        bench.run(cache.put(name, "tagged", made("old", &["t", "u"]))).unwrap();
        bench.run(cache.put(name, "other", made("kept", &["u"]))).unwrap();
    }
    bench.run(cache.sync()).unwrap();
}

fn found(bench: &mut Bench, key: &str) -> Vec<&'static str> {
    let cache = bench.cache();
    NAMES.into_iter().filter(|name| bench.run(cache.get(name, key)).is_some()).collect()
}

#[test]
fn one_record_says_so_for_all_of_them_and_survives_a_kill() {
    let scopes =
        [(NamespaceScope::All, 3, &[][..]), (NamespaceScope::from(&["c", "a", "c"]), 2, &["b"])];
    for (scope, removed, left) in scopes {
        let mut bench = Bench::new(1);
        fill(&mut bench);
        let cache = bench.cache();
        assert_eq!(bench.run(cache.invalidate_tags(scope, &["t", "none"])), Ok(removed));
        // A flush of one of them says nothing about the others.
        assert_eq!(bench.run(cache.invalidate_namespace("a")), Ok(true));
        drop(cache);
        bench.kill();
        assert_eq!(found(&mut bench, "tagged"), left, "{scope:?}");
        assert_eq!(found(&mut bench, "other"), ["b", "c"], "{scope:?}");
    }
}

/// A call is dropped after any number of polls. From its first one on it is in force everywhere.
#[test]
fn dropped_at_any_await_it_is_in_force_everywhere() {
    for polls in 1..12 {
        let mut bench = Bench::new(polls);
        fill(&mut bench);
        let cache = bench.cache();
        let labels = ["t"];
        let mut call = Box::pin(cache.invalidate_tags(NamespaceScope::All, &labels));
        for _ in 0..polls {
            if call.as_mut().now_or_never().is_some() {
                break;
            }
            bench.pass(Duration::from_micros(20));
        }
        drop(call);
        assert!(found(&mut bench, "tagged").is_empty(), "after {polls} polls");
        assert_eq!(found(&mut bench, "other"), NAMES);
        bench.run(cache.sync()).unwrap();
        drop(cache);
        bench.kill();
        assert!(found(&mut bench, "tagged").is_empty(), "after {polls} polls and a kill");
    }
}

/// What was read before the call is not stored after it, even into a name that was not in use.
#[test]
fn a_fill_that_was_read_before_is_refused_in_a_namespace_that_begins_later() {
    let mut bench = Bench::new(1);
    fill(&mut bench);
    let cache = bench.cache();
    let point = cache.read_point();
    assert_eq!(bench.run(cache.invalidate_tags(NamespaceScope::All, &["t"])), Ok(3));
    let put = |label: &str| BlobCachePut::new("v").with_tags([label]).read_at(point);
    for (name, label, stored) in [("a", "t", false), ("new", "t", false), ("new", "u", true)] {
        bench.run(cache.put(name, label, put(label))).unwrap();
        assert_eq!(bench.run(cache.get(name, label)).is_some(), stored, "{name} {label}");
    }
    let put = BlobCachePut::new("v").with_dependencies(["t"]).read_at(point);
    bench.run(cache.put("new", "dependent", put)).unwrap();
    assert!(bench.run(cache.get("new", "dependent")).is_some(), "a dependency is no tag");
}

/// More namespaces than invalidations may be pending, and more labels than a record has room for.
#[test]
fn many_namespaces_and_labels_in_one_call() {
    const SPACES: usize = 300;
    let config = BlobCacheConfig::builder()
        .max_namespaces(SPACES)
        .l2_path("simulated")
        .l2_bytes_max(64 << 20)
        .l2_segment_bytes(32 << 10)
        .build()
        .unwrap();
    let mut bench = Bench::with(1, config);
    let cache = bench.cache();
    let tags: Vec<String> = (0..4).map(|tag| format!("t{tag}")).collect();
    for space in 0..SPACES {
        let put = BlobCachePut::new("old").with_tags(&tags);
        bench.run(cache.put(&space.to_string(), "k", put)).unwrap();
    }
    bench.run(cache.sync()).unwrap();
    let calls = (0..3).map(|_| cache.invalidate_tags(NamespaceScope::All, &tags));
    let removed = bench.run(join_all(calls));
    assert_eq!(removed.into_iter().map(Result::unwrap).sum::<usize>(), SPACES);
    drop(cache);
    bench.kill();
    let cache: BlobCache = bench.cache();
    for space in 0..SPACES {
        assert!(bench.run(cache.get(&space.to_string(), "k")).is_none(), "{space}");
    }
}

/// A call waits until fewer are pending, and is dropped: it flushes what it was to cover.
#[test]
fn dropped_while_it_waits_for_others_it_flushes_its_namespaces() {
    let clock = Clock::manual(SystemTime::UNIX_EPOCH);
    let mut bench = Bench::with(1, two_tiers(&clock).build().unwrap());
    fill(&mut bench);
    let cache = bench.cache();
    let mut others = Vec::new();
    // Each is in force after one poll, and not yet carried out.
    for number in 0..256 {
        let key = format!("p{number}");
        bench.run(cache.put("p", &key, made("x", &[&key]))).unwrap();
    }
    for number in 0..256 {
        let cache = cache.clone();
        let mut other =
            Box::pin(async move { cache.invalidate_tags("p", &[format!("p{number}")]).await });
        assert!(other.as_mut().now_or_never().is_none());
        others.push(other);
    }
    let mut call = Box::pin(cache.invalidate_tags(&["a", "b"], &["t"]));
    assert!(call.as_mut().now_or_never().is_none());
    drop(call);
    assert_eq!(found(&mut bench, "tagged"), ["c"]);
    assert_eq!(bench.run(cache.invalidate_tags("c", &["t"])), Ok(1));
    assert_eq!(found(&mut bench, "other"), ["c"], "one that was not dropped flushes nothing");
    drop(others);
}
