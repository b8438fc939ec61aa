//! `Request`: what goes through a ring's queue; it owns its buffer, its pin and the way back.

use std::io;

use tokio::sync::oneshot;

use super::RequestPin;
use super::buffer::AlignedBuffer;

/// The answer to a write: how it went, and the buffer.
pub(super) type WriteAnswer = (io::Result<()>, AlignedBuffer);

/// One request on its way to a ring.
pub(super) enum Request {
    /// Fill `buffer` with `length` bytes from `offset`.
    Read {
        offset: u64,
        length: usize,
        buffer: AlignedBuffer,
        pin: Option<RequestPin>,
        reply: oneshot::Sender<io::Result<AlignedBuffer>>,
    },
    /// Write all of `buffer` to `offset`.
    Write { offset: u64, buffer: AlignedBuffer, reply: oneshot::Sender<WriteAnswer> },
    /// Make durable what is written.
    Sync { reply: oneshot::Sender<io::Result<()>> },
    /// Bring down the pump, to see what becomes of everything else.
    #[cfg(test)]
    Panic,
}

impl Request {
    /// Whether nobody waits for the answer any more and nothing else hangs on the request.
    ///
    /// Only a read may be skipped; a write or sync whose future was polled stays ordered.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Read { reply, .. } => reply.is_closed(),
            _ => false,
        }
    }
}
