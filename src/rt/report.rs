//! Facts that the data plane emits. It knows nothing of vaults: whoever listens decides what a fact means.
use crate::block::{Consistency, MachineId, PointId};

/// Something that happened on the way of the block.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// An agent's replication session was admitted.
    SessionOpened { machine: MachineId, generation: u64 },
    /// It ended; `reason` in words.
    SessionClosed { machine: MachineId, reason: String },
    /// A recovery point is durable at the target.
    PointSealed {
        machine: MachineId,
        point: PointId,
        instant_unix_nanos: i64,
        consistency: Consistency,
        note: String,
        freeze_micros: u32,
        /// Raw bytes of the blocks that changed since the point before.
        changed_bytes: u64,
        /// Bytes that the store grew by.
        stored_bytes: u64,
        /// The last order for a point that the agent knew when it began this one.
        sync_request: u64,
    },
    /// The store has no room; the machine's frames are held back until it has.
    StoreFull { machine: MachineId, message: String },
    /// There is room again.
    StoreHasRoom { machine: MachineId },
    /// No recovery point could be made of a machine at the target; `message` says why. Over with the next point.
    NoPointAtTarget { machine: MachineId, message: String },
    /// Retention removed points, compaction freed bytes.
    Thinned {
        machine: MachineId,
        points: usize,
        freed_bytes: u64,
    },
    /// Bytes of the store are damaged; a person must look.
    Damaged { machine: MachineId, message: String },
}

/// Takes facts. Called from data threads: must be quick and must not fail them.
pub trait Report: Send + Sync {
    fn report(&self, fact: Fact);
}

/// For tools that have nobody to tell.
impl Report for () {
    fn report(&self, _: Fact) {}
}
