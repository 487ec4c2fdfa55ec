//! The line of a machine that runs at the target: what it writes to its branches becomes recovery points of its replica,
//! from the first second on.
//!
//! ```text
//! guest -> NBD -> branch --changed blocks--> frames -> store -> recovery point
//! ```
//! The same shape as at the source: copy in passes while the machine writes, hold its writers for the rest, seal. The store's
//! chain goes on in one line: the first point ships whatever tells the branch from the newest state that the store received,
//! be it older or newer than the point that the machine was started from. What was written is known in memory only; after a
//! restart everything that the branch holds is compared with the store once.
use super::error::chain;
use crate::block::{BLOCK_BYTES, BlockRange, Consistency, DiskId, ExtentSet, FrameBuilder, GRANULE_BYTES};
use crate::block::{MachineId, PointId};
use crate::export::{BlockDevice, Branch};
use crate::replica::{At, Image, MachineWriter, PointSpec, ReplicaError, Store};
use crate::rt::{Fact, Report, now_unix_nanos};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writers are held while at most this much is read into memory; more is copied in another pass first.
const REST_BYTES: u64 = 8 << 20;
const PASSES_MAX: usize = 8;
/// Read at once.
const CHUNK_BLOCKS: u64 = 256;
const ZSTD_LEVEL: i32 = 1;
/// After a point that failed; shorter intervals are the policy's.
const AGAIN: Duration = Duration::from_secs(5);
const NOTE: &str = "made at the target";

const BLOCK: u64 = BLOCK_BYTES as u64;

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error(transparent)]
    Store(#[from] ReplicaError),
    #[error("a disk branch cannot be read")]
    Branch(#[from] std::io::Error),
    #[error("a fault inside Lifeboat")]
    Panic,
}

/// Whose line, from which point, into which store.
pub struct LineSpec {
    pub store: Store,
    pub machine: MachineId,
    /// The point that the branches lie over.
    pub base: PointId,
    pub branches: Vec<(DiskId, Arc<Branch>)>,
    pub generation: u64,
    pub report: Arc<dyn Report>,
    /// Between two points, as the policy is at that moment.
    pub every: Box<dyn Fn() -> Duration + Send>,
}

/// Makes points until it is stopped or dropped.
pub struct Line {
    control: Arc<Control>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Control {
    state: Mutex<ControlState>,
    changed: Condvar,
}

#[derive(Default)]
struct ControlState {
    stopping: bool,
    /// Points asked for by [`Line::seal_now`], and the last one that was answered.
    wanted: u64,
    answered: u64,
    answer: Option<Result<PointId, String>>,
    /// The line is at its end: fenced, or the thread is gone.
    over: Option<String>,
}

impl Control {
    fn state(&self) -> MutexGuard<'_, ControlState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub fn start(spec: LineSpec) -> std::io::Result<Self> {
        let control = Arc::new(Control::default());
        let mine = control.clone();
        let thread = std::thread::Builder::new()
            .name("target-line".into())
            .spawn(move || {
                let over = run(spec, &mine);
                mine.state().over = Some(over);
                mine.changed.notify_all();
            })?;
        Ok(Self {
            control,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Makes a point that holds all that was written before the call. The error is in words.
    pub fn seal_now(&self, limit: Duration) -> Result<PointId, String> {
        let end = Instant::now() + limit;
        let mut state = self.control.state();
        state.wanted += 1;
        let mine = state.wanted;
        self.control.changed.notify_all();
        loop {
            if state.answered >= mine
                && let Some(answer) = state.answer.clone()
            {
                return answer;
            }
            if let Some(over) = &state.over {
                return Err(over.clone());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no point was made within {} seconds", limit.as_secs()));
            }
            state = self
                .control
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Line {
    /// On return the branches are let go of. Safe to repeat.
    pub fn stop(&self) {
        self.control.state().stopping = true;
        self.control.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why it ended, in words.
fn run(spec: LineSpec, control: &Control) -> String {
    let mut work = Work::new(&spec);
    let mut due = Instant::now();
    let mut full = false;
    loop {
        let wanted = {
            let mut state = control.state();
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if state.stopping {
                    return "the machine's disks are no longer served".to_owned();
                }
                if state.wanted > state.answered || left.is_zero() {
                    break state.wanted;
                }
                state = control
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        };
        let began = Instant::now();
        // A machine whose line ended by a mistake of ours would run on unprotected.
        let made = catch_unwind(AssertUnwindSafe(|| work.seal())).unwrap_or_else(|_| {
            work.writer = None;
            Err(LineError::Panic)
        });
        due = began + (spec.every)();
        match &made {
            Ok(_) if full => spec.report.report(Fact::StoreHasRoom {
                machine: spec.machine,
            }),
            Ok(_) => {}
            Err(LineError::Store(error @ ReplicaError::Fenced { .. })) if is_over(&spec) => {
                return error.to_string();
            }
            Err(error) => {
                due = Instant::now() + AGAIN.min((spec.every)());
                tracing::warn!(machine = %spec.machine, error = chain(error), "no recovery point was made at the target");
                let machine = spec.machine;
                spec.report.report(match error {
                    LineError::Store(ReplicaError::Full { .. }) => Fact::StoreFull {
                        machine,
                        message: error.to_string(),
                    },
                    _ => Fact::NoPointAtTarget {
                        machine,
                        message: chain(error),
                    },
                });
            }
        }
        full = matches!(made, Err(LineError::Store(ReplicaError::Full { .. })));
        let mut state = control.state();
        state.answered = wanted;
        state.answer = Some(made.map_err(|error| chain(&error)));
        control.changed.notify_all();
    }
}

/// Somebody writes the machine by a newer generation, or the machine is gone. A writer of the same generation, such as one that
/// came to nothing, is no reason to leave the machine unprotected.
fn is_over(spec: &LineSpec) -> bool {
    let machines = spec.store.machines();
    let machine = machines.iter().find(|machine| machine.id == spec.machine);
    machine.is_none_or(|machine| machine.generation > spec.generation)
}

/// A disk of the line.
struct Disk {
    id: DiskId,
    branch: Arc<Branch>,
    /// Written and not in the store yet.
    pending: ExtentSet,
}

struct Work<'a> {
    spec: &'a LineSpec,
    disks: Vec<Disk>,
    /// None: to be begun, and everything that may differ to be compared.
    writer: Option<MachineWriter>,
}

/// Blocks in memory, in their order: first block, data.
type Taken = Vec<(u64, Vec<u8>)>;

impl<'a> Work<'a> {
    fn new(spec: &'a LineSpec) -> Self {
        let disks = spec
            .branches
            .iter()
            .map(|(id, branch)| Disk {
                id: *id,
                branch: branch.clone(),
                pending: ExtentSet::new(),
            })
            .collect();
        Self {
            spec,
            disks,
            writer: None,
        }
    }

    fn seal(&mut self) -> Result<PointId, LineError> {
        let made = self.seal_once();
        if made.is_err() {
            // What is durable is not known any more: everything is compared again. Cheap, as it is only the branch.
            self.writer = None;
        }
        made
    }

    fn seal_once(&mut self) -> Result<PointId, LineError> {
        let mut changed = 0;
        if self.writer.is_none() {
            changed += self.begin()?;
        }
        let Some(writer) = &mut self.writer else {
            return Err(std::io::Error::other("no writer").into());
        };
        for _ in 0..PASSES_MAX {
            let mut left = 0;
            for disk in &mut self.disks {
                disk.pending.union_with(&disk.branch.take_changed());
                left += disk.pending.blocks() * BLOCK;
            }
            if left <= REST_BYTES {
                break;
            }
            for disk in &mut self.disks {
                changed += copy(disk, writer)?;
            }
        }
        // The rest while nobody writes; every acknowledged write is in it, and none that comes later.
        let held = Instant::now();
        let (instant, taken) = {
            let branches: Vec<_> = self.disks.iter().map(|disk| disk.branch.clone()).collect();
            let _held: Vec<_> = branches.iter().map(|branch| branch.hold()).collect();
            let instant = now_unix_nanos();
            let mut taken = Vec::new();
            for disk in &mut self.disks {
                disk.pending.union_with(&disk.branch.take_changed());
                taken.push(read(disk)?);
            }
            (instant, taken)
        };
        let held = held.elapsed();
        for (disk, blocks) in self.disks.iter_mut().zip(&taken) {
            changed += append(writer, disk.id, blocks)?;
            disk.pending.clear();
        }
        let stored_bytes = writer.appended_bytes();
        let freeze_micros = u32::try_from(held.as_micros()).unwrap_or(u32::MAX);
        let point = writer.seal(PointSpec {
            instant_unix_nanos: instant,
            consistency: Consistency::CrashConsistent,
            note: NOTE.to_owned(),
            freeze_micros,
        })?;
        self.spec.report.report(Fact::PointSealed {
            machine: self.spec.machine,
            point,
            instant_unix_nanos: instant,
            consistency: Consistency::CrashConsistent,
            note: NOTE.to_owned(),
            freeze_micros,
            changed_bytes: changed,
            stored_bytes,
            sync_request: 0,
        });
        Ok(point)
    }

    /// Takes the place of the machine's writer, and brings the store's newest state to where the branch is: only blocks that
    /// the branch holds, or that the store received after the branch's point, can differ.
    fn begin(&mut self) -> Result<u64, LineError> {
        let spec = self.spec;
        let mut writer = spec.store.begin(spec.machine, spec.generation)?;
        writer.only(self.disks.iter().map(|disk| disk.id));
        let mut changed = 0;
        for disk in &mut self.disks {
            disk.pending.clear();
            // First taken, then read: what is written meanwhile is named by the next pass.
            disk.branch.take_changed();
            let mut doubtful = spec
                .store
                .changed_since(spec.machine, disk.id, spec.base, At::Latest)?;
            doubtful.union_with(&disk.branch.written());
            let latest = writer.latest(disk.id)?;
            disk.pending = differing(&disk.branch, &latest, doubtful)?;
            changed += copy(disk, &mut writer)?;
        }
        self.writer = Some(writer);
        Ok(changed)
    }
}

fn disk_blocks(branch: &Branch) -> u64 {
    branch.size_bytes().div_ceil(BLOCK)
}

/// Whole blocks of a branch; a last one that the disk cuts short is filled up with zeros.
fn blocks_of(branch: &Branch, range: BlockRange) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0; range.count as usize * BLOCK_BYTES];
    let offset = range.first * BLOCK;
    let len = (data.len() as u64).min(branch.size_bytes().saturating_sub(offset)) as usize;
    branch.read_at(offset, &mut data[..len])?;
    Ok(data)
}

/// Those of the doubtful blocks in which the two differ.
fn differing(branch: &Branch, latest: &Image, mut doubtful: ExtentSet) -> Result<ExtentSet, LineError> {
    let mut differing = ExtentSet::new();
    let end = disk_blocks(branch);
    let per_granule = (GRANULE_BYTES / BLOCK_BYTES) as u64;
    while let Some(range) = doubtful.take_first(per_granule) {
        let Some(range) = within(range, end) else { continue };
        let here = blocks_of(branch, range)?;
        let mut there = vec![0; here.len()];
        let offset = range.first * BLOCK;
        let len = (there.len() as u64).min(latest.size_bytes().saturating_sub(offset)) as usize;
        latest.read_at(offset, &mut there[..len])?;
        for (block, (here, there)) in
            (range.first..).zip(here.chunks(BLOCK_BYTES).zip(there.chunks(BLOCK_BYTES)))
        {
            if here != there {
                differing.insert(BlockRange::new(block, 1));
            }
        }
    }
    Ok(differing)
}

/// Ships what is pending; durable on return. Raw bytes.
fn copy(disk: &mut Disk, writer: &mut MachineWriter) -> Result<u64, LineError> {
    let (mut shipped, end) = (0, disk_blocks(&disk.branch));
    loop {
        let (mut chunk, mut room) = (Taken::new(), CHUNK_BLOCKS);
        while room > 0
            && let Some(range) = disk.pending.take_first(room)
        {
            room -= range.count;
            if let Some(range) = within(range, end) {
                chunk.push((range.first, blocks_of(&disk.branch, range)?));
            }
        }
        if chunk.is_empty() {
            writer.flush()?;
            return Ok(shipped);
        }
        shipped += append(writer, disk.id, &chunk)?;
    }
}

/// The part of a range that lies on the disk.
fn within(range: BlockRange, end: u64) -> Option<BlockRange> {
    let count = range.end().min(end).saturating_sub(range.first);
    (count > 0).then(|| BlockRange::new(range.first, count))
}

/// Everything pending, into memory.
fn read(disk: &Disk) -> Result<Taken, LineError> {
    let end = disk_blocks(&disk.branch);
    let mut taken = Taken::new();
    for range in disk.pending.iter() {
        if let Some(range) = within(range, end) {
            taken.push((range.first, blocks_of(&disk.branch, range)?));
        }
    }
    Ok(taken)
}

fn append(writer: &mut MachineWriter, disk: DiskId, blocks: &[(u64, Vec<u8>)]) -> Result<u64, LineError> {
    let mut builder = FrameBuilder::new();
    let mut raw = 0;
    for (first, data) in blocks {
        let (mut first, mut data) = (*first, data.as_slice());
        raw += data.len() as u64;
        while !data.is_empty() {
            let room = builder.room_blocks() * BLOCK_BYTES;
            if room == 0 {
                writer.append(disk, std::mem::take(&mut builder).finish(ZSTD_LEVEL)?)?;
                continue;
            }
            let (part, rest) = data.split_at(room.min(data.len()));
            builder.push(first, part);
            first += (part.len() / BLOCK_BYTES) as u64;
            data = rest;
        }
    }
    if !builder.is_empty() {
        writer.append(disk, builder.finish(ZSTD_LEVEL)?)?;
    }
    Ok(raw)
}
