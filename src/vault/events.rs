//! Events: what happened, for a person to read, in order.
use super::{Vault, VaultError, id_column, vault_id};
use crate::block::MachineId;
use crate::recovery::JobId;
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Row, ToSql, Transaction, params, params_from_iter};

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

/// Which events; what is None is not asked for.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub machine: Option<MachineId>,
    pub severity: Option<Severity>,
    pub code: Option<String>,
    /// At or after this instant, and before that one.
    pub since_unix_nanos: Option<i64>,
    pub until_unix_nanos: Option<i64>,
    pub oldest_first: bool,
    /// The last one that is known already.
    pub after: Option<i64>,
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
    let now = now_unix_nanos();
    let marked = event.severity >= Severity::Warning
        && super::maintenance::is_on(transaction, vault, event.machine, now)?;
    let message = if marked {
        format!("{}{}", super::maintenance::MARK, event.message)
    } else {
        event.message.clone()
    };
    transaction
        .prepare_cached(
            "INSERT INTO events (vault, at, severity, code, machine, job, message, possible_causes, recommended_action)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            vault,
            now,
            event.severity.word(),
            event.code,
            event.machine.map(|id| id.to_string()),
            event.job.map(|id| id.to_string()),
            message,
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

    /// Events of a vault, the newest first unless the filter says otherwise.
    pub fn events(&self, vault: &str, filter: &EventFilter, limit: u32) -> Result<Vec<Event>, VaultError> {
        self.read(|transaction| {
            let mut sql = format!("{EVENT} WHERE events.vault = ?1");
            let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(vault_id(transaction, vault)?)];
            let mut condition = |text: &str, value: Box<dyn ToSql>| {
                values.push(value);
                sql.push_str(&format!(" AND {text} ?{}", values.len()));
            };
            if let Some(machine) = filter.machine {
                condition("events.machine =", Box::new(machine.to_string()));
            }
            if let Some(severity) = filter.severity {
                condition("events.severity =", Box::new(severity.word()));
            }
            if let Some(code) = &filter.code {
                condition("events.code =", Box::new(code.clone()));
            }
            // Ids grow with time: an instant becomes a bound of ids, and the list is read in its order.
            let first_at = |instant: i64| -> Result<i64, VaultError> {
                Ok(transaction
                    .prepare_cached("SELECT id FROM events WHERE at >= ?1 ORDER BY at, id LIMIT 1")?
                    .query_row([instant], |row| row.get(0))
                    .optional()?
                    .unwrap_or(i64::MAX))
            };
            if let Some(since) = filter.since_unix_nanos {
                condition("events.id >=", Box::new(first_at(since)?));
            }
            if let Some(until) = filter.until_unix_nanos {
                condition("events.id <", Box::new(first_at(until)?));
            }
            let (beyond, order) = if filter.oldest_first {
                ("events.id >", "ASC")
            } else {
                ("events.id <", "DESC")
            };
            if let Some(after) = filter.after {
                condition(beyond, Box::new(after));
            }
            values.push(Box::new(limit));
            sql.push_str(&format!(" ORDER BY events.id {order} LIMIT ?{}", values.len()));
            let rows = transaction
                .prepare_cached(&sql)?
                .query_map(params_from_iter(values.iter()), event_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    pub fn event_row(&self, id: i64) -> Result<Option<Event>, VaultError> {
        self.read(|transaction| {
            Ok(transaction
                .prepare_cached(&format!("{EVENT} WHERE events.id = ?1"))?
                .query_row([id], event_row)
                .optional()?)
        })
    }
}
