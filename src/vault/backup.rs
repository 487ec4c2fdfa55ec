//! Backups of the database, sealed with the vault key, in the store's folder: whoever has the store and the key has the vault.
//!
//! A backup is taken by SQLite's online copy beside the running server. A restore replaces the file whole; the one before
//! is kept beside it. A crash in between leaves the old file, or none and a server that refuses to start with an empty vault.
use super::db;
use crate::replica::{SealedError, VaultKey, seal, unseal};
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Backups that are kept.
pub const BACKUPS_KEPT: usize = 24;
const ENDING: &str = ".lbvb";

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("cannot {action} {object}")]
    Io {
        action: &'static str,
        object: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the database cannot be copied")]
    Database(#[from] rusqlite::Error),
    #[error("backup {name} cannot be used")]
    Sealed {
        name: String,
        #[source]
        source: SealedError,
    },
    #[error("backup {name} holds a database that is damaged: {why}")]
    Damaged { name: String, why: String },
    #[error("backup {name} has schema {found}, this program knows schemas up to {known}")]
    Newer { name: String, found: u32, known: u32 },
    #[error("there is no backup {0}")]
    NotFound(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    pub name: String,
    pub made_unix_nanos: i64,
    pub reason: String,
    pub bytes: u64,
}

pub struct Backups {
    folder: PathBuf,
    key: VaultKey,
    keep: usize,
    /// One at a time: the copy in clear has one name.
    making: Mutex<()>,
}

fn failed<'a>(action: &'static str, object: &'a Path) -> impl FnOnce(io::Error) -> BackupError + 'a {
    move |source| BackupError::Io {
        action,
        object: object.to_owned(),
        source,
    }
}

fn private(path: &Path) -> Result<File, BackupError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("make", path))
}

fn with_ending(database: &Path, ending: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn open(database: &Path) -> Result<Connection, BackupError> {
    let connection = Connection::open_with_flags(
        database,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(10))?;
    Ok(connection)
}

/// Whether opening the database will change its schema. False where there is none.
pub fn is_of_older_schema(database: &Path) -> Result<bool, BackupError> {
    if !database.exists() {
        return Ok(false);
    }
    let version: u32 = open(database)?.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok((version as usize) < db::STEPS.len())
}

/// Time and reason of a backup by its name.
fn read_name(name: &str) -> Option<(i64, String)> {
    let (time, reason) = name.strip_suffix(ENDING)?.split_once('-')?;
    let time = jiff::fmt::strtime::parse("%Y%m%dT%H%M%S%.fZ", time).ok()?;
    let time = time.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    let nanos = i64::try_from(time.timestamp().as_nanosecond()).ok()?;
    Some((nanos, reason.to_owned()))
}

impl Backups {
    pub fn of(store: &Path, key: VaultKey) -> Self {
        Self {
            folder: store.join("vault-backups"),
            key,
            keep: BACKUPS_KEPT,
            making: Mutex::default(),
        }
    }

    /// The newest first. A folder that is missing holds none.
    pub fn list(&self) -> Result<Vec<Backup>, BackupError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &self.folder)(error)),
        };
        let mut found: Vec<Backup> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (made_unix_nanos, reason) = read_name(&name)?;
                Some(Backup {
                    made_unix_nanos,
                    reason,
                    bytes: entry.metadata().ok()?.len(),
                    name,
                })
            })
            .collect();
        found.sort_by(|a, b| b.name.cmp(&a.name));
        Ok(found)
    }

    /// Durable on return; then the oldest beyond the number to keep are removed.
    pub fn make(&self, database: &Path, reason: &str) -> Result<Backup, BackupError> {
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(failed("make", &self.folder))?;
        let now = jiff::Timestamp::now();
        let name = format!("{}-{reason}{ENDING}", now.strftime("%Y%m%dT%H%M%S.%3fZ"));
        // In clear beside the database, which is as clear, and never in the store.
        let copy = with_ending(database, ".copy");
        let result = self.make_by(database, &copy, &self.folder.join(&name));
        remove(&copy)?;
        let bytes = result?;
        for old in self.list()?.into_iter().skip(self.keep) {
            remove(&self.folder.join(old.name))?;
        }
        Ok(Backup {
            name,
            made_unix_nanos: now.as_millisecond() * 1_000_000,
            reason: reason.to_owned(),
            bytes,
        })
    }

    fn make_by(&self, database: &Path, copy: &Path, target: &Path) -> Result<u64, BackupError> {
        private(copy)?;
        {
            let (from, mut to) = (open(database)?, open(copy)?);
            let backup = rusqlite::backup::Backup::new(&from, &mut to)?;
            // In parts, so that the server's writes are not held up.
            backup.run_to_completion(512, Duration::from_millis(2), None)?;
        }
        let mut from = File::open(copy).map_err(failed("read", copy))?;
        let fresh = target.with_extension("new");
        let mut to = io::BufWriter::new(private(&fresh)?);
        let sealed = seal(&self.key, &mut from, &mut to).map_err(|source| BackupError::Sealed {
            name: target.display().to_string(),
            source,
        });
        let publish = || {
            let file = to.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&fresh, target)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(file.metadata()?.len())
        };
        sealed.and_then(|()| publish().map_err(failed("write", target)))
    }

    /// Replaces the database by a backup. No server may run on it. The file before stays as `vault.db.before-restore`.
    pub fn restore(&self, name: &str, database: &Path) -> Result<(), BackupError> {
        let known = self.list()?;
        let Some(backup) = known.iter().find(|backup| backup.name == name) else {
            return Err(BackupError::NotFound(name.to_owned()));
        };
        let path = self.folder.join(&backup.name);
        let fresh = with_ending(database, ".restoring");
        let mut from = io::BufReader::new(File::open(&path).map_err(failed("read", &path))?);
        let mut to = private(&fresh)?;
        unseal(&self.key, &mut from, &mut to).map_err(|source| BackupError::Sealed {
            name: name.to_owned(),
            source,
        })?;
        to.sync_all().map_err(failed("write", &fresh))?;
        drop(to);
        check(name, &fresh)?;
        let replace = || {
            // The log first: a database without its log is older, a log without its database is nothing.
            for ending in ["-wal", "-shm", ""] {
                let old = with_ending(database, ending);
                let kept = with_ending(&with_ending(database, ".before-restore"), ending);
                let _ = std::fs::remove_file(&kept);
                if old.exists() {
                    std::fs::rename(&old, &kept)?;
                }
            }
            std::fs::rename(&fresh, database)?;
            File::open(database.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        replace().map_err(failed("replace", database))
    }
}

/// That it is a whole database of a schema that is known; and marks it as restored.
fn check(name: &str, fresh: &Path) -> Result<(), BackupError> {
    let damaged = |why: String| BackupError::Damaged {
        name: name.to_owned(),
        why,
    };
    let connection = open(fresh)?;
    // One file until it is in its place.
    connection.pragma_update(None, "journal_mode", "delete")?;
    let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if said != "ok" {
        return Err(damaged(said));
    }
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(db::STEPS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(BackupError::Newer {
            name: name.to_owned(),
            found,
            known,
        });
    }
    connection.execute(
        "INSERT INTO settings (key, value) VALUES ('restored', ?1) ON CONFLICT (key) DO UPDATE SET value = ?1",
        [name],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{DEFAULT_VAULT, Vault};

    #[test]
    fn a_backup_beside_a_running_vault_is_restored_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (database, store) = (folder.path().join("vault.db"), folder.path().join("store"));
        let vault = Vault::open(&database).unwrap();
        vault.enrol(DEFAULT_VAULT, "web1", "key 1", "1").unwrap();
        let key = VaultKey::generate();
        let mut backups = Backups::of(&store, key);
        assert_eq!(backups.list().unwrap(), []);
        let first = backups.make(&database, "by-hand").unwrap();
        assert_eq!(backups.list().unwrap(), std::slice::from_ref(&first));
        assert!(!folder.path().join("vault.db.copy").exists());
        vault.enrol(DEFAULT_VAULT, "web2", "key 2", "1").unwrap();
        drop(vault);
        backups.restore(&first.name, &database).unwrap();
        let vault = Vault::open(&database).unwrap();
        assert!(vault.find_machine(DEFAULT_VAULT, "web1").is_ok());
        assert!(vault.find_machine(DEFAULT_VAULT, "web2").is_err());
        let before = Vault::open(&folder.path().join("vault.db.before-restore")).unwrap();
        assert!(before.find_machine(DEFAULT_VAULT, "web2").is_ok());
        assert!(matches!(
            backups.restore("none", &database),
            Err(BackupError::NotFound(_))
        ));
        // Nothing of it can be read without the key, and another key leaves the database as it is.
        let bytes = std::fs::read(store.join("vault-backups").join(&first.name)).unwrap();
        assert!(!bytes.windows(4).any(|part| part == b"web1"));
        let other = Backups::of(&store, VaultKey::generate());
        assert!(matches!(
            other.restore(&first.name, &database),
            Err(BackupError::Sealed { .. })
        ));
        assert!(
            Vault::open(&database)
                .unwrap()
                .find_machine(DEFAULT_VAULT, "web1")
                .is_ok()
        );
        backups.keep = 2;
        for _ in 0..3 {
            // Names are of the millisecond.
            std::thread::sleep(Duration::from_millis(2));
            backups.make(&database, "scheduled").unwrap();
        }
        let names: Vec<_> = backups.list().unwrap();
        assert_eq!(names.len(), 2);
        assert!(names.iter().all(|backup| backup.reason == "scheduled"));
        assert!(!is_of_older_schema(&database).unwrap());
        open(&database)
            .unwrap()
            .pragma_update(None, "user_version", 1)
            .unwrap();
        assert!(is_of_older_schema(&database).unwrap());
    }
}
