//! The vault: machines, replicated items, policies, jobs, events, users, in SQLite.
//!
//! Beside the block's way: the data plane emits facts, which come in here ([`crate::rt::Report`]); recovery keeps its jobs
//! here ([`crate::recovery::Journal`]); the configuration server asks what an agent is to do ([`Vault::desired`]); the API
//! reads and orders. What an agent says of itself and what the data plane reports is live state: kept in memory, made anew
//! after a restart by the next heartbeat. Everything else is in the database.
//!
//! All writes that belong together are one transaction, durable on return. A crash leaves the state before or after it.
//! Times are Unix nanoseconds. Locks: the writer connection first, then `live`; nobody holds `live` and asks the database.
mod alert_settings;
mod alert_summary;
mod alerts;
mod audit;
mod backup;
mod capacity;
mod changes;
mod churn;
mod day_time;
mod db;
mod error;
mod events;
mod facts;
mod groups;
mod health;
mod invitations;
mod health_log;
mod health_signs;
mod items;
mod jobs;
mod live;
mod machines;
mod maintenance;
mod networks;
mod on_demand;
mod orders;
mod plans;
mod reprotect;
mod policies;
mod process_server;
mod rebuild;
mod roles;
mod secret;
mod series;
#[cfg(test)]
mod tests;
mod updates;
mod users;
mod vaults;

pub use alerts::{
    AlertGroup, AlertKind, AlertMachine, AlertSettings, Channel, Delivery, DeliveryFilter, DeliveryState,
    Digest, EmailSettings, KnownAlertSettings, MailSecurity, Secret, WebhookSettings, is_loopback,
    webhook_address,
};
pub use audit::AuditRow;
pub use backup::{BACKUPS_KEPT, Backup, BackupError, Backups, is_of_older_schema};
pub use capacity::{Series, growth_rate, seconds_until_full};
pub use changes::{Change, KeptAnswer};
pub use churn::{ChurnSlot, HOUR_SECONDS, MINUTE_SECONDS, SLOT_SECONDS, StoreSample};
pub use day_time::QuietHours;
pub use error::VaultError;
pub use events::{Event, EventFilter, NewEvent, Severity};
pub use groups::{GROUP_MEMBERS_MAX, GroupLive, GroupRow, GroupValues, SharedInstant};
pub use health::{Health, HealthError, age, replication_health};
pub use health_log::OpenHealthError;
pub use health_signs::{Hop, Signs, stalled_hop};
pub use invitations::{
    Invitation, Invites, JOIN_TOKEN_LIFE, JOIN_TOKEN_LIFE_MAX, NewInvitation, REGISTRATION_KEY_LIFE,
};
pub use items::{
    ItemDisk, ItemRow, TASK_KEEP_POINTS, TASK_REGISTER_DISKS, TASK_REMOVE_REPLICA, TASK_START_REPLICATION,
    TASK_STOP_REPLICATION, default_target, scenario,
};
pub use jobs::{JobFilter, JobRow};
pub use live::{Churn, Live, PointMark};
pub use machines::{
    CertificateStatus, Desired, DesiredDisk, HaltReport, Heartbeat, LiveDisk, MachineRow, Trouble,
};
pub use maintenance::MaintenanceWindow;
pub use networks::{
    ANY_SOURCE, NetworkKind, NetworkMapping, NetworkRow, NetworkSettings, SourceNetwork, first_ipv4,
};
pub use on_demand::TASK_MAKE_POINT;
pub use orders::{TASK_COMPARE_DISKS, TASK_COPY_DISKS};
pub use plans::{PlanRow, plan_scenario};
pub use policies::{NewPolicy, Policy};
pub use process_server::ServerTrouble;
pub use rebuild::Adopted;
pub use reprotect::TASK_COPY_HOME;
pub use roles::Role;
pub use secret::PASSWORD_LEN_MIN;
pub use series::{SeriesRange, SeriesSlot};
pub use updates::AgentUpdate;
pub use users::{ADMINISTRATOR, Principal, TokenRow, UserRow};
pub use vaults::VaultRow;

use crate::block::MachineId;
use crate::rt::Fact;
use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The vault that the first start makes.
pub const DEFAULT_VAULT: &str = "default";
/// The policy that the first start makes in it.
pub const DEFAULT_POLICY: &str = "default";

/// Cheap to clone; safe to use from many threads. Calls block: async callers go through a blocking thread.
#[derive(Clone)]
pub struct Vault(Arc<Shared>);

struct Shared {
    db: db::Database,
    live: Mutex<HashMap<MachineId, Live>>,
    groups: Mutex<HashMap<i64, GroupLive>>,
    throttle: Mutex<users::Throttle>,
    churn: Mutex<churn::Unwritten>,
    site_errors: Mutex<Vec<HealthError>>,
    server_troubles: Mutex<Vec<ServerTrouble>>,
    /// Grows with every commit: live views look again.
    commits: tokio::sync::watch::Sender<u64>,
    facts: SyncSender<Fact>,
    opened_unix_nanos: i64,
}

impl Vault {
    /// Opens or makes the database and brings it to the newest schema. A new one gets the vault `default` and the default
    /// policy.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let db = db::Database::open(path)?;
        let (facts, receiver) = std::sync::mpsc::sync_channel(facts::QUEUED_FACTS_MAX);
        let vault = Self(Arc::new(Shared {
            db,
            live: Mutex::default(),
            groups: Mutex::default(),
            throttle: Mutex::default(),
            churn: Mutex::default(),
            site_errors: Mutex::default(),
            server_troubles: Mutex::default(),
            commits: tokio::sync::watch::Sender::new(0),
            facts,
            opened_unix_nanos: crate::rt::now_unix_nanos(),
        }));
        vault.write(|transaction| {
            let vaults: i64 = transaction.query_row("SELECT count(*) FROM vaults", [], |row| row.get(0))?;
            if vaults == 0 {
                transaction.execute(
                    "INSERT INTO vaults (name, created) VALUES (?1, ?2)",
                    rusqlite::params![DEFAULT_VAULT, crate::rt::now_unix_nanos()],
                )?;
                let vault = transaction.last_insert_rowid();
                policies::insert(transaction, vault, &NewPolicy::named(DEFAULT_POLICY))?;
                networks::insert_defaults(transaction, vault)?;
            }
            Ok(())
        })?;
        facts::spawn(&vault, receiver)?;
        Ok(vault)
    }

    /// Wakes with every change of the database.
    pub fn commits(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.commits.subscribe()
    }

    fn write<T>(
        &self,
        action: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let value = self.0.db.write(action)?;
        self.0.commits.send_modify(|count| *count += 1);
        Ok(value)
    }

    fn read<T>(
        &self,
        action: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        self.0.db.read(action)
    }

    fn groups_live(&self) -> MutexGuard<'_, HashMap<i64, GroupLive>> {
        self.0.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_map(&self) -> MutexGuard<'_, HashMap<MachineId, Live>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn throttle(&self) -> MutexGuard<'_, users::Throttle> {
        self.0.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten_churn(&self) -> MutexGuard<'_, churn::Unwritten> {
        self.0.churn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn site_errors(&self) -> MutexGuard<'_, Vec<HealthError>> {
        self.0.site_errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server_troubles(&self) -> MutexGuard<'_, Vec<ServerTrouble>> {
        self.0
            .server_troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of the vaults.
    pub fn vaults(&self) -> Result<Vec<String>, VaultError> {
        self.read(|transaction| {
            let names = transaction
                .prepare_cached("SELECT name FROM vaults ORDER BY name")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            Ok(names)
        })
    }
}

fn vault_id(transaction: &rusqlite::Transaction<'_>, name: &str) -> Result<i64, VaultError> {
    use rusqlite::OptionalExtension;
    transaction
        .prepare_cached("SELECT id FROM vaults WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?
        .ok_or_else(|| VaultError::NotFound {
            what: "vault",
            name: name.to_owned(),
        })
}

/// An id in a column of text.
fn id_column<T: std::str::FromStr>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// A value in a column of JSON.
fn json_column<T: serde::de::DeserializeOwned>(
    row: &rusqlite::Row<'_>,
    column: usize,
) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// The word of a unit variant, as serde writes it.
fn word<T: serde::Serialize>(value: &T) -> Result<String, VaultError> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(word) => Ok(word),
        other => Ok(other.to_string()),
    }
}
