//! The states of a replicated item, in the words of the field.
use super::job::JobId;
use crate::block::{DiskId, MachineId, PointId};
use crate::target::MachineSpec;
use crate::wire::facts::Firmware;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProtectionState {
    Unprotected,
    EnablingProtection,
    EnablingFailed,
    InitialReplicationInProgress,
    InitialReplicationFailed,
    Protected,
    UnplannedFailoverInitiated,
    UnplannedFailoverCompleting,
    /// Commit pending.
    UnplannedFailoverCompleted,
    UnplannedFailoverFailed,
    CommitFailoverInProgress,
    CommitFailoverCompleted,
    CommitFailoverFailed,
    DisablingProtection,
    DisablingFailed,
}

impl ProtectionState {
    /// The source was fenced by a failover: its sessions are refused and its agent is told.
    pub fn is_fenced(self) -> bool {
        matches!(
            self,
            Self::UnplannedFailoverCompleting
                | Self::UnplannedFailoverCompleted
                | Self::UnplannedFailoverFailed
                | Self::CommitFailoverInProgress
                | Self::CommitFailoverCompleted
                | Self::CommitFailoverFailed
        )
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TestFailoverState {
    #[default]
    None,
    TestFailoverInitiated,
    TestFailoverCompleting,
    /// Waiting for cleanup.
    TestFailoverCompleted,
    TestFailoverFailed,
    TestFailoverCleanupInitiated,
    TestFailoverCleanupCompleting,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActiveLocation {
    #[default]
    Primary,
    Recovery,
}

/// A machine that was started from a recovery point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    pub job: JobId,
    pub point: PointId,
    pub point_instant_unix_nanos: i64,
    pub machine: MachineSpec,
}

/// How the machine is to be started at the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetSettings {
    /// Default: the machine's name with `-asr`; a test failover's with `-test`.
    pub name: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub firmware: Firmware,
    pub disk_bus: crate::target::DiskBus,
    /// Network of a failover, per NIC.
    pub nics: Vec<crate::target::Nic>,
    /// Network of a test failover, per NIC.
    pub test_nics: Vec<crate::target::Nic>,
}

/// A replicated item as recovery sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub machine: MachineId,
    pub name: String,
    /// Grows with every change; a write names the one it read.
    pub revision: u64,
    pub protection: ProtectionState,
    pub test_failover_state: TestFailoverState,
    pub active_location: ActiveLocation,
    /// Fences: sessions of an older generation are refused.
    pub generation: u64,
    /// Protected disks, the boot disk first.
    pub disks: Vec<DiskId>,
    pub target: TargetSettings,
    pub test_failover: Option<Failover>,
    pub failover: Option<Failover>,
    /// Last test failover that was cleaned up with success.
    pub last_successful_test_unix_nanos: Option<i64>,
}
