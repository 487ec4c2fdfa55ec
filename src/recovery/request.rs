//! What can be asked of recovery, and what recovery asks of the source site.
use super::job::JobId;
use crate::block::{MachineId, PointId};
use crate::target::{DiskFormat, Nic};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Which recovery point a machine is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind", content = "id")]
pub enum PointChoice {
    /// Lowest RPO: what is pending at the source is shipped first, where the source answers.
    Latest,
    /// Lowest RTO: the newest point that is at the target now.
    LatestProcessed,
    LatestAppConsistent,
    /// Crash-consistent or better.
    LatestCrashConsistent,
    /// Newest instant that all machines of the replication group hold.
    LatestMultiVm,
    /// As before, where the applications of all of them were at rest.
    LatestMultiVmAppConsistent,
    Custom(PointId),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Request {
    TestFailover {
        point: PointChoice,
        /// None: the test network of the item's target settings.
        network: Option<Vec<Nic>>,
    },
    TestFailoverCleanup {
        notes: String,
    },
    #[serde(rename_all = "camelCase")]
    UnplannedFailover {
        point: PointChoice,
        /// Ship what is pending at the source before it is fenced, where it still answers.
        last_sync: bool,
    },
    /// Of a machine at home: the source is brought to rest, and what it wrote last is where it goes on.
    PlannedFailover,
    /// The failover is taken back to another point, before it is committed.
    #[serde(rename_all = "camelCase")]
    ChangeRecoveryPoint {
        point: PointChoice,
    },
    /// The machine goes on where it was before the failover; what it wrote since is discarded.
    CancelFailover,
    Commit,
    /// A planned failover home, of a machine that was reprotected.
    Failback,
    /// The disks of a machine that stays at the target become files of the target; it runs on meanwhile.
    Hydrate {
        /// Absolute; the machine gets a folder of its own in it.
        folder: PathBuf,
        format: DiskFormat,
    },
    /// A hydrated machine stays at the target: replication ends, and its source is fenced for good.
    #[serde(rename_all = "camelCase")]
    CompleteMigration {
        /// None: the points are removed.
        keep_points: Option<KeepPoints>,
    },
}

/// That recovery points outlive the protection, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeepPoints {
    /// None: until a person removes them.
    pub until_unix_nanos: Option<i64>,
}

/// Words of `allowedOperations`. ReverseReplicate (reprotect), RepairReplication and DisableProtection are carried out by
/// the configuration server; whether they are legal now is decided here with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    TestFailover,
    TestFailoverCleanup,
    PlannedFailover,
    UnplannedFailover,
    ChangeRecoveryPoint,
    Commit,
    CancelFailover,
    ReverseReplicate,
    Failback,
    RepairReplication,
    DisableProtection,
    Hydrate,
    CompleteMigration,
}

impl Operation {
    /// For a sentence that a person reads.
    pub fn words(self) -> &'static str {
        match self {
            Self::TestFailover => "a test failover",
            Self::TestFailoverCleanup => "the cleanup of a test failover",
            Self::PlannedFailover => "a planned failover",
            Self::UnplannedFailover => "an unplanned failover",
            Self::ChangeRecoveryPoint => "a change of the recovery point",
            Self::Commit => "a commit",
            Self::CancelFailover => "a cancel of the failover",
            Self::ReverseReplicate => "a reprotect",
            Self::Failback => "a failback",
            Self::RepairReplication => "a resynchronization",
            Self::DisableProtection => "disabling its replication",
            Self::Hydrate => "a hydrate",
            Self::CompleteMigration => "completing the migration",
        }
    }

    pub const ALL: [Self; 13] = [
        Self::TestFailover,
        Self::TestFailoverCleanup,
        Self::PlannedFailover,
        Self::UnplannedFailover,
        Self::ChangeRecoveryPoint,
        Self::Commit,
        Self::CancelFailover,
        Self::ReverseReplicate,
        Self::Failback,
        Self::RepairReplication,
        Self::DisableProtection,
        Self::Hydrate,
        Self::CompleteMigration,
    ];
}

impl Request {
    pub fn operation(&self) -> Operation {
        match self {
            Self::TestFailover { .. } => Operation::TestFailover,
            Self::TestFailoverCleanup { .. } => Operation::TestFailoverCleanup,
            Self::PlannedFailover => Operation::PlannedFailover,
            Self::UnplannedFailover { .. } => Operation::UnplannedFailover,
            Self::ChangeRecoveryPoint { .. } => Operation::ChangeRecoveryPoint,
            Self::CancelFailover => Operation::CancelFailover,
            Self::Commit => Operation::Commit,
            Self::Failback => Operation::Failback,
            Self::Hydrate { .. } => Operation::Hydrate,
            Self::CompleteMigration { .. } => Operation::CompleteMigration,
        }
    }
}

/// The source site, as recovery needs it; the configuration server implements it.
pub trait Source: Send + Sync {
    /// Heartbeat is recent.
    fn is_connected(&self, machine: MachineId) -> bool;
    /// Orders a recovery point at once and waits for one sealed after the call, at most `limit`. The error is in words.
    fn last_sync(&self, machine: MachineId, limit: Duration) -> Result<(), String>;
    /// Brings the source to rest and keeps it there: waits for its last recovery point, which holds all that was ever
    /// written to its protected disks, at most `limit`. The order stands in the journal as the job's running task, and ends
    /// with it: a source that is not fenced by then goes on. The error is in words.
    fn halt(&self, machine: MachineId, job: JobId, limit: Duration) -> Result<PointId, String>;
    /// After the fence: whether the source stayed at rest since that point. False: it says otherwise, or nothing within
    /// `limit`.
    fn stayed_at_rest(&self, machine: MachineId, job: JobId, point: PointId, limit: Duration) -> bool;
    /// Between two points of a machine that runs at the target.
    fn point_interval(&self, machine: MachineId) -> Duration;
    /// Why the receiver cannot take the machine home now, in words; None: it holds the disks as of a recent point.
    fn receiver_trouble(&self, machine: MachineId) -> Option<String>;
    /// Whether the receiver's disks were compared with this point as a whole and are equal. The error, in words, is the
    /// receiver's.
    fn is_home(&self, machine: MachineId, point: PointId) -> Result<bool, String>;
    /// After the item's generation was raised in the journal: ends the sessions of older generations, tells the agent.
    /// Safe to call again.
    fn fence(&self, machine: MachineId, generation: u64);
}
