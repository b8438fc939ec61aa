//! What all targets have in common. What they do is in `src/fuzz` of the library.

use tamis::fuzz::Target;

/// Runs a target of the library, within the memory that an input of that length justifies.
///
/// # Panics
/// If the bytes break a promise, or take more memory.
pub fn check(name: &str, bytes: &[u8]) {
    let target = Target::named(name).expect("a target of that name");
    let memory = allocation_counter::measure(|| target.run(bytes));
    let most = target.memory_max(bytes.len());
    assert!(memory.bytes_max <= most, "{name} takes {} bytes at once", memory.bytes_max);
}
