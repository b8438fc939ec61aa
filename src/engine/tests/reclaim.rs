//! What a put waits for while the oldest segment is reclaimed.

use std::time::Duration;

use super::bench::{Bench, config};
use crate::put::BlobCachePut;

const SEGMENT_BYTES: usize = 64 << 10;

const VALUE_BYTES: usize = 2000;

/// Puts that fill most of a segment: at rest the log has a whole one beside the one it writes.
const PUTS: usize = SEGMENT_BYTES * 7 / 10 / VALUE_BYTES;

/// An overwrite in Process mode waits until it is written.
#[test]
fn overwrites_go_on_while_a_reclaim_waits_for_its_reads() {
    for seed in 0..20 {
        let mut bench = Bench::with(seed, config(4096));
        let cache = bench.cache();
        let value = BlobCachePut::new(vec![7; VALUE_BYTES]);
        let overwrite = |bench: &mut Bench| {
            bench.run(cache.put("a", "k", value.clone())).unwrap();
        };
        while cache.stats().l2_reclaimed_segments() < 2 {
            overwrite(&mut bench);
        }
        // Another part of a segment is left for each seed.
        (0..seed).for_each(|_| overwrite(&mut bench));
        bench.pass(Duration::from_secs(1));
        let before = cache.stats();
        bench.disk.plan(|plan| plan.holds_reads = true);
        bench.simulation.limit_steps(100_000);
        (0..PUTS).for_each(|_| overwrite(&mut bench));
        let held = cache.stats();
        assert_eq!(held.l2_reclaimed_segments(), before.l2_reclaimed_segments(), "seed {seed}");
        bench.disk.plan(|plan| plan.holds_reads = false);
        (0..PUTS).for_each(|_| overwrite(&mut bench));
        let after = cache.stats();
        assert!(after.l2_reclaimed_segments() > held.l2_reclaimed_segments(), "seed {seed}");
    }
}
