//! `Keys`: what the entries of a store are called in its namespace.
//!
//! ```text
//! m store path                 what is known of the object, for as long as it may be old
//! p store path                 the same without an end, to ask whether it has changed
//! v store length path version  of a version that was asked for by name
//! b generation index           a block
//! ```
//!
//! `store` is a hash of the inner store's name, so that a namespace that belonged to another bucket
//! before a restart has nothing to say about this one.

use crate::failpoint::{Failpoint, failpoint};

/// 128 random bits: one version of one object, as one store has seen it.
pub(crate) type Generation = [u8; 16];

/// Of one store.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    store: [u8; 8],
}

impl Keys {
    pub(crate) fn new(inner: &str) -> Self {
        // FNV-1a: the same in every release, as the disk remembers it.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self { store: inner.bytes().fold(0xcbf2_9ce4_8422_2325, step).to_le_bytes() }
    }

    /// What is known of an object, or of one version of it.
    pub(crate) fn meta(&self, path: &str, version: Option<&str>) -> Vec<u8> {
        match version.filter(|_| !failpoint(Failpoint::VersionNotInKey)) {
            None => self.of(b'm', &[path.as_bytes()]),
            Some(version) => {
                let length = (path.len() as u64).to_le_bytes();
                self.of(b'v', &[&length, path.as_bytes(), version.as_bytes()])
            }
        }
    }

    /// What was known of an object when it was last fetched.
    pub(crate) fn prior(&self, path: &str) -> Vec<u8> {
        self.of(b'p', &[path.as_bytes()])
    }

    /// The label of what is known of versions of an object.
    pub(crate) fn label(&self, path: &str) -> String {
        format!("{:016x}/{path}", u64::from_le_bytes(self.store))
    }

    pub(crate) fn block(generation: &Generation, index: u64) -> [u8; 25] {
        let mut key = [b'b'; 25];
        key[1..17].copy_from_slice(generation);
        key[17..].copy_from_slice(&index.to_le_bytes());
        key
    }

    fn of(&self, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        [&[kind], self.store.as_slice(), &parts.concat()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_things_share_a_key() {
        let (here, there) = (Keys::new("S3(a)"), Keys::new("S3(b)"));
        let keys = [
            here.meta("a", None),
            here.meta("ab", None),
            here.meta("a", Some("b")),
            here.meta("ab", Some("")),
            here.meta("", Some("ab")),
            here.prior("a"),
            there.meta("a", None),
            Keys::block(&[0; 16], 1).to_vec(),
            Keys::block(&[0; 16], 256).to_vec(),
            Keys::block(&[1; 16], 1).to_vec(),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_ne!(here.label("a"), there.label("a"));
        assert_eq!(Keys::new("foobar").store, 0x8594_4171_f739_67e8_u64.to_le_bytes());
    }
}
