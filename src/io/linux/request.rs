//! `Request`: an item of a ring's queue. It owns its buffer, its pin and its reply.
//!
//! A read has no buffer while it waits: the ring allocates it when the transfer begins, so a
//! request in the queue is small.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::resize::Room;
use crate::io::buffer::AlignedBuffer;
use crate::io::reply::Reply;
use crate::io::{ReadRequest, RequestPin};

/// The answer to a write: how it went, and the buffer.
pub(super) type WriteAnswer = (io::Result<()>, AlignedBuffer);

/// Read `length` bytes from `offset`.
pub(super) struct Read {
    pub(super) offset: u64,
    pub(super) length: usize,
    pub(super) pin: Option<RequestPin>,
    pub(super) reply: Reply<io::Result<AlignedBuffer>>,
}

/// One request on its way to a ring.
pub(super) enum Request {
    Read(Read),
    /// Write all of `buffer` to `offset`.
    Write {
        offset: u64,
        buffer: AlignedBuffer,
        reply: Reply<WriteAnswer>,
    },
    /// Make completed writes durable, for all callers that asked before it begins.
    Sync {
        replies: Vec<Reply<io::Result<()>>>,
    },
    /// Make the file so long.
    Resize {
        length: u64,
        room: Room,
        reply: Reply<io::Result<()>>,
    },
    /// Duplicate the descriptor.
    Lend {
        reply: Reply<io::Result<File>>,
    },
    /// Share blocks of another file.
    Share {
        source: Arc<File>,
        span: ReadRequest,
        offset: u64,
        reply: Reply<io::Result<()>>,
    },
    /// Answer once the requests before this one are under way.
    Begun {
        reply: Reply<()>,
    },
    /// Make the pump panic, for tests.
    #[cfg(test)]
    Panic,
}

impl Request {
    /// Whether no caller waits for the answer and nothing else depends on the request.
    ///
    /// Only a read may be skipped; a write or sync whose future was polled is carried out.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Read(read) => read.reply.is_abandoned(),
            _ => false,
        }
    }
}
