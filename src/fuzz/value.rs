//! Values that say which put made them, so that no mixture of two passes for one.

pub(super) const SPACES: [&str; 2] = ["a", "b"];

/// Keys of a namespace.
pub(super) const KEYS: u8 = 12;

pub(super) const TAGS: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FullKey {
    pub(super) space: usize,
    pub(super) key: u8,
}

impl FullKey {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SPACES.len()).flat_map(|space| (0..KEYS).map(move |key| Self { space, key }))
    }

    /// From any byte.
    pub(super) fn of(byte: u8) -> Self {
        Self { space: usize::from(byte >> 7), key: (byte & 0x7f) % KEYS }
    }

    pub(super) fn namespace(self) -> &'static str {
        SPACES[self.space]
    }

    /// Prefixes select by the first byte.
    pub(super) fn name(self) -> [u8; 2] {
        [self.key / 4, self.key]
    }
}

pub(super) fn tag(number: u8) -> String {
    format!("tag{number}")
}

/// The value of a put: its number, then bytes that follow from it.
pub(super) fn value(number: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![fill(number); length.max(8)];
    bytes[..8].copy_from_slice(&u64::from(number).to_le_bytes());
    bytes
}

/// The number of the put that made the value. None if no put has.
pub(super) fn number_of(bytes: &[u8]) -> Option<u32> {
    let number = u64::from_le_bytes(*bytes.first_chunk()?);
    let number = u32::try_from(number).ok()?;
    bytes[8..].iter().all(|byte| *byte == fill(number)).then_some(number)
}

fn fill(number: u32) -> u8 {
    number.wrapping_mul(0x9E37_79B9).to_le_bytes()[3]
}
