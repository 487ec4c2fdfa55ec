//! Maintenance windows: while one is on, what goes wrong is in the events, marked, and nobody is told. What is still wrong when
//! it ends is told then.
use super::alerts;
use super::{Vault, VaultError, id_column, vault_id};
use crate::block::MachineId;
use crate::rt::now_unix_nanos;
use rusqlite::{OptionalExtension, Row, Transaction, params};

/// A window that was forgotten must not keep quiet for ever.
pub const WINDOW_NANOS_MAX: i64 = 31 * 86_400 * 1_000_000_000;
/// Windows that are over are kept this long.
const KEPT_NANOS: i64 = 90 * 86_400 * 1_000_000_000;
const NOTE_LEN_MAX: usize = 500;
/// Before the words of an event in a window.
pub(super) const MARK: &str = "in maintenance: ";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceWindow {
    pub id: i64,
    /// None: all of the vault.
    pub machine: Option<(MachineId, String)>,
    pub begins_unix_nanos: i64,
    pub ends_unix_nanos: i64,
    pub note: String,
    pub made_by: String,
}

impl MaintenanceWindow {
    /// Planned, On or Over.
    pub fn state(&self, now: i64) -> &'static str {
        if now < self.begins_unix_nanos {
            "Planned"
        } else if now < self.ends_unix_nanos {
            "On"
        } else {
            "Over"
        }
    }
}

const WINDOW: &str =
    "SELECT maintenance_windows.id, machine, ifnull(machines.name, ''), begins, ends, note, made_by
    FROM maintenance_windows LEFT JOIN machines ON machines.id = machine";

fn window_row(row: &Row<'_>) -> rusqlite::Result<MaintenanceWindow> {
    let whole = row.get::<_, Option<String>>(1)?.is_none();
    Ok(MaintenanceWindow {
        id: row.get(0)?,
        machine: if whole {
            None
        } else {
            Some((id_column(row, 1)?, row.get(2)?))
        },
        begins_unix_nanos: row.get(3)?,
        ends_unix_nanos: row.get(4)?,
        note: row.get(5)?,
        made_by: row.get(6)?,
    })
}

/// Whether nobody is to be told of this machine now; None: of the site.
pub(super) fn is_on(
    transaction: &Transaction<'_>,
    vault: i64,
    machine: Option<MachineId>,
    now: i64,
) -> Result<bool, VaultError> {
    Ok(transaction
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM maintenance_windows WHERE vault = ?1 AND told = 0 AND begins <= ?3 AND ends > ?3
                 AND (machine IS NULL OR machine = ?2))",
        )?
        .query_row(
            params![vault, machine.map(|id| id.to_string()), now],
            |row| row.get(0),
        )?)
}

impl Vault {
    /// `machine` None: all of the vault.
    pub fn plan_maintenance(
        &self,
        vault: &str,
        machine: Option<MachineId>,
        (begins, ends): (i64, i64),
        note: &str,
        made_by: &str,
    ) -> Result<MaintenanceWindow, VaultError> {
        let invalid = |field, rule: &str| {
            Err(VaultError::Invalid {
                field,
                rule: rule.to_owned(),
            })
        };
        let now = now_unix_nanos();
        if ends <= begins || ends <= now {
            return invalid("endsAt", "after the beginning and after this moment");
        }
        if ends.saturating_sub(begins) > WINDOW_NANOS_MAX {
            return invalid("endsAt", "at most 31 days after the beginning");
        }
        if note.len() > NOTE_LEN_MAX {
            return invalid("note", "at most 500 bytes");
        }
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            transaction.execute(
                "DELETE FROM maintenance_windows WHERE told = 1 AND ends < ?1",
                [now - KEPT_NANOS],
            )?;
            transaction.execute(
                "INSERT INTO maintenance_windows (vault, machine, begins, ends, note, made_by)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    vault,
                    machine.map(|id| id.to_string()),
                    begins,
                    ends,
                    note,
                    made_by
                ],
            )?;
            let id = transaction.last_insert_rowid();
            Ok(transaction.query_row(
                &format!("{WINDOW} WHERE maintenance_windows.id = ?1"),
                [id],
                window_row,
            )?)
        })
    }

    /// The newest first.
    pub fn maintenance_windows(&self, vault: &str) -> Result<Vec<MaintenanceWindow>, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(&format!(
                    "{WINDOW} WHERE maintenance_windows.vault = ?1 ORDER BY maintenance_windows.id DESC"
                ))?
                .query_map([vault], window_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Ends a window now; one that has not begun is forgotten.
    pub fn end_maintenance(&self, vault: &str, id: i64) -> Result<(), VaultError> {
        let now = now_unix_nanos();
        self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let begins: Option<i64> = transaction
                .query_row(
                    "SELECT begins FROM maintenance_windows WHERE id = ?1 AND vault = ?2",
                    params![id, vault],
                    |row| row.get(0),
                )
                .optional()?;
            match begins {
                None => {
                    return Err(VaultError::NotFound {
                        what: "maintenance window",
                        name: id.to_string(),
                    });
                }
                Some(begins) if begins > now => {
                    transaction.execute("DELETE FROM maintenance_windows WHERE id = ?1", [id])?;
                }
                Some(_) => {
                    transaction.execute(
                        "UPDATE maintenance_windows SET ends = min(ends, ?2) WHERE id = ?1",
                        params![id, now],
                    )?;
                }
            }
            Ok(())
        })
    }

    /// Tells of what is still wrong where a window has ended.
    pub(super) fn close_maintenance(&self, now: i64) -> Result<(), VaultError> {
        let ended: Vec<(i64, i64)> = self.read(|transaction| {
            let rows = transaction
                .prepare_cached("SELECT id, vault FROM maintenance_windows WHERE told = 0 AND ends <= ?1")?
                .query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })?;
        for (id, vault) in ended {
            self.write(|transaction| {
                transaction.execute("UPDATE maintenance_windows SET told = 1 WHERE id = ?1", [id])?;
                let settings = alerts::settings(transaction, vault)?;
                for channel in settings.channels() {
                    alerts::introduce(transaction, vault, &channel, settings.least_severity, now)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
