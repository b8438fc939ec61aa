//! Makes the data file longer, for what a closed store has behind its segments, and shorter again.

use std::io;

use rustix::fd::AsFd;
use rustix::fs::{FallocateFlags, fallocate, fstat, fstatvfs, ftruncate};
use rustix::io::Errno;

use super::limits::file_bytes_max;
use crate::io::error::NoRoom;

/// Bytes that one call allocates.
pub(super) const ALLOCATED_BYTES: u64 = 64 << 20;

/// What a file that becomes longer needs of its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Its own, from now on, if the file system can.
    Reserved,
    /// It must be there: what the file shares with another one takes room as either is written.
    Seen,
}

/// Makes the file `length` bytes long.
///
/// # Errors
///
/// `StorageFull` with a [`NoRoom`], `FileTooLarge` under a limit of the process, or what else the
/// kernel says. The file has its length then, and has given back what was reserved.
pub(super) fn resize(file: impl AsFd, length: u64, room: Room) -> io::Result<()> {
    let present = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    if length <= present {
        return Ok(ftruncate(&file, length)?);
    }
    if file_bytes_max().is_some_and(|max| length > max) {
        // The attempt would kill the process.
        return Err(Errno::FBIG.into());
    }
    let needed_bytes = length - present;
    let no_room = |available: Option<u64>| {
        let available_bytes = available.unwrap_or(0);
        io::Error::new(io::ErrorKind::StorageFull, NoRoom { needed_bytes, available_bytes })
    };
    // Checked first: before `fallocate` fails, it takes all the space that there is.
    let available_bytes = available(&file);
    if available_bytes.is_some_and(|bytes| bytes < needed_bytes) {
        return Err(no_room(available_bytes));
    }
    if room == Room::Seen {
        return Ok(ftruncate(&file, length)?);
    }
    let grown = grow(&file, present, length, |offset, piece| {
        fallocate(&file, FallocateFlags::empty(), offset, piece)
    });
    grown.map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => no_room(available(&file)),
        _ => error,
    })
}

/// Bytes that the file system has available for this process; None if it does not tell.
pub(super) fn available(file: impl AsFd) -> Option<u64> {
    let facts = fstatvfs(file).ok()?;
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Makes the file longer, or leaves it as it was.
fn grow(
    file: impl AsFd,
    present: u64,
    length: u64,
    allocate: impl FnMut(u64, u64) -> Result<(), Errno>,
) -> io::Result<()> {
    match in_pieces(present, length, allocate) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(ftruncate(&file, length)?),
        Err(error) => {
            // It may have become longer by a part.
            ftruncate(&file, present)?;
            Err(error.into())
        }
    }
}

/// Allocates the bytes from `start` to `end` in pieces. Only an interrupted piece is retried, or
/// signals could prevent any progress.
pub(super) fn in_pieces(
    start: u64,
    end: u64,
    mut allocate: impl FnMut(u64, u64) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut done = start;
    // Bounded: by the pieces of a file, each a call of the kernel.
    while done < end {
        let piece = ALLOCATED_BYTES.min(end - done);
        match allocate(done, piece) {
            Ok(()) => done += piece,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn only_the_interrupted_piece_of_an_allocation_is_retried() {
        let (start, bytes) = (8192, 3 * ALLOCATED_BYTES + 4096);
        let (mut calls, mut end) = (0, start);
        let done = in_pieces(start, start + bytes, |offset, piece| {
            assert!(offset == end && piece <= ALLOCATED_BYTES, "{piece} bytes at {offset}");
            calls += 1;
            // Signals interrupt each piece once.
            if calls % 2 == 1 {
                return Err(Errno::INTR);
            }
            end += piece;
            Ok(())
        });
        assert_eq!((done, calls, end), (Ok(()), 8, start + bytes));
        assert_eq!(in_pieces(0, bytes, |_, _| Err(Errno::NOSPC)), Err(Errno::NOSPC));
    }

    #[test]
    fn a_file_grows_by_zeroes_and_shrinks_to_what_it_had() {
        for room in [Room::Reserved, Room::Seen] {
            let file = tempfile::tempfile().expect("a file");
            file.write_all_at(&[7; 4096], 0).expect("written");
            resize(&file, 3 * 4096, room).expect("grown");
            let mut found = [1; 3 * 4096];
            file.read_exact_at(&mut found, 0).expect("read");
            assert!(found[..4096] == [7; 4096] && found[4096..].iter().all(|&byte| byte == 0));
            resize(&file, 4096, room).expect("shrunk");
            assert_eq!(file.metadata().expect("known").len(), 4096);
            file.read_exact_at(&mut found[..4096], 0).expect("read");
            assert!(found[..4096] == [7; 4096]);
        }
    }

    #[test]
    fn a_file_that_cannot_grow_keeps_its_length() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(4096).expect("set");
        let length = || file.metadata().expect("known").len();
        let full = grow(&file, 4096, 3 * ALLOCATED_BYTES, |offset, piece| {
            if offset > ALLOCATED_BYTES {
                return Err(Errno::NOSPC);
            }
            // Without an allocation, which the file system of a test may not have room for.
            ftruncate(&file, offset + piece)
        });
        assert_eq!(full.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(length(), 4096);
        grow(&file, 4096, 8192, |_, _| Err(Errno::OPNOTSUPP)).expect("grown");
        assert_eq!(length(), 8192);
    }
}
