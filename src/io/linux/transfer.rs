//! Transfers: one request carried out on a device, in pieces, with short ones resumed.
//!
//! - A transfer longer than a piece is cut into pieces, of which [`DEPTH`] are in flight: a device
//!   writes four pieces of 256 KiB at once up to a quarter faster than one of 1 MiB.
//! - A short transfer resumes at the last whole block. A transfer without progress, EINTR and
//!   EAGAIN are retried [`RETRIES_MAX`] times in a row, with growing pauses.
//! - A request for which the kernel has no thread is carried out by this one: see [`Device`].
//! - No transfer is dropped half-way: the pump polls each request to its end.

use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use rustix::io::Errno;

use super::device::{Device, is_unattended};
use super::limits::file_bytes_max;
use super::piece::{Piece, Split};
use super::request::{Read, Request};
use crate::batch::{BATCH_ENTRIES, yield_now as pause_step};
use crate::io::ReadRequest;
use crate::io::buffer::AlignedBuffer;
use crate::meter;
use crate::wake::discard;

/// The longest piece of a read, in bytes.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// The longest piece of a write, in bytes.
const WRITE_PIECE_BYTES: usize = 256 << 10;
/// The pieces of one transfer in flight at once.
pub(super) const DEPTH: usize = 4;
/// Tries without progress, in a row, before a transfer fails.
const RETRIES_MAX: u32 = 12;
/// The pause after the third try; later ones double up to 512 times this.
const PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The longest piece, in bytes.
    fn piece_bytes(self) -> usize {
        match self {
            Self::Read => PIECE_BYTES,
            Self::Write => WRITE_PIECE_BYTES,
        }
    }
}

fn pieces(direction: Direction, length: usize) -> usize {
    length.div_ceil(direction.piece_bytes())
}

/// How many operations `request` may have in flight at once.
pub(super) fn width(request: &Request) -> usize {
    match request {
        Request::Read(read) => pieces(Direction::Read, read.length).clamp(1, DEPTH),
        Request::Write { buffer, .. } => pieces(Direction::Write, buffer.len()).clamp(1, DEPTH),
        _ => 1,
    }
}

/// Carries out `request` and answers it. The pin is dropped before the answer is sent.
pub(super) async fn serve(file: &impl Device, request: Request) {
    match request {
        Request::Read(Read { offset, length, pin, reply }) => {
            let result = match AlignedBuffer::try_with_capacity(length) {
                Ok(buffer) => {
                    let read = transfer(file, Direction::Read, offset, buffer, length).await;
                    read.0.map(|()| read.1)
                }
                Err(error) => Err(error),
            };
            discard(pin);
            reply.send(result);
        }
        Request::Write { offset, buffer, reply } => {
            let length = buffer.len();
            let answer = transfer(file, Direction::Write, offset, buffer, length).await;
            reply.send(answer);
        }
        Request::Sync { replies } => {
            let result = sync(file).await;
            let mut replies = replies.into_iter();
            while replies.len() > 0 {
                for reply in replies.by_ref().take(BATCH_ENTRIES) {
                    meter::entries(1);
                    reply.send(result.as_ref().copied().map_err(again));
                }
                pause_step().await;
            }
        }
        Request::Resize { length, room, reply } => {
            reply.send(file.resize(length, room));
        }
        Request::Lend { reply } => {
            reply.send(file.duplicate());
        }
        Request::Share {
            source,
            span: ReadRequest { offset: from, length, pin, .. },
            offset,
            reply,
        } => {
            let shared = file.share(&source, (from, length as u64), offset);
            discard(pin);
            drop(source);
            reply.send(shared);
        }
        Request::Begun { reply } => {
            file.begun().await;
            reply.send(());
        }
        #[cfg(test)]
        Request::Panic => {}
    }
}

async fn transfer(
    file: &impl Device,
    direction: Direction,
    offset: u64,
    buffer: AlignedBuffer,
    length: usize,
) -> (io::Result<()>, AlignedBuffer) {
    let end = offset.saturating_add(length as u64);
    if direction == Direction::Write && file_bytes_max().is_some_and(|max| end > max) {
        // The attempt would kill the process, even though the file is longer.
        return (Err(Errno::FBIG.into()), buffer);
    }
    let mut split = Split::new(buffer, length);
    let result = if length <= direction.piece_bytes() {
        match split.next_piece(length) {
            Some((_, piece)) => {
                let (result, piece) = transfer_piece(file, direction, offset, piece).await;
                split.give_back(piece);
                result
            }
            None => Ok(()),
        }
    } else {
        Box::pin(transfer_long(file, direction, offset, &mut split)).await
    };
    match split.join() {
        Some(buffer) => (result, buffer),
        None => (Err(io::Error::other("a piece of the buffer was lost")), AlignedBuffer::default()),
    }
}

/// Carries out all pieces; after the first error no further piece is begun.
async fn transfer_long(
    file: &impl Device,
    direction: Direction,
    offset: u64,
    split: &mut Split,
) -> io::Result<()> {
    let mut begun = stream::FuturesUnordered::new();
    let mut result = Ok(());
    // Bounded: a wait in each turn.
    loop {
        // Bounded: by the depth.
        while result.is_ok() && begun.len() < DEPTH {
            let Some((start, piece)) = split.next_piece(direction.piece_bytes()) else { break };
            begun.push(transfer_piece(file, direction, offset + start as u64, piece));
        }
        let Some((ended, piece)) = begun.next().await else { return result };
        split.give_back(piece);
        result = result.and(ended);
    }
}

async fn transfer_piece(
    file: &impl Device,
    direction: Direction,
    offset: u64,
    mut piece: Piece,
) -> (io::Result<()>, Piece) {
    let mut tries = 0;
    // Bounded: a wait in each turn.
    while !piece.is_done() {
        let place = offset + piece.done() as u64;
        let mut result;
        (result, piece) = match direction {
            Direction::Read => file.read(piece, place).await,
            Direction::Write => file.write(piece, place).await,
        };
        if result.as_ref().is_err_and(is_unattended) {
            result = match direction {
                Direction::Read => file.read_here(&mut piece, place),
                Direction::Write => file.write_here(&piece, place),
            };
        }
        let error = match result {
            Ok(0) if direction == Direction::Read => {
                return (Err(io::ErrorKind::UnexpectedEof.into()), piece);
            }
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), piece),
            Ok(count) if piece.advance(count) > 0 => {
                tries = 0;
                continue;
            }
            Ok(_) => io::Error::other("the device transfers less than a block at a time"),
            Err(error) if is_passing(&error) => error,
            Err(error) => return (Err(error), piece),
        };
        tries += 1;
        if tries > RETRIES_MAX {
            return (Err(error), piece);
        }
        pause(tries).await;
    }
    (Ok(()), piece)
}

/// The number of syncs of all disks.
#[cfg(test)]
pub(super) static SYNCS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

async fn sync(file: &impl Device) -> io::Result<()> {
    #[cfg(test)]
    SYNCS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut tries = 0;
    // Bounded: by the tries.
    loop {
        let mut result = file.sync().await;
        if result.as_ref().is_err_and(is_unattended) {
            result = file.sync_here();
        }
        match result {
            Err(error) if is_passing(&error) && tries < RETRIES_MAX => {
                tries += 1;
                pause(tries).await;
            }
            result => return result,
        }
    }
}

/// A copy of the error, for another waiting caller.
fn again(error: &io::Error) -> io::Error {
    let told = || io::Error::new(error.kind(), error.to_string());
    error.raw_os_error().map_or_else(told, io::Error::from_raw_os_error)
}

/// Whether a retry may help.
fn is_passing(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::INTR | Errno::AGAIN))
}

/// Pauses before a retry: not before the third try, then ever longer, a second in total.
async fn pause(tries: u32) {
    match tries {
        0..=2 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(PAUSE * (1 << (tries - 3).min(9))).await,
    }
}

#[cfg(test)]
mod tests;
