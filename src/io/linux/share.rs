//! Shares blocks of one file with another, where the file system can: XFS and Btrfs, but not ext4.

// Unsafe here: an ioctl that rustix has no function for.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// What the kernel calls `struct file_clone_range`.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    source_length: u64,
    offset: u64,
}

const FICLONERANGE: Opcode = opcode::write::<CloneRange>(0x94, 13);

// Its number is part of the kernel's interface.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
const _: () = assert!(FICLONERANGE == 0x4020_940d);

/// Makes `length` bytes of `source` those of `file` as well, from `offset` on.
///
/// # Errors
///
/// The file system cannot, the files lie on different ones, or the span is not of whole blocks.
pub(super) fn share(
    file: impl AsFd,
    source: &File,
    (source_offset, source_length): (u64, u64),
    offset: u64,
) -> io::Result<()> {
    let range =
        CloneRange { source: source.as_raw_fd().into(), source_offset, source_length, offset };
    // SAFETY: the opcode is that of FICLONERANGE, which takes a pointer to such a structure, has
    // the layout of the kernel's, and reads it. `source` is open during the call. No memory is
    // written: only blocks of the file behind a descriptor that the caller may write to.
    unsafe { ioctl(file, Setter::<FICLONERANGE, CloneRange>::new(range))? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn blocks_are_shared_or_the_file_system_refuses() {
        let [source, file] = [(); 2].map(|()| tempfile::tempfile().expect("a file"));
        source.write_all_at(&[7; 3 * 4096], 0).expect("written");
        file.write_all_at(&[1; 2 * 4096], 0).expect("written");
        let mut found = [0; 4096];
        match share(&file, &source, (4096, 4096), 8192) {
            Ok(()) => {
                file.read_exact_at(&mut found, 8192).expect("read");
                assert!(found == [7; 4096]);
            }
            Err(error) => println!("not shared here: {error}"),
        }
        file.read_exact_at(&mut found, 4096).expect("read");
        assert!(found == [1; 4096], "what was there before is");
        let odd = share(&file, &source, (1, 100), 8192);
        assert!(odd.is_err(), "spans are of whole blocks");
    }
}
