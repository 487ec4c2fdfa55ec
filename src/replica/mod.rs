//! The replica store: what was acknowledged, and every recovery point of every machine.
//!
//! On the block's way it stands between the session of the process server, which appends frames, and images,
//! which read a disk at a point. It knows only [`crate::block`]. The bytes on disk: `proto/replica-format.md`.
//!
//! Invariants: what no manifest names does not exist; replacing the manifest is the only commit; a point names
//! one position in every disk of its machine; layers are appended to or replaced whole, never changed.
//! A crash leaves at most a torn record at the end of an open layer and files that nothing names.
//!
//! | operation | holds the machine's lock | against writers of the same machine |
//! |---|---|---|
//! | append, flush, seal | yes | one writer at a time; an older one is fenced by `begin` |
//! | points, disks, pin, prune, keep_only | yes, shortly | waits for an append or fsync under way |
//! | image | to open only | reads on files it holds open, whatever is published or removed later |
//! | compact | at its start and its end | reads an image in between; publishes only if the folded layers are still the same |
//! | gc | yes | removes files that no manifest names and nobody builds |
//! | verify | to list only | reads to the ends that were valid when it began |
mod compact;
mod error;
mod format;
mod image;
mod keys;
mod layer;
mod layer_map;
mod retention;
mod sealed;
mod storage;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

pub use error::{Disposition, ReplicaError};
pub use format::manifest::Shared as SharedMark;
pub use image::Image;
pub use keys::VaultKey;
pub use retention::Retention;
pub use sealed::{SealedError, seal, unseal};
pub use storage::{Fault, Storage};
pub use verify::{Damage, VerifyReport};
pub use writer::{MachineWriter, PointSpec};

use crate::block::{BLOCK_BYTES, Consistency, DiskId, ExtentSet, GroupPointId, MachineId, PointId};
use format::manifest::{DiskEntry, MANIFEST_BYTES_MAX, Manifest, Pin, PointEntry, Position};
use keys::DataKey;
use layer::Layer;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Extension of the folder of a machine that is being removed.
const REMOVED: &str = "removed";

/// One replicated disk. `size_bytes` is a multiple of 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    pub id: DiskId,
    pub name: String,
    pub size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineSummary {
    pub id: MachineId,
    pub name: String,
    pub generation: u64,
    pub points: usize,
    pub stored_bytes: u64,
    /// Sizes of its disks, together.
    pub disk_bytes: u64,
    pub layers: usize,
    pub oldest_point_unix_nanos: Option<i64>,
    pub newest_point_unix_nanos: Option<i64>,
}

/// A recovery point: all disks of a machine at one instant (nanoseconds of Unix time on the server's clock).
#[derive(Clone, Debug, PartialEq)]
pub struct RecoveryPoint {
    pub id: PointId,
    pub machine: MachineId,
    pub instant_unix_nanos: i64,
    pub consistency: Consistency,
    pub note: String,
    pub freeze_micros: u32,
    pub disks: Vec<DiskId>,
    pub stored_bytes: u64,
    /// Other machines have a point of the same instant, where all of them sealed it: [`Store::shared_points`].
    pub shared: Option<SharedMark>,
}

/// Which state of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Point(PointId),
    /// Everything received, also what no point seals yet: not consistent, for comparing only.
    Latest,
}

#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    root: PathBuf,
    storage: Storage,
    key: VaultKey,
    machines: Mutex<HashMap<MachineId, Arc<Machine>>>,
    /// None: opened for reading only.
    lock: Option<File>,
}

impl Drop for Shared {
    /// Not left to the closing of the file: a child that the process is just making has a copy of it until its exec.
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            let _ = lock.unlock();
        }
    }
}

struct Machine {
    id: MachineId,
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    manifest: Manifest,
    /// Grows with every `begin`; a writer of an earlier epoch is fenced.
    epoch: u64,
    layers: HashMap<(DiskId, u64), Arc<Layer>>,
    keys: HashMap<DiskId, DataKey>,
    /// Layers being written that no manifest names yet.
    building: HashSet<u64>,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        // Changes are published before they are kept in memory, so a panic leaves a usable state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disk_folder(&self, disk: DiskId) -> PathBuf {
        self.folder.join(disk.to_string())
    }

    /// Makes `manifest` the truth, then keeps it. On an error the old one stays the truth.
    fn publish(&self, storage: &Storage, state: &mut State, manifest: Manifest) -> Result<(), ReplicaError> {
        let (path, fresh) = (self.folder.join("manifest"), self.folder.join("manifest.new"));
        storage.create(&fresh, &manifest.encode())?;
        storage.rename(&fresh, &path)?;
        // Once renamed it is what a reader finds, whether or not the folder is durable yet.
        state.manifest = manifest;
        storage.sync_folder(&self.folder)
    }

    fn layer(&self, state: &mut State, disk: DiskId, number: u64) -> Result<Arc<Layer>, ReplicaError> {
        if let Some(layer) = state.layers.get(&(disk, number)) {
            return Ok(layer.clone());
        }
        let entry = state.manifest.disk(disk).ok_or(ReplicaError::NoDisk(disk))?;
        let end = entry
            .layers
            .iter()
            .find(|layer| layer.number == number)
            .and_then(|layer| layer.end);
        let key = state.keys.get(&disk).ok_or(ReplicaError::NoDisk(disk))?;
        let layer = Arc::new(Layer::open(&self.disk_folder(disk), disk, number, key, end)?);
        state.layers.insert((disk, number), layer.clone());
        Ok(layer)
    }

    /// Gives every open layer its end, as far as it is whole: nothing is appended to it any more.
    fn close_open_layers(
        &self,
        storage: &Storage,
        state: &mut State,
    ) -> Result<Option<Manifest>, ReplicaError> {
        let mut manifest = state.manifest.clone();
        let mut changed = false;
        for disk in &mut manifest.disks {
            for entry in disk.layers.iter_mut().filter(|layer| layer.end.is_none()) {
                let layer = self.layer(state, disk.id, entry.number)?;
                layer.sync(storage)?;
                entry.end = Some(layer.end());
                changed = true;
            }
        }
        Ok(changed.then_some(manifest))
    }

    fn gc(&self, storage: &Storage, state: &mut State) -> Result<u64, ReplicaError> {
        let mut freed = 0;
        for disk in &state.manifest.disks {
            let folder = self.disk_folder(disk.id);
            let files = std::fs::read_dir(&folder).map_err(|e| ReplicaError::io("list", &folder, e))?;
            for file in files.flatten() {
                let name = file.file_name();
                let number = name
                    .to_str()
                    .and_then(|n| n.strip_suffix(".layer"))
                    .and_then(|n| n.parse().ok());
                let Some(number) = number else { continue };
                let named = disk.layers.iter().any(|layer| layer.number == number);
                if !named && !state.building.contains(&number) {
                    freed += file.metadata().map_or(0, |meta| meta.len());
                    storage.remove(&file.path())?;
                    state.layers.remove(&(disk.id, number));
                }
            }
        }
        Ok(freed)
    }
}

impl Store {
    /// Makes the folder of a new store, or opens one that is there.
    pub fn create(root: &Path, key: &VaultKey) -> Result<Self, ReplicaError> {
        std::fs::create_dir_all(root.join("machines")).map_err(|e| ReplicaError::io("make", root, e))?;
        Self::open(root, key)
    }

    pub fn open(root: &Path, key: &VaultKey) -> Result<Self, ReplicaError> {
        Self::open_with(root, key, Storage::default())
    }

    /// As [`open`](Self::open), with a storage that may fail on purpose.
    pub fn open_with(root: &Path, key: &VaultKey, storage: Storage) -> Result<Self, ReplicaError> {
        let path = root.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|e| ReplicaError::io("open", &path, e))?;
        lock.try_lock()
            .map_err(|_| ReplicaError::Locked(root.to_owned()))?;
        Self::load(root, key, storage, Some(lock))
    }

    /// For export and verification beside nothing else, or beside a server: changes nothing.
    pub fn open_read_only(root: &Path, key: &VaultKey) -> Result<Self, ReplicaError> {
        Self::load(root, key, Storage::default(), None)
    }

    fn load(root: &Path, key: &VaultKey, storage: Storage, lock: Option<File>) -> Result<Self, ReplicaError> {
        let folder = root.join("machines");
        let mut machines = HashMap::new();
        for entry in std::fs::read_dir(&folder)
            .map_err(|e| ReplicaError::io("list", &folder, e))?
            .flatten()
        {
            if entry.path().extension().is_some_and(|end| end == REMOVED) {
                // Its removal was cut off. It takes room, and nothing else.
                if lock.is_some()
                    && let Err(error) = remove_folder(&entry.path())
                {
                    tracing::warn!(%error, "what is left of a removed machine cannot be removed");
                }
                continue;
            }
            // A folder without a manifest never came to be a machine, or is one that an earlier version removed.
            let path = entry.path().join("manifest");
            if !path.exists() {
                continue;
            }
            let manifest = read_manifest(&path)?;
            let keys = manifest
                .disks
                .iter()
                .map(|disk| Ok((disk.id, key.unwrap(disk.id, &disk.wrapped_key)?)))
                .collect::<Result<_, ReplicaError>>()?;
            let id = manifest.machine;
            let state = State {
                manifest,
                epoch: 0,
                layers: HashMap::new(),
                keys,
                building: HashSet::new(),
            };
            let machine = Machine {
                id,
                folder: entry.path(),
                state: Mutex::new(state),
            };
            if lock.is_some() {
                let mut state = machine.state();
                if let Some(manifest) = machine.close_open_layers(&storage, &mut state)? {
                    machine.publish(&storage, &mut state, manifest)?;
                }
                machine.gc(&storage, &mut state)?;
            }
            machines.insert(id, Arc::new(machine));
        }
        let shared = Shared {
            root: root.to_owned(),
            storage,
            key: key.clone(),
            machines: Mutex::new(machines),
            lock,
        };
        Ok(Self(Arc::new(shared)))
    }

    pub fn root(&self) -> &Path {
        &self.0.root
    }

    fn machine(&self, id: MachineId) -> Result<Arc<Machine>, ReplicaError> {
        self.all()
            .into_iter()
            .find(|machine| machine.id == id)
            .ok_or(ReplicaError::NoMachine(id))
    }

    fn all(&self) -> Vec<Arc<Machine>> {
        self.0
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn writable(&self) -> Result<&Storage, ReplicaError> {
        self.0
            .lock
            .as_ref()
            .map(|_| &self.0.storage)
            .ok_or(ReplicaError::ReadOnly)
    }

    /// Makes a machine known; safe to call again, also with another name.
    pub fn register_machine(&self, id: MachineId, name: &str) -> Result<(), ReplicaError> {
        let storage = self.writable()?;
        if let Ok(machine) = self.machine(id) {
            let mut state = machine.state();
            if state.manifest.name != name {
                let manifest = Manifest {
                    name: name.to_owned(),
                    ..state.manifest.clone()
                };
                machine.publish(storage, &mut state, manifest)?;
            }
            return Ok(());
        }
        let folder = self.0.root.join("machines").join(id.to_string());
        std::fs::create_dir_all(&folder).map_err(|e| ReplicaError::io("make", &folder, e))?;
        storage.sync_folder(&self.0.root.join("machines"))?;
        let manifest = Manifest {
            machine: id,
            name: name.to_owned(),
            generation: 0,
            next_layer: 1,
            disks: Vec::new(),
            points: Vec::new(),
            pins: Vec::new(),
        };
        let state = State {
            manifest: manifest.clone(),
            epoch: 0,
            layers: HashMap::new(),
            keys: HashMap::new(),
            building: HashSet::new(),
        };
        let machine = Machine {
            id,
            folder,
            state: Mutex::new(state),
        };
        machine.publish(storage, &mut machine.state(), manifest)?;
        self.0
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::new(machine));
        Ok(())
    }

    /// Makes a disk of a machine known; safe to call again. A disk keeps its size: another size is refused.
    pub fn register_disk(&self, machine: MachineId, spec: DiskSpec) -> Result<(), ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        if let Some(known) = state.manifest.disk(spec.id) {
            let known = known.size_bytes;
            if known != spec.size_bytes {
                return Err(ReplicaError::SizeChanged {
                    disk: spec.id,
                    known,
                    given: spec.size_bytes,
                });
            }
            return Ok(());
        }
        let folder = machine.disk_folder(spec.id);
        std::fs::create_dir_all(&folder).map_err(|e| ReplicaError::io("make", &folder, e))?;
        storage.sync_folder(&machine.folder)?;
        let key = DataKey::generate();
        let mut manifest = state.manifest.clone();
        manifest.disks.push(DiskEntry {
            id: spec.id,
            name: spec.name,
            size_bytes: spec.size_bytes,
            wrapped_key: self.0.key.wrap(spec.id, &key),
            layers: Vec::new(),
        });
        machine.publish(storage, &mut state, manifest)?;
        state.keys.insert(spec.id, key);
        Ok(())
    }

    pub fn machines(&self) -> Vec<MachineSummary> {
        let mut summaries: Vec<_> = self
            .all()
            .into_iter()
            .map(|machine| {
                let state = machine.state();
                MachineSummary {
                    id: machine.id,
                    name: state.manifest.name.clone(),
                    generation: state.manifest.generation,
                    points: state.manifest.points.len(),
                    stored_bytes: stored_bytes(&state),
                    disk_bytes: state.manifest.disks.iter().map(|disk| disk.size_bytes).sum(),
                    layers: state.manifest.disks.iter().map(|disk| disk.layers.len()).sum(),
                    oldest_point_unix_nanos: state.manifest.points.first().map(|p| p.instant_unix_nanos),
                    newest_point_unix_nanos: state.manifest.points.last().map(|p| p.instant_unix_nanos),
                }
            })
            .collect();
        summaries.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        summaries
    }

    pub fn disks(&self, machine: MachineId) -> Result<Vec<DiskSpec>, ReplicaError> {
        let machine = self.machine(machine)?;
        let state = machine.state();
        let spec = |disk: &DiskEntry| DiskSpec {
            id: disk.id,
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
        };
        Ok(state.manifest.disks.iter().map(spec).collect())
    }

    /// Oldest first.
    pub fn points(&self, machine: MachineId) -> Result<Vec<RecoveryPoint>, ReplicaError> {
        let machine = self.machine(machine)?;
        let state = machine.state();
        let points = state.manifest.points.iter();
        Ok(points.map(|point| recovery_point(machine.id, point)).collect())
    }

    /// The newest point of this kind. Looks at no more of them than it must: a machine may have thousands.
    pub fn newest_point(
        &self,
        machine: MachineId,
        wanted: impl Fn(&RecoveryPoint) -> bool,
    ) -> Result<Option<RecoveryPoint>, ReplicaError> {
        let machine = self.machine(machine)?;
        let state = machine.state();
        let points = state.manifest.points.iter().rev();
        Ok(points.map(|point| recovery_point(machine.id, point)).find(wanted))
    }

    /// Instants of which every machine of the group has a point, with the least that one of these points is called.
    pub fn shared_points(&self) -> HashMap<GroupPointId, Consistency> {
        let mut found: HashMap<GroupPointId, (u32, u32, Consistency)> = HashMap::new();
        for machine in self.all() {
            for point in &machine.state().manifest.points {
                if let Some(shared) = point.shared {
                    let entry = found
                        .entry(shared.id)
                        .or_insert((0, shared.members, point.consistency));
                    entry.0 += 1;
                    entry.2 = entry.2.min(point.consistency);
                }
            }
        }
        found.retain(|_, (sealed, members, _)| *sealed >= *members && *members > 0);
        found.into_iter().map(|(id, (_, _, least))| (id, least)).collect()
    }

    /// A disk as it was. The image stays readable whatever happens to the point later.
    pub fn image(&self, machine: MachineId, disk: DiskId, at: At) -> Result<Image, ReplicaError> {
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let position = position_of(&state, disk, at)?;
        image_at(&machine, &mut state, disk, position)
    }

    /// The blocks that were written between two states of a disk, the older one a point: what somebody who holds `since`
    /// has to take to hold `to`. Also right when `to` is older than `since`, as the way back changes the same blocks.
    ///
    /// Nothing behind a point is ever folded, so the layers tell all of it.
    pub fn changed_since(
        &self,
        machine: MachineId,
        disk: DiskId,
        since: PointId,
        to: At,
    ) -> Result<ExtentSet, ReplicaError> {
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let one = position_of(&state, disk, At::Point(since))?;
        let other = position_of(&state, disk, to)?;
        let entry = state.manifest.disk(disk).ok_or(ReplicaError::NoDisk(disk))?;
        let layers = entry.layers.clone();
        let index = |at: Option<Position>| match at {
            Some(at) => layers.iter().position(|layer| layer.number == at.layer),
            None => Some(layers.len()),
        };
        // A state without a position is that of everything received, behind all layers.
        let key = |at: Option<Position>| (index(at), at.map_or(0, |at| at.offset));
        let (from, until) = if key(one) <= key(other) {
            (one, other)
        } else {
            (other, one)
        };
        let mut changed = ExtentSet::new();
        let Some(from) = from else { return Ok(changed) };
        for entry in layers.iter().skip(index(Some(from)).unwrap_or(0)) {
            let layer = machine.layer(&mut state, disk, entry.number)?;
            let begin = if entry.number == from.layer {
                from.offset
            } else {
                0
            };
            let end = until.filter(|until| until.layer == entry.number);
            layer.ranges(begin, end.map_or(u64::MAX, |until| until.offset), &mut changed);
            if end.is_some() {
                break;
            }
        }
        Ok(changed)
    }

    /// Keeps a point from being pruned until `owner` unpins it. Safe to call again.
    pub fn pin(&self, machine: MachineId, point: PointId, owner: &str) -> Result<(), ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        if !state.manifest.points.iter().any(|p| p.id == point) {
            return Err(ReplicaError::NoPoint(point));
        }
        let pin = Pin {
            point,
            owner: owner.to_owned(),
        };
        if state.manifest.pins.contains(&pin) {
            return Ok(());
        }
        let mut manifest = state.manifest.clone();
        manifest.pins.push(pin);
        machine.publish(storage, &mut state, manifest)
    }

    /// Lets go of what `owner` pinned. Safe to call again.
    pub fn unpin(&self, machine: MachineId, point: PointId, owner: &str) -> Result<(), ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let mut manifest = state.manifest.clone();
        manifest
            .pins
            .retain(|pin| pin.point != point || pin.owner != owner);
        if manifest.pins.len() == state.manifest.pins.len() {
            return Ok(());
        }
        machine.publish(storage, &mut state, manifest)
    }

    /// Which points are pinned, and by whom.
    pub fn pins(&self, machine: MachineId) -> Result<Vec<(PointId, String)>, ReplicaError> {
        let machine = self.machine(machine)?;
        let state = machine.state();
        let pin = |pin: &Pin| (pin.point, pin.owner.clone());
        Ok(state.manifest.pins.iter().map(pin).collect())
    }

    /// Removes the points that are neither wanted nor pinned; gives the ids of the removed. Safe to call again.
    pub fn keep_only(
        &self,
        machine: MachineId,
        wanted: impl Fn(&RecoveryPoint) -> bool,
    ) -> Result<Vec<PointId>, ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let mut manifest = state.manifest.clone();
        let pins = &manifest.pins;
        let gone: Vec<PointId> = manifest
            .points
            .iter()
            .filter(|point| !pins.iter().any(|pin| pin.point == point.id))
            .filter(|point| !wanted(&recovery_point(machine.id, point)))
            .map(|point| point.id)
            .collect();
        if !gone.is_empty() {
            manifest.points.retain(|p| !gone.contains(&p.id));
            machine.publish(storage, &mut state, manifest)?;
        }
        Ok(gone)
    }

    /// Removes the points that the retention no longer wants; gives their ids.
    pub fn prune(
        &self,
        machine: MachineId,
        now: i64,
        retention: &Retention,
    ) -> Result<Vec<PointId>, ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let gone = retention::plan(&state.manifest.points, &state.manifest.pins, now, retention);
        if !gone.is_empty() {
            let mut manifest = state.manifest.clone();
            manifest.points.retain(|point| !gone.contains(&point.id));
            machine.publish(storage, &mut state, manifest)?;
        }
        Ok(gone)
    }

    /// Folds what no point tells apart any more, and removes files that nothing names. Bytes freed.
    pub fn compact(&self, machine: MachineId) -> Result<u64, ReplicaError> {
        let machine = self.machine(machine)?;
        compact::run(self.writable()?, &machine)
    }

    /// Removes a machine with all its points; bytes freed. Images that are open stay readable. What failed half way is
    /// called again, or ended by the next start.
    pub fn remove_machine(&self, machine: MachineId) -> Result<u64, ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let mut state = machine.state();
        let freed = stored_bytes(&state);
        let doomed = machine.folder.with_extension(REMOVED);
        // One rename takes all of it away. What is left of an attempt that was cut off stands in its way.
        if machine.folder.exists() {
            remove_folder(&doomed)?;
            storage.rename(&machine.folder, &doomed)?;
        }
        storage.sync_folder(&self.0.root.join("machines"))?;
        state.epoch += 1;
        remove_folder(&doomed)?;
        self.0
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&machine.id);
        Ok(freed)
    }

    /// Reads everything and names what is damaged. `progress`: bytes read so far, bytes in all.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, ReplicaError> {
        verify::run(&self.all(), progress)
    }
}

fn remove_folder(folder: &Path) -> Result<(), ReplicaError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ReplicaError::io("remove", folder, error))
        }
        _ => Ok(()),
    }
}

fn recovery_point(machine: MachineId, point: &PointEntry) -> RecoveryPoint {
    RecoveryPoint {
        id: point.id,
        machine,
        instant_unix_nanos: point.instant_unix_nanos,
        consistency: point.consistency,
        note: point.note.clone(),
        freeze_micros: point.freeze_micros,
        disks: point.positions.keys().copied().collect(),
        stored_bytes: point.stored_bytes,
        shared: point.shared,
    }
}

fn stored_bytes(state: &State) -> u64 {
    let end = |disk: DiskId, layer: &format::manifest::LayerEntry| {
        layer
            .end
            .or_else(|| state.layers.get(&(disk, layer.number)).map(|l| l.end()))
            .unwrap_or(0)
    };
    state
        .manifest
        .disks
        .iter()
        .flat_map(|disk| disk.layers.iter().map(|layer| end(disk.id, layer)))
        .sum()
}

/// None: everything received.
fn position_of(state: &State, disk: DiskId, at: At) -> Result<Option<Position>, ReplicaError> {
    let At::Point(id) = at else { return Ok(None) };
    let points = &state.manifest.points;
    let point = points
        .iter()
        .find(|point| point.id == id)
        .ok_or(ReplicaError::NoPoint(id))?;
    let position = point.positions.get(&disk).ok_or(ReplicaError::NoDisk(disk))?;
    Ok(Some(*position))
}

/// `position`: None for everything received.
fn image_at(
    machine: &Machine,
    state: &mut State,
    disk: DiskId,
    position: Option<Position>,
) -> Result<Image, ReplicaError> {
    let entry = state
        .manifest
        .disk(disk)
        .ok_or(ReplicaError::NoDisk(disk))?
        .clone();
    let mut chain = Vec::new();
    for layer_entry in &entry.layers {
        let layer = machine.layer(state, disk, layer_entry.number)?;
        let end = match position {
            Some(position) if position.layer == layer_entry.number => position.offset,
            _ => layer_entry.end.unwrap_or_else(|| layer.end()),
        };
        chain.push((layer.map(end), layer));
        if position.is_some_and(|position| position.layer == layer_entry.number) {
            break;
        }
    }
    Ok(Image::new(entry.size_bytes, chain))
}

fn read_manifest(path: &Path) -> Result<Manifest, ReplicaError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(MANIFEST_BYTES_MAX as u64 + 1024)
                .read_to_end(&mut bytes)
        })
        .map_err(|e| ReplicaError::io("read", path, e))?;
    Manifest::decode(&bytes).map_err(|what| ReplicaError::Corrupt {
        object: path.to_owned(),
        offset: 0,
        what,
    })
}

/// Blocks of a disk; a last part of a block counts as one.
fn blocks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES as u64)
}
