//! What can be asked of recovery, and what recovery asks of the source site.
use crate::block::{MachineId, PointId};
use crate::target::Nic;
use serde::{Deserialize, Serialize};
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
    Commit,
}

/// Words of `allowedOperations`. The last two are carried out by the configuration server; whether they are legal now
/// is decided here with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    TestFailover,
    TestFailoverCleanup,
    UnplannedFailover,
    Commit,
    RepairReplication,
    DisableProtection,
}

impl Operation {
    pub const ALL: [Self; 6] = [
        Self::TestFailover,
        Self::TestFailoverCleanup,
        Self::UnplannedFailover,
        Self::Commit,
        Self::RepairReplication,
        Self::DisableProtection,
    ];
}

/// The source site, as recovery needs it; the configuration server implements it.
pub trait Source: Send + Sync {
    /// Heartbeat is recent.
    fn is_connected(&self, machine: MachineId) -> bool;
    /// Orders a recovery point at once and waits for one sealed after the call, at most `limit`. The error is in words.
    fn last_sync(&self, machine: MachineId, limit: Duration) -> Result<(), String>;
    /// After the item's generation was raised in the journal: ends the sessions of older generations, tells the agent.
    /// Safe to call again.
    fn fence(&self, machine: MachineId, generation: u64);
}
