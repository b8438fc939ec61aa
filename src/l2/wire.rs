//! The primitives of `docs/format.md`, section 1: fixed integers, varints, texts.
//!
//! `Reader` never panics, never allocates and never reads past its end; it refuses varints that
//! are not minimal. `Sink` writes the same primitives into a buffer, or only counts them, so that
//! a length and the bytes come from one description.

use super::error::DecodeError;
use crate::io::AlignedBuffer;

pub(crate) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    fn varint(&mut self, value: u64) {
        let mut rest = value;
        // Bounded: by the bits of a number.
        while rest >= 0x80 {
            self.u8(rest.to_le_bytes()[0] | 0x80);
            rest >>= 7;
        }
        self.u8(rest.to_le_bytes()[0]);
    }

    fn zigzag(&mut self, value: i64) {
        self.varint(unsigned((value << 1) ^ (value >> 63)));
    }

    fn prefixed(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Sink for AlignedBuffer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.append(bytes);
    }
}

#[derive(Default)]
pub(crate) struct Measure(pub(crate) usize);

impl Sink for Measure {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (front, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (front, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*front)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        // Bounded: by the bits of a number.
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let group = u64::from(byte & 0x7f);
            if shift == 63 && group > 1 {
                return Err(DecodeError::Field);
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                let minimal = byte != 0 || shift == 0;
                return if minimal { Ok(value) } else { Err(DecodeError::Field) };
            }
        }
        Err(DecodeError::Field)
    }

    pub(crate) fn zigzag(&mut self) -> Result<i64, DecodeError> {
        let value = self.varint()?;
        Ok(signed(value >> 1) ^ -signed(value & 1))
    }

    pub(crate) fn length(&mut self, max: usize) -> Result<usize, DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Length)?;
        if length <= max { Ok(length) } else { Err(DecodeError::Length) }
    }

    /// A count of items of `item_bytes` or more: at least 1, at most what the rest can hold.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.length(u32::MAX as usize)?;
        if count == 0 || count > self.rest.len() / item_bytes {
            return Err(DecodeError::Length);
        }
        Ok(count)
    }

    pub(crate) fn prefixed(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.length(max)?;
        self.take(length)
    }

    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.prefixed(max)?).map_err(|_| DecodeError::Text)
    }

    pub(crate) fn zeros(&mut self, length: usize) -> Result<(), DecodeError> {
        if is_zero(self.take(length)?) { Ok(()) } else { Err(DecodeError::Field) }
    }

    /// Fails unless all bytes are read.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::Length) }
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // Bounded: by the padding of a block.
    bytes.iter().all(|byte| *byte == 0)
}

/// The same 64 bits with a sign.
pub(crate) const fn signed(value: u64) -> i64 {
    i64::from_le_bytes(value.to_le_bytes())
}

/// The same 64 bits without one.
pub(crate) const fn unsigned(value: i64) -> u64 {
    u64::from_le_bytes(value.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_are_minimal() {
        for bits in 0..64 {
            for value in [(1u64 << bits) - 1, 1 << bits, u64::MAX >> bits] {
                let mut bytes = Vec::new();
                let mut measure = Measure::default();
                bytes.varint(value);
                measure.varint(value);
                assert_eq!(bytes.len(), measure.0);
                let mut reader = Reader::new(&bytes);
                assert_eq!(reader.varint(), Ok(value));
                assert!(reader.rest().is_empty());
                bytes.clear();
                bytes.zigzag(signed(value));
                assert_eq!(Reader::new(&bytes).zigzag(), Ok(signed(value)));
            }
        }
        for bad in [&[0x80, 0][..], &[0xff, 0x80, 0], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Reader::new(bad).varint(), Err(DecodeError::Field));
        }
        let mut above = [0x80; 10];
        above[9] = 2;
        assert_eq!(Reader::new(&above).varint(), Err(DecodeError::Field));
        assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn counts_and_lengths_are_bounded_by_what_is_there() {
        assert_eq!(Reader::new(&[3, 0, 0]).count(1), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[0, 0, 0]).count(1), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[2, 0, 0]).count(1), Ok(2));
        assert_eq!(Reader::new(&[5, 0]).prefixed(9), Err(DecodeError::Truncated));
        assert_eq!(Reader::new(&[5, 0]).prefixed(4), Err(DecodeError::Length));
        assert_eq!(Reader::new(&[1, 0xff]).text(4), Err(DecodeError::Text));
        assert_eq!(Reader::new(&[0, 1]).zeros(2), Err(DecodeError::Field));
    }
}
