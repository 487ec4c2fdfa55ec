//! Roles, by the matrix of the reference model. Each may do what the one before it may.
use super::VaultError;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Role {
    /// Sees everything.
    Reader,
    /// Also fails over, tests, commits, resynchronizes and works with jobs.
    Operator,
    /// Also enables and disables replication, joins machines, makes policies.
    Contributor,
    /// Also makes users and assigns roles.
    Owner,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::Reader, Self::Operator, Self::Contributor, Self::Owner];

    pub fn word(self) -> &'static str {
        match self {
            Self::Reader => "Reader",
            Self::Operator => "Operator",
            Self::Contributor => "Contributor",
            Self::Owner => "Owner",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = VaultError;

    fn from_str(word: &str) -> Result<Self, VaultError> {
        Self::ALL
            .into_iter()
            .find(|role| role.word() == word)
            .ok_or_else(|| VaultError::Invalid {
                field: "role",
                rule: "Reader, Operator, Contributor or Owner".to_owned(),
            })
    }
}
