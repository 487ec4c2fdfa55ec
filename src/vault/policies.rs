//! Replication policies: how often points are made, how long they are kept, and how old the newest may get.
use super::{Vault, VaultError, vault_id};
use crate::block::MachineId;
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Row, Transaction, params};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub rpo_threshold_seconds: u32,
    pub retention_hours: u32,
    pub crash_consistent_seconds: u32,
    /// 0: off.
    pub app_consistent_seconds: u32,
    /// The policy that this one was made for; such a twin cannot be edited.
    pub failback_of: Option<String>,
    pub revision: u64,
    /// Replicated items that follow it.
    pub items: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPolicy {
    pub name: String,
    pub rpo_threshold_seconds: u32,
    pub retention_hours: u32,
    pub crash_consistent_seconds: u32,
    pub app_consistent_seconds: u32,
}

impl NewPolicy {
    /// With the defaults of the reference model.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            rpo_threshold_seconds: 15 * 60,
            retention_hours: 24,
            crash_consistent_seconds: 30,
            app_consistent_seconds: 60 * 60,
        }
    }

    fn check(&self) -> Result<(), VaultError> {
        let invalid = |field, rule: &str| {
            Err(VaultError::Invalid {
                field,
                rule: rule.to_owned(),
            })
        };
        let name = self.name.as_bytes();
        if !(1..=63).contains(&name.len())
            || !name
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        {
            return invalid(
                "name",
                "1 to 63 letters, digits, hyphens, underscores and full stops",
            );
        }
        if !(5..=3600).contains(&self.crash_consistent_seconds) {
            return invalid("crashConsistentSeconds", "5 seconds to 1 hour (5 to 3600)");
        }
        if self.app_consistent_seconds != 0 && !(3600..=12 * 3600).contains(&self.app_consistent_seconds) {
            return invalid(
                "appConsistentSeconds",
                "1 to 12 hours (3600 to 43200), or 0 for off",
            );
        }
        if !(1..=15 * 24).contains(&self.retention_hours) {
            return invalid("retentionHours", "1 hour to 15 days (1 to 360)");
        }
        // Below the frequency of points it would be breached all the time.
        if self.rpo_threshold_seconds <= self.crash_consistent_seconds
            || self.rpo_threshold_seconds > 24 * 3600
        {
            return invalid(
                "rpoThresholdSeconds",
                "more than crashConsistentSeconds and at most 24 hours (86400)",
            );
        }
        Ok(())
    }
}

pub(super) const POLICY: &str = "policies.name, policies.rpo_threshold_seconds, policies.retention_hours,
    policies.crash_consistent_seconds, policies.app_consistent_seconds,
    (SELECT name FROM policies AS twin WHERE twin.id = policies.failback_of), policies.revision,
    (SELECT count(*) FROM items AS followers WHERE followers.policy = policies.id)";

/// The columns of [`POLICY`], from `first` on.
pub(super) fn policy_row(row: &Row<'_>, first: usize) -> rusqlite::Result<Policy> {
    Ok(Policy {
        name: row.get(first)?,
        rpo_threshold_seconds: row.get(first + 1)?,
        retention_hours: row.get(first + 2)?,
        crash_consistent_seconds: row.get(first + 3)?,
        app_consistent_seconds: row.get(first + 4)?,
        failback_of: row.get(first + 5)?,
        revision: row.get(first + 6)?,
        items: row.get(first + 7)?,
    })
}

/// Makes a policy and its twin for the way back.
pub(super) fn insert(
    transaction: &Transaction<'_>,
    vault: i64,
    policy: &NewPolicy,
) -> Result<(), VaultError> {
    policy.check()?;
    let mut failback_of = None;
    for name in [policy.name.clone(), format!("{}-failback", policy.name)] {
        let taken: bool = transaction.query_row(
            "SELECT EXISTS (SELECT 1 FROM policies WHERE vault = ?1 AND name = ?2)",
            params![vault, name],
            |row| row.get(0),
        )?;
        if taken {
            return Err(VaultError::refused(
                "PolicyExists",
                format!("there is a policy {name} already"),
                "a policy of that name was made before, or is the failback policy of another one",
                "choose another name, or see it: lifeboat policy list",
            ));
        }
        transaction.execute(
            "INSERT INTO policies (vault, name, rpo_threshold_seconds, retention_hours, crash_consistent_seconds,
                 app_consistent_seconds, failback_of, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                vault,
                name,
                policy.rpo_threshold_seconds,
                policy.retention_hours,
                policy.crash_consistent_seconds,
                policy.app_consistent_seconds,
                failback_of,
                now_unix_nanos()
            ],
        )?;
        failback_of = Some(transaction.last_insert_rowid());
    }
    Ok(())
}

fn by_name(transaction: &Transaction<'_>, vault: i64, name: &str) -> Result<Policy, VaultError> {
    transaction
        .prepare_cached(&format!(
            "SELECT {POLICY} FROM policies WHERE vault = ?1 AND name = ?2"
        ))?
        .query_row(params![vault, name], |row| policy_row(row, 0))
        .optional()?
        .ok_or_else(|| VaultError::NotFound {
            what: "policy",
            name: name.to_owned(),
        })
}

/// The row number of a policy that an item may follow.
pub(super) fn usable(transaction: &Transaction<'_>, vault: i64, name: &str) -> Result<i64, VaultError> {
    let policy = by_name(transaction, vault, name)?;
    if let Some(of) = policy.failback_of {
        return Err(VaultError::refused(
            "FailbackPolicy",
            format!("{name} is for the way back only"),
            format!("it was made by itself together with the policy {of}"),
            format!("use {of}"),
        ));
    }
    Ok(transaction.query_row(
        "SELECT id FROM policies WHERE vault = ?1 AND name = ?2",
        params![vault, name],
        |row| row.get(0),
    )?)
}

impl Vault {
    /// The policy that a replicated item follows.
    pub fn policy_of(&self, machine: MachineId) -> Result<Policy, VaultError> {
        self.read(|transaction| {
            super::items::item(transaction, machine)?
                .map(|row| row.policy)
                .ok_or_else(|| VaultError::NotFound {
                    what: "replicated item",
                    name: machine.to_string(),
                })
        })
    }

    pub fn policy(&self, vault: &str, name: &str) -> Result<Policy, VaultError> {
        self.read(|transaction| by_name(transaction, vault_id(transaction, vault)?, name))
    }

    /// By name, from the one after `after`.
    pub fn policies(&self, vault: &str, after: Option<&str>, limit: u32) -> Result<Vec<Policy>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(&format!(
                    "SELECT {POLICY} FROM policies WHERE vault = ?1 AND name > ?2 ORDER BY name LIMIT ?3"
                ))?
                .query_map(params![vault, after.unwrap_or(""), limit], |row| {
                    policy_row(row, 0)
                })?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn create_policy(&self, vault: &str, policy: &NewPolicy) -> Result<Policy, VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            insert(transaction, vault, policy)?;
            by_name(transaction, vault, &policy.name)
        })
    }

    /// Changes a policy and its twin, also for the items that follow it. `revision`: the one that the caller read; None:
    /// whatever is stored.
    pub fn update_policy(
        &self,
        vault: &str,
        policy: &NewPolicy,
        revision: Option<u64>,
    ) -> Result<Policy, VaultError> {
        policy.check()?;
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let id = usable(transaction, vault, &policy.name)?;
            let known = by_name(transaction, vault, &policy.name)?;
            if revision.is_some_and(|revision| revision != known.revision) {
                return Err(VaultError::Conflict {
                    what: "policy",
                    name: policy.name.clone(),
                });
            }
            transaction.execute(
                "UPDATE policies SET rpo_threshold_seconds = ?2, retention_hours = ?3, crash_consistent_seconds = ?4,
                     app_consistent_seconds = ?5, revision = revision + 1 WHERE id = ?1 OR failback_of = ?1",
                params![
                    id,
                    policy.rpo_threshold_seconds,
                    policy.retention_hours,
                    policy.crash_consistent_seconds,
                    policy.app_consistent_seconds
                ],
            )?;
            by_name(transaction, vault, &policy.name)
        })
    }

    /// Removes a policy and its twin; refused while an item follows it.
    pub fn remove_policy(&self, vault: &str, name: &str, revision: Option<u64>) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let id = usable(transaction, vault, name)?;
            let known = by_name(transaction, vault, name)?.revision;
            if revision.is_some_and(|revision| revision != known) {
                return Err(VaultError::Conflict {
                    what: "policy",
                    name: name.to_owned(),
                });
            }
            let followers: Vec<String> = transaction
                .prepare(
                    "SELECT machines.name FROM items JOIN machines ON machines.id = items.machine
                     WHERE items.policy = ?1 ORDER BY machines.name LIMIT 10",
                )?
                .query_map([id], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            if !followers.is_empty() {
                return Err(VaultError::refused(
                    "PolicyInUse",
                    format!("the policy {name} is in use: {}", followers.join(", ")),
                    "replicated items follow it",
                    "give them another policy, or disable their replication, first",
                ));
            }
            transaction.execute("DELETE FROM policies WHERE id = ?1", [id])?;
            Ok(())
        })
    }
}
