//! What the vault refuses, and why.
use crate::recovery::{JournalError, Refusal};

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error(
        "a machine name is 1 to 63 letters, digits and hyphens and starts and ends with a letter or digit: {0:?}"
    )]
    BadName(String),
    #[error("another machine of this vault is named {0}")]
    DuplicateName(String),
    #[error("there is no {what} {name}")]
    NotFound { what: &'static str, name: String },
    /// The request is not one that can be carried out in this state, or not at all.
    #[error("{}", .0.message)]
    Refused(Box<Refusal>),
    /// The value of one field is not allowed.
    #[error("{field}: {rule}")]
    Invalid { field: &'static str, rule: String },
    /// It was changed since the caller read it.
    #[error("{what} {name} was changed by somebody else in the meantime")]
    Conflict { what: &'static str, name: String },
    #[error("user name or password is wrong")]
    WrongPassword,
    #[error("too many failed logins; the next try is allowed in {seconds} s")]
    Throttled { seconds: u64 },
    /// The database was written by a newer Lifeboat.
    #[error("the database has schema {found}, this program knows schemas up to {known}")]
    NewerSchema { found: u32, known: u32 },
    #[error("the vault's database refused")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl VaultError {
    pub(super) fn refused(
        code: &'static str,
        message: impl Into<String>,
        causes: impl Into<String>,
        action: impl Into<String>,
    ) -> Self {
        Self::Refused(Box::new(Refusal {
            code: code.into(),
            message: message.into(),
            possible_causes: causes.into(),
            recommended_action: action.into(),
        }))
    }
}

impl From<rusqlite::Error> for VaultError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<serde_json::Error> for VaultError {
    fn from(error: serde_json::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

impl From<VaultError> for JournalError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Database(source) => Self::Database(source),
            other => Self::Database(Box::new(other)),
        }
    }
}
