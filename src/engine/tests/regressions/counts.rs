//! An entry on disk counts once, for the first mutation that removed it, and so do its labels.

use super::*;
use crate::sweep::SweepLimit;

/// Polls once: the call is in force, and waits for its record.
fn begun<'a, T>(future: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    let mut future: BoxFuture<'a, T> = Box::pin(future);
    assert!((&mut future).now_or_never().is_none(), "it waits for its record");
    future
}

#[test]
fn an_overwritten_entry_counts_for_the_invalidation_that_covered_it() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        for key in ["k1", "k2", "k3"] {
            bench.put(key, "old", &["t"]);
        }
        let cache = bench.cache.clone();
        let tags = begun(cache.invalidate_tags("a", &["t"]));
        let put = cache.put("a", "k1", made("new", &[]));
        assert!(bench.simulation.block_on(put).unwrap().is_ok());
        let again = bench.simulation.block_on(cache.invalidate_key("a", "k2")).unwrap();
        assert_eq!(again, Ok(0), "it was gone");
        assert_eq!(bench.simulation.block_on(tags).unwrap(), Ok(3), "seed {seed}");
        assert_eq!(bench.get("k1").as_deref(), Some("new"));

        let mut bench = Bench::new(seed);
        for key in ["k1", "k2", "k3"] {
            bench.put(key, "old", &["t"]);
        }
        let cache = bench.cache.clone();
        let prefix = begun(cache.invalidate_prefix("a", "k"));
        let put = cache.put("a", "k1", made("new", &["t"]));
        let put = begun(put);
        let key = begun(cache.invalidate_key("a", "k2"));
        // Only later puts are left for the tag.
        let tags = begun(cache.invalidate_tags("a", &["t"]));
        assert_eq!(bench.simulation.block_on(tags).unwrap(), Ok(1), "seed {seed}");
        assert_eq!(bench.simulation.block_on(prefix).unwrap(), Ok(3), "seed {seed}");
        assert_eq!(bench.simulation.block_on(key).unwrap(), Ok(0));
        assert!(bench.simulation.block_on(put).unwrap().is_ok());
        assert_eq!(cache.stats().invalidations(), 4);
    }
}

#[test]
fn labels_are_removed_with_their_entries_in_any_tier() {
    let labels = |bench: &Bench| bench.cache.stats().memory_labels_bytes();
    let mut bench = Bench::new(1);
    let cache = bench.cache.clone();
    bench.put("k1", "old", &["t", "u", "v"]);
    bench.put("k2", "old", &["t"]);
    let each = labels(&bench) / 4;
    assert!(each > 0);
    bench.put("k1", "new", &["t"]);
    assert_eq!(labels(&bench), 2 * each, "an overwrite");
    bench.simulation.block_on(cache.invalidate_key("a", "k2")).unwrap().unwrap();
    assert_eq!(labels(&bench), each, "an invalidation");
    bench.simulation.block_on(cache.invalidate_namespace("a")).unwrap().unwrap();
    let runner = bench.simulation.task_runner();
    bench.simulation.block_on(runner.sleep(Duration::from_secs(5))).unwrap();
    assert_eq!(labels(&bench), 0, "a flush");
}

#[test]
fn a_sweep_finishes_a_dropped_invalidation_by_label() {
    let mut bench = Bench::new(1);
    let cache = bench.cache();
    bench.run(async {
        for number in 0..600 {
            cache.put("a", format!("k{number}"), made("v", &["t"])).await.unwrap();
        }
        cache.sync().await.unwrap();
    });
    drop(begun(cache.invalidate_tags("a", &["t"])));
    let some = bench.run(cache.sweep_expired(SweepLimit::Entries(100)));
    assert_eq!((some.entries_visited, some.entries_removed(), some.truncated), (100, 100, true));
    let rest = bench.run(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
    assert_eq!(rest.namespaces["a"].dead, 500, "the call removed nothing by itself");
    assert_eq!((rest.bytes_removed(), rest.truncated), (0, false));
    let stats = cache.stats();
    assert_eq!((stats.memory_labels_bytes(), stats.invalidations()), (0, 600));
}
