//! One recovery point of a machine: copy what changed until little is left, freeze, take the rest, thaw, seal.
//!
//! ```text
//! compare (first time) -> copy passes -> freeze -> drain, settle, read, drain again -> thaw -> ship -> seal
//! ```
//! A point is never called better than it is: without a frozen file system the disk must have been quiet, a
//! write past the frozen file systems makes it fuzzy, and a freeze that the guard ended makes no point.
//! A crash anywhere loses nothing: bits stay pending until what was read for them is durable at the target.
use super::capture::{AlignedBuffer, CaptureError, ChangeSource, DiskReader, EbpfSource};
use super::freeze::{FreezeError, Guard};
use super::mounts;
use super::sink::{ShipError, Sink};
use crate::block::{
    BLOCK_BYTES, BlockRange, Consistency, DiskId, ExtentSet, FRAME_RAW_BYTES_MAX, FrameBuilder,
    GRANULE_BYTES, PointId,
};
use crate::replica::PointSpec;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Read and frozen for at most this much; more is copied in another pass first.
const REST_BYTES: u64 = 16 << 20;
/// Room for what appears between the last pass and the freeze.
const RESERVE_BYTES: usize = 32 << 20;
const PASSES_MAX: usize = 3;
const CHUNK_BLOCKS: u64 = (FRAME_RAW_BYTES_MAX / BLOCK_BYTES) as u64;
/// For speed on the way, not size: what is kept longer is folded with a higher level.
const ZSTD_LEVEL: i32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error("cannot find the file systems of {path}")]
    Mounts { path: PathBuf, source: std::io::Error },
    #[error("cannot {what}")]
    Memory {
        what: &'static str,
        source: std::io::Error,
    },
    #[error(
        "the disks change faster than they can be copied: {0} bytes were left at the freeze; no point was made"
    )]
    TooBusy(u64),
    #[error("cancelled")]
    Cancelled,
}

/// A disk under replication.
pub struct ProtectedDisk {
    pub id: DiskId,
    reader: DiskReader,
    source: Box<dyn ChangeSource>,
    /// Known to differ from the target, beyond what the source will tell.
    dirty: ExtentSet,
    /// Everything is to be compared with the target, whatever the source knows.
    doubted: bool,
}

pub struct CycleSettings<'a> {
    /// This executable, to be run as the freeze guard.
    pub guard: PathBuf,
    pub freeze_deadline: Duration,
    /// Called while everything is frozen and after the last read: for tests that keep what the disk held.
    pub witness: Option<&'a mut dyn FnMut()>,
    /// Called after each chunk; must be quick.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Nanoseconds of Unix time on the server's clock.
    pub clock: &'a dyn Fn() -> i64,
    /// Set: the cycle ends at the next chunk, with [`CycleError::Cancelled`]. Nothing is lost by it.
    pub cancel: &'a AtomicBool,
}

/// What the cycle does with a disk at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The target holds nothing of the disk: everything is read and shipped.
    InitialReplication,
    /// Everything is read and what differs at the target is shipped.
    Resynchronizing,
    /// Changed blocks are copied.
    Copying,
    /// The blocks of the freeze are shipped.
    Shipping,
}

/// How far the cycle is with a disk.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub disk: DiskId,
    pub phase: Phase,
    /// Bytes of this phase done, and in all.
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Known to have changed and not yet durable at the target.
    pub pending_bytes: u64,
}

#[derive(Clone, Debug)]
pub struct CycleReport {
    pub point: PointId,
    pub consistency: Consistency,
    pub note: String,
    pub freeze: Duration,
    /// Raw bytes of the blocks that were read and shipped.
    pub shipped_raw_bytes: u64,
    pub stored_bytes: u64,
    pub passes: usize,
}

impl ProtectedDisk {
    pub fn open(path: &Path, id: DiskId) -> Result<Self, CaptureError> {
        let reader = DiskReader::open(path)?;
        let source = Box::new(EbpfSource::open(path, id)?);
        // What an agent before this one took and did not get acknowledged.
        let dirty = source.pending();
        Ok(Self {
            id,
            reader,
            source,
            dirty,
            doubted: false,
        })
    }

    /// `ebpf` or `scan`.
    pub fn capture(&self) -> &'static str {
        "ebpf"
    }

    /// Resynchronize: the next cycle compares everything with the target.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    pub fn size_bytes(&self) -> u64 {
        self.reader.size_bytes()
    }

    fn blocks(&self) -> u64 {
        self.size_bytes().div_ceil(BLOCK_BYTES as u64)
    }

    /// Takes what changed, within the disk.
    fn drain(&mut self) {
        self.source.drain(&mut self.dirty);
        self.clip();
    }

    fn clip(&mut self) {
        self.dirty
            .remove(BlockRange::new(self.blocks(), u64::MAX - self.blocks()));
    }
}

/// Builds frames and counts.
struct Shipper<'a> {
    sink: &'a mut dyn Sink,
    frame: FrameBuilder,
    raw_bytes: u64,
    stored_bytes: u64,
}

impl Shipper<'_> {
    fn push(&mut self, disk: DiskId, mut first: u64, mut data: &[u8]) -> Result<(), CycleError> {
        self.raw_bytes += data.len() as u64;
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
    fn send(&mut self, disk: DiskId) -> Result<(), CycleError> {
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
}

/// Makes one recovery point of all these disks.
pub fn run(
    disks: &mut [ProtectedDisk],
    sink: &mut dyn Sink,
    settings: &mut CycleSettings,
) -> Result<CycleReport, CycleError> {
    let reserve = AlignedBuffer::new(RESERVE_BYTES);
    let mut reserve = reserve.map_err(|source| CycleError::Memory {
        what: "reserve memory",
        source,
    })?;
    let mut ship = Shipper {
        sink,
        frame: FrameBuilder::new(),
        raw_bytes: 0,
        stored_bytes: 0,
    };
    for disk in disks
        .iter_mut()
        .filter(|disk| disk.doubted || disk.source.was_lost())
    {
        compare(disk, &mut ship, &mut reserve[..GRANULE_BYTES * 256], settings)?;
    }
    let mut passes = 0;
    loop {
        disks.iter_mut().for_each(ProtectedDisk::drain);
        let left: u64 = disks
            .iter()
            .map(|disk| disk.dirty.blocks() * BLOCK_BYTES as u64)
            .sum();
        if left <= REST_BYTES || passes == PASSES_MAX {
            break;
        }
        passes += 1;
        for disk in disks.iter_mut() {
            copy(disk, &mut ship, &mut reserve[..FRAME_RAW_BYTES_MAX], settings)?;
        }
    }
    let mut mount_points = Vec::new();
    for disk in disks.iter() {
        let path = disk.reader.path();
        let found = mounts::of_disk(path).map_err(|source| CycleError::Mounts {
            path: path.to_owned(),
            source,
        })?;
        mount_points.extend(found);
    }
    let taken = take(disks, &mount_points, &mut reserve, settings)?;
    let mut at = 0;
    for disk in disks.iter_mut() {
        for range in disk.dirty.iter() {
            let len = range.count as usize * BLOCK_BYTES;
            ship.push(disk.id, range.first, &reserve[at..at + len])?;
            at += len;
        }
        ship.send(disk.id)?;
    }
    let (raw, stored) = (ship.raw_bytes, ship.stored_bytes);
    let spec = PointSpec {
        instant_unix_nanos: taken.instant,
        consistency: taken.consistency,
        note: taken.note.clone(),
        freeze_micros: u32::try_from(taken.freeze.as_micros()).unwrap_or(u32::MAX),
    };
    let point = sink.seal(spec, raw)?;
    for (disk, stray) in disks.iter_mut().zip(taken.strays) {
        let mut done = std::mem::replace(&mut disk.dirty, stray);
        done.remove_all(&disk.dirty);
        disk.source.acknowledge(&done);
        disk.source.compared();
        disk.doubted = false;
    }
    Ok(CycleReport {
        point,
        consistency: taken.consistency,
        note: taken.note,
        freeze: taken.freeze,
        shipped_raw_bytes: raw,
        stored_bytes: stored,
        passes,
    })
}

struct Taken {
    instant: i64,
    consistency: Consistency,
    note: String,
    freeze: Duration,
    /// Per disk: what changed while nothing should have.
    strays: Vec<ExtentSet>,
}

/// Takes the last bits and reads the blocks, all disks at one instant.
fn take(
    disks: &mut [ProtectedDisk],
    mount_points: &[PathBuf],
    reserve: &mut [u8],
    settings: &mut CycleSettings,
) -> Result<Taken, CycleError> {
    let guard = Guard::spawn(&settings.guard, mount_points, settings.freeze_deadline)?;
    let frozen = guard.freeze()?;
    let instant = (settings.clock)();
    let result = read_rest(disks, reserve);
    if let Some(witness) = &mut settings.witness {
        witness();
    }
    let mut strays = vec![ExtentSet::new(); disks.len()];
    for (disk, stray) in disks.iter_mut().zip(&mut strays) {
        disk.source.drain(stray);
    }
    let thawed = frozen.thaw();
    let moved: Vec<String> = disks
        .iter()
        .zip(&strays)
        .filter(|(_, stray)| !stray.is_empty())
        .map(|(disk, _)| disk.reader.path().display().to_string())
        .collect();
    if thawed.is_err() || result.is_err() {
        disks
            .iter_mut()
            .zip(&strays)
            .for_each(|(disk, stray)| disk.dirty.union_with(stray));
        result?;
    }
    let freeze = thawed?;
    let (consistency, note) = if moved.is_empty() {
        (Consistency::CrashConsistent, String::new())
    } else {
        (
            Consistency::Fuzzy,
            format!("written to past the file systems: {}", moved.join(", ")),
        )
    };
    Ok(Taken {
        instant,
        consistency,
        note,
        freeze,
        strays,
    })
}

fn read_rest(disks: &mut [ProtectedDisk], reserve: &mut [u8]) -> Result<(), CycleError> {
    for disk in disks.iter_mut() {
        disk.drain();
        disk.source.settle(&mut disk.dirty);
        disk.clip();
    }
    let left: u64 = disks
        .iter()
        .map(|disk| disk.dirty.blocks() * BLOCK_BYTES as u64)
        .sum();
    if left > reserve.len() as u64 {
        return Err(CycleError::TooBusy(left));
    }
    let mut at = 0;
    for disk in disks.iter() {
        for range in disk.dirty.iter() {
            let len = range.count as usize * BLOCK_BYTES;
            disk.reader.read(range.first, &mut reserve[at..at + len])?;
            at += len;
        }
    }
    Ok(())
}

fn check_cancelled(settings: &CycleSettings) -> Result<(), CycleError> {
    if settings.cancel.load(Ordering::Relaxed) {
        return Err(CycleError::Cancelled);
    }
    Ok(())
}

/// One pass: reads and ships what is dirty; durable at the target on return.
fn copy(
    disk: &mut ProtectedDisk,
    ship: &mut Shipper,
    buffer: &mut [u8],
    settings: &mut CycleSettings,
) -> Result<(), CycleError> {
    let done = disk.dirty.clone();
    let mut left = done.clone();
    let total_bytes = done.blocks() * BLOCK_BYTES as u64;
    let mut done_bytes = 0;
    while let Some(range) = left.take_first(CHUNK_BLOCKS) {
        check_cancelled(settings)?;
        let part = &mut buffer[..range.count as usize * BLOCK_BYTES];
        disk.reader.read(range.first, part)?;
        ship.push(disk.id, range.first, part)?;
        done_bytes += range.count * BLOCK_BYTES as u64;
        (settings.progress)(Progress {
            disk: disk.id,
            phase: Phase::Copying,
            done_bytes,
            total_bytes,
            pending_bytes: total_bytes - done_bytes,
        });
    }
    ship.send(disk.id)?;
    ship.sink.flush()?;
    disk.source.acknowledge(&done);
    disk.dirty.clear();
    Ok(())
}

/// Reads the whole disk and ships what the target does not have; what changes meanwhile shows in the bits.
fn compare(
    disk: &mut ProtectedDisk,
    ship: &mut Shipper,
    buffer: &mut [u8],
    settings: &mut CycleSettings,
) -> Result<(), CycleError> {
    let at_once = (buffer.len() / GRANULE_BYTES) as u64;
    let per_granule = (GRANULE_BYTES / BLOCK_BYTES) as u64;
    let granules = disk.size_bytes().div_ceil(GRANULE_BYTES as u64);
    let mut nothing_there = false;
    let mut granule = 0;
    while granule < granules {
        check_cancelled(settings)?;
        let count = at_once.min(granules - granule);
        let offset = granule * GRANULE_BYTES as u64;
        let len = (disk.size_bytes() - offset).min(count * GRANULE_BYTES as u64) as usize;
        let whole = len.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
        let first_block = granule * per_granule;
        disk.reader.read(first_block, &mut buffer[..whole])?;
        let differing = if nothing_there {
            None
        } else {
            let digests: Vec<[u8; 32]> = buffer[..len]
                .chunks(GRANULE_BYTES)
                .map(|granule| *blake3::hash(granule).as_bytes())
                .collect();
            ship.sink.compare(disk.id, granule, &digests)?
        };
        match differing {
            None => {
                nothing_there = true;
                ship.push(disk.id, first_block, &buffer[..whole])?;
            }
            Some(differing) => {
                for (index, _) in differing.iter().enumerate().filter(|(_, differs)| **differs) {
                    let from = index * GRANULE_BYTES;
                    let part = &buffer[from..(from + GRANULE_BYTES).min(whole)];
                    ship.push(disk.id, first_block + index as u64 * per_granule, part)?;
                }
            }
        }
        granule += count;
        let done_bytes = offset + len as u64;
        (settings.progress)(Progress {
            disk: disk.id,
            phase: if nothing_there {
                Phase::InitialReplication
            } else {
                Phase::Resynchronizing
            },
            done_bytes,
            total_bytes: disk.size_bytes(),
            pending_bytes: disk.size_bytes() - done_bytes,
        });
    }
    ship.send(disk.id)?;
    Ok(ship.sink.flush()?)
}
