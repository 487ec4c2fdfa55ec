//! `lifeboat vault`: registration keys of a vault; backups of its database, which are made and taken in the folders alone.
use super::failure::Failure;
use super::join_token;
use super::remote::{Remote, hint, instant, say, say_json, segment, table};
use crate::replica::VaultKey;
use crate::vault::{Backup, BackupError, Backups};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat vault registration-key --out second.key     lets one server register in this vault, within 5 days
  lifeboat vault backup                                 save the database into the store, also beside a running server
  lifeboat vault list                                   backups of it
  lifeboat vault restore NAME --confirm NAME            go back to one; the server must be stopped")]
pub struct VaultArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key with which one machine joins this vault within five days, with nothing but its file
    RegistrationKey(KeyArgs),
    /// Save the vault's database into the store, sealed with the vault key; a server may run
    Backup(FolderArgs),
    /// Backups of the database, the newest first
    #[command(visible_alias = "ls")]
    List(FolderArgs),
    /// Replace the database by a backup; the server must be stopped
    Restore {
        /// As `vault list` prints it
        name: String,
        /// The backup's name once more
        #[arg(long, value_name = "NAME")]
        confirm: String,
        #[command(flatten)]
        folder: FolderArgs,
    },
}

#[derive(Args)]
struct FolderArgs {
    /// Data folder of the server on this host [default: as of `lifeboat serve`]
    #[arg(long, env = "LIFEBOAT_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl FolderArgs {
    fn folder(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(super::serve::default_data_dir)
    }

    fn backups(&self) -> Result<Backups, Failure> {
        let folder = self.folder();
        let key = VaultKey::load(&folder.join("pki/vault.key"))?;
        Ok(Backups::of(&folder.join("store"), key))
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let message = crate::rt::chain(&error);
        let (code, causes, action) = match error {
            BackupError::NotFound(_) => (
                5,
                "the name is misspelt, or newer ones replaced it",
                "lifeboat vault list",
            ),
            BackupError::Sealed { .. } => (
                12,
                "it was made with another vault key, or its bytes were changed",
                "take another one: lifeboat vault list; put the right pki/vault.key in the data folder",
            ),
            BackupError::Damaged { .. } => (1, "bytes were lost", "take another one: lifeboat vault list"),
            BackupError::Newer { .. } => (6, "it was made by a newer Lifeboat", "update this program"),
            BackupError::Io { .. } | BackupError::Database(_) => (
                1,
                "a folder cannot be read or written, or the disk is full",
                "run as the owner of the data folder; make room",
            ),
        };
        Self {
            code,
            message,
            causes: causes.into(),
            action: action.into(),
        }
    }
}

#[derive(Args)]
struct KeyArgs {
    /// File to write it to, readable by its owner only; standard output where none is named
    #[arg(long)]
    out: Option<PathBuf>,
    /// Name or address under which the machine reaches this server [default: the one of this call, else the host name]
    #[arg(long)]
    address: Option<String>,
    #[command(subcommand)]
    verb: Option<KeyVerb>,
}

#[derive(Subcommand)]
enum KeyVerb {
    /// Keys that were made, and who used them
    List,
    /// Take a key back
    Revoke { id: i64 },
}

pub fn run(args: &VaultArgs) -> Result<(), Failure> {
    match &args.verb {
        Verb::RegistrationKey(key) => registration_key(&args.remote, key),
        Verb::Backup(folder) => {
            let made = folder
                .backups()?
                .make(&folder.folder().join("vault.db"), "by-hand")?;
            if args.remote.json {
                say_json(&as_json(&made));
            } else {
                say(&made.name);
            }
            Ok(())
        }
        Verb::List(folder) => {
            let found = folder.backups()?.list()?;
            if args.remote.json {
                let rows: Vec<Value> = found.iter().map(as_json).collect();
                say_json(&json!({ "items": rows }));
                return Ok(());
            }
            let rows = found.iter().map(|backup| {
                vec![
                    backup.name.clone(),
                    super::size::instant(backup.made_unix_nanos),
                    backup.reason.clone(),
                    super::size::bytes(backup.bytes),
                ]
            });
            table(&["NAME", "MADE", "REASON", "SIZE"], rows.collect());
            Ok(())
        }
        Verb::Restore {
            name,
            confirm,
            folder,
        } => restore(name, confirm, folder),
    }
}

fn registration_key(remote: &Remote, args: &KeyArgs) -> Result<(), Failure> {
    match args.verb {
        Some(KeyVerb::List) => return join_token::list(remote, "/registration-keys"),
        Some(KeyVerb::Revoke { id }) => {
            return join_token::revoke(
                remote,
                &format!("/registration-keys/{}", segment(&id.to_string())),
            );
        }
        None => {}
    }
    // The file first: a key that cannot be kept must not be made.
    let file = match &args.out {
        None => None,
        Some(path) => {
            let made = std::fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            Some((
                path,
                made.map_err(|error| super::failure::on_file("make", path, error))?,
            ))
        }
    };
    let made = remote.client().and_then(|mut client| {
        Ok(client.post::<Value>(
            &remote.path("/registration-keys"),
            &json!({ "address": args.address }),
        )?)
    });
    let (key, text) = match made {
        Ok(key) => {
            let text = serde_json::to_string_pretty(&key).unwrap_or_default();
            (key, text)
        }
        Err(failure) => {
            if let Some((path, _)) = file {
                let _ = std::fs::remove_file(path);
            }
            return Err(failure);
        }
    };
    match file {
        None => say(&text),
        Some((path, mut file)) => {
            writeln!(file, "{text}")
                .and_then(|()| file.sync_all())
                .map_err(|error| super::failure::on_file("write", path, error))?;
            say(&path.display().to_string());
        }
    }
    hint(&format!(
        "good for one machine, until {}; on it: lifeboat agent join --registration-key-file FILE",
        instant(&key, "expiresAt")
    ));
    Ok(())
}

fn as_json(backup: &Backup) -> Value {
    json!({
        "name": backup.name,
        "madeAt": crate::api::Time(backup.made_unix_nanos),
        "reason": backup.reason,
        "bytes": backup.bytes,
    })
}

fn restore(name: &str, confirm: &str, folder: &FolderArgs) -> Result<(), Failure> {
    if name != confirm {
        return Err(super::remote::usage(
            "nothing was done: --confirm does not name the backup",
            "give the backup's name twice, exactly as it is",
        ));
    }
    let data = folder.folder();
    // The lock of the store is the server's: nobody may write the database meanwhile.
    let lock_path = data.join("store/lock");
    let lock = std::fs::File::options()
        .write(true)
        .open(&lock_path)
        .map_err(|error| super::failure::on_file("open", &lock_path, error))?;
    lock.try_lock()
        .map_err(|_| crate::replica::ReplicaError::Locked(data.join("store")))?;
    folder.backups()?.restore(name, &data.join("vault.db"))?;
    hint(
        "restored; the database before is vault.db.before-restore. Next: lifeboat serve, then lifeboat event list",
    );
    Ok(())
}
