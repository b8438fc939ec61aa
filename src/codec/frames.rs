//! zstd frames, a batch in each poll.

use std::io;

use zstd::stream::raw::{self, InBuffer, Operation, OutBuffer};

use crate::batch::{BATCH_BYTES, yield_now};
use crate::meter;

pub(super) type Encoder = raw::Encoder<'static>;
pub(super) type Decoder = raw::Decoder<'static>;

/// The fastest level that zstd recommends.
const LEVEL: i32 = 1;

pub(super) fn encoder() -> io::Result<Encoder> {
    Encoder::new(LEVEL)
}

pub(super) fn decoder() -> io::Result<Decoder> {
    Decoder::new()
}

/// A frame of less than 95 % of the value.
pub(super) async fn encode(encoder: &mut Encoder, value: &[u8]) -> Option<Vec<u8>> {
    encoder.reinit().ok()?;
    encoder.set_pledged_src_size(Some(value.len() as u64)).ok()?;
    // The buffer never grows: a frame that does not fit does not save enough.
    let most = value.len() - value.len() / 20 - 1;
    let mut frame = Vec::with_capacity(most);
    for step in value.chunks(BATCH_BYTES) {
        meter::bytes(step.len());
        let mut input = InBuffer::around(step);
        while input.pos() < step.len() {
            if frame.len() >= most {
                return None;
            }
            let written = frame.len();
            encoder.run(&mut input, &mut OutBuffer::around_pos(&mut frame, written)).ok()?;
        }
        if value.len() > BATCH_BYTES {
            yield_now().await;
        }
    }
    loop {
        let written = frame.len();
        let left = encoder.finish(&mut OutBuffer::around_pos(&mut frame, written), true).ok()?;
        if left == 0 && frame.len() <= most {
            frame.shrink_to_fit();
            return Some(frame);
        }
        if frame.len() >= most {
            return None;
        }
    }
}

pub(super) async fn decode(
    decoder: &mut Decoder,
    frame: &[u8],
    length: usize,
) -> io::Result<Vec<u8>> {
    let damaged = || {
        io::Error::new(io::ErrorKind::InvalidData, "the frame does not hold a value of this length")
    };
    decoder.reinit()?;
    let mut input = InBuffer::around(frame);
    let mut value = Vec::new();
    value.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    loop {
        let written = value.len();
        value.resize(length.min(written + BATCH_BYTES), 0);
        let mut output = OutBuffer::around(&mut value[written..]);
        let left = decoder.run(&mut input, &mut output)?;
        let produced = output.pos();
        meter::bytes(produced);
        value.truncate(written + produced);
        if left == 0 {
            let is_whole = value.len() == length && input.pos() == frame.len();
            return if is_whole { Ok(value) } else { Err(damaged()) };
        }
        // The decoder makes no progress and there is no room for more.
        if produced == 0 && (input.pos() == frame.len() || value.len() == length) {
            return Err(damaged());
        }
        if length > BATCH_BYTES {
            yield_now().await;
        }
    }
}
