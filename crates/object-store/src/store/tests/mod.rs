//! The model: a history of every state of every path, and random callers whose answers are judged
//! by it; and bugs that it finds.

mod failpoints;
mod history;
mod model;
mod told;

use super::{CachedObjectStore, get_result, object_store};

const KIB: u64 = 1024;

/// Bytes that tell their place.
fn content(seed: u64, length: u64) -> Vec<u8> {
    let words = (0..length.div_ceil(8)).flat_map(|word| (seed << 32 | word).to_le_bytes());
    words.take(usize::try_from(length).unwrap()).collect()
}
