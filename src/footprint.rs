//! Memory footprints, so that the budget means resident bytes.
//!
//! The figures model common general-purpose allocators: a header of one word, size classes of 16
//! bytes, whole pages for large allocations. `examples/memory.rs` compares them with the resident
//! memory of a process.

use std::collections::BTreeMap;

/// From this size, an allocation is a mapping in whole pages.
const MAPPED_BYTES: usize = 128 << 10;
const PAGE_BYTES: usize = 4096;

/// A slot of the lookup table in the worst case: (hash, pointer, control byte) at a load just over
/// a third. A table doubles at 7/8, or earlier when tombstones fill it.
pub(crate) const TABLE_SLOT_BYTES: usize = 48;

/// One posting: label, key, sequence and links, with the buckets that lead to it and all slack.
pub(crate) const POSTING_BYTES: usize = 52;

/// A slot of the disk index with all slack, and its share of the synopsis.
pub(crate) const SLOT_BYTES: usize = 32;

/// One leaf of a `BTreeMap<String, String>`: eleven pairs and a word of bookkeeping.
const METADATA_LEAF_BYTES: usize = 11 * 2 * size_of::<String>() + 16;

pub(crate) const fn allocation(bytes: usize) -> usize {
    if bytes == 0 {
        0
    } else if bytes >= MAPPED_BYTES {
        (bytes + 16).next_multiple_of(PAGE_BYTES)
    } else if bytes <= 24 {
        32
    } else {
        (bytes + size_of::<usize>()).next_multiple_of(16)
    }
}

/// An entry of so many bytes in a `BTreeMap` or a `BTreeSet`: its share of the nodes. Ascending
/// insertions leave six of eleven entries in each, and seven nodes below one.
pub(crate) const fn tree_entry(bytes: usize) -> usize {
    const ENTRIES: usize = 6;
    let node = 11 * bytes + 16;
    let links = 12 * size_of::<usize>();
    let nodes = (ENTRIES + 1) * allocation(node) + allocation(node + links);
    nodes.div_ceil((ENTRIES + 1) * ENTRIES + ENTRIES)
}

/// What a small allocation may take beside its own bytes.
pub(crate) const ALLOCATION_BYTES: usize = allocation(1) - 1;

/// The heap memory of a map whose strings have no spare capacity.
pub(crate) fn metadata(map: &BTreeMap<String, String>) -> usize {
    if map.is_empty() {
        return 0;
    }
    // Bounded: by the metadata of one entry.
    let strings: usize =
        map.iter().map(|(key, value)| allocation(key.len()) + allocation(value.len())).sum();
    let leaves = if map.len() <= 11 { 1 } else { map.len().div_ceil(6) };
    strings + leaves * allocation(METADATA_LEAF_BYTES)
}
