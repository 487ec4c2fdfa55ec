//! The instant of a point: file systems stand still, the last bits are taken and their blocks read.
//!
//! While they are frozen the agent allocates nothing, writes no log and opens no file: the frozen file system can be
//! the one it lives on, and memory may be found only by writing to it. All room is made before.
//!
//! What a point may be called is found out, not assumed. Before reading, all bits are taken, and the kernel is asked
//! whether a write is on its way; after reading there must be no bit and no write that began. Then no block changed
//! between the first and the last read, frozen or not, and the point is crash-consistent. File systems that cannot
//! be frozen (vfat) are tried again until that is so or patience ends. Otherwise the point is fuzzy and says why.
//!
//! In a round of a replication group the first try waits, frozen, until all members stand still; that nothing moved is looked
//! at after that. A try that does not come to it is this machine's own.
use super::capture::ReadError;
use super::cycle::{CycleError, CycleSettings, Moment, ProtectedDisk, Reserve, check_cancelled};
use super::freeze::{Frozen, Guard, Urgent};
use super::mounts::FileSystem;
use crate::block::{BLOCK_BYTES, Consistency};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Between two looks for a quiet moment.
const PAUSE: Duration = Duration::from_millis(20);
/// Tries when each of them stops writers.
const FROZEN_TRIES_MAX: usize = 3;

pub(super) struct Taken {
    pub instant: i64,
    pub consistency: Consistency,
    pub note: String,
    /// How long writers were stopped.
    pub freeze: Duration,
    /// Lies in the reserve: the pending blocks of all disks, one after the other.
    pub bytes: u64,
}

/// What is known of a disk in one try; room made beforehand.
#[derive(Clone, Copy, Default)]
struct Look {
    /// All its file systems stand still.
    still: bool,
    /// No write was on its way when the bits were taken.
    idle: bool,
    quiet: bool,
}

/// Why nothing could be read. Made without allocating.
enum Failed {
    TooBusy(u64),
    Read(usize, ReadError),
}

/// Takes the last bits and reads the blocks into the reserve, all disks at one instant.
pub(super) fn take(
    disks: &mut [ProtectedDisk],
    file_systems: &[FileSystem],
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
) -> Result<Taken, CycleError> {
    let end = Instant::now() + settings.quiet_patience;
    let mut tries = 0;
    loop {
        check_cancelled(settings)?;
        tries += 1;
        let (taken, any_still) = try_once(disks, file_systems, reserve, settings)?;
        let last = Instant::now() >= end || any_still && tries >= FROZEN_TRIES_MAX;
        if last || taken.consistency != Consistency::Fuzzy {
            return Ok(taken);
        }
        // What this try took is still pending, and the next one reads it again. What programs and drivers wrote to
        // the devices themselves waits in memory: written out now, it does not come in between later.
        for disk in disks.iter().filter(|disk| disk.is_tracked()) {
            disk.reader.sync();
        }
        std::thread::sleep(PAUSE);
    }
}

fn try_once(
    disks: &mut [ProtectedDisk],
    file_systems: &[FileSystem],
    reserve: &mut Reserve,
    settings: &mut CycleSettings,
) -> Result<(Taken, bool), CycleError> {
    let paths: Vec<PathBuf> = file_systems.iter().map(|fs| fs.mount_point.clone()).collect();
    let mut looks = vec![Look::default(); disks.len()];
    let guard = if paths.is_empty() {
        None
    } else {
        Some(Guard::spawn(&settings.guard, &paths, settings.freeze_deadline)?)
    };
    // Not urgent while it waits for the others.
    let end = match &mut settings.round {
        Some(round) if round.is_open() => round.ready(),
        _ => None,
    };
    let urgent = guard.is_some().then(Urgent::new);
    let mut frozen = guard.map(Guard::freeze).transpose()?;
    tell(settings, Moment::Frozen);
    let own_instant = (settings.clock)();
    if let (Some(round), Some(_)) = (&settings.round, end) {
        round.frozen();
    }
    look_at_file_systems(disks, file_systems, frozen.as_ref(), &mut looks);
    let result = read_rest(disks, reserve, &mut looks);
    let common = match (&mut settings.round, end) {
        (Some(round), Some(end)) if result.is_ok() => round.all_still(end),
        _ => None,
    };
    let instant = common.unwrap_or(own_instant);
    tell(settings, Moment::Read);
    for (disk, look) in disks.iter().zip(&mut looks).filter(|(disk, _)| disk.is_tracked()) {
        look.quiet = disk.source.is_quiet(&disk.excluded);
    }
    let any_still = frozen.as_ref().is_some_and(Frozen::any_still);
    // What is written behind the point would be lost: held only where it is one.
    let good = result.is_ok()
        && !disks
            .iter()
            .zip(&looks)
            .any(|(disk, look)| fault(disk, look).is_some());
    if let Some(hold) = settings.hold.as_mut().filter(|_| good)
        && let Some(frozen) = frozen.take()
    {
        hold.keep(frozen);
    }
    let thawed = frozen.as_mut().map(Frozen::end).transpose();
    tell(settings, Moment::Thawed);
    drop((urgent, frozen));
    let bytes = match result {
        Ok(bytes) => bytes,
        Err(failed) => {
            // Another try comes too late for the others.
            if let Some(round) = &mut settings.round {
                round.fail("what its disks had changed could not be read");
            }
            return Err(match failed {
                Failed::TooBusy(bytes) => CycleError::TooBusy(bytes),
                Failed::Read(index, error) => disks[index].read_failed(error),
            });
        }
    };
    let freeze = thawed?.filter(|_| any_still).unwrap_or_default();
    for (disk, look) in disks
        .iter()
        .zip(&mut looks)
        .filter(|(disk, _)| !disk.is_tracked())
    {
        // Since before everything of it was read.
        look.quiet = disk.source.is_quiet(&[]);
        look.idle = look.quiet;
    }
    let faults: Vec<String> = disks
        .iter()
        .zip(&looks)
        .filter_map(|(disk, look)| Some(format!("{} {}", disk.path().display(), fault(disk, look)?)))
        .collect();
    if let (Some(round), Some(_)) = (&mut settings.round, end) {
        match (common, faults.is_empty()) {
            (Some(_), true) => round.held(),
            (Some(_), false) => round.fail(&format!("its disks did not stand still: {}", faults.join("; "))),
            (None, _) => round.fail("the others did not stand still in time"),
        }
    }
    let taken = Taken {
        instant,
        consistency: if faults.is_empty() {
            Consistency::CrashConsistent
        } else {
            Consistency::Fuzzy
        },
        note: faults.join("; "),
        freeze,
        bytes,
    };
    Ok((taken, any_still))
}

/// Why a disk's blocks may be of more than one instant.
fn fault(disk: &ProtectedDisk, look: &Look) -> Option<&'static str> {
    // Frozen file systems have no writes on their way; one of somebody else's that neither ended nor began while
    // the blocks were read is as a write that a power cut meets.
    let proven = look.quiet && (look.idle || look.still);
    if disk.source.has_gaps() {
        Some("changed in ways that were not tracked")
    } else if proven {
        None
    } else if !disk.is_tracked() {
        Some("was written to, or may have been, while it was read")
    } else if look.still {
        Some("was written to past its file systems")
    } else {
        Some("holds something that cannot be frozen and was not quiet")
    }
}

fn tell(settings: &mut CycleSettings, moment: Moment) {
    if let Some(witness) = &mut settings.witness {
        witness(moment);
    }
}

/// Whether all file systems of each disk stand still. The places in `disks` count tracked disks only.
fn look_at_file_systems(
    disks: &[ProtectedDisk],
    file_systems: &[FileSystem],
    frozen: Option<&Frozen>,
    looks: &mut [Look],
) {
    let tracked = disks.iter().zip(looks).filter(|(disk, _)| disk.is_tracked());
    for (place, (_, look)) in tracked.enumerate() {
        let mut own = file_systems
            .iter()
            .enumerate()
            .filter(|(_, fs)| fs.disks.contains(&place));
        let any = own.clone().next().is_some();
        look.still = any && own.all(|(index, _)| frozen.is_some_and(|frozen| frozen.is_still(index)));
    }
}

/// Bytes read.
fn read_rest(disks: &mut [ProtectedDisk], reserve: &mut Reserve, looks: &mut [Look]) -> Result<u64, Failed> {
    let mut left = 0;
    for (disk, look) in disks.iter_mut().zip(looks).filter(|(disk, _)| disk.is_tracked()) {
        look.idle = disk.source.take();
        left += disk.pending_blocks() * BLOCK_BYTES as u64;
    }
    if left > reserve.memory.len() as u64 {
        return Err(Failed::TooBusy(left));
    }
    let mut at = 0;
    for (index, disk) in disks.iter().enumerate() {
        let mut from = 0;
        let read = reserve
            .batch
            .read(&disk.reader, &mut reserve.memory[at..], &mut || {
                let range = disk.next_pending(from, u64::MAX)?;
                from = range.end();
                Some(range)
            });
        at += read.map_err(|error| Failed::Read(index, error))?;
    }
    Ok(left)
}
