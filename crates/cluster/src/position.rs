//! `Position`: the place of a record in the shared log. `Place`: how far a node has applied it,
//! with all that tells later whether the log is still the same.

use serde::{Deserialize, Serialize};

use crate::message::Stamp;

/// The place of a record. Within one epoch numbers are dense: a number that is left out is a record
/// that has been lost or trimmed. A log that is created anew has another epoch, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// Names one life of one server: it changes whenever the server may have lost records, as after a
/// restart or a change of roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerId(pub(crate) String);

/// How far a node has applied the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Of the last record that has been applied: the anchor.
    pub(crate) position: Position,
    /// The server that answered it.
    pub(crate) server: ServerId,
    /// What the record at `position` says of itself, unless it had been trimmed.
    pub(crate) stamp: Option<Stamp>,
}

/// What a node saves in its store, behind the invalidations that it covers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) place: Place,
    /// Of the names of the governed namespaces: only these are flushed when records are lost.
    pub(crate) governed: u64,
}

/// The first byte of what is saved. Another version is unknown, and so is the position.
const VERSION: u8 = 1;

impl Saved {
    pub(crate) fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("plain data into memory")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_prefix(&[VERSION])?;
        postcard::from_bytes(body).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_and_is_small() {
        let position = Position { epoch: u64::MAX, number: u64::MAX };
        let stamp = Some(Stamp { node: u64::MAX, nonce: u64::MAX });
        let place = Place { position, server: ServerId("x".repeat(100)), stamp };
        let saved = Saved { place, governed: u64::MAX };
        let bytes = saved.encode();
        assert!(bytes.len() <= 256, "{}", bytes.len());
        assert_eq!(Saved::decode(&bytes), Some(saved));
        // Bounded: by the bytes.
        for end in 0..bytes.len() {
            assert_eq!(Saved::decode(&bytes[..end]), None);
        }
        assert_eq!(Saved::decode(&[2, 0, 0]), None);
    }
}
