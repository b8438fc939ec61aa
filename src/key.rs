//! `KeyHash` and `KeyHasher`: the keyed hash that identifies a key everywhere.
//!
//! A key is hashed once per call, seeded by its namespace's name, and every table of the cache uses
//! the same 64 bits. Two keys of one hash replace each other: the later write is found, the other
//! is forgotten. Reads compare full keys, so a collision never returns a wrong value.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Deref;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Identifies (namespace, key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct KeyHash(pub(crate) u64);

/// Inline if it is short, so that comparing it touches no other memory.
pub(crate) enum StoredKey {
    Inline { length: u8, bytes: [u8; StoredKey::INLINE_BYTES] },
    Heap(Box<[u8]>),
}

impl StoredKey {
    /// Makes the whole four words.
    const INLINE_BYTES: usize = 30;

    /// Its heap memory.
    pub(crate) const fn heap_bytes(key: &[u8]) -> usize {
        if key.len() > Self::INLINE_BYTES { key.len() } else { 0 }
    }
}

const _: () = assert!(size_of::<StoredKey>() == 32);

impl From<&[u8]> for StoredKey {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; Self::INLINE_BYTES];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(length), Some(place)) => {
                place.copy_from_slice(key);
                Self::Inline { length, bytes }
            }
            _ => Self::Heap(key.into()),
        }
    }
}

impl Deref for StoredKey {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or(bytes),
            Self::Heap(bytes) => bytes,
        }
    }
}

/// Identifies (namespace, kind, label).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LabelHash(pub(crate) u64);

/// The hash of a namespace's name; it seeds the hashes of its keys and labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NamespaceSeed(pub(crate) u64);

/// A namespace as named by a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NamespaceRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) seed: NamespaceSeed,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct HashedKey<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) hash: KeyHash,
}

/// The two kinds of labels. The discriminant is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelKind {
    Tag = 1,
    Dependency = 2,
}

/// The hash of a label in a namespace.
pub(crate) fn label_hash(namespace: NamespaceSeed, kind: LabelKind, label: &str) -> LabelHash {
    let seed = namespace.0.wrapping_add(kind as u64);
    LabelHash(xxh3_64_with_seed(label.as_bytes(), seed))
}

/// xxh3 with a seed per cache, so that outsiders cannot construct collisions.
#[derive(Debug, Clone)]
pub(crate) struct KeyHasher {
    seed: u64,
    /// All ones; tests keep fewer bits to force collisions.
    mask: u64,
}

impl KeyHasher {
    /// A hasher with a random seed that keeps `bits` of the hash.
    pub(crate) fn random(bits: u32) -> Self {
        Self::new(RandomState::new().build_hasher().finish(), bits)
    }

    /// A hasher with a given seed that keeps `bits` of the hash.
    pub(crate) fn new(seed: u64, bits: u32) -> Self {
        Self { seed, mask: u64::MAX >> (64 - bits) }
    }

    #[inline]
    pub(crate) fn namespace<'a>(&self, name: &'a str) -> NamespaceRef<'a> {
        NamespaceRef { name, seed: NamespaceSeed(xxh3_64_with_seed(name.as_bytes(), self.seed)) }
    }

    #[inline]
    pub(crate) fn key(&self, namespace: NamespaceSeed, key: &[u8]) -> KeyHash {
        KeyHash(xxh3_64_with_seed(key, namespace.0) & self.mask)
    }

    #[inline]
    pub(crate) fn hashed<'a>(&self, namespace: NamespaceSeed, bytes: &'a [u8]) -> HashedKey<'a> {
        HashedKey { bytes, hash: self.key(namespace, bytes) }
    }

    pub(crate) fn label(
        &self,
        namespace: NamespaceSeed,
        kind: LabelKind,
        label: &str,
    ) -> LabelHash {
        label_hash(namespace, kind, label)
    }

    /// The hashes of an entry's labels, sorted and deduplicated.
    pub(crate) fn label_hashes<'a>(
        &self,
        namespace: NamespaceRef<'_>,
        tags: impl Iterator<Item = &'a str>,
        dependencies: impl Iterator<Item = &'a str>,
    ) -> Box<[LabelHash]> {
        let hash = |kind| move |label| self.label(namespace.seed, kind, label);
        let tags = tags.map(hash(LabelKind::Tag));
        let dependencies = dependencies.map(hash(LabelKind::Dependency));
        // Bounded: by the labels of one entry.
        let mut labels: Vec<_> = tags.chain(dependencies).collect();
        labels.sort_unstable();
        labels.dedup();
        labels.into()
    }
}

/// Hashes short names for tables by name: xxh3 with a seed per table, so that outsiders cannot
/// construct collisions.
#[derive(Debug, Clone)]
pub(crate) struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl BuildHasher for NameHasher {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        self.clone()
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
}

/// Passes a hash through unchanged.
#[derive(Debug, Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Bounded: by the bytes of one key.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_and_label_kinds_change_the_hash() {
        let hasher = KeyHasher::random(64);
        let (a, b) = (hasher.namespace("a").seed, hasher.namespace("b").seed);
        assert_ne!(hasher.key(a, b"key"), hasher.key(b, b"key"));
        assert_ne!(
            hasher.label(a, LabelKind::Tag, "label"),
            hasher.label(a, LabelKind::Dependency, "label")
        );
    }

    #[test]
    fn a_stored_key_round_trips() {
        for length in 0..100u8 {
            let key: Vec<u8> = (0..length).collect();
            let stored = StoredKey::from(&*key);
            assert_eq!(&*stored, &*key);
            let is_inline = matches!(stored, StoredKey::Inline { .. });
            assert_eq!(is_inline, StoredKey::heap_bytes(&key) == 0);
        }
    }

    #[test]
    fn a_narrow_hash_keeps_only_its_bits() {
        let hasher = KeyHasher::random(8);
        let namespace = hasher.namespace("").seed;
        assert!((0..100u8).all(|key| hasher.key(namespace, &[key]).0 < 256));
    }
}
