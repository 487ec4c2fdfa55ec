//! Builds frames of what was read and counts.
use super::cycle::CycleError;
use super::sink::{ShipError, Sink};
use crate::block::{BLOCK_BYTES, DiskId, FrameBuilder, PointId};
use crate::replica::PointSpec;
use std::collections::BTreeMap;

/// For speed on the way, not size: what is kept longer is folded with a higher level.
const ZSTD_LEVEL: i32 = 1;

pub(super) struct Shipper<'a> {
    sink: &'a mut dyn Sink,
    frame: FrameBuilder,
    pub read_bytes: u64,
    pub raw_bytes: u64,
    pub raw_bytes_by_disk: BTreeMap<DiskId, u64>,
    pub stored_bytes: u64,
}

impl<'a> Shipper<'a> {
    pub fn new(sink: &'a mut dyn Sink) -> Self {
        Self {
            sink,
            frame: FrameBuilder::new(),
            read_bytes: 0,
            raw_bytes: 0,
            raw_bytes_by_disk: BTreeMap::new(),
            stored_bytes: 0,
        }
    }

    /// Adds whole blocks, in their order on the disk.
    pub fn push(&mut self, disk: DiskId, mut first: u64, mut data: &[u8]) -> Result<(), CycleError> {
        self.raw_bytes += data.len() as u64;
        *self.raw_bytes_by_disk.entry(disk).or_default() += data.len() as u64;
        while !data.is_empty() {
            let room = self.frame.room_blocks() * BLOCK_BYTES;
            if room == 0 {
                self.send(disk)?;
                continue;
            }
            let (part, rest) = data.split_at(room.min(data.len()));
            self.frame.push(first, part);
            first += (part.len() / BLOCK_BYTES) as u64;
            data = rest;
        }
        Ok(())
    }

    /// Ends the frame; a frame holds blocks of one disk.
    pub fn send(&mut self, disk: DiskId) -> Result<(), CycleError> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let frame = std::mem::take(&mut self.frame);
        let bytes = frame.finish(ZSTD_LEVEL).map_err(|source| CycleError::Memory {
            what: "compress a frame",
            source,
        })?;
        self.stored_bytes += bytes.len() as u64;
        Ok(self.sink.append(disk, bytes)?)
    }

    pub fn flush(&mut self) -> Result<(), CycleError> {
        Ok(self.sink.flush()?)
    }

    pub fn compare(
        &mut self,
        disk: DiskId,
        granule: u64,
        digests: &[[u8; 32]],
    ) -> Result<Option<Vec<bool>>, ShipError> {
        self.sink.compare(disk, granule, digests)
    }

    pub fn seal(&mut self, spec: PointSpec) -> Result<PointId, ShipError> {
        self.sink.seal(spec, self.raw_bytes)
    }
}
