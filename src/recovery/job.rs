//! Jobs and tasks as values, and the journal that keeps them.
use super::error::Refusal;
use super::state::Item;
use crate::block::MachineId;
use crate::target::Nic;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub Uuid);

impl JobId {
    /// A fresh id; ids made later sort later.
    #[allow(clippy::new_without_default)] // a default id would be two different values
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Scenario of a job. New kinds are added with the feature that needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    EnableReplication,
    DisableReplication,
    TestFailover,
    TestFailoverCleanup,
    PlannedFailover,
    UnplannedFailover,
    ChangeRecoveryPoint,
    CommitFailover,
    CancelFailover,
    /// To replicate in the other direction from now on.
    Reprotect,
    Failback,
    Resynchronize,
    /// Disks are included or excluded.
    ChangeDisks,
    /// A recovery point that a person asked for.
    CreateRecoveryPoint,
    /// The disks of a machine at the target become files.
    Hydrate,
    CompleteMigration,
}

impl JobKind {
    /// Goes on beside everything else: the points there are stay what they are, and a disaster does not wait.
    pub fn holds_nothing_up(self) -> bool {
        matches!(
            self,
            Self::Resynchronize | Self::Reprotect | Self::ChangeDisks | Self::CreateRecoveryPoint
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    NotStarted,
    InProgress,
    Succeeded,
    Failed,
    Cancelled,
    Suspended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    NotStarted,
    InProgress,
    Succeeded,
    Failed,
    Skipped,
}

/// What a person reads when something failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    /// Stable, e.g. `TargetDidNotStart`.
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Stable name of the step, e.g. `StartMachine`.
    pub name: String,
    pub state: TaskState,
    pub started_unix_nanos: Option<i64>,
    pub ended_unix_nanos: Option<i64>,
    /// In words: what it did or is doing.
    pub message: String,
    pub error: Option<JobError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: JobId,
    pub kind: JobKind,
    /// Target object.
    pub machine: MachineId,
    pub state: JobState,
    /// Who asked for it.
    pub user: String,
    pub created_unix_nanos: i64,
    pub started_unix_nanos: Option<i64>,
    pub ended_unix_nanos: Option<i64>,
    /// What was asked for, as the step functions read it.
    pub parameters: Value,
    /// What came out: point, name of the machine, figures (`firstReadMs`).
    pub result: Value,
    pub tasks: Vec<Task>,
    pub error: Option<JobError>,
    /// The job that failed and is tried again by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_of: Option<JobId>,
}

impl JobState {
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("no replicated item {0}")]
    NoItem(MachineId),
    #[error("no job {0}")]
    NoJob(JobId),
    #[error("the item was changed by somebody else in the meantime")]
    Conflict,
    #[error("the vault's database refused")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What the vault keeps for recovery. Each call is one transaction and durable on return.
pub trait Journal: Send + Sync {
    fn item(&self, machine: MachineId) -> Result<Item, JournalError>;
    /// All replicated items.
    fn items(&self) -> Result<Vec<Item>, JournalError>;
    fn job(&self, job: JobId) -> Result<Job, JournalError>;
    /// Jobs that are not over, the oldest first: to be taken up again after a restart.
    fn open_jobs(&self) -> Result<Vec<Job>, JournalError>;
    /// Keeps a job, and where given the item's new state with it: both or neither. `Item::revision` must be the one that
    /// is stored, else [`JournalError::Conflict`]; it grows by one. Inserts the job when it is new.
    fn record(&self, job: &Job, item: Option<&Item>) -> Result<(), JournalError>;
    /// The NICs of a machine that is about to be started, with networks as they are now in place of their names. Inside: why
    /// it cannot be started with them.
    fn resolve_nics(&self, _: MachineId, nics: &[Nic]) -> Result<Result<Vec<Nic>, Refusal>, JournalError> {
        Ok(Ok(nics.to_vec()))
    }
}
