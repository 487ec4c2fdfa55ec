//! Appending frames and sealing recovery points: the only way data enters the store.
use super::format::manifest::{LayerEntry, Manifest, PointEntry, Position, Shared as SharedMark};
use super::layer::Layer;
use super::{Machine, ReplicaError, State, Store, blocks_of};
use crate::block::{Consistency, DiskId, Frame, PointId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A layer is closed at the first point past this size: small enough to fold quickly, large enough that the
/// manifest stays short.
const LAYER_BYTES: u64 = 64 << 20;

/// What is known of a point besides the data.
#[derive(Clone, Debug)]
pub struct PointSpec {
    pub instant_unix_nanos: i64,
    pub consistency: Consistency,
    pub note: String,
    pub freeze_micros: u32,
}

/// The one writer of a machine. It is fenced as soon as another is begun.
pub struct MachineWriter {
    store: Store,
    machine: Arc<Machine>,
    epoch: u64,
    generation: u64,
    open: HashMap<DiskId, Arc<Layer>>,
    /// Disks with frames since the last flush.
    dirty: Vec<DiskId>,
    /// None: points hold every disk of the machine.
    only: Option<BTreeSet<DiskId>>,
    /// Stored bytes since the last point.
    appended_bytes: u64,
    /// fsync failed: what is durable is not known any more.
    failed: bool,
}

impl Store {
    /// Begins writing; every older writer of the machine is fenced. A lower generation than the highest that
    /// ever wrote is refused.
    pub fn begin(
        &self,
        machine: crate::block::MachineId,
        generation: u64,
    ) -> Result<MachineWriter, ReplicaError> {
        let storage = self.writable()?;
        let machine = self.machine(machine)?;
        let epoch = {
            let mut state = machine.state();
            if generation < state.manifest.generation {
                return Err(ReplicaError::Fenced {
                    machine: machine.id,
                    generation,
                });
            }
            state.epoch += 1;
            let closed = machine.close_open_layers(storage, &mut state)?;
            if closed.is_some() || generation > state.manifest.generation {
                let manifest = Manifest {
                    generation,
                    ..closed.unwrap_or_else(|| state.manifest.clone())
                };
                machine.publish(storage, &mut state, manifest)?;
            }
            state.epoch
        };
        Ok(MachineWriter {
            store: self.clone(),
            machine,
            epoch,
            generation,
            open: HashMap::new(),
            dirty: Vec::new(),
            only: None,
            appended_bytes: 0,
            failed: false,
        })
    }
}

impl MachineWriter {
    fn admit(&self, state: &State) -> Result<(), ReplicaError> {
        if state.epoch != self.epoch {
            return Err(ReplicaError::Fenced {
                machine: self.machine.id,
                generation: self.generation,
            });
        }
        if self.failed {
            return Err(ReplicaError::WriterFailed);
        }
        Ok(())
    }

    /// Takes a frame; durable after the next [`flush`](Self::flush). After [`ReplicaError::Full`] the same frame
    /// may be given again once there is room; nothing that was taken before is lost.
    pub fn append(&mut self, disk: DiskId, frame: Bytes) -> Result<(), ReplicaError> {
        let frame = Frame::parse(frame)?;
        let machine = self.machine.clone();
        let mut state = machine.state();
        self.admit(&state)?;
        let entry = state.manifest.disk(disk).ok_or(ReplicaError::NoDisk(disk))?;
        if frame.end_block() > blocks_of(entry.size_bytes) {
            return Err(ReplicaError::OutOfDisk(disk));
        }
        let layer = match self.open.get(&disk) {
            Some(layer) => layer.clone(),
            None => self.new_layer(&mut state, disk)?,
        };
        let before = layer.end();
        layer.append(&self.store.0.storage, &frame)?;
        self.appended_bytes += layer.end() - before;
        if !self.dirty.contains(&disk) {
            self.dirty.push(disk);
        }
        Ok(())
    }

    /// Whether the store holds anything of the disk; a point names only disks of which it does.
    pub fn has_data(&self, disk: DiskId) -> Result<bool, ReplicaError> {
        let state = self.machine.state();
        Ok(!state
            .manifest
            .disk(disk)
            .ok_or(ReplicaError::NoDisk(disk))?
            .layers
            .is_empty())
    }

    /// What the store grew by since the last point.
    pub fn appended_bytes(&self) -> u64 {
        self.appended_bytes
    }

    /// Everything received of a disk, also what no point seals yet: for comparing.
    pub fn latest(&self, disk: DiskId) -> Result<super::Image, ReplicaError> {
        super::image_at(&self.machine, &mut self.machine.state(), disk, None)
    }

    fn new_layer(&mut self, state: &mut State, disk: DiskId) -> Result<Arc<Layer>, ReplicaError> {
        let storage = &self.store.0.storage;
        let number = state.manifest.next_layer;
        state.manifest.next_layer += 1;
        let key = state.keys.get(&disk).ok_or(ReplicaError::NoDisk(disk))?;
        let layer = Arc::new(Layer::create(
            storage,
            &self.machine.disk_folder(disk),
            disk,
            number,
            key,
        )?);
        // Named before it holds a frame: an acknowledged frame is then always in a layer that exists.
        let mut manifest = state.manifest.clone();
        if let Some(entry) = manifest.disk_mut(disk) {
            entry.layers.push(LayerEntry { number, end: None });
        }
        self.machine.publish(storage, state, manifest)?;
        state.layers.insert((disk, number), layer.clone());
        self.open.insert(disk, layer.clone());
        Ok(layer)
    }

    /// On return every frame that was appended survives anything that the medium survives.
    pub fn flush(&mut self) -> Result<(), ReplicaError> {
        let machine = self.machine.clone();
        let state = machine.state();
        self.admit(&state)?;
        self.sync_dirty()
    }

    fn sync_dirty(&mut self) -> Result<(), ReplicaError> {
        while let Some(disk) = self.dirty.last() {
            if let Some(layer) = self.open.get(disk)
                && let Err(error) = layer.sync(&self.store.0.storage)
            {
                // The kernel may have dropped the pages: only reading back tells what is there.
                self.failed = true;
                return Err(error);
            }
            self.dirty.pop();
        }
        Ok(())
    }

    /// Points that are sealed from now on hold these disks only. A disk that is no longer replicated must not stand in
    /// later points with what it held before.
    pub fn only(&mut self, disks: impl IntoIterator<Item = DiskId>) {
        self.only = Some(disks.into_iter().collect());
    }

    /// Makes everything appended so far a recovery point of all disks, durably.
    pub fn seal(&mut self, spec: PointSpec) -> Result<PointId, ReplicaError> {
        self.seal_shared(spec, None)
    }

    /// As [`seal`](Self::seal); `shared`: other machines make a point of the same instant.
    pub fn seal_shared(
        &mut self,
        spec: PointSpec,
        shared: Option<SharedMark>,
    ) -> Result<PointId, ReplicaError> {
        let machine = self.machine.clone();
        let mut state = machine.state();
        self.admit(&state)?;
        self.sync_dirty()?;
        let mut manifest = state.manifest.clone();
        let mut positions = BTreeMap::new();
        let mut full = Vec::new();
        let only = self.only.as_ref();
        let is_meant = |disk: DiskId| only.is_none_or(|only| only.contains(&disk));
        for disk in manifest.disks.iter_mut().filter(|disk| is_meant(disk.id)) {
            let Some(last) = disk.layers.last_mut() else {
                continue;
            };
            let offset = match (last.end, self.open.get(&disk.id)) {
                (Some(end), _) => end,
                (None, Some(layer)) => layer.end(),
                (None, None) => continue,
            };
            positions.insert(
                disk.id,
                Position {
                    layer: last.number,
                    offset,
                },
            );
            if last.end.is_none() && offset >= LAYER_BYTES {
                last.end = Some(offset);
                full.push(disk.id);
            }
        }
        let id = PointId::new();
        manifest.points.push(PointEntry {
            id,
            instant_unix_nanos: spec.instant_unix_nanos,
            consistency: spec.consistency,
            note: spec.note,
            freeze_micros: spec.freeze_micros,
            stored_bytes: self.appended_bytes,
            positions,
            shared,
        });
        machine.publish(&self.store.0.storage, &mut state, manifest)?;
        for disk in full {
            self.open.remove(&disk);
        }
        self.appended_bytes = 0;
        Ok(id)
    }
}
