//! `SavedPosition`: where a caller stands in something outside of the cache, as a record of the log
//! behind the mutations that it stands for. `SavedPositions`: the last one under each name.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::error::{DecodeError, EncodeError};
use super::wire::{Reader, Sink};

pub(crate) const KIND_SAVED_POSITION: u8 = 12;

pub(crate) const POSITIONS_MAX: usize = 8;
pub(crate) const POSITION_NAME_BYTES_MAX: usize = 64;
pub(crate) const POSITION_BYTES_MAX: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SavedPosition<'a> {
    pub(crate) name: &'a str,
    pub(crate) bytes: &'a [u8],
}

impl<'a> SavedPosition<'a> {
    pub(super) fn check(&self) -> Result<(), EncodeError> {
        let fits =
            self.name.len() <= POSITION_NAME_BYTES_MAX && self.bytes.len() <= POSITION_BYTES_MAX;
        if fits { Ok(()) } else { Err(EncodeError::Field) }
    }

    pub(super) fn write(&self, sink: &mut impl Sink) {
        sink.prefixed(self.name.as_bytes());
        sink.prefixed(self.bytes);
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let name = reader.text(POSITION_NAME_BYTES_MAX)?;
        Ok(Self { name, bytes: reader.prefixed(POSITION_BYTES_MAX)? })
    }
}

/// At most [`POSITIONS_MAX`]; of a store that has more, which no writer makes, the first names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedPositions(BTreeMap<Box<str>, Bytes>);

impl SavedPositions {
    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        self.0.get(name).cloned()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn has_room_for(&self, name: &str) -> bool {
        self.0.len() < POSITIONS_MAX || self.0.contains_key(name)
    }

    /// Replaces the one of its name.
    pub(crate) fn set(&mut self, position: SavedPosition<'_>) {
        if let Some(bytes) = self.0.get_mut(position.name) {
            *bytes = Bytes::copy_from_slice(position.bytes);
        } else if self.has_room_for(position.name) {
            self.0.insert(position.name.into(), Bytes::copy_from_slice(position.bytes));
        }
    }

    /// Takes those from `older` whose names have none.
    pub(crate) fn add_older(&mut self, older: &Self) {
        // Bounded: by the most there are.
        for position in older.iter() {
            if !self.0.contains_key(position.name) {
                self.set(position);
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = SavedPosition<'_>> {
        self.0.iter().map(|(name, bytes)| SavedPosition { name, bytes })
    }
}
