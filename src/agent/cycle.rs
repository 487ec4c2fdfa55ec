//! One recovery point of a machine: copy what changed until little is left, freeze, take the rest, thaw, seal.
//!
//! ```text
//! compare (first time, or doubt) -> sync, take bits, copy: until little is left -> window -> ship -> seal
//! app-consistent:      .. -> pre of the hooks -> sync, take bits, copy: what they wrote -> window -> post -> ship -> seal
//! ```
//! A point is never called better than it is; `window.rs` says how it is found out. A crash anywhere
//! loses nothing: blocks stay pending until what was read for them is durable at the target. Between reading and
//! acknowledging no bits are taken: a block that changes in between keeps its bit.
use super::capture::{
    AlignedBuffer, Batch, CaptureError, CaptureKind, ChangeSource, DiskReader, EbpfSource, ReadError,
    ScanSource, outside,
};
use super::freeze::{FreezeError, Held, open_all, sync_all};
use super::mounts::{self, FileSystem};
use super::quiesce::{Quiesce, QuiesceError, Quiesced, Step, Why};
use super::rounds::Round;
use super::shipper::Shipper;
use super::sink::{DIGESTS_MAX, ShipError, Sink};
use super::swap;
use super::window::{self, Taken};
use crate::block::{BLOCK_BYTES, BlockRange, Consistency, DiskId, GRANULE_BYTES, PointId};
use crate::replica::{PointSpec, SharedMark};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Room for what is read while writers are stopped. A half of it may be left by the last pass, the other is for what appears
/// between that and the freeze.
const RESERVE_BYTES: usize = 16 << 20;
/// Room that busy disks get, until this many points in a row would have fitted into a quarter of [`RESERVE_BYTES`].
const RESERVE_BYTES_MAX: usize = 64 << 20;
const QUIET_POINTS: u32 = 64;
/// Tries with more room when too much was left at the freeze.
const ROOM_TRIES_MAX: usize = 2;
/// So little is read in a few milliseconds: another pass would gain nothing.
const LITTLE_BYTES: u64 = 1 << 20;
/// Passes after which a rest of half the room is little enough when it does not shrink to a half any more, and passes
/// after which the freeze is tried anyway.
const PASSES: usize = 3;
const PASSES_MAX: usize = 8;
/// Read at once. Small, so that reading, compressing and sending overlap.
const CHUNK_BLOCKS: u64 = 1024;
/// Shipped and acknowledged at a time: what a broken link makes to be shipped again.
const ACKNOWLEDGE_BYTES: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Freeze(#[from] FreezeError),
    #[error(transparent)]
    Ship(#[from] ShipError),
    #[error("cannot find the file systems of the disks")]
    Mounts(#[source] std::io::Error),
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
    pub(super) reader: DiskReader,
    pub(super) source: Box<dyn ChangeSource>,
    /// Not replicated (swap), sorted. These blocks stay pending, so that they are shipped when they become data.
    pub(super) excluded: Vec<BlockRange>,
}

/// Memory that every cycle uses again: one per agent.
pub struct Reserve {
    pub(super) memory: AlignedBuffer,
    pub(super) batch: Batch,
    /// Points since the last one that needed more than a quarter of [`RESERVE_BYTES`].
    quiet_points: u32,
}

/// What may be watched while a point is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Everything is frozen, nothing read yet.
    Frozen,
    /// Everything is read and still frozen.
    Read,
    Thawed,
}

pub struct CycleSettings<'a> {
    /// This executable, to be run as the freeze guard.
    pub guard: PathBuf,
    pub freeze_deadline: Duration,
    /// How long to look for a moment in which file systems that cannot be frozen are quiet.
    pub quiet_patience: Duration,
    /// For tests that keep what the disk held, or count allocations.
    pub witness: Option<&'a mut dyn FnMut(Moment)>,
    /// Called after each chunk; must be quick.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Nanoseconds of Unix time on the server's clock.
    pub clock: &'a dyn Fn() -> i64,
    /// Set: the cycle ends at the next chunk, with [`CycleError::Cancelled`]. Nothing is lost by it.
    pub cancel: &'a AtomicBool,
    /// Where the freeze is kept that a good point was made in: nothing is written behind it. Without: all is thawed when
    /// the last blocks are read.
    pub hold: Option<&'a mut Held>,
    /// The point is to be app-consistent, by these hooks. Where that fails it is made all the same, and says why it is less.
    pub quiesce: Option<(&'a Quiesce, Why)>,
    /// The instant is to be that of a replication group.
    pub round: Option<&'a mut Round>,
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

#[derive(Debug)]
pub struct CycleReport {
    pub point: PointId,
    /// Of the freeze, on the server's clock.
    pub instant_unix_nanos: i64,
    pub consistency: Consistency,
    pub note: String,
    /// How long writers were stopped; zero where nothing was frozen.
    pub freeze: Duration,
    pub read_bytes: u64,
    /// Raw bytes of the blocks that were shipped: by comparing, and as changes.
    pub compared_raw_bytes: u64,
    pub changed_raw_bytes: u64,
    /// Both, by disk.
    pub raw_bytes_by_disk: BTreeMap<DiskId, u64>,
    pub stored_bytes: u64,
    pub passes: usize,
    /// Read while everything was frozen.
    pub frozen_bytes: u64,
    /// Where an app-consistent point was asked for: whether it is one.
    pub app_consistent: Option<Result<(), QuiesceError>>,
    /// How the hooks were called.
    pub hooks: Vec<Step>,
    /// The other machines of the group have a point of this instant too.
    pub shared: Option<SharedMark>,
}

impl Reserve {
    pub fn new() -> Result<Self, CycleError> {
        Self::with_bytes(RESERVE_BYTES)
    }

    /// Small ones are for places that never freeze.
    pub fn with_bytes(bytes: usize) -> Result<Self, CycleError> {
        Ok(Self {
            memory: Self::memory(bytes)?,
            batch: Batch::new(),
            quiet_points: 0,
        })
    }

    fn memory(bytes: usize) -> Result<AlignedBuffer, CycleError> {
        AlignedBuffer::new(bytes).map_err(|source| CycleError::Memory {
            what: "reserve memory",
            source,
        })
    }

    /// May be left by the last pass before the freeze.
    fn rest_bytes(&self) -> u64 {
        self.memory.len() as u64 / 2
    }

    /// So much was left at a freeze: room for it and as much again. Not while anything is frozen.
    fn grow(&mut self, left_bytes: u64) -> Result<(), CycleError> {
        let wanted = usize::try_from(left_bytes.saturating_mul(2)).unwrap_or(usize::MAX);
        let wanted = wanted.next_multiple_of(BLOCK_BYTES).min(RESERVE_BYTES_MAX);
        if wanted > self.memory.len() {
            self.memory = Self::memory(wanted)?;
        }
        Ok(())
    }

    /// A point was made of so many bytes read at the freeze; what it needs no more is given back. The point is made: where
    /// there is no memory to take less, the room stays as it is.
    fn used(&mut self, bytes: u64) {
        self.quiet_points = if bytes <= RESERVE_BYTES as u64 / 4 {
            self.quiet_points.saturating_add(1)
        } else {
            0
        };
        if self.quiet_points >= QUIET_POINTS
            && self.memory.len() > RESERVE_BYTES
            && let Ok(less) = Self::memory(RESERVE_BYTES)
        {
            self.memory = less;
        }
    }
}

impl ProtectedDisk {
    /// Tracked by eBPF.
    pub fn open(path: &Path, id: DiskId) -> Result<Self, CaptureError> {
        Self::new(path, id, Box::new(EbpfSource::open(path, id)?))
    }

    /// Read as a whole for each point.
    pub fn scan(path: &Path, id: DiskId) -> Result<Self, CaptureError> {
        Self::new(path, id, Box::new(ScanSource::open(path)?))
    }

    fn new(path: &Path, id: DiskId, source: Box<dyn ChangeSource>) -> Result<Self, CaptureError> {
        Ok(Self {
            id,
            reader: DiskReader::open(path)?,
            source,
            excluded: Vec::new(),
        })
    }

    pub fn path(&self) -> &Path {
        self.reader.path()
    }

    pub fn size_bytes(&self) -> u64 {
        self.reader.size_bytes()
    }

    pub fn kind(&self) -> CaptureKind {
        self.source.kind()
    }

    /// Changed and not durable at the target. The whole disk when everything must be compared; a scanned disk does
    /// not know it.
    pub fn pending_bytes(&self) -> u64 {
        if self.kind() == CaptureKind::Ebpf && self.source.was_lost() {
            return self.size_bytes();
        }
        self.backlog_bytes()
    }

    pub(super) fn backlog_bytes(&self) -> u64 {
        let excluded: u64 = self.excluded.iter().map(|range| range.count).sum();
        self.source.backlog_blocks().saturating_sub(excluded) * BLOCK_BYTES as u64
    }

    /// The next cycle compares everything with the target.
    pub fn resynchronize(&mut self) {
        self.source.doubt();
    }

    /// Whether the next cycle compares everything.
    pub fn was_lost(&self) -> bool {
        self.source.was_lost()
    }

    /// [`PointId::mark`] of the last point that was sealed of it; 0: none since tracking began.
    pub fn last_point(&self) -> u64 {
        self.source.last_point()
    }

    /// Protection ends: nothing is tracked any more.
    pub fn forget(self) {
        self.source.forget();
    }

    pub(super) fn is_tracked(&self) -> bool {
        self.kind() != CaptureKind::Scan
    }

    fn blocks(&self) -> u64 {
        self.size_bytes().div_ceil(BLOCK_BYTES as u64)
    }

    /// The next range to be copied at or after this block.
    pub(super) fn next_pending(&self, mut from: u64, blocks_max: u64) -> Option<BlockRange> {
        loop {
            let range = self.source.next_pending(from, blocks_max)?;
            let end = range.end().min(self.blocks());
            if range.first >= end {
                return None;
            }
            match outside(BlockRange::new(range.first, end - range.first), &self.excluded) {
                Ok(range) => return Some(range),
                Err(next) => from = next,
            }
        }
    }

    pub(super) fn pending_blocks(&self) -> u64 {
        let (mut blocks, mut from) = (0, 0);
        while let Some(range) = self.next_pending(from, u64::MAX) {
            blocks += range.count;
            from = range.end();
        }
        blocks
    }

    /// What was read of the pending blocks below `end` is durable.
    fn acknowledge_below(&mut self, end: u64) {
        let mut from = 0;
        while let Some(range) = self.next_pending(from, u64::MAX)
            && range.first < end
        {
            let range = BlockRange::new(range.first, range.end().min(end) - range.first);
            self.source.acknowledge(range);
            from = range.end();
        }
    }

    /// Learns what is swap now. What is swap no more was kept pending and shows by itself.
    fn exclude_swap(&mut self) {
        if !self.is_tracked() {
            return;
        }
        // Not told: replicated as data, which is never wrong.
        self.excluded = swap::of_disk(self.path()).unwrap_or_default();
        for range in &self.excluded {
            self.source.mark(*range);
        }
    }

    pub(super) fn read_failed(&self, error: ReadError) -> CycleError {
        self.reader.failed(error.source).into()
    }
}

pub(super) fn check_cancelled(settings: &CycleSettings) -> Result<(), CycleError> {
    if settings.cancel.load(Ordering::Relaxed) {
        return Err(CycleError::Cancelled);
    }
    Ok(())
}

/// Makes one recovery point of all these disks.
pub fn run(
    disks: &mut [ProtectedDisk],
    sink: &mut dyn Sink,
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
) -> Result<CycleReport, CycleError> {
    let mut ship = Shipper::new(sink);
    check_disks(disks)?;
    for disk in disks.iter_mut() {
        disk.exclude_swap();
        if !disk.is_tracked() {
            disk.source.take();
        }
    }
    for disk in disks.iter_mut().filter(|disk| disk.source.was_lost()) {
        compare(disk, &mut ship, reserve, settings)?;
    }
    let compared_raw_bytes = ship.raw_bytes;
    let tracked = disks.iter().filter(|disk| disk.is_tracked());
    let file_systems = mounts::of_disks(tracked.map(ProtectedDisk::path)).map_err(CycleError::Mounts)?;
    let mut passes = approach(disks, &file_systems, &mut ship, reserve, settings, None)?;
    let mut hooks = Vec::new();
    let mut held = match settings.quiesce {
        Some((quiesce, why)) => {
            let mounts: Vec<PathBuf> = file_systems.iter().map(|fs| fs.mount_point.clone()).collect();
            match quiesce.begin(why, &mounts, settings.cancel, &mut hooks) {
                Err(QuiesceError::Cancelled) => return Err(CycleError::Cancelled),
                begun => Some(begun),
            }
        }
        None => None,
    };
    if let Some(Ok(quiesced)) = &held {
        // Coming to rest writes much: a checkpoint, tables.
        let until = Some(quiesced.until());
        passes += approach(disks, &file_systems, &mut ship, reserve, settings, until)?;
    }
    let names = held
        .as_ref()
        .and_then(|held| held.as_ref().ok())
        .map(Quiesced::names);
    let mut tries = 0;
    let taken = loop {
        match window::take(disks, &file_systems, reserve, settings) {
            Err(CycleError::TooBusy(left)) if tries < ROOM_TRIES_MAX => {
                tries += 1;
                reserve.grow(left)?;
                let until = held
                    .as_ref()
                    .and_then(|held| held.as_ref().ok())
                    .map(Quiesced::until);
                passes += approach(disks, &file_systems, &mut ship, reserve, settings, until)?;
            }
            taken => break taken,
        }
    };
    if let Some(Ok(quiesced)) = &mut held {
        quiesced.thawed();
    }
    let ended = held.map(|held| held.and_then(|quiesced| quiesced.end(&mut hooks)));
    let mut taken = taken?;
    // Of the same size after the window is of the same size in it: no file system can have grown past what was read.
    check_disks(disks)?;
    let asked = settings.quiesce.is_some_and(|(_, why)| why != Why::Schedule);
    let app_consistent = ended.map(|ended| label(&mut taken, ended, names.unwrap_or_default(), asked));
    let shared = match &mut settings.round {
        Some(round) => {
            let shared = round.verdict();
            if shared.is_none() {
                let gap = if taken.note.is_empty() { "" } else { "; " };
                taken.note = format!(
                    "{}{gap}of this machine alone: its replication group came to no common instant",
                    taken.note
                );
            }
            shared
        }
        None => None,
    };
    let mut at = 0;
    for disk in disks.iter_mut() {
        let (mut from, begin) = (0, at);
        while let Some(range) = disk.next_pending(from, CHUNK_BLOCKS) {
            check_cancelled(settings)?;
            let len = range.count as usize * BLOCK_BYTES;
            ship.push(disk.id, range.first, &reserve.memory[at..at + len])?;
            at += len;
            from = range.end();
            report_progress(disk, Phase::Shipping, (at - begin) as u64, taken.bytes, settings);
        }
        ship.send(disk.id)?;
    }
    ship.read_bytes += at as u64;
    let spec = PointSpec {
        instant_unix_nanos: taken.instant,
        consistency: taken.consistency,
        note: taken.note.clone(),
        freeze_micros: u32::try_from(taken.freeze.as_micros()).unwrap_or(u32::MAX),
    };
    if let Some(shared) = shared {
        ship.share(shared);
    }
    let point = ship.seal(spec)?;
    for disk in disks.iter_mut() {
        disk.acknowledge_below(u64::MAX);
        if !disk.source.has_gaps() {
            disk.source.compared(point);
        }
    }
    reserve.used(taken.bytes);
    Ok(CycleReport {
        point,
        instant_unix_nanos: taken.instant,
        consistency: taken.consistency,
        note: taken.note,
        freeze: taken.freeze,
        read_bytes: ship.read_bytes,
        compared_raw_bytes,
        changed_raw_bytes: ship.raw_bytes - compared_raw_bytes,
        raw_bytes_by_disk: std::mem::take(&mut ship.raw_bytes_by_disk),
        stored_bytes: ship.stored_bytes,
        passes,
        frozen_bytes: taken.bytes,
        app_consistent,
        hooks,
        shared,
    })
}

fn check_disks(disks: &[ProtectedDisk]) -> Result<(), CycleError> {
    Ok(disks.iter().try_for_each(|disk| disk.reader.check())?)
}

/// What a point may be called for which applications were to stand still.
/// `asked`: by a person, for this very point.
fn label(
    taken: &mut Taken,
    ended: Result<(), QuiesceError>,
    hooks: String,
    asked: bool,
) -> Result<(), QuiesceError> {
    let ended = match ended {
        Ok(()) if taken.consistency == Consistency::Fuzzy => Err(QuiesceError::NotStill(taken.note.clone())),
        other => other,
    };
    match &ended {
        Ok(()) => {
            taken.consistency = Consistency::AppConsistent;
            taken.note = format!("at rest: {hooks}");
        }
        // The note says it already; and a machine without hooks keeps its points as they are.
        Err(QuiesceError::NotStill(_)) => {}
        Err(error) if error.is_no_hooks() && !asked => {}
        Err(error) => {
            let gap = if taken.note.is_empty() { "" } else { "; " };
            taken.note = format!("{}{gap}not app-consistent: {error}", taken.note);
        }
    }
    ended
}

fn report_progress(
    disk: &ProtectedDisk,
    phase: Phase,
    done_bytes: u64,
    total_bytes: u64,
    settings: &mut CycleSettings,
) {
    (settings.progress)(Progress {
        disk: disk.id,
        phase,
        done_bytes,
        total_bytes,
        pending_bytes: total_bytes.saturating_sub(done_bytes),
    });
}

/// Copies until little is left; how many passes it took. `until`: after that, another pass is no use.
fn approach(
    disks: &mut [ProtectedDisk],
    file_systems: &[FileSystem],
    ship: &mut Shipper,
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
    until: Option<Instant>,
) -> Result<usize, CycleError> {
    let paths: Vec<PathBuf> = file_systems.iter().map(|fs| fs.mount_point.clone()).collect();
    let roots = open_all(&paths)?;
    let (mut passes, mut left_before) = (0, u64::MAX);
    loop {
        // What is in memory only would have to be written while writers are stopped.
        sync_all(&roots);
        let mut left = 0;
        for disk in disks.iter_mut().filter(|disk| disk.is_tracked()) {
            disk.source.take();
            left += disk.pending_blocks() * BLOCK_BYTES as u64;
        }
        let settled = passes >= PASSES && left > left_before / 2;
        let little = left <= LITTLE_BYTES || left <= reserve.rest_bytes() && settled;
        left_before = left;
        let late = until.is_some_and(|until| Instant::now() >= until);
        if little || late || passes >= PASSES_MAX {
            return Ok(passes);
        }
        passes += 1;
        for disk in disks.iter_mut() {
            copy(disk, ship, reserve, settings)?;
        }
    }
}

/// One pass: reads and ships what is pending; durable at the target on return.
fn copy(
    disk: &mut ProtectedDisk,
    ship: &mut Shipper,
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
) -> Result<(), CycleError> {
    let total_bytes = disk.pending_blocks() * BLOCK_BYTES as u64;
    let (mut done_bytes, mut unacknowledged, mut from) = (0, 0, 0);
    loop {
        check_cancelled(settings)?;
        let begin = from;
        let mut room = CHUNK_BLOCKS;
        let read = reserve.batch.read(&disk.reader, &mut reserve.memory, &mut || {
            let range = disk.next_pending(from, room).filter(|_| room > 0)?;
            room -= range.count;
            from = range.end();
            Some(range)
        });
        let read = read.map_err(|error| disk.read_failed(error))?;
        ship.read_bytes += read as u64;
        let (mut at, mut next) = (0, begin);
        while at < read
            && let Some(range) = disk.next_pending(next, ((read - at) / BLOCK_BYTES) as u64)
        {
            let len = range.count as usize * BLOCK_BYTES;
            ship.push(disk.id, range.first, &reserve.memory[at..at + len])?;
            at += len;
            next = range.end();
        }
        done_bytes += read as u64;
        unacknowledged += read as u64;
        if read == 0 || unacknowledged >= ACKNOWLEDGE_BYTES {
            ship.send(disk.id)?;
            ship.flush()?;
            disk.acknowledge_below(from);
            unacknowledged = 0;
        }
        if read == 0 {
            return Ok(());
        }
        report_progress(disk, Phase::Copying, done_bytes, total_bytes, settings);
    }
}

/// Reads the whole disk and ships what the target does not have; what changes meanwhile shows in the bits.
fn compare(
    disk: &mut ProtectedDisk,
    ship: &mut Shipper,
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
) -> Result<(), CycleError> {
    disk.source.doubt();
    let per_granule = (GRANULE_BYTES / BLOCK_BYTES) as u64;
    let at_once = (reserve.memory.len() / 2 / GRANULE_BYTES).clamp(1, DIGESTS_MAX) as u64;
    let granules = disk.size_bytes().div_ceil(GRANULE_BYTES as u64);
    let mut nothing_there = false;
    let mut granule = 0;
    while granule < granules {
        check_cancelled(settings)?;
        let first_block = granule * per_granule;
        // Swap is left out by whole granules.
        let rest = BlockRange::new(first_block, disk.blocks() - first_block);
        let (end, used) = match outside(rest, &disk.excluded) {
            Ok(part) => (part.end().div_ceil(per_granule), true),
            Err(next) => (
                (next / per_granule).max(granule + 1),
                next / per_granule <= granule,
            ),
        };
        let end = end.min(granules);
        if used {
            let count = at_once.min(end - granule);
            compare_chunk(disk, granule, count, &mut nothing_there, ship, reserve)?;
            granule += count;
        } else {
            granule = end;
        }
        let phase = if nothing_there {
            Phase::InitialReplication
        } else {
            Phase::Resynchronizing
        };
        let done = (granule * GRANULE_BYTES as u64).min(disk.size_bytes());
        report_progress(disk, phase, done, disk.size_bytes(), settings);
    }
    ship.send(disk.id)?;
    ship.flush()
}

fn compare_chunk(
    disk: &ProtectedDisk,
    granule: u64,
    count: u64,
    nothing_there: &mut bool,
    ship: &mut Shipper,
    reserve: &mut Reserve,
) -> Result<(), CycleError> {
    let per_granule = (GRANULE_BYTES / BLOCK_BYTES) as u64;
    let first_block = granule * per_granule;
    let offset = granule * GRANULE_BYTES as u64;
    let len = (disk.size_bytes() - offset).min(count * GRANULE_BYTES as u64) as usize;
    let whole = len.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
    let mut range = Some(BlockRange::new(first_block, (whole / BLOCK_BYTES) as u64));
    let read = reserve
        .batch
        .read(&disk.reader, &mut reserve.memory, &mut || range.take());
    ship.read_bytes += read.map_err(|error| disk.read_failed(error))? as u64;
    let differing = if *nothing_there {
        None
    } else {
        let digests: Vec<[u8; 32]> = reserve.memory[..len]
            .chunks(GRANULE_BYTES)
            .map(|granule| *blake3::hash(granule).as_bytes())
            .collect();
        ship.compare(disk.id, granule, &digests)?
    };
    let Some(differing) = differing else {
        *nothing_there = true;
        return ship.push(disk.id, first_block, &reserve.memory[..whole]);
    };
    for (index, _) in differing.iter().enumerate().filter(|(_, differs)| **differs) {
        let from = index * GRANULE_BYTES;
        if let Some(part) = reserve.memory.get(from..(from + GRANULE_BYTES).min(whole)) {
            ship.push(disk.id, first_block + index as u64 * per_granule, part)?;
        }
    }
    Ok(())
}
