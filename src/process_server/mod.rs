//! The replication gateway: takes frames from agents, makes them durable in the store, and answers with what is durable.
//!
//! On the block's way between the agent's `ship` and the layer writer. Two things flow back, no more: the durable
//! acknowledgement and the size of the window. Who may write what is asked of [`Admission`]; what happened is told to
//! [`Report`](crate::rt::Report). A crash here leaves what the store leaves: every acknowledged frame, and a torn end.
mod handover;
mod maintenance;
mod receive;
mod session;
mod sessions;

pub use handover::{
    Handover, NOTHING_TO_RECEIVE, OLD_ORDERS, RECEIVERS, ReceiveDisk, ReceiveDiskReport, ReceiveOrder,
    ReceivePhase, ReceivePoint, ReceiveReport, ReceiveTrouble, pin_owner, release_pins,
};
pub use maintenance::{Maintenance, RetentionOf};
pub use receive::ReceiveService;
pub(crate) use session::blocking;
pub use session::{ReplicationService, caller};
pub use sessions::{Backlog, Sessions};

use crate::block::{DiskId, GroupPointId, MachineId};
use crate::wire::Refused;

/// What a machine may write now.
#[derive(Clone, Debug)]
pub struct Admitted {
    pub name: String,
    pub generation: u64,
    pub disks: Vec<AdmittedDisk>,
}

#[derive(Clone, Debug)]
pub struct AdmittedDisk {
    pub id: DiskId,
    pub name: String,
    pub size_bytes: u64,
}

/// Says who may replicate. The configuration server implements it.
pub trait Admission: Send + Sync {
    /// Whether this client certificate is one in force.
    fn authenticate(&self, machine: MachineId, serial: &str) -> Result<(), Refused>;
    /// What the machine may write in this generation.
    fn admit(&self, machine: MachineId, generation: u64) -> Result<Admitted, Refused>;
    /// How many machines share this instant, when the machine is one of them.
    fn shared_by(&self, _machine: MachineId, _instant: GroupPointId) -> Option<u32> {
        None
    }
}
