//! A codec of numbers that can be told to misbehave.

use std::fmt;

use bytes::Bytes;
use tamis::Codec;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Manner {
    #[default]
    Well,
    Fails,
    Panics,
    /// With an error that panics when it is shown or dropped.
    FailsBadly,
}

/// Nine bytes for a number.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    encoding: Manner,
    decoding: Manner,
}

#[derive(Debug)]
pub(crate) struct Refused {
    is_bad: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.is_bad, "planted, when it is shown");
        formatter.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl Drop for Refused {
    fn drop(&mut self) {
        assert!(!self.is_bad, "planted, when it is dropped");
    }
}

impl Numbers {
    pub(crate) fn encoding(encoding: Manner) -> Self {
        Self { encoding, ..Default::default() }
    }

    pub(crate) fn decoding(decoding: Manner) -> Self {
        Self { decoding, ..Default::default() }
    }

    pub(crate) fn bytes(number: u64) -> Bytes {
        [b"#".as_slice(), &number.to_le_bytes()].concat().into()
    }
}

fn behave(manner: Manner) -> Result<(), Refused> {
    match manner {
        Manner::Well => Ok(()),
        Manner::Fails => Err(Refused { is_bad: false }),
        Manner::Panics => panic!("planted, in the codec"),
        Manner::FailsBadly => Err(Refused { is_bad: true }),
    }
}

impl Codec<u64> for Numbers {
    type Error = Refused;

    fn encode(&self, value: &u64) -> Result<Bytes, Refused> {
        behave(self.encoding)?;
        Ok(Self::bytes(*value))
    }

    fn decode(&self, bytes: &Bytes) -> Result<u64, Refused> {
        behave(self.decoding)?;
        match bytes.split_first() {
            Some((b'#', number)) => {
                number.try_into().map(u64::from_le_bytes).map_err(|_| Refused { is_bad: false })
            }
            _ => Err(Refused { is_bad: false }),
        }
    }
}
