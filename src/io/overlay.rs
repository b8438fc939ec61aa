//! `OverlayDisk`: a disk over another one that is never written. Reads come from the lower disk,
//! but for the blocks that were written above it, which are in memory.
//!
//! So a store can be opened, with all that an open writes, and stays as it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::task_runner::{TaskEnd, TaskRunner, refused};
use super::{AlignedBuffer, BLOCK_BYTES, Disk, ReadRequest, check_span};

/// The most bytes that may be written above. An open writes a few blocks, and the directory of a
/// damaged segment.
const WRITTEN_BYTES_MAX: usize = 1 << 30;

/// Shares what it has with its reads.
pub(crate) struct OverlayDisk {
    below: Arc<dyn Disk>,
    above: Arc<Mutex<Above>>,
}

struct Above {
    /// By number. None: zeroes.
    blocks: BTreeMap<u64, Option<Box<[u8]>>>,
    written_bytes: usize,
    length: u64,
    /// From here on the lower disk does not show: it has been cut off.
    visible: u64,
}

impl OverlayDisk {
    /// At least `length` bytes long. What the lower disk does not have reads as zeroes.
    pub(crate) fn new(below: Arc<dyn Disk>, length: u64) -> Self {
        let visible = below.length();
        let length = visible.max(length);
        let above = Above { blocks: BTreeMap::new(), written_bytes: 0, length, visible };
        Self { below, above: Arc::new(Mutex::new(above)) }
    }
}

impl Above {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        check_span(offset, bytes.len(), self.length)?;
        if self.written_bytes + bytes.len() > WRITTEN_BYTES_MAX {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let numbers = offset / BLOCK_BYTES as u64..;
        // Bounded: by the bytes of a request.
        for (number, block) in numbers.zip(bytes.chunks(BLOCK_BYTES)) {
            // Bounded: by a block.
            let is_zero = block.iter().all(|byte| *byte == 0);
            self.written_bytes += if is_zero { 0 } else { block.len() };
            let before = self.blocks.insert(number, (!is_zero).then(|| block.into())).flatten();
            self.written_bytes -= before.map_or(0, |before| before.len());
        }
        Ok(())
    }

    fn resize(&mut self, length: u64) {
        self.length = length;
        self.visible = self.visible.min(length);
        let behind = self.blocks.split_off(&(length / BLOCK_BYTES as u64));
        // Bounded: by what was written.
        self.written_bytes -=
            behind.into_values().flatten().map(|block| block.len()).sum::<usize>();
    }

    /// The span with what is above it. `below`: the part of it that shows of the lower disk.
    fn merged(&self, offset: u64, length: usize, below: AlignedBuffer) -> AlignedBuffer {
        let (first, count) = (offset / BLOCK_BYTES as u64, (length / BLOCK_BYTES) as u64);
        if below.len() == length && self.blocks.range(first..first + count).next().is_none() {
            return below;
        }
        let mut merged = AlignedBuffer::with_capacity(length);
        let mut blocks = below.chunks(BLOCK_BYTES);
        // Bounded: by the bytes of a request.
        for number in first..first + count {
            let lower = blocks.next();
            match self.blocks.get(&number) {
                Some(Some(block)) => merged.append(block),
                Some(None) => merged.append_zeroes(BLOCK_BYTES),
                None => match lower {
                    Some(lower) => merged.append(lower),
                    None => merged.append_zeroes(BLOCK_BYTES),
                },
            }
        }
        merged
    }
}

impl Disk for OverlayDisk {
    fn length(&self) -> u64 {
        self.above.lock().length
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        let above = Arc::clone(&self.above);
        async move {
            above.lock().resize(length);
            Ok(())
        }
        .boxed()
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        let (below, above) = (Arc::clone(&self.below), Arc::clone(&self.above));
        async move {
            let ReadRequest { offset, length, .. } = request;
            let visible = {
                let above = above.lock();
                check_span(offset, length, above.length)?;
                above.visible.saturating_sub(offset)
            };
            let shown = usize::try_from(visible).map_or(length, |visible| visible.min(length));
            let lower = match shown {
                0 => AlignedBuffer::default(),
                shown => below.read(ReadRequest { length: shown, ..request }).await?,
            };
            Ok(above.lock().merged(offset, length, lower))
        }
        .boxed()
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        let above = Arc::clone(&self.above);
        async move { (above.lock().write(offset, &buffer), buffer) }.boxed()
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        ready(Ok(())).boxed()
    }
}

/// Runs nothing: nobody writes what a store that is only looked at would have written.
pub(crate) struct NoTasks;

impl TaskRunner for NoTasks {
    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) -> TaskEnd {
        refused()
    }

    fn sleep(&self, _: std::time::Duration) -> BoxFuture<'static, ()> {
        ready(()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;

    /// A disk of ones that refuses to be changed.
    struct Ones;

    const BLOCKS: u64 = 4;

    impl Disk for Ones {
        fn length(&self) -> u64 {
            BLOCKS * BLOCK_BYTES as u64
        }

        fn resize(&self, _: u64) -> BoxFuture<'static, io::Result<()>> {
            panic!("resized")
        }

        fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
            let ones = check_span(request.offset, request.length, self.length())
                .map(|()| AlignedBuffer::copy_from_slice(&vec![1; request.length]));
            ready(ones).boxed()
        }

        fn write(
            &self,
            _: u64,
            _: AlignedBuffer,
        ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
            panic!("written")
        }

        fn begun(&self) -> BoxFuture<'static, ()> {
            ready(()).boxed()
        }

        fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
            panic!("synced")
        }
    }

    /// The first byte of each block.
    fn seen(disk: &OverlayDisk) -> Vec<u8> {
        let length = usize::try_from(disk.length()).expect("small");
        let read = block_on(disk.read(ReadRequest::new(0, length))).expect("read");
        assert!(read.chunks(BLOCK_BYTES).all(|block| block.iter().all(|byte| *byte == block[0])));
        read.chunks(BLOCK_BYTES).map(|block| block[0]).collect()
    }

    fn write(disk: &OverlayDisk, block: u64, bytes: &[u8]) -> io::Result<()> {
        let buffer = AlignedBuffer::copy_from_slice(bytes);
        block_on(disk.write(block * BLOCK_BYTES as u64, buffer)).0
    }

    #[test]
    fn what_is_written_above_is_read_and_the_lower_disk_never_changes() {
        let disk = OverlayDisk::new(Arc::new(Ones), 0);
        assert_eq!(seen(&disk), [1; 4]);
        write(&disk, 1, &[7; BLOCK_BYTES]).expect("written");
        write(&disk, 3, &[0; BLOCK_BYTES]).expect("written");
        block_on(disk.sync()).expect("nothing to do");
        assert_eq!(seen(&disk), [1, 7, 1, 0]);
        assert!(write(&disk, 4, &[7; BLOCK_BYTES]).is_err(), "behind its end");
    }

    #[test]
    fn what_was_cut_off_reads_as_zeroes_once_it_is_there_again() {
        let disk = OverlayDisk::new(Arc::new(Ones), 0);
        write(&disk, 2, &[7; BLOCK_BYTES]).expect("written");
        block_on(disk.resize(2 * BLOCK_BYTES as u64)).expect("cut");
        assert_eq!(seen(&disk), [1; 2]);
        block_on(disk.resize(5 * BLOCK_BYTES as u64)).expect("grown");
        assert_eq!(seen(&disk), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn it_may_be_longer_than_the_lower_disk() {
        let disk = OverlayDisk::new(Arc::new(Ones), 6 * BLOCK_BYTES as u64);
        write(&disk, 5, &[7; BLOCK_BYTES]).expect("written");
        assert_eq!(seen(&disk), [1, 1, 1, 1, 0, 7]);
    }

    #[test]
    fn its_memory_is_bounded() {
        let disk = OverlayDisk::new(Arc::new(Ones), 0);
        disk.above.lock().written_bytes = WRITTEN_BYTES_MAX;
        let refused = write(&disk, 0, &[7; BLOCK_BYTES]).expect_err("too much");
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
        assert_eq!(seen(&disk), [1; 4]);
    }
}
