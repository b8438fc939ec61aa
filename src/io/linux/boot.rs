//! Identifies the current boot of the machine.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};

/// If the kernel does not tell, every start counts as another boot. Reads a file.
pub(super) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).map(char::from);
    // Bounded: by a short text.
    let digits: Vec<u32> = digits.filter_map(|digit| digit.to_digit(16)).collect();
    let mut id = [0; 16];
    if digits.len() == 32 {
        // Bounded: sixteen.
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).unwrap_or(0);
        }
        return id;
    }
    let random = RandomState::new().build_hasher().finish();
    id[..8].copy_from_slice(&random.to_le_bytes());
    id
}
