//! `Message`: what one record of the shared log holds.
//!
//! ```text
//! byte 0          version, 1
//! then, in the encoding of postcard:
//!   node          varint u64, at random for each life of a node
//!   nonce         varint u64, counted by the node
//!   invalidations varint count, then for each:
//!     scope       0 key: name, bytes   1 prefix: name, bytes   2 tags: name, strings
//!                 3 dependencies: name, strings   4 namespace: name   5 everything
//!     soft        0 or 1
//! ```
//!
//! Strings, bytes and lists begin with their length as a varint. There is nothing behind. A reader
//! that does not understand a record takes it for one that may say anything: it flushes.

use serde::{Deserialize, Serialize};

use crate::invalidation::{BYTES_MAX, Invalidation};

const VERSION: u8 = 1;

/// What version, node, nonce and count take at most.
const HEAD_BYTES: usize = 1 + 10 + 10 + 5;

/// Longer records are not read: none is written.
pub(crate) const RECORD_BYTES_MAX: usize = HEAD_BYTES + BYTES_MAX;

/// Tells a record from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) node: u64,
    pub(crate) nonce: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) stamp: Stamp,
    pub(crate) invalidations: Vec<Invalidation>,
}

impl Message {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("plain data into memory")
    }

    /// Nothing for what no node of this version has written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > RECORD_BYTES_MAX {
            return None;
        }
        let body = bytes.strip_prefix(&[VERSION])?;
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => Some(message),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn message() -> Message {
        let invalidations = vec![
            Invalidation::key("pages", b"/\xff"),
            Invalidation::prefix("pages", "/a").soft(),
            Invalidation::tags("pages", ["one", "two"]),
            Invalidation::dependencies("rows", ["three"]).soft(),
            Invalidation::namespace("rows"),
            Invalidation::all().soft(),
        ];
        Message { stamp: Stamp { node: 300, nonce: 2 }, invalidations }
    }

    #[test]
    fn the_bytes_are_those_of_the_page() {
        let stamp = Stamp { node: 300, nonce: 2 };
        let invalidations = vec![Invalidation::key("ns", "k"), Invalidation::namespace("n").soft()];
        let bytes = Message { stamp, invalidations }.encode();
        let expected = [&[1, 0xac, 2, 2, 2][..], b"\0\x02ns\x01k\0", b"\x04\x01n\x01"].concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_message_is_read_again_and_its_size_is_no_more_than_was_counted() {
        let message = message();
        let bytes = message.encode();
        assert_eq!(Message::decode(&bytes).as_ref(), Some(&message));
        let counted: usize = message.invalidations.iter().map(Invalidation::bytes).sum();
        assert!(bytes.len() <= HEAD_BYTES + counted);
    }

    #[test]
    fn the_largest_invalidation_fits_a_record() {
        let labels = (0..).map(|_| String::new()).take(BYTES_MAX / 8 - 3);
        let invalidation = Invalidation::tags("", labels);
        assert!(invalidation.check().is_ok());
        let stamp = Stamp { node: u64::MAX, nonce: u64::MAX };
        let bytes = Message { stamp, invalidations: vec![invalidation] }.encode();
        assert!(Message::decode(&bytes).is_some());
        assert!(Invalidation::key("", [0; BYTES_MAX]).check().is_err());
    }

    #[test]
    fn hostile_bytes_are_refused_or_understood_and_never_panic() {
        let whole = message().encode();
        // Bounded: by the bytes.
        for end in 0..whole.len() {
            assert_eq!(Message::decode(&whole[..end]), None);
        }
        assert_eq!(Message::decode(&[&whole[..], &[0]].concat()), None);
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            if let Some(message) = Message::decode(&bytes) {
                assert_eq!(Message::decode(&message.encode()), Some(message));
            }
        }
        let vast = [1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Message::decode(&vast), None);
    }
}
