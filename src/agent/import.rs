//! Taking a recovery point of disks that nothing writes to, straight into a store.
//!
//! Reads everything, compares 64 KiB granules with the newest state in the store, and stores what differs.
//! A crash in between leaves the older points as they were.
use super::capture::CaptureError;
use super::cycle::{self, CycleError, CycleSettings, ProtectedDisk, Reserve};
use super::sink::ShipError;
use crate::block::{Consistency, DiskId, MachineId, PointId};
use crate::replica::{DiskSpec, ReplicaError, Store};
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What one import did. `changed_bytes`: raw bytes of granules that differed.
#[derive(Debug)]
pub struct Imported {
    pub machine: MachineId,
    pub point: PointId,
    pub consistency: Consistency,
    pub note: String,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    pub stored_bytes: u64,
}

/// Refused while the device is mounted or otherwise in use: what its user holds in memory would be missing.
fn claim(path: &Path) -> Result<Option<File>, CaptureError> {
    let failed = |source| CaptureError::Io {
        action: "open",
        object: path.to_owned(),
        source,
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.file_type().is_block_device() {
        return Ok(None);
    }
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_EXCL);
    options.open(path).map(Some).map_err(failed)
}

/// Makes a recovery point of these disks under the machine's name. `progress`: bytes read, bytes in all.
///
/// The point is crash-consistent when nothing wrote to a disk in the meantime, else fuzzy with a note.
pub fn import(
    store: &Store,
    name: &str,
    disks: &[PathBuf],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Imported, CycleError> {
    let _claims = disks
        .iter()
        .map(|path| claim(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut scanned = disks
        .iter()
        .map(|path| ProtectedDisk::scan(path, DiskId::new()))
        .collect::<Result<Vec<_>, _>>()?;
    let sizes: Vec<u64> = scanned.iter().map(ProtectedDisk::size_bytes).collect();
    let (machine, ids) = register(store, name, &sizes).map_err(ShipError::from)?;
    for (disk, id) in scanned.iter_mut().zip(&ids) {
        disk.id = *id;
    }
    let mut writer = store
        .begin(machine, generation(store, machine))
        .map_err(ShipError::from)?;
    let total = sizes.iter().sum();
    let mut done = vec![0; disks.len()];
    let mut settings = CycleSettings {
        // Nothing is frozen.
        guard: PathBuf::new(),
        freeze_deadline: Duration::ZERO,
        quiet_patience: Duration::ZERO,
        witness: None,
        progress: &mut |step| {
            if let Some(index) = ids.iter().position(|id| *id == step.disk) {
                done[index] = step.done_bytes;
            }
            progress(done.iter().sum(), total);
        },
        clock: &crate::rt::now_unix_nanos,
        cancel: &AtomicBool::new(false),
        hold: None,
        round: None,
        quiesce: None,
    };
    let report = cycle::run(&mut scanned, &mut writer, &mut Reserve::new()?, &mut settings)?;
    Ok(Imported {
        machine,
        point: report.point,
        consistency: report.consistency,
        note: report.note,
        read_bytes: report.read_bytes,
        changed_bytes: report.compared_raw_bytes,
        stored_bytes: report.stored_bytes,
    })
}

/// The machine of this name and its disks, in their order; made where they are new.
pub fn register(store: &Store, name: &str, sizes: &[u64]) -> Result<(MachineId, Vec<DiskId>), ReplicaError> {
    let known = store.machines().into_iter().find(|machine| machine.name == name);
    let machine = known.map_or_else(MachineId::new, |machine| machine.id);
    store.register_machine(machine, name)?;
    let registered = store.disks(machine)?;
    let mut ids = Vec::new();
    for (index, &size_bytes) in sizes.iter().enumerate() {
        let id = registered.get(index).map_or_else(DiskId::new, |disk| disk.id);
        store.register_disk(
            machine,
            DiskSpec {
                id,
                name: format!("disk{index}"),
                size_bytes,
            },
        )?;
        ids.push(id);
    }
    Ok((machine, ids))
}

/// The generation that may write a machine's line now.
pub fn generation(store: &Store, machine: MachineId) -> u64 {
    store
        .machines()
        .into_iter()
        .find(|known| known.id == machine)
        .map_or(0, |known| known.generation)
}
