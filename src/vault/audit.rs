//! The audit log: who did what from where. Only ever appended to; the database refuses anything else.
use super::{Vault, VaultError};
use crate::rt::now_unix_nanos;
use rusqlite::params;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    pub id: i64,
    pub at_unix_nanos: i64,
    pub user: String,
    /// Address of the caller, or `unix socket`.
    pub origin: String,
    pub action: String,
    pub object: String,
    pub outcome: String,
}

impl Vault {
    pub fn audit(
        &self,
        user: &str,
        origin: &str,
        action: &str,
        object: &str,
        outcome: &str,
    ) -> Result<(), VaultError> {
        self.write(|transaction| {
            transaction
                .prepare_cached(
                    "INSERT INTO audit (at, user, origin, action, object, outcome) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![now_unix_nanos(), user, origin, action, object, outcome])?;
            Ok(())
        })
    }

    /// The newest first, from the one before `before`. `vault`: only what was done in it.
    pub fn audit_log(
        &self,
        vault: Option<&str>,
        user: Option<&str>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, VaultError> {
        // Names hold no character that LIKE reads as another.
        let below = vault.map(|vault| format!("/api/v1/vaults/{vault}/%"));
        self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT id, at, user, origin, action, object, outcome FROM audit WHERE id < ?1
                         AND (?3 IS NULL OR object LIKE ?3) AND (?4 IS NULL OR user = ?4)
                     ORDER BY id DESC LIMIT ?2",
                )?
                .query_map(params![before.unwrap_or(i64::MAX), limit, below, user], |row| {
                    Ok(AuditRow {
                        id: row.get(0)?,
                        at_unix_nanos: row.get(1)?,
                        user: row.get(2)?,
                        origin: row.get(3)?,
                        action: row.get(4)?,
                        object: row.get(5)?,
                        outcome: row.get(6)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }
}
