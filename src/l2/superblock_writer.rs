//! `SuperblockWriter`: the superblock, and what is written before it may change.

use std::{io, mem};

use super::format::{Geometry, Position, SegmentNumber};
use super::segment_file::SegmentFile;
use super::superblock::Superblock;
use crate::failpoint::{Failpoint, failpoint};

pub(super) struct SuperblockWriter {
    file: SegmentFile,
    superblock: Superblock,
}

impl SuperblockWriter {
    pub(super) fn new(file: SegmentFile, superblock: Superblock) -> Self {
        Self { file, superblock }
    }

    pub(super) fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Writes the header of segment `next`, then the superblocks that announce it.
    pub(super) async fn write_announcement(&mut self, next: SegmentNumber) -> io::Result<()> {
        self.file.write_header(&self.superblock, next).await?;
        self.superblock.newest = next;
        self.write().await
    }

    /// The file has another number of segments. After an error it has the one before, in memory.
    pub(super) async fn write_geometry(&mut self, geometry: Geometry) -> io::Result<()> {
        let before = mem::replace(&mut self.superblock.geometry, geometry);
        let written = self.write().await;
        if written.is_err() {
            self.superblock.geometry = before;
        }
        written
    }

    pub(super) async fn write_head(&mut self, head: Position) -> io::Result<()> {
        self.superblock.head = head;
        self.write().await
    }

    /// Marks the store as closed with its end at `tail`. Everything before is on the device first.
    pub(super) async fn write_close(&mut self, tail: Position) -> io::Result<()> {
        self.file.sync().await?;
        self.superblock.clean = true;
        self.superblock.tail = tail;
        self.write().await?;
        self.file.sync().await
    }

    /// Tries once to mark the store as void: nothing in it may be served.
    pub(super) async fn write_void(&mut self) -> io::Result<()> {
        self.superblock.void = true;
        self.superblock.clean = false;
        self.write().await?;
        self.file.health.set_voided();
        Ok(())
    }

    /// Begins the log anew at the start of segment `next`: nothing before it counts.
    pub(super) async fn write_restart(&mut self, next: SegmentNumber) -> io::Result<()> {
        let head = self.superblock.geometry.start_of(next);
        let head = head.ok_or_else(|| io::Error::other("positions have run out"))?;
        self.file.write_header(&self.superblock, next).await?;
        self.superblock.newest = next;
        if !failpoint(Failpoint::RestartKeepsRecords) {
            self.superblock.head = head;
        }
        self.superblock.void = false;
        self.write().await?;
        self.file.places.release_before(next);
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        self.superblock.write_counter += 1;
        self.file.write_superblock(&self.superblock).await
    }
}
