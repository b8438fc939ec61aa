//! Transfers on a device that interrupts, refuses, cancels, falls short and fails, from a seed.

use std::cell::{Cell, RefCell};
use std::fs::File;

use futures::future::join_all;
use tokio::runtime::Builder;

use super::super::device::Transferred;
use super::super::resize::Room;
use super::*;
use crate::io::BLOCK_BYTES;
use crate::io::simulation::Dice;

/// What one request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Whole,
    /// Some of the bytes; not always a whole block.
    Short,
    Nothing,
    Fails(Errno),
}

/// A file in memory. The fates of its requests come from `fate`, with the number of the request.
struct Scripted {
    bytes: RefCell<Vec<u8>>,
    dice: RefCell<Dice>,
    requests: Cell<u64>,
    /// Requests carried out without the ring.
    here: Cell<u64>,
    fate: fn(u64, &mut Dice) -> Fate,
}

impl Scripted {
    fn new(seed: u64, length: usize, fate: fn(u64, &mut Dice) -> Fate) -> Self {
        let mut dice = Dice::new(seed);
        let bytes = (0..length).map(|_| dice.next().to_le_bytes()[0]).collect();
        let (bytes, dice) = (RefCell::new(bytes), RefCell::new(dice));
        Self { bytes, dice, requests: Cell::new(0), here: Cell::new(0), fate }
    }

    /// How many of `length` bytes the next request transfers. Without the ring none is cancelled.
    fn next(&self, length: usize, is_here: bool) -> io::Result<usize> {
        let number = self.requests.replace(self.requests.get() + 1);
        self.here.set(self.here.get() + u64::from(is_here));
        let mut dice = self.dice.borrow_mut();
        match (self.fate)(number, &mut dice) {
            Fate::Fails(Errno::CANCELED) if is_here => Ok(length),
            Fate::Whole => Ok(length),
            Fate::Short => Ok(1 + usize::try_from(dice.next() % length as u64).expect("short")),
            Fate::Nothing => Ok(0),
            Fate::Fails(errno) => Err(errno.into()),
        }
    }

    fn read_some(&self, piece: &mut Piece, offset: u64, is_here: bool) -> io::Result<usize> {
        let start = usize::try_from(offset).expect("small");
        piece.fill(|bytes| {
            let count = self.next(bytes.len(), is_here)?;
            for (place, &byte) in bytes.iter_mut().zip(&self.bytes.borrow()[start..start + count]) {
                place.write(byte);
            }
            Ok(count)
        })
    }

    fn write_some(&self, piece: &Piece, offset: u64, is_here: bool) -> io::Result<usize> {
        let start = usize::try_from(offset).expect("small");
        let count = self.next(piece.rest().len(), is_here)?;
        self.bytes.borrow_mut()[start..start + count].copy_from_slice(&piece.rest()[..count]);
        Ok(count)
    }
}

impl Device for Scripted {
    async fn read(&self, mut piece: Piece, offset: u64) -> Transferred {
        tokio::task::yield_now().await;
        (self.read_some(&mut piece, offset, false), piece)
    }

    async fn write(&self, piece: Piece, offset: u64) -> Transferred {
        tokio::task::yield_now().await;
        (self.write_some(&piece, offset, false), piece)
    }

    async fn sync(&self) -> io::Result<()> {
        self.next(1, false).map(drop)
    }

    async fn begun(&self) {}

    fn resize(&self, length: u64, _: Room) -> io::Result<()> {
        let length = usize::try_from(length).expect("small");
        self.bytes.borrow_mut().resize(length, 0);
        Ok(())
    }

    fn duplicate(&self) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn share(&self, _: &File, _: (u64, u64), _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_here(&self, piece: &mut Piece, offset: u64) -> io::Result<usize> {
        self.read_some(piece, offset, true)
    }

    fn write_here(&self, piece: &Piece, offset: u64) -> io::Result<usize> {
        self.write_some(piece, offset, true)
    }

    fn sync_here(&self) -> io::Result<()> {
        self.next(1, true).map(drop)
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build().expect("runtime");
    runtime.block_on(future)
}

async fn read(device: &Scripted, offset: usize, length: usize) -> io::Result<AlignedBuffer> {
    let buffer = AlignedBuffer::with_capacity(length);
    let (result, buffer) = transfer(device, Direction::Read, offset as u64, buffer, length).await;
    result.map(|()| buffer)
}

async fn write(device: &Scripted, offset: usize, content: &[u8]) -> io::Result<()> {
    let mut buffer = AlignedBuffer::zeroed(content.len());
    buffer.copy_from_slice(content);
    let (result, buffer) =
        transfer(device, Direction::Write, offset as u64, buffer, content.len()).await;
    assert_eq!(&buffer[..], content, "a write gives its buffer back");
    result
}

/// Four requests in ten meet something that passes.
fn passing(_: u64, dice: &mut Dice) -> Fate {
    match dice.next() % 20 {
        0 | 1 => Fate::Fails(Errno::INTR),
        2 | 3 => Fate::Fails(Errno::AGAIN),
        4 | 5 => Fate::Fails(Errno::CANCELED),
        6 | 7 => Fate::Short,
        _ => Fate::Whole,
    }
}

#[test]
fn what_passes_is_retried_until_each_byte_is_transferred() {
    let cases = std::env::var("TAMIS_CASES").map_or(150, |cases| cases.parse().expect("a number"));
    let case = async |seed: u64| {
        let length = 6 << 20;
        let device = Scripted::new(seed, length, passing);
        let mut dice = Dice::new(seed + 1_000_000);
        for _ in 0..4 {
            let blocks_max = if dice.next() % 4 == 0 { 1200 } else { 12 };
            let blocks = 1 + usize::try_from(dice.next() % blocks_max).expect("few");
            let span = blocks * BLOCK_BYTES;
            let places = (length - span) / BLOCK_BYTES;
            let offset = usize::try_from(dice.next() % places as u64).expect("small") * BLOCK_BYTES;
            let mut expected = device.bytes.borrow().clone();
            if dice.next() % 2 == 0 {
                let content: Vec<u8> = (0..span).map(|_| dice.next().to_le_bytes()[1]).collect();
                write(&device, offset, &content).await.expect("it passes");
                expected[offset..offset + span].copy_from_slice(&content);
            } else {
                let found = read(&device, offset, span).await.expect("it passes");
                assert!(found[..] == expected[offset..offset + span], "seed {seed}");
            }
            assert!(*device.bytes.borrow() == expected, "seed {seed}");
            sync(&device).await.expect("it passes");
        }
        (device.requests.get(), device.here.get())
    };
    let (mut requests, mut here) = (0, 0);
    for first in (0..cases).step_by(50) {
        let batch = run(join_all((first..cases.min(first + 50)).map(case)));
        requests += batch.iter().map(|(requests, _)| requests).sum::<u64>();
        here += batch.iter().map(|(_, here)| here).sum::<u64>();
    }
    println!("{cases} cases, {requests} requests, {here} of them without the ring");
    assert!(requests > cases * 8 && here > cases / 2);
}

#[test]
fn what_does_not_pass_is_an_error_after_a_bounded_number_of_tries() {
    type Case = (fn(u64, &mut Dice) -> Fate, io::ErrorKind, u64);
    let once = Errno::IO.kind();
    let reads: [Case; 5] = [
        (|_, _| Fate::Fails(Errno::IO), once, 1),
        (|_, _| Fate::Fails(Errno::INTR), io::ErrorKind::Interrupted, 13),
        (|_, _| Fate::Fails(Errno::AGAIN), io::ErrorKind::WouldBlock, 13),
        (|_, _| Fate::Nothing, io::ErrorKind::UnexpectedEof, 1),
        (|number, _| Fate::Fails(if number == 0 { Errno::CANCELED } else { Errno::IO }), once, 2),
    ];
    let content = [7; BLOCK_BYTES];
    let case = async |(fate, kind, requests): Case| {
        let device = Scripted::new(1, 4 * BLOCK_BYTES, fate);
        let error = read(&device, 0, BLOCK_BYTES).await.expect_err("it fails");
        assert_eq!((error.kind(), device.requests.get()), (kind, requests), "{error}");
        let device = Scripted::new(1, 4 * BLOCK_BYTES, fate);
        let error = write(&device, 0, &content).await.expect_err("it fails");
        let kind =
            if kind == io::ErrorKind::UnexpectedEof { io::ErrorKind::WriteZero } else { kind };
        assert_eq!((error.kind(), device.requests.get()), (kind, requests), "{error}");
        if kind != io::ErrorKind::WriteZero {
            let device = Scripted::new(1, 4 * BLOCK_BYTES, fate);
            let error = sync(&device).await.expect_err("it fails");
            assert_eq!((error.kind(), device.requests.get()), (kind, requests), "{error}");
        }
    };
    run(join_all(reads.map(case)));
}

#[test]
fn a_long_transfer_begins_no_piece_after_one_has_failed() {
    let device =
        Scripted::new(
            1,
            64 << 20,
            |number, _| {
                if number == 5 { Fate::Fails(Errno::IO) } else { Fate::Whole }
            },
        );
    let error = run(read(&device, 0, 32 << 20)).expect_err("it fails");
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let begun = device.requests.get();
    assert!(begun <= 6 + DEPTH as u64, "{begun} of 32 pieces");
}
