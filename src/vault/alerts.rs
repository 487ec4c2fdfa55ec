//! Alerts: from a health error or an event to a message that arrived.
//!
//! Per channel (the e-mail, each webhook):
//! ```text
//! raised, over, occurred -> pending (one row per code and machine) -> digest window over, nothing under way -> delivery
//!                                                    delivery: Pending -> Delivered | Failed (given up) | Cancelled
//! ```
//! What is pending is written in the transaction of its event; a delivery is made in the transaction that takes its rows from
//! pending. So a kill at any instant loses no message; one that was sent and not yet noted is sent again under the same id.
//! A channel has one delivery under way at most: while it is down, news collects in pending, which is bounded by codes times
//! machines, and goes out as one digest. What came and went within a window is in the events, and in no message.
use super::maintenance;
use super::{NewEvent, Severity, Vault, VaultError, events, json_column, vault_id};
use crate::block::MachineId;
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

pub use super::alert_settings::*;

/// Names in one group of a digest; the count tells of all.
const MACHINES_NAMED_MAX: usize = 50;
/// After this a message that does not arrive is given up; its content is in the events.
const GIVE_UP_NANOS: i64 = 3 * 86_400 * 1_000_000_000;
/// From this failed attempt on, the trouble is told of.
const ATTEMPTS_TOLD: u32 = 5;
/// Ended deliveries that are kept per vault.
const DELIVERIES_KEPT: i64 = 1000;
const ERROR_CHARS_MAX: usize = 500;

/// Something to tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notice {
    pub code: String,
    pub machine: Option<MachineId>,
    pub severity: Severity,
    pub summary: String,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

impl Notice {
    pub fn of(event: &NewEvent, summary: &str) -> Self {
        Self {
            code: event.code.clone(),
            machine: event.machine,
            severity: event.severity,
            summary: summary.to_owned(),
            message: event.message.clone(),
            possible_causes: event.possible_causes.clone(),
            recommended_action: event.recommended_action.clone(),
        }
    }

    fn machine_text(&self) -> String {
        self.machine.map(|id| id.to_string()).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AlertKind {
    /// A health error is on.
    Raised,
    /// It is over.
    Over,
    /// Something happened, once or several times.
    Occurred,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertMachine {
    pub id: String,
    pub name: String,
    pub message: String,
}

/// All of one code and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertGroup {
    pub kind: AlertKind,
    pub code: String,
    pub severity: Severity,
    pub summary: String,
    /// How often it happened.
    pub count: u64,
    pub first_unix_nanos: i64,
    pub last_unix_nanos: i64,
    /// All of them, also those that are not named.
    pub machine_count: usize,
    /// Empty: it is of the site.
    pub machines: Vec<AlertMachine>,
    pub message: String,
    pub possible_causes: String,
    pub recommended_action: String,
}

/// The content of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    pub alerts: Vec<AlertGroup>,
}

impl Digest {
    /// Of the worst that is on or happened; a digest of recoveries only informs.
    pub fn severity(&self) -> Severity {
        self.alerts
            .iter()
            .filter(|alert| alert.kind != AlertKind::Over)
            .map(|alert| alert.severity)
            .max()
            .unwrap_or(Severity::Information)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// Given up.
    Failed,
    /// Its channel was removed.
    Cancelled,
}

/// Which lines of the delivery log; None: all.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    pub channel: Option<String>,
    /// Alert, Test
    pub kind: Option<String>,
    pub state: Option<String>,
    pub oldest_first: bool,
}

/// A line of the delivery log.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub number: i64,
    /// Also in the message: a receiver that sees it twice may drop the second.
    pub id: Uuid,
    pub vault: String,
    pub channel: Channel,
    pub is_test: bool,
    pub state: DeliveryState,
    pub created_unix_nanos: i64,
    pub next_unix_nanos: i64,
    pub attempts: u32,
    pub ended_unix_nanos: Option<i64>,
    /// Why the last attempt failed.
    pub error: String,
    pub digest: Digest,
}

/// Wait before attempt `attempts` + 1: 2 s, doubling to 30 min.
pub fn backoff_nanos(attempts: u32) -> i64 {
    let seconds = 2i64 << attempts.saturating_sub(1).min(12);
    seconds.min(1800) * 1_000_000_000
}

/// A health error came or got worse.
pub(super) fn raised(
    transaction: &Transaction<'_>,
    vault: i64,
    notice: &Notice,
    now: i64,
) -> Result<(), VaultError> {
    for channel in listening(transaction, vault, notice.severity)? {
        raised_for(transaction, vault, &channel, notice, now)?;
    }
    Ok(())
}

fn raised_for(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
    notice: &Notice,
    now: i64,
) -> Result<(), VaultError> {
    // It came back before its end was told: to the reader it has been on all the time.
    forget_pending(transaction, vault, channel, notice, AlertKind::Over)?;
    let told: Option<String> = transaction
        .prepare_cached(
            "SELECT severity FROM alert_told WHERE vault = ?1 AND channel = ?2 AND code = ?3 AND machine = ?4",
        )?
        .query_row(
            params![vault, channel.to_string(), notice.code, notice.machine_text()],
            |row| row.get(0),
        )
        .optional()?;
    if told.is_some_and(|told| Severity::of(&told) >= notice.severity) {
        return Ok(());
    }
    if maintenance::is_on(transaction, vault, notice.machine, now)? {
        return Ok(());
    }
    pend(transaction, vault, channel, notice, AlertKind::Raised, now)
}

/// A health error is over. Told only where it was told that it is on.
pub(super) fn over(
    transaction: &Transaction<'_>,
    vault: i64,
    notice: &Notice,
    now: i64,
) -> Result<(), VaultError> {
    // Whatever the least severity is now: who was told of an error is told of its end.
    for channel in listening(transaction, vault, Severity::Critical)? {
        forget_pending(transaction, vault, &channel, notice, AlertKind::Raised)?;
        let told: bool = transaction
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM alert_told
                 WHERE vault = ?1 AND channel = ?2 AND code = ?3 AND machine = ?4)",
            )?
            .query_row(
                params![vault, channel.to_string(), notice.code, notice.machine_text()],
                |row| row.get(0),
            )?;
        if told {
            pend(transaction, vault, &channel, notice, AlertKind::Over, now)?;
        }
    }
    Ok(())
}

/// Something happened that a person must know and that has no end: a job failed.
pub(super) fn occurred(
    transaction: &Transaction<'_>,
    vault: i64,
    event: &NewEvent,
    except: Option<&Channel>,
    now: i64,
) -> Result<(), VaultError> {
    if event.severity < Severity::Warning || maintenance::is_on(transaction, vault, event.machine, now)? {
        return Ok(());
    }
    for channel in listening(transaction, vault, event.severity)? {
        if except != Some(&channel) {
            let notice = Notice::of(event, &event.message);
            pend(transaction, vault, &channel, &notice, AlertKind::Occurred, now)?;
        }
    }
    Ok(())
}

fn forget_pending(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
    notice: &Notice,
    kind: AlertKind,
) -> Result<(), VaultError> {
    transaction
        .prepare_cached(
            "DELETE FROM alert_pending WHERE vault = ?1 AND channel = ?2 AND code = ?3 AND machine = ?4 AND kind = ?5",
        )?
        .execute(params![
            vault,
            channel.to_string(),
            notice.code,
            notice.machine_text(),
            super::word(&kind)?
        ])?;
    Ok(())
}

fn pend(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
    notice: &Notice,
    kind: AlertKind,
    now: i64,
) -> Result<(), VaultError> {
    transaction
        .prepare_cached(
            "INSERT INTO alert_pending (vault, channel, code, machine, kind, severity, summary, message,
                 possible_causes, recommended_action, count, first_at, last_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 1, ?11, ?11)
             ON CONFLICT DO UPDATE SET severity = ?6, summary = ?7, message = ?8, possible_causes = ?9,
                 recommended_action = ?10, count = count + 1, last_at = ?11",
        )?
        .execute(params![
            vault,
            channel.to_string(),
            notice.code,
            notice.machine_text(),
            super::word(&kind)?,
            notice.severity.word(),
            notice.summary,
            notice.message,
            notice.possible_causes,
            notice.recommended_action,
            now
        ])?;
    Ok(())
}

/// A new channel hears of what is on already.
pub(super) fn introduce(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &Channel,
    least: Severity,
    now: i64,
) -> Result<(), VaultError> {
    let on: Vec<Notice> = transaction
        .prepare(
            "SELECT code, machine, severity, summary, message, possible_causes, recommended_action
             FROM health_errors WHERE vault = ?1",
        )?
        .query_map([vault], |row| {
            let (machine, severity): (String, String) = (row.get(1)?, row.get(2)?);
            Ok(Notice {
                code: row.get(0)?,
                machine: machine.parse().ok(),
                severity: Severity::of(&severity),
                summary: row.get(3)?,
                message: row.get(4)?,
                possible_causes: row.get(5)?,
                recommended_action: row.get(6)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    for notice in on.iter().filter(|notice| notice.severity >= least) {
        raised_for(transaction, vault, channel, notice, now)?;
    }
    Ok(())
}

/// Nothing more goes to a channel that was removed.
pub(super) fn dismiss(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &str,
    now: i64,
) -> Result<(), VaultError> {
    for table in ["alert_pending", "alert_told", "alert_secrets"] {
        transaction.execute(
            &format!("DELETE FROM {table} WHERE vault = ?1 AND channel = ?2"),
            params![vault, channel],
        )?;
    }
    transaction.execute(
        "UPDATE alert_deliveries SET state = 'Cancelled', ended = ?3
         WHERE vault = ?1 AND channel = ?2 AND state = 'Pending'",
        params![vault, channel, now],
    )?;
    Ok(())
}

struct Pending {
    machine: String,
    machine_name: String,
    kind: AlertKind,
    notice: Notice,
    count: u64,
    first_at: i64,
    last_at: i64,
}

/// `JobFailed`: Job failed.
fn in_words(code: &str) -> String {
    let mut words = String::new();
    for (place, letter) in code.chars().enumerate() {
        if place > 0 && letter.is_ascii_uppercase() {
            words.push(' ');
            words.push(letter.to_ascii_lowercase());
        } else {
            words.push(letter);
        }
    }
    words
}

/// One group per code and kind: the worst first, recoveries last.
fn grouped(rows: Vec<Pending>) -> Digest {
    let mut groups: BTreeMap<(AlertKind, String), AlertGroup> = BTreeMap::new();
    for row in rows {
        let notice = row.notice;
        let group = groups
            .entry((row.kind, notice.code.clone()))
            .or_insert_with(|| AlertGroup {
                kind: row.kind,
                code: notice.code.clone(),
                severity: notice.severity,
                summary: notice.summary.clone(),
                count: 0,
                first_unix_nanos: row.first_at,
                last_unix_nanos: row.last_at,
                machine_count: 0,
                machines: Vec::new(),
                message: notice.message.clone(),
                possible_causes: notice.possible_causes.clone(),
                recommended_action: notice.recommended_action.clone(),
            });
        group.severity = group.severity.max(notice.severity);
        group.count += row.count;
        group.first_unix_nanos = group.first_unix_nanos.min(row.first_at);
        group.last_unix_nanos = group.last_unix_nanos.max(row.last_at);
        if row.machine.is_empty() {
            continue;
        }
        group.machine_count += 1;
        if row.kind == AlertKind::Occurred && group.machine_count > 1 {
            // The summary was what happened to the first.
            group.summary = in_words(&notice.code);
        }
        if group.machines.len() < MACHINES_NAMED_MAX {
            group.machines.push(AlertMachine {
                id: row.machine,
                name: row.machine_name,
                message: notice.message,
            });
        }
    }
    let mut alerts: Vec<AlertGroup> = groups.into_values().collect();
    alerts.sort_by_key(|alert| {
        (
            alert.kind == AlertKind::Over,
            std::cmp::Reverse(alert.severity),
            std::cmp::Reverse(alert.machine_count),
        )
    });
    Digest { alerts }
}

fn take_pending(transaction: &Transaction<'_>, vault: i64, channel: &str) -> Result<Digest, VaultError> {
    let rows = transaction
        .prepare_cached(
            "SELECT alert_pending.machine, ifnull(machines.name, ''), kind, code, severity, summary, message,
                 possible_causes, recommended_action, count, first_at, last_at
             FROM alert_pending LEFT JOIN machines ON machines.id = alert_pending.machine
             WHERE alert_pending.vault = ?1 AND channel = ?2 ORDER BY machines.name, first_at",
        )?
        .query_map(params![vault, channel], |row| {
            let (machine, kind, severity): (String, String, String) = (row.get(0)?, row.get(2)?, row.get(4)?);
            Ok(Pending {
                machine_name: row.get(1)?,
                kind: match kind.as_str() {
                    "Raised" => AlertKind::Raised,
                    "Over" => AlertKind::Over,
                    _ => AlertKind::Occurred,
                },
                notice: Notice {
                    code: row.get(3)?,
                    machine: machine.parse().ok(),
                    severity: Severity::of(&severity),
                    summary: row.get(5)?,
                    message: row.get(6)?,
                    possible_causes: row.get(7)?,
                    recommended_action: row.get(8)?,
                },
                machine,
                count: row.get(9)?,
                first_at: row.get(10)?,
                last_at: row.get(11)?,
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    transaction.execute(
        "INSERT INTO alert_told (vault, channel, code, machine, severity)
         SELECT vault, channel, code, machine, severity FROM alert_pending
         WHERE vault = ?1 AND channel = ?2 AND kind = 'Raised'
         ON CONFLICT DO UPDATE SET severity = excluded.severity",
        params![vault, channel],
    )?;
    transaction.execute(
        "DELETE FROM alert_told WHERE vault = ?1 AND channel = ?2 AND EXISTS (
             SELECT 1 FROM alert_pending AS over WHERE over.vault = ?1 AND over.channel = ?2 AND over.kind = 'Over'
             AND over.code = alert_told.code AND over.machine = alert_told.machine)",
        params![vault, channel],
    )?;
    transaction.execute(
        "DELETE FROM alert_pending WHERE vault = ?1 AND channel = ?2",
        params![vault, channel],
    )?;
    Ok(grouped(rows))
}

const DELIVERY: &str = "SELECT number, alert_deliveries.id, vaults.name, channel, kind, state, alert_deliveries.created,
    next_at, attempts, ended, error, body FROM alert_deliveries JOIN vaults ON vaults.id = alert_deliveries.vault";

fn delivery_row(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let (kind, state): (String, String) = (row.get(4)?, row.get(5)?);
    Ok(Delivery {
        number: row.get(0)?,
        id: super::id_column(row, 1)?,
        vault: row.get(2)?,
        channel: super::id_column(row, 3)?,
        is_test: kind == "Test",
        state: match state.as_str() {
            "Pending" => DeliveryState::Pending,
            "Delivered" => DeliveryState::Delivered,
            "Cancelled" => DeliveryState::Cancelled,
            _ => DeliveryState::Failed,
        },
        created_unix_nanos: row.get(6)?,
        next_unix_nanos: row.get(7)?,
        attempts: row.get(8)?,
        ended_unix_nanos: row.get(9)?,
        error: row.get(10)?,
        digest: json_column(row, 11)?,
    })
}

pub(super) fn insert_delivery(
    transaction: &Transaction<'_>,
    vault: i64,
    channel: &str,
    kind: &str,
    digest: &Digest,
    now: i64,
) -> Result<Uuid, VaultError> {
    let id = Uuid::now_v7();
    transaction.execute(
        "INSERT INTO alert_deliveries (id, vault, channel, kind, state, created, next_at, attempts, error, body)
         VALUES (?1, ?2, ?3, ?4, 'Pending', ?5, ?5, 0, '', ?6)",
        params![
            id.to_string(),
            vault,
            channel,
            kind,
            now,
            serde_json::to_string(digest)?
        ],
    )?;
    Ok(id)
}

impl Vault {
    /// Makes messages of what has waited its digest window, for channels that have none under way.
    pub fn compose_alerts(&self, now: i64) -> Result<(), VaultError> {
        self.close_maintenance(now)?;
        self.compose_summaries(now)?;
        // (vault, channel, since)
        let waiting: Vec<(i64, String, i64)> = self.read(|transaction| {
            let rows = transaction
                .prepare_cached(
                    "SELECT vault, channel, min(first_at) FROM alert_pending WHERE NOT EXISTS (
                         SELECT 1 FROM alert_deliveries AS open WHERE open.state = 'Pending' AND open.kind = 'Alert'
                         AND open.vault = alert_pending.vault AND open.channel = alert_pending.channel)
                     GROUP BY vault, channel",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })?;
        for (vault, channel, since) in waiting {
            self.compose_one(vault, &channel, since, now)?;
        }
        Ok(())
    }

    fn compose_one(&self, vault: i64, channel: &str, since: i64, now: i64) -> Result<(), VaultError> {
        let (window, quiet) = self.read(|transaction| {
            let settings = settings(transaction, vault)?;
            let (_, minute) = super::day_time::local(now);
            let quiet = settings.quiet_hours.is_some_and(|hours| hours.hold(minute));
            let critical: bool = transaction
                .prepare_cached(
                    "SELECT EXISTS (SELECT 1 FROM alert_pending WHERE vault = ?1 AND channel = ?2
                         AND severity = 'Critical' AND kind <> 'Over')",
                )?
                .query_row(params![vault, channel], |row| row.get(0))?;
            // What waits goes with the critical message: whoever was woken may as well know all.
            Ok((
                i64::from(settings.digest_seconds) * 1_000_000_000,
                quiet && !critical,
            ))
        })?;
        if quiet || since.saturating_add(window) > now {
            return Ok(());
        }
        self.write(|transaction| {
            let digest = take_pending(transaction, vault, channel)?;
            if digest.alerts.is_empty() {
                return Ok(());
            }
            insert_delivery(transaction, vault, channel, "Alert", &digest, now)?;
            transaction.execute(
                "DELETE FROM alert_deliveries WHERE vault = ?1 AND state <> 'Pending' AND number <= (
                     SELECT max(number) FROM alert_deliveries) - ?2",
                params![vault, DELIVERIES_KEPT],
            )?;
            Ok(())
        })
    }

    /// Messages that are to be sent now, the oldest first. Tests of a person are not among them: who asks sends them.
    pub fn due_deliveries(&self, now: i64, limit: u32) -> Result<Vec<Delivery>, VaultError> {
        self.read(|transaction| {
            let rows = transaction
                .prepare_cached(&format!(
                    "{DELIVERY} WHERE state = 'Pending' AND kind = 'Alert' AND next_at <= ?1 ORDER BY number LIMIT ?2"
                ))?
                .query_map(params![now, limit], delivery_row)?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Puts a message of a test into the log.
    pub fn begin_alert_test(
        &self,
        vault: &str,
        channel: &Channel,
        digest: &Digest,
        now: i64,
    ) -> Result<Delivery, VaultError> {
        let id = self.write(|transaction| {
            let vault = vault_id(transaction, vault)?;
            insert_delivery(transaction, vault, &channel.to_string(), "Test", digest, now)
        })?;
        self.read(|transaction| {
            Ok(transaction.query_row(
                &format!("{DELIVERY} WHERE alert_deliveries.id = ?1"),
                [id.to_string()],
                delivery_row,
            )?)
        })
    }

    /// Tests that a crash cut off: nobody waits for them any more.
    pub fn abandon_alert_tests(&self, now: i64) -> Result<(), VaultError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE alert_deliveries SET state = 'Failed', ended = ?1, error = 'the server was stopped'
                 WHERE kind = 'Test' AND state = 'Pending'",
                [now],
            )?;
            Ok(())
        })
    }

    /// The delivery log, the newest first, from the one before `before`.
    pub fn deliveries(
        &self,
        vault: &str,
        filter: &DeliveryFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Delivery>, VaultError> {
        let (beyond, order, first) = if filter.oldest_first {
            (">", "ASC", i64::MIN)
        } else {
            ("<", "DESC", i64::MAX)
        };
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            let rows = transaction
                .prepare_cached(&format!(
                    "{DELIVERY} WHERE alert_deliveries.vault = ?1 AND number {beyond} ?2
                         AND (?4 IS NULL OR channel = ?4) AND (?5 IS NULL OR kind = ?5 COLLATE NOCASE)
                         AND (?6 IS NULL OR state = ?6 COLLATE NOCASE)
                     ORDER BY number {order} LIMIT ?3"
                ))?
                .query_map(
                    params![
                        vault,
                        after.unwrap_or(first),
                        limit,
                        filter.channel,
                        filter.kind,
                        filter.state
                    ],
                    delivery_row,
                )?
                .collect::<Result<_, _>>()?;
            Ok(rows)
        })
    }

    /// Messages that have not arrived yet.
    pub fn pending_deliveries(&self, vault: &str) -> Result<u64, VaultError> {
        self.read(|transaction| {
            let vault = vault_id(transaction, vault)?;
            Ok(transaction
                .prepare_cached(
                    "SELECT count(*) FROM alert_deliveries WHERE vault = ?1 AND state = 'Pending' AND kind = 'Alert'",
                )?
                .query_row([vault], |row| row.get(0))?)
        })
    }

    /// The receiver has taken it.
    pub fn delivered(&self, delivery: &Delivery, now: i64) -> Result<(), VaultError> {
        self.write(|transaction| {
            transaction.execute(
                "UPDATE alert_deliveries SET state = 'Delivered', ended = ?2, attempts = attempts + 1, error = ''
                 WHERE id = ?1 AND state = 'Pending'",
                params![delivery.id.to_string(), now],
            )?;
            if delivery.attempts >= ATTEMPTS_TOLD && !delivery.is_test {
                let message = format!("over: alerts to {} arrive again", delivery.channel);
                let vault = vault_id(transaction, &delivery.vault)?;
                events::information(
                    transaction,
                    vault,
                    "AlertsNotDeliveredOver",
                    None,
                    None,
                    &message,
                )?;
            }
            Ok(())
        })
    }

    /// An attempt failed: tried again later, or given up. A test is not tried again.
    pub fn delivery_failed(&self, delivery: &Delivery, error: &str, now: i64) -> Result<(), VaultError> {
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        let attempts = delivery.attempts + 1;
        let gives_up = delivery.is_test || now - delivery.created_unix_nanos > GIVE_UP_NANOS;
        self.write(|transaction| {
            transaction.execute(
                "UPDATE alert_deliveries SET attempts = ?2, error = ?3, next_at = ?4, state = ?5, ended = ?6
                 WHERE id = ?1 AND state = 'Pending'",
                params![
                    delivery.id.to_string(),
                    attempts,
                    error,
                    now + backoff_nanos(attempts),
                    if gives_up { "Failed" } else { "Pending" },
                    gives_up.then_some(now)
                ],
            )?;
            if delivery.is_test || !(attempts == ATTEMPTS_TOLD || gives_up) {
                return Ok(());
            }
            let event = NewEvent {
                severity: Severity::Warning,
                code: "AlertsNotDelivered".to_owned(),
                machine: None,
                job: None,
                message: format!(
                    "alerts to {} do not arrive ({}): {error}",
                    delivery.channel,
                    if gives_up {
                        "given up after 3 days"
                    } else {
                        "tried again until they do"
                    }
                ),
                possible_causes: "the receiver is down, refuses the login, or its certificate is not trusted"
                    .to_owned(),
                recommended_action:
                    "see what it says: lifeboat alert test; see the settings: lifeboat alert show".to_owned(),
            };
            let vault = vault_id(transaction, &delivery.vault)?;
            events::insert_untold(transaction, vault, &event)?;
            occurred(transaction, vault, &event, Some(&delivery.channel), now)
        })
    }
}

#[cfg(test)]
mod tests;
