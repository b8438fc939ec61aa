//! `LateDisk`: a disk whose file could not be opened yet. Until it is given one it carries out no
//! request.

use std::io;
use std::sync::{Arc, OnceLock};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};

use super::{AlignedBuffer, Disk, LentBlocks, ReadRequest};

/// See the module.
#[derive(Default)]
pub(crate) struct LateDisk {
    disk: OnceLock<Arc<dyn Disk>>,
}

impl LateDisk {
    /// Gives it the disk that it stands for. Only the first one counts.
    pub(crate) fn open(&self, disk: Arc<dyn Disk>) {
        let _ = self.disk.set(disk);
    }

    fn disk(&self) -> io::Result<&Arc<dyn Disk>> {
        self.disk.get().ok_or_else(not_open)
    }
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the file of the disk tier is not open")
}

impl Disk for LateDisk {
    fn length(&self) -> u64 {
        self.disk.get().map_or(0, |disk| disk.length())
    }

    fn resize(&self, length: u64) -> BoxFuture<'static, io::Result<()>> {
        self.disk().map_or_else(|error| ready(Err(error)).boxed(), |disk| disk.resize(length))
    }

    fn lend(&self) -> BoxFuture<'static, io::Result<LentBlocks>> {
        self.disk().map_or_else(|error| ready(Err(error)).boxed(), |disk| disk.lend())
    }

    fn read(&self, request: ReadRequest) -> BoxFuture<'static, io::Result<AlignedBuffer>> {
        self.disk().map_or_else(|error| ready(Err(error)).boxed(), |disk| disk.read(request))
    }

    fn write(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> BoxFuture<'static, (io::Result<()>, AlignedBuffer)> {
        match self.disk() {
            Ok(disk) => disk.write(offset, buffer),
            Err(error) => ready((Err(error), buffer)).boxed(),
        }
    }

    fn begun(&self) -> BoxFuture<'static, ()> {
        self.disk().map_or_else(|_| ready(()).boxed(), |disk| disk.begun())
    }

    fn sync(&self) -> BoxFuture<'static, io::Result<()>> {
        self.disk().map_or_else(|error| ready(Err(error)).boxed(), |disk| disk.sync())
    }

    fn is_foreign(&self) -> bool {
        self.disk.get().is_some_and(|disk| disk.is_foreign())
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::super::BLOCK_BYTES;
    use super::super::simulated::SimulatedDisk;
    use super::super::simulation::Simulation;
    use super::*;

    #[test]
    fn requests_fail_until_it_has_a_disk_and_then_are_those_of_that_disk() {
        let late = LateDisk::default();
        let block = || {
            let mut block = AlignedBuffer::with_capacity(BLOCK_BYTES);
            block.append_zeroes(BLOCK_BYTES);
            block
        };
        assert_eq!(late.length(), 0);
        let (written, returned) = block_on(late.write(0, block()));
        assert_eq!(written.expect_err("no disk").kind(), io::ErrorKind::NotConnected);
        assert_eq!(returned.len(), BLOCK_BYTES, "the buffer comes back");
        block_on(late.sync()).expect_err("no disk");
        block_on(late.resize(0)).expect_err("no disk");
        block_on(late.read(ReadRequest::new(0, BLOCK_BYTES))).expect_err("no disk");
        block_on(late.begun());
        assert!(block_on(late.lend()).is_err(), "no disk");

        late.open(Arc::new(SimulatedDisk::new(1, 8192)));
        late.open(Arc::new(SimulatedDisk::new(2, 4096)));
        assert_eq!(late.length(), 8192, "the first one");
        let mut simulation = Simulation::new(1);
        simulation.block_on(late.write(4096, block())).expect("ends").0.expect("written");
        simulation.block_on(late.sync()).expect("ends").expect("synced");
    }
}
