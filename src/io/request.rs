//! `Request`: what goes through a ring's queue; it owns its buffer, its pin and the way back.
//!
//! A read has no buffer while it waits: the ring allocates it when the transfer begins, so that a
//! request in the queue is small.

use std::io;

use super::RequestPin;
use super::buffer::AlignedBuffer;
use super::reply::Reply;

/// The answer to a write: how it went, and the buffer.
pub(super) type WriteAnswer = (io::Result<()>, AlignedBuffer);

/// One request on its way to a ring.
pub(super) enum Request {
    /// Read `length` bytes from `offset`.
    Read {
        offset: u64,
        length: usize,
        pin: Option<RequestPin>,
        reply: Reply<io::Result<AlignedBuffer>>,
    },
    /// Write all of `buffer` to `offset`.
    Write { offset: u64, buffer: AlignedBuffer, reply: Reply<WriteAnswer> },
    /// Make durable what is written, for all who asked before it begins.
    Sync { replies: Vec<Reply<io::Result<()>>> },
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
            Self::Read { reply, .. } => reply.is_abandoned(),
            _ => false,
        }
    }
}
