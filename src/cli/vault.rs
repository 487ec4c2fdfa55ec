//! `lifeboat vault`: registration keys of a vault.
use super::failure::Failure;
use super::join_token;
use super::remote::{Remote, hint, instant, say, segment};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat vault registration-key --out second.key     lets one server register in this vault, within 5 days")]
pub struct VaultArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a key with which one configuration or process server registers in this vault
    RegistrationKey(KeyArgs),
}

#[derive(Args)]
struct KeyArgs {
    /// File to write it to, readable by its owner only; standard output where none is named
    #[arg(long)]
    out: Option<PathBuf>,
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
    let made = remote
        .client()
        .and_then(|mut client| Ok(client.post::<Value>(&remote.path("/registration-keys"), &json!({}))?));
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
        "good for one server, until {}",
        instant(&key, "expiresAt")
    ));
    Ok(())
}
