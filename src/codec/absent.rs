//! Stands for `frames` where there is no disk tier: nothing is compressed.

use std::io;

pub(super) enum Encoder {}

pub(super) enum Decoder {}

pub(super) fn encoder() -> io::Result<Encoder> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn decoder() -> io::Result<Decoder> {
    Err(io::ErrorKind::Unsupported.into())
}

#[allow(clippy::unused_async, reason = "it stands for one that awaits")]
pub(super) async fn encode(encoder: &mut Encoder, _value: &[u8]) -> Option<Vec<u8>> {
    match *encoder {}
}

#[allow(clippy::unused_async, reason = "it stands for one that awaits")]
pub(super) async fn decode(
    decoder: &mut Decoder,
    _frame: &[u8],
    _length: usize,
) -> io::Result<Vec<u8>> {
    match *decoder {}
}
