//! Health errors that are on: kept, and told of once when they come, when they get worse and when they are over.
//!
//! The event, the row that remembers it and the alert that waits to be sent are one transaction. A crash before it repeats the
//! look; a crash after it tells nothing twice.
use super::alerts::{self, Notice};
use super::{HealthError, NewEvent, Severity, Vault, VaultError, events, vault_id};
use crate::block::MachineId;
use rusqlite::{Transaction, params};
use std::collections::BTreeMap;

/// Right after a start of the server agents have not said yet what troubles them: what was on before stays on this long.
const GRACE_NANOS: i64 = 90 * 1_000_000_000;

/// A health error that is on.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenHealthError {
    pub code: String,
    /// None: of the site.
    pub machine: Option<MachineId>,
    /// Name at this moment; empty for the site.
    pub machine_name: String,
    pub severity: Severity,
    pub summary: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
    pub since_unix_nanos: i64,
}

/// Machine in text (empty: the site) and code.
type Key = (String, String);

struct Known {
    vault: i64,
    error: OpenHealthError,
}

fn known(transaction: &Transaction<'_>) -> Result<BTreeMap<Key, Known>, VaultError> {
    let rows = transaction
        .prepare_cached(
            "SELECT health_errors.vault, machine, code, severity, summary, message, possible_causes,
                 recommended_action, since, ifnull(machines.name, '')
             FROM health_errors LEFT JOIN machines ON machines.id = health_errors.machine",
        )?
        .query_map([], |row| {
            let (machine, code): (String, String) = (row.get(1)?, row.get(2)?);
            let severity: String = row.get(3)?;
            let error = OpenHealthError {
                code: code.clone(),
                machine: machine.parse().ok(),
                machine_name: row.get(9)?,
                severity: Severity::of(&severity),
                summary: row.get(4)?,
                message: row.get(5)?,
                possible_causes: row.get(6)?,
                recommended_action: row.get(7)?,
                since_unix_nanos: row.get(8)?,
            };
            let vault = row.get(0)?;
            Ok(((machine, code), Known { vault, error }))
        })?
        .collect::<Result<_, _>>()?;
    Ok(rows)
}

/// What is on now, of one machine or of the site.
struct Now {
    vault: String,
    machine: Option<MachineId>,
    error: HealthError,
}

enum News {
    /// New, or worse than it was.
    Raised(Now),
    Over(Known),
}

impl Vault {
    /// What is wrong with the site as a whole: the store, the server's certificate. Replaces what was said before.
    pub fn set_site_errors(&self, errors: Vec<HealthError>) {
        *self.site_errors() = errors;
    }

    /// Health errors that are on, the worst first.
    pub fn open_health_errors(&self, vault: &str) -> Result<Vec<OpenHealthError>, VaultError> {
        let known = self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let mut known = known(transaction)?;
            known.retain(|_, known| known.vault == vault);
            Ok(known)
        })?;
        // The row says how it began; the words of this moment say how it is.
        let mut now = self.errors_now(crate::rt::now_unix_nanos())?;
        let mut all: Vec<OpenHealthError> = known
            .into_iter()
            .map(|(key, known)| match now.remove(&key) {
                Some(Now { error, .. }) => OpenHealthError {
                    severity: error.severity,
                    summary: error.summary,
                    message: error.message,
                    possible_causes: error.possible_causes,
                    recommended_action: error.recommended_action,
                    ..known.error
                },
                None => known.error,
            })
            .collect();
        all.sort_by_key(|error| (std::cmp::Reverse(error.severity), error.since_unix_nanos));
        Ok(all)
    }

    fn errors_now(&self, now: i64) -> Result<BTreeMap<Key, Now>, VaultError> {
        let mut found: BTreeMap<Key, Now> = BTreeMap::new();
        let mut add = |vault: &str, machine: Option<MachineId>, error: HealthError| {
            let key = (
                machine.map(|id| id.to_string()).unwrap_or_default(),
                error.code.to_owned(),
            );
            let is_worse = found
                .get(&key)
                .is_none_or(|known| known.error.severity < error.severity);
            if is_worse {
                let vault = vault.to_owned();
                found.insert(
                    key,
                    Now {
                        vault,
                        machine,
                        error,
                    },
                );
            }
        };
        for row in &self.all_items()? {
            let machine = row.item.machine;
            for error in super::replication_health(row, &self.live(machine), now).errors {
                add(&row.vault, Some(machine), error);
            }
        }
        for error in self.site_errors().iter() {
            add(super::DEFAULT_VAULT, None, error.clone());
        }
        Ok(found)
    }

    /// Tells of health errors that came, got worse or went since the last look.
    pub(super) fn tell_of_health(&self, now: i64) -> Result<(), VaultError> {
        let mut before = self.read(known)?;
        let mut news = Vec::new();
        for (key, error) in self.errors_now(now)? {
            match before.remove(&key) {
                Some(known) if known.error.severity >= error.error.severity => {}
                _ => news.push(News::Raised(error)),
            }
        }
        let opened = self.0.opened_unix_nanos;
        for known in before.into_values() {
            let is_from_before = known.error.since_unix_nanos < opened;
            if !is_from_before || now - opened > GRACE_NANOS {
                news.push(News::Over(known));
            }
        }
        if news.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            for news in &news {
                match news {
                    News::Raised(error) => raised(transaction, error, now)?,
                    News::Over(known) => over(transaction, known, now)?,
                }
            }
            Ok(())
        })
    }
}

fn raised(transaction: &Transaction<'_>, now_on: &Now, now: i64) -> Result<(), VaultError> {
    let vault = vault_id(transaction, &now_on.vault)?;
    let error = &now_on.error;
    let event = error.event(now_on.machine);
    events::insert_untold(transaction, vault, &event)?;
    transaction
        .prepare_cached(
            "INSERT INTO health_errors (vault, machine, code, severity, summary, message, possible_causes,
                 recommended_action, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO UPDATE SET severity = ?4, summary = ?5, message = ?6, possible_causes = ?7,
                 recommended_action = ?8",
        )?
        .execute(params![
            vault,
            now_on.machine.map(|id| id.to_string()).unwrap_or_default(),
            error.code,
            error.severity.word(),
            error.summary,
            error.message,
            error.possible_causes,
            error.recommended_action,
            now
        ])?;
    alerts::raised(transaction, vault, &Notice::of(&event, &error.summary), now)
}

fn over(transaction: &Transaction<'_>, known: &Known, now: i64) -> Result<(), VaultError> {
    let error = &known.error;
    let whose = if error.machine_name.is_empty() {
        String::new()
    } else {
        format!(" on {}", error.machine_name)
    };
    let event = NewEvent {
        severity: Severity::Information,
        code: format!("{}Over", error.code),
        machine: error.machine,
        job: None,
        message: format!("over{whose}: {}", error.summary),
        possible_causes: String::new(),
        recommended_action: String::new(),
    };
    events::insert_untold(transaction, known.vault, &event)?;
    transaction
        .prepare_cached("DELETE FROM health_errors WHERE vault = ?1 AND machine = ?2 AND code = ?3")?
        .execute(params![
            known.vault,
            error.machine.map(|id| id.to_string()).unwrap_or_default(),
            error.code
        ])?;
    let notice = Notice {
        code: error.code.clone(),
        summary: error.summary.clone(),
        ..Notice::of(&event, "")
    };
    alerts::over(transaction, known.vault, &notice, now)
}
