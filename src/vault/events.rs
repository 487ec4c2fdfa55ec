//! Events: what happened, for a person to read, in order.
use super::{Vault, VaultError, id_column, vault_id};
use crate::block::MachineId;
use crate::recovery::JobId;
use crate::rt::now_unix_nanos;
use rusqlite::{Row, Transaction, params};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Severity {
    Information,
    Warning,
    Critical,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Information => "Information",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }

    pub(super) fn of(word: &str) -> Self {
        match word {
            "Information" => Self::Information,
            "Warning" => Self::Warning,
            _ => Self::Critical,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub severity: Severity,
    /// Stable, e.g. `RpoExceeded`.
    pub code: String,
    pub machine: Option<MachineId>,
    pub job: Option<JobId>,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: i64,
    pub at_unix_nanos: i64,
    /// Name at this moment.
    pub machine_name: Option<String>,
    pub event: NewEvent,
}

/// Adds an event, and the alert of one that a person must know.
pub(super) fn insert(transaction: &Transaction<'_>, vault: i64, event: &NewEvent) -> Result<(), VaultError> {
    insert_untold(transaction, vault, event)?;
    super::alerts::occurred(transaction, vault, event, None, now_unix_nanos())
}

/// Adds an event without an alert: its caller tells of it.
pub(super) fn insert_untold(
    transaction: &Transaction<'_>,
    vault: i64,
    event: &NewEvent,
) -> Result<(), VaultError> {
    transaction
        .prepare_cached(
            "INSERT INTO events (vault, at, severity, code, machine, job, message, possible_causes, recommended_action)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            vault,
            now_unix_nanos(),
            event.severity.word(),
            event.code,
            event.machine.map(|id| id.to_string()),
            event.job.map(|id| id.to_string()),
            event.message,
            event.possible_causes,
            event.recommended_action
        ])?;
    Ok(())
}

pub(super) fn information(
    transaction: &Transaction<'_>,
    vault: i64,
    code: &str,
    machine: Option<MachineId>,
    job: Option<JobId>,
    message: &str,
) -> Result<(), VaultError> {
    insert(
        transaction,
        vault,
        &NewEvent {
            severity: Severity::Information,
            code: code.to_owned(),
            machine,
            job,
            message: message.to_owned(),
            possible_causes: String::new(),
            recommended_action: String::new(),
        },
    )
}

/// The number of the vault that a machine belongs to.
pub(super) fn vault_of(transaction: &Transaction<'_>, machine: MachineId) -> Result<i64, VaultError> {
    use rusqlite::OptionalExtension;
    transaction
        .prepare_cached("SELECT vault FROM machines WHERE id = ?1")?
        .query_row([machine.to_string()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| super::machines::unknown_machine(machine))
}

const EVENT: &str =
    "SELECT events.id, at, severity, code, machine, job, message, possible_causes, recommended_action,
    machines.name FROM events LEFT JOIN machines ON machines.id = events.machine";

fn event_row(row: &Row<'_>) -> rusqlite::Result<Event> {
    let severity: String = row.get(2)?;
    let machine = match row.get_ref(4)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(id_column(row, 4)?),
    };
    let job = match row.get_ref(5)? {
        rusqlite::types::ValueRef::Null => None,
        _ => Some(JobId(id_column(row, 5)?)),
    };
    Ok(Event {
        id: row.get(0)?,
        at_unix_nanos: row.get(1)?,
        machine_name: row.get(9)?,
        event: NewEvent {
            severity: Severity::of(&severity),
            code: row.get(3)?,
            machine,
            job,
            message: row.get(6)?,
            possible_causes: row.get(7)?,
            recommended_action: row.get(8)?,
        },
    })
}

impl Vault {
    /// Adds an event; to the vault of its machine, or to the default vault.
    pub fn event(&self, event: &NewEvent) -> Result<(), VaultError> {
        self.write(|transaction| {
            let vault = match event.machine {
                Some(machine) => vault_of(transaction, machine)?,
                None => vault_id(transaction, super::DEFAULT_VAULT)?,
            };
            insert(transaction, vault, event)
        })
    }

    /// The newest first, from the one before `before`.
    pub fn events(
        &self,
        vault: &str,
        machine: Option<MachineId>,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Event>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let before = before.unwrap_or(i64::MAX);
            // Two statements, because one with "machine is null or equal" would not use the index.
            let rows = match machine {
                Some(machine) => transaction
                    .prepare_cached(&format!(
                        "{EVENT} WHERE events.vault = ?1 AND events.id < ?2 AND events.machine = ?4
                         ORDER BY events.id DESC LIMIT ?3"
                    ))?
                    .query_map(params![vault, before, limit, machine.to_string()], event_row)?
                    .collect::<Result<_, _>>()?,
                None => transaction
                    .prepare_cached(&format!(
                        "{EVENT} WHERE events.vault = ?1 AND events.id < ?2 ORDER BY events.id DESC LIMIT ?3"
                    ))?
                    .query_map(params![vault, before, limit], event_row)?
                    .collect::<Result<_, _>>()?,
            };
            Ok(rows)
        })
    }
}
