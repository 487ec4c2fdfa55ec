//! Folding: the layers before the oldest point become one, with each block once.
use super::format::manifest::{LayerEntry, Position};
use super::layer::Layer;
use super::storage::Storage;
use super::{Machine, ReplicaError, State, image_at};
use crate::block::{BLOCK_BYTES, BlockRange, DiskId, ExtentSet, Frame, FrameBuilder};
use std::sync::Arc;

/// Written once and read seldom: worth more work than on the way in.
const ZSTD_LEVEL: i32 = 3;
/// So many foldable layers are folded in any case: each makes opening a point a little dearer.
const LAYERS_MAX: usize = 32;

/// The layers of a disk that no point needs apart. Fewer than two are not worth it.
fn plan(state: &State, disk: DiskId) -> Option<Vec<LayerEntry>> {
    let entry = state.manifest.disk(disk)?;
    let oldest = state
        .manifest
        .points
        .iter()
        .filter_map(|point| point.positions.get(&disk))
        .collect::<Vec<_>>();
    let keep_from = entry
        .layers
        .iter()
        .position(|layer| oldest.iter().any(|at| at.layer == layer.number))?;
    let folded = entry.layers[..keep_from].to_vec();
    let ends: Vec<u64> = folded.iter().map_while(|layer| layer.end).collect();
    let (&first, rest) = ends.split_first()?;
    // The first layer is the large one, and folding rewrites it: worth it when the others have grown to a part of it.
    let worth = rest.iter().sum::<u64>() >= first / 4 || rest.len() >= LAYERS_MAX;
    (ends.len() == folded.len() && !rest.is_empty() && worth).then_some(folded)
}

pub(super) fn run(storage: &Storage, machine: &Machine) -> Result<u64, ReplicaError> {
    let disks: Vec<DiskId> = machine
        .state()
        .manifest
        .disks
        .iter()
        .map(|disk| disk.id)
        .collect();
    for disk in disks {
        fold(storage, machine, disk)?;
    }
    machine.gc(storage, &mut machine.state())
}

fn fold(storage: &Storage, machine: &Machine, disk: DiskId) -> Result<(), ReplicaError> {
    let (folded, image, blocks, number, layer) = {
        let mut state = machine.state();
        let Some(folded) = plan(&state, disk) else {
            return Ok(());
        };
        let Some(&LayerEntry {
            number: last,
            end: Some(end),
        }) = folded.last()
        else {
            return Ok(());
        };
        let image = image_at(
            machine,
            &mut state,
            disk,
            Some(Position {
                layer: last,
                offset: end,
            }),
        )?;
        let mut blocks = ExtentSet::new();
        for entry in &folded {
            let layer = machine.layer(&mut state, disk, entry.number)?;
            for range in layer.map(entry.end.unwrap_or_else(|| layer.end())).ranges() {
                blocks.insert(range);
            }
        }
        let number = state.manifest.next_layer;
        state.manifest.next_layer += 1;
        let key = state.keys.get(&disk).ok_or(ReplicaError::NoDisk(disk))?;
        let layer = Layer::create(storage, &machine.disk_folder(disk), disk, number, key)?;
        state.building.insert(number);
        (folded, image, blocks, number, layer)
    };
    let written = copy(storage, &image, blocks, &layer);
    let mut state = machine.state();
    state.building.remove(&number);
    written?;
    let mut manifest = state.manifest.clone();
    let entry = manifest.disk_mut(disk).ok_or(ReplicaError::NoDisk(disk))?;
    if entry.layers.starts_with(&folded) {
        entry.layers.splice(
            ..folded.len(),
            [LayerEntry {
                number,
                end: Some(layer.end()),
            }],
        );
        machine.publish(storage, &mut state, manifest)?;
        state.layers.insert((disk, number), Arc::new(layer));
    }
    Ok(())
}

fn copy(
    storage: &Storage,
    image: &super::Image,
    mut blocks: ExtentSet,
    layer: &Layer,
) -> Result<(), ReplicaError> {
    let finish = |builder: FrameBuilder| -> Result<(), ReplicaError> {
        let bytes = builder
            .finish(ZSTD_LEVEL)
            .map_err(|e| ReplicaError::io("compress for", &layer.path, e))?;
        layer.append(storage, &Frame::parse(bytes)?)
    };
    let mut builder = FrameBuilder::new();
    let mut buffer = Vec::new();
    while let Some(range) = blocks.take_first(builder.room_blocks().max(1) as u64) {
        read_blocks(image, range, &mut buffer)?;
        builder.push(range.first, &buffer);
        if builder.is_full() {
            finish(std::mem::take(&mut builder))?;
        }
    }
    if !builder.is_empty() {
        finish(builder)?;
    }
    layer.sync(storage)
}

/// Whole blocks; the last one of a disk may be filled up with zeros.
fn read_blocks(image: &super::Image, range: BlockRange, buffer: &mut Vec<u8>) -> Result<(), ReplicaError> {
    let offset = range.first * BLOCK_BYTES as u64;
    buffer.clear();
    buffer.resize(range.count as usize * BLOCK_BYTES, 0);
    let len = (buffer.len() as u64).min(image.size_bytes().saturating_sub(offset)) as usize;
    image.read_at(offset, &mut buffer[..len])
}
