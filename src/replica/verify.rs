//! Reading everything, to say what is damaged before a person needs it.
use super::format::record::LAYER_HEADER_BYTES;
use super::layer::Layer;
use super::{Machine, ReplicaError};
use crate::block::{DiskId, MachineId, PointId};
use std::path::PathBuf;
use std::sync::Arc;

/// One damaged place and what it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Damage {
    pub machine: MachineId,
    pub disk: DiskId,
    pub object: PathBuf,
    pub offset: u64,
    pub what: String,
    /// Points that read through the place.
    pub points: Vec<PointId>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct VerifyReport {
    pub layers: usize,
    pub frames: u64,
    pub bytes: u64,
    pub damages: Vec<Damage>,
}

struct Task {
    machine: Arc<Machine>,
    disk: DiskId,
    number: u64,
    end: Option<u64>,
    layer: Result<Arc<Layer>, ReplicaError>,
}

pub(super) fn run(
    machines: &[Arc<Machine>],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, ReplicaError> {
    let mut tasks = Vec::new();
    for machine in machines {
        let mut state = machine.state();
        let listed: Vec<_> = state
            .manifest
            .disks
            .iter()
            .flat_map(|disk| disk.layers.iter().map(|layer| (disk.id, layer.number, layer.end)))
            .collect();
        for (disk, number, end) in listed {
            let layer = machine.layer(&mut state, disk, number);
            let end = end.or_else(|| layer.as_ref().ok().map(|layer| layer.end()));
            tasks.push(Task {
                machine: machine.clone(),
                disk,
                number,
                end,
                layer,
            });
        }
    }
    let total = tasks.iter().filter_map(|task| task.end).sum();
    let mut report = VerifyReport::default();
    for task in tasks {
        report.layers += 1;
        let found = match &task.layer {
            Ok(layer) => read(
                layer,
                task.end.unwrap_or_else(|| layer.end()),
                &mut report,
                total,
                progress,
            ),
            Err(ReplicaError::Corrupt { object, offset, what }) => {
                Some((object.clone(), *offset, what.clone()))
            }
            Err(error) => Some((
                Layer::path(&task.machine.disk_folder(task.disk), task.number),
                0,
                error.to_string(),
            )),
        };
        if let Some((object, offset, what)) = found {
            let points = affected(&task, offset);
            let machine = task.machine.id;
            report.damages.push(Damage {
                machine,
                disk: task.disk,
                object,
                offset,
                what,
                points,
            });
        }
    }
    Ok(report)
}

/// Reads the records to `end`; the first that is damaged ends the layer, because the next cannot be found.
fn read(
    layer: &Layer,
    end: u64,
    report: &mut VerifyReport,
    total: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Option<(PathBuf, u64, String)> {
    let mut at = LAYER_HEADER_BYTES as u64;
    report.bytes += at;
    while at < end {
        let read = layer.read_record(at).and_then(|(frame, next, _)| {
            frame.decompress()?;
            Ok(next)
        });
        match read {
            Ok(next) => {
                report.frames += 1;
                report.bytes += next - at;
                at = next;
                progress(report.bytes, total);
            }
            Err(ReplicaError::Corrupt { object, offset, what }) => return Some((object, offset, what)),
            Err(error) => return Some((layer.path.clone(), at, error.to_string())),
        }
    }
    None
}

/// Points whose chain reaches the layer, and in the point's own layer past the offset.
fn affected(task: &Task, offset: u64) -> Vec<PointId> {
    let state = task.machine.state();
    let Some(disk) = state.manifest.disk(task.disk) else {
        return Vec::new();
    };
    let place = |number: u64| disk.layers.iter().position(|layer| layer.number == number);
    let damaged = place(task.number);
    state
        .manifest
        .points
        .iter()
        .filter(|point| {
            point.positions.get(&task.disk).is_some_and(|at| {
                if at.layer == task.number {
                    at.offset > offset
                } else {
                    place(at.layer) > damaged
                }
            })
        })
        .map(|point| point.id)
        .collect()
}
