//! The SQLite file: how it is opened, its schemas, one writer and a few readers.
//!
//! WAL with `synchronous = FULL`: a commit that returned is on the disk, and a reader never waits for the writer. Each
//! schema step is one transaction together with its number, so that a crash leaves the old schema or the new one.
use super::VaultError;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Step N brings a database from schema N to N+1. Never change one that was released: add the next.
pub(super) const STEPS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002-alerts.sql"),
    include_str!("schema/0003-joining.sql"),
    include_str!("schema/0004-resources.sql"),
    include_str!("schema/0005-series.sql"),
    include_str!("schema/0006-networks.sql"),
    include_str!("schema/0007-revisions.sql"),
    include_str!("schema/0008-plans.sql"),
    include_str!("schema/0009-removals.sql"),
    include_str!("schema/0010-maintenance.sql"),
    include_str!("schema/0011-groups.sql"),
];

/// Idle readers that are kept; more are opened when many ask at once.
const IDLE_READERS_MAX: usize = 8;

pub(super) struct Database {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, VaultError> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Opens for writing, at whatever schema the file has.
fn open_writer(path: &Path) -> Result<Connection, VaultError> {
    if !path.exists() {
        // SQLite would make it readable for everybody; it holds password hashes.
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| VaultError::Database(Box::new(error)))?;
    }
    let writer = connect(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    )?;
    writer.pragma_update(None, "journal_mode", "wal")?;
    writer.pragma_update(None, "synchronous", "full")?;
    // A burst must not leave a large log file behind for ever.
    writer.pragma_update(None, "journal_size_limit", 16 << 20)?;
    Ok(writer)
}

fn migrate(writer: &mut Connection, steps: &[&str]) -> Result<(), VaultError> {
    loop {
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let known = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        if version > known {
            return Err(VaultError::NewerSchema {
                found: version,
                known,
            });
        }
        let Some(step) = steps.get(version as usize) else {
            return Ok(());
        };
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
}

impl Database {
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        Self::open_with(path, STEPS)
    }

    pub(super) fn open_with(path: &Path, steps: &[&str]) -> Result<Self, VaultError> {
        let mut writer = open_writer(path)?;
        migrate(&mut writer, steps)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
        })
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        // A transaction that a panic interrupted was rolled back when it was dropped.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All or nothing, durable on return.
    pub fn write<T>(
        &self,
        action: impl FnOnce(&Transaction<'_>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let mut writer = self.writer();
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = action(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }

    /// Reads one consistent state of the database.
    pub fn read<T>(
        &self,
        action: impl FnOnce(&Transaction<'_>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut reader = match idle {
            Some(reader) => reader,
            // Read-write, because a read-only connection cannot recover a log that a crash left; it only reads.
            None => {
                let reader = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
                reader.pragma_update(None, "query_only", true)?;
                reader
            }
        };
        let transaction = reader.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let value = action(&transaction)?;
        drop(transaction);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < IDLE_READERS_MAX {
            readers.push(reader);
        }
        Ok(value)
    }
}
