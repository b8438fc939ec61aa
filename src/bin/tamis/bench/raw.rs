//! `RawFile`: a file, read and written without a cache between: no cache of this library, and where
//! the file system has direct I/O, not that of the kernel.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::super::failure::Failure;
use super::super::values::Random;
use super::load::{Calls, End, drive_threads};

/// What direct transfers are aligned to.
const BLOCK_BYTES: u64 = 4096;

pub(super) struct RawFile {
    file: File,
    pub(super) is_direct: bool,
    bytes: u64,
}

impl RawFile {
    /// Of a sequential write.
    pub(super) const WRITE_BYTES: u64 = 1 << 20;

    /// What a file for so many bytes of writes takes.
    pub(super) fn room(bytes: u64) -> u64 {
        bytes.next_multiple_of(Self::WRITE_BYTES)
    }

    /// A file that is there, of which the first bytes are read.
    pub(super) fn open(path: &Path, bytes: u64) -> Result<Self, Failure> {
        let opened = open(OpenOptions::new().read(true), path);
        let (file, is_direct) = opened.map_err(|error| Failure::io("open", path, &error))?;
        Ok(Self { file, is_direct, bytes: bytes / BLOCK_BYTES * BLOCK_BYTES })
    }

    /// A new file, written once in full, since the first write of a place is slower than later
    /// ones.
    pub(super) fn create(path: &Path, bytes: u64, end: &End) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::io("write", path, &error);
        File::create_new(path).map_err(failed)?;
        let (file, is_direct) = open(OpenOptions::new().write(true), path).map_err(failed)?;
        let bytes = Self::room(bytes);
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
            Err(error) => return Err(failed(error.into())),
        }
        let raw = Self { file, is_direct, bytes };
        raw.write(&End { span: Duration::MAX, ..end.clone() })?;
        Ok(raw)
    }

    /// Reads of random places by so many threads, of whole blocks.
    pub(super) fn read(&self, load: (u32, u64), length: u64, end: &End) -> Result<Calls, Failure> {
        let length = length.next_multiple_of(BLOCK_BYTES).min(self.bytes);
        let places = (self.bytes - length) / BLOCK_BYTES + 1;
        let failed =
            |error: io::Error| Failure::refused("io", format!("could not read the file: {error}"));
        let buffer = || Buffer::new(length, || 0);
        drive_threads(load, end, buffer, |buffer, random| {
            let offset = random % places * BLOCK_BYTES;
            self.file.read_exact_at(buffer.bytes_mut(), offset).map_err(failed)
        })
    }

    /// Writes from the beginning on, one after the other, at the most all of the file; and a sync.
    pub(super) fn write(&self, end: &End) -> Result<Calls, Failure> {
        let failed = |error: io::Error| Failure::refused("io", format!("could not write: {error}"));
        let end = End { calls_max: self.bytes / Self::WRITE_BYTES, ..end.clone() };
        let next = AtomicU64::new(0);
        let buffer = || {
            // Some file systems compress.
            let mut noise = Random::new(1);
            Buffer::new(Self::WRITE_BYTES, || noise.next())
        };
        let mut calls = drive_threads((1, 0), &end, buffer, |buffer, _| {
            let place = next.fetch_add(1, Ordering::Relaxed);
            self.file.write_all_at(buffer.bytes_mut(), place * Self::WRITE_BYTES).map_err(failed)
        })?;
        let started = Instant::now();
        self.file.sync_data().map_err(failed)?;
        calls.elapsed += started.elapsed();
        Ok(calls)
    }
}

/// A file that is there, with direct I/O or without it where there is none.
fn open(options: &OpenOptions, path: &Path) -> io::Result<(File, bool)> {
    let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
    match options.clone().custom_flags(direct).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok((options.open(path)?, false)),
        Err(error) => Err(error),
    }
}

/// Memory that is aligned as direct transfers ask for.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    fn new(length: u64, fill: impl FnMut() -> u64) -> Self {
        let block = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let words = std::iter::repeat_with(fill).take((length + block).div_ceil(8));
        let memory: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        let start = memory.as_ptr().align_offset(block);
        Self { memory, start, length }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}
