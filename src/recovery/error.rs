//! What a person or a program is told when recovery does not do what was asked.
use super::job::{JobError, JobId, JournalError};
use crate::replica::ReplicaError;
use serde::{Deserialize, Serialize};

/// An operation that is not allowed now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct Refusal {
    /// Stable, e.g. `NoRecoveryPoint`.
    pub code: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

impl Refusal {
    #[allow(dead_code)] // admission comes with the next change
    pub(super) fn new(code: &str, message: impl Into<String>, causes: &str, action: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            possible_causes: causes.to_owned(),
            recommended_action: action.to_owned(),
        }
    }
}

impl From<Refusal> for JobError {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code,
            message: refusal.message,
            possible_causes: refusal.possible_causes,
            recommended_action: refusal.recommended_action,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the replica store refused")]
    Store(#[from] ReplicaError),
    #[error("the target refused")]
    Target(#[from] crate::target::TargetError),
    #[error("job {0} did not end within the limit")]
    StillRunning(JobId),
    #[error("no machine of this item runs at the target")]
    NoMachine,
    #[error("recovery is shutting down; the order was not taken")]
    ShuttingDown,
}
