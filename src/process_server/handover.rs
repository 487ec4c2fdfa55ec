//! Who may take a machine's replica home, and what it says of it: plain values and the trait of whoever decides.
use crate::block::{DiskId, MachineId, PointId};
use crate::wire::Refused;
pub use crate::wire::{NOTHING_TO_RECEIVE, OLD_ORDERS, ReceivePhase};

/// What a receiver is to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveOrder {
    /// Whose disks: the failed-over machine, not the receiver.
    pub machine: MachineId,
    pub name: String,
    /// Goes with every call of the receiver; a call of an older generation is refused.
    pub generation: u64,
    pub disks: Vec<ReceiveDisk>,
    /// The point to be held next, normally the newest; None: there is none yet.
    pub point: Option<ReceivePoint>,
    /// The machine has stopped at the target: nothing follows this point.
    pub is_final: bool,
    /// The receiver is the machine that was failed over.
    pub is_original: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveDisk {
    pub id: DiskId,
    pub name: String,
    /// Of the original disk.
    pub stable_id: String,
    pub size_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivePoint {
    pub id: PointId,
    pub instant_unix_nanos: i64,
}

/// What a receiver says of itself: at every change of phase, and every few seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveReport {
    pub machine: MachineId,
    pub generation: u64,
    pub phase: ReceivePhase,
    pub disks: Vec<ReceiveDiskReport>,
    /// Every disk was read back whole and is equal to this point.
    pub verified: Option<PointId>,
    pub trouble: Option<ReceiveTrouble>,
    pub bytes_per_second: u64,
}

impl ReceiveReport {
    /// The point that all disks hold durably, if they hold the same one.
    pub fn holds(&self) -> Option<PointId> {
        let first = self.disks.first()?.holds?;
        self.disks
            .iter()
            .all(|disk| disk.holds == Some(first))
            .then_some(first)
    }

    pub fn done_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.done_bytes).sum()
    }

    pub fn total_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.total_bytes).sum()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveDiskReport {
    pub disk: DiskId,
    /// As the receiver names it.
    pub device: String,
    pub size_bytes: u64,
    /// The disk is durably equal to this point.
    pub holds: Option<PointId>,
    /// Of the step under way.
    pub done_bytes: u64,
    pub total_bytes: u64,
    /// Raw bytes written since the receiver began.
    pub copied_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ReceiveTrouble {
    pub code: String,
    /// Warning | Critical
    pub severity: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

/// Says who may receive what, and hears how far it is. The vault's side implements it.
///
/// Both are called often: `order` at every call of a receiver and several times a second while one waits for a newer point.
/// Neither may wait.
pub trait Handover: Send + Sync {
    /// Whether this client certificate is one in force.
    fn authenticate(&self, receiver: MachineId, serial: &str) -> Result<(), Refused>;
    /// What the receiver may receive now. `machine`: name or id in text; None where only one is meant for it. Code
    /// [`NOTHING_TO_RECEIVE`] lets the receiver wait, any other one ends it.
    fn order(&self, receiver: MachineId, machine: Option<&str>) -> Result<ReceiveOrder, Refused>;
    /// Comes with the generation of the order in force, or is refused before. A report may be repeated, and the last one may
    /// be lost.
    fn report(&self, receiver: MachineId, report: ReceiveReport) -> Result<(), Refused>;
}

/// How the owners of receivers' pins begin.
pub const RECEIVERS: &str = "receive-";

/// Who holds the pins of the points that a receiver needs.
pub fn pin_owner(receiver: MachineId) -> String {
    format!("{RECEIVERS}{receiver}")
}

/// Lets go of what a receiver held: it is done, or will not go on. Safe to call again.
pub fn release_pins(
    store: &crate::replica::Store,
    machine: MachineId,
    receiver: MachineId,
) -> Result<(), crate::replica::ReplicaError> {
    let owner = pin_owner(receiver);
    for (point, _) in store.pins(machine)?.into_iter().filter(|(_, by)| *by == owner) {
        store.unpin(machine, point, &owner)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_held_when_every_disk_holds_it() {
        let disk = |holds| ReceiveDiskReport {
            disk: DiskId::new(),
            device: String::new(),
            size_bytes: 0,
            holds,
            done_bytes: 1,
            total_bytes: 2,
            copied_bytes: 0,
        };
        let (one, other) = (PointId::new(), PointId::new());
        let report = |disks| ReceiveReport {
            machine: MachineId::new(),
            generation: 1,
            phase: ReceivePhase::Following,
            disks,
            verified: None,
            trouble: None,
            bytes_per_second: 0,
        };
        assert_eq!(report(vec![disk(Some(one)), disk(Some(one))]).holds(), Some(one));
        for mixed in [Some(other), None] {
            assert_eq!(report(vec![disk(Some(one)), disk(mixed)]).holds(), None);
        }
        assert_eq!(report(Vec::new()).holds(), None);
    }
}
