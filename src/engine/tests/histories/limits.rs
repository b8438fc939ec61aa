//! Invariants after every step, and opens with smaller budgets than before.

use rand::RngExt;
use rand::rngs::StdRng;

use super::call::SPACES;
use super::tally::Tally;
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::footprint::SLOT_BYTES;
use crate::quota::NamespaceQuota;
use crate::stats::BlobCacheStats;

/// The share of the read budget reserved for short reads, as a divisor.
const SHORT_SHARE: usize = 4;

/// Other buffers: unwritten parts of the file, its open directory, and the compressor's 2 MiB.
const BUFFERS_BYTES_MAX: usize = (2 << 20) + (192 << 10);

/// Memory of a namespace besides the budgets.
const NAMESPACE_BYTES: usize = 1 << 10;

pub(super) fn check(
    config: &BlobCacheConfig,
    memory_most: usize,
    cache: &BlobCache,
    tally: &mut Tally,
) -> Result<(), String> {
    let stats = cache.stats();
    let reads = stats.memory_reads_bytes();
    let buffers = stats.memory_buffers_bytes() - reads;
    tally.reads_bytes_most = tally.reads_bytes_most.max(reads as u64);
    tally.buffers_bytes_most = tally.buffers_bytes_most.max(buffers as u64);
    at_most("reads", reads, config.l2_read_bytes_max / SHORT_SHARE)?;
    at_most("buffers", buffers, BUFFERS_BYTES_MAX)?;
    at_most("namespaces", stats.namespaces(), config.max_namespaces)?;
    let totals = cache.engine.parts.namespaces.totals();
    let index = totals.index_bytes + totals.synopsis_bytes;
    tally.index_bytes_most = tally.index_bytes_most.max(index as u64);
    let spaces = stats.namespaces() * NAMESPACE_BYTES;
    at_most("index", index, config.l2_index_bytes_max + spaces)?;
    at_most("memory", stats.bytes_in_use(), memory_most)
}

pub(super) fn check_opened(config: &BlobCacheConfig, stats: &BlobCacheStats) -> Result<(), String> {
    let slots = stats.l2_entries() * SLOT_BYTES;
    let index = slots + stats.memory_labels_bytes();
    at_most("the index after an open", index, config.l2_index_bytes_max)?;
    at_most("namespaces after an open", stats.namespaces(), config.max_namespaces)
}

/// A configuration with none or some of the budgets smaller than those of `full`.
pub(super) fn drawn(full: &BlobCacheConfig, random: &mut StdRng) -> BlobCacheConfig {
    let mut config = full.clone();
    if random.random_bool(0.7) {
        return config;
    }
    if random.random_bool(0.5) {
        config.l1_bytes_max = 40 << 10;
    }
    if random.random_bool(0.5) {
        // A few slots; the builder permits no such small value.
        config.l2_index_bytes_max = random.random_range(400..2000);
    }
    if random.random_bool(0.4) {
        config.max_namespaces = 1;
    }
    if random.random_bool(0.3) {
        let quota = NamespaceQuota { l1_bytes_max: None, l2_bytes_max: Some(16 << 10) };
        config.quotas.set(SPACES[random.random_range(0..SPACES.len())], quota);
    }
    config
}

pub(super) fn is_smaller(config: &BlobCacheConfig, full: &BlobCacheConfig) -> bool {
    let budgets = |of: &BlobCacheConfig| {
        let quotas = SPACES.map(|space| of.quota(space));
        (of.l1_bytes_max, of.l2_index_bytes_max, of.max_namespaces, quotas)
    };
    budgets(config) != budgets(full)
}

fn at_most(what: &str, held: usize, most: usize) -> Result<(), String> {
    if held <= most { Ok(()) } else { Err(format!("{what}: {held} are more than {most}")) }
}
