//! What a person or a program is told when recovery does not do what was asked.
use super::job::{JobError, JobId, JournalError};
use crate::replica::{Disposition, ReplicaError};
pub(super) use crate::rt::chain;
use crate::target::TargetError;
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

impl From<JobError> for Refusal {
    fn from(error: JobError) -> Self {
        Self {
            code: error.code,
            message: error.message,
            possible_causes: error.possible_causes,
            recommended_action: error.recommended_action,
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
    Target(#[from] TargetError),
    #[error("job {0} did not end within the limit")]
    StillRunning(JobId),
    #[error("no machine of this item runs at the target")]
    NoMachine,
    #[error("recovery is shutting down; the order was not taken")]
    ShuttingDown,
}

pub(super) fn failure(code: &str, message: impl Into<String>, causes: &str, action: &str) -> JobError {
    Refusal::new(code, message, causes, action).into()
}

impl From<ReplicaError> for JobError {
    fn from(error: ReplicaError) -> Self {
        let (code, causes, action) = match (&error, error.disposition()) {
            (ReplicaError::Full { .. }, _) => (
                "StoreFull",
                "The disk of the replica store has no room left.",
                "Make room on the replica store and run the operation again.",
            ),
            (ReplicaError::NoPoint(_), _) => (
                "NoSuchPoint",
                "Retention has removed the recovery point, or it belongs to another machine.",
                "Choose another recovery point and run the operation again.",
            ),
            (_, Disposition::Corrupt) => (
                "StoreDamaged",
                "The disk of the replica store returned other bytes than were written.",
                "Run `lifeboat store verify`, which names the points that are whole, and choose one of them.",
            ),
            (_, Disposition::Retry) => (
                "StoreFailed",
                "The disk of the replica store does not work, or the server may not write to it.",
                "Check the disk and the rights of the store's folder, then run the operation again.",
            ),
            (_, Disposition::Refuse) => (
                "StoreRefused",
                "The item and the replica store do not agree on the machine's disks or sessions.",
                "Resynchronize the machine; if that does not help, look at the server's log.",
            ),
        };
        failure(
            code,
            format!("The replica store: {}.", chain(&error)),
            causes,
            action,
        )
    }
}

/// Words of another module as a sentence.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

impl From<TargetError> for JobError {
    fn from(error: TargetError) -> Self {
        let code = match &error {
            TargetError::Missing { .. } => "TargetNotReady",
            TargetError::Io { .. } => "TargetFailed",
            TargetError::DidNotStart { .. } => "TargetDidNotStart",
            TargetError::NoAnswer { .. } => "TargetDoesNotAnswer",
            TargetError::Network { .. } => "NetworkFailed",
            TargetError::Refused(_) => "TargetRefused",
        };
        Self {
            code: code.to_owned(),
            message: format!("The target: {}.", chain(&error)),
            possible_causes: sentence(error.possible_causes()),
            recommended_action: sentence(error.recommended_action()),
        }
    }
}
