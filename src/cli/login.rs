//! `lifeboat login`, `logout`, `whoami`.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, SavedLogin, facts, login_file, say_json, secret, text, usage};
use crate::api::client::{Address, Client, Trust};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat login --server https://vault:8443 --ca-file ca.pem
  lifeboat login --server https://vault:8443 --fingerprint sha256:3b1f... --user op --password-file pw

The session is kept in ~/.config/lifeboat/login.json, readable for its user only.")]
pub struct LoginArgs {
    #[command(flatten)]
    remote: Remote,
    #[arg(long, default_value = "admin")]
    user: String,
    /// File with the password; - for standard input. Default: asks
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the new password, where the one-time password must be changed. Default: asks
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct SessionArgs {
    #[command(flatten)]
    remote: Remote,
}

pub fn login(args: &LoginArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let server = remote.server.clone().ok_or_else(|| {
        usage(
            "to which server?",
            "give --server https://HOST:8443; root on the server itself needs no login",
        )
    })?;
    let address: Address = server.parse()?;
    let trust = remote.trust()?;
    let mut client = Client::new(address, trust.as_ref(), None)?;
    let password = secret("password", args.password_file.as_deref())?;
    let request = json!({ "user": args.user, "password": password, "bearer": true });
    let answer: Value = client.post("/api/v1/login", &request)?;
    let token = text(&answer, "token");
    client.set_token(Some(token.clone()));
    if answer["mustChangePassword"] == true {
        let new = match &args.new_password_file {
            Some(file) => secret("new password", Some(file))?,
            None => {
                let new = secret("new password", None)?;
                if secret("new password once more", None)? != new {
                    return Err(usage("the two new passwords differ", "log in again"));
                }
                new
            }
        };
        let change = json!({ "currentPassword": password, "newPassword": new });
        client.request(Method::POST, "/api/v1/password", Some(&change), &[])?;
    }
    let (ca_pem, fingerprint) = match trust {
        Some(Trust::Ca(pem)) => (Some(pem), None),
        Some(Trust::Fingerprint(digest)) => (None, Some(format!("sha256:{}", hex::encode(digest)))),
        None => (None, None),
    };
    let path = save(&SavedLogin {
        server,
        ca_pem,
        fingerprint,
        token,
    })?;
    done(
        remote,
        &format!("logged in as {}; the session is in {}", args.user, path.display()),
    );
    Ok(())
}

fn save(login: &SavedLogin) -> Result<PathBuf, Failure> {
    let path = login_file().ok_or_else(|| {
        usage(
            "there is no home folder to keep the session in",
            "set HOME or LIFEBOAT_CONFIG_DIR",
        )
    })?;
    let failed = |error| super::failure::on_file("write", &path, error);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(failed)?;
    // A new file, renamed: never a moment with other rights, never a half.
    let fresh = path.with_extension(format!("new.{}", std::process::id()));
    let text = serde_json::to_string_pretty(login).unwrap_or_default();
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(failed)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&fresh);
        return Err(failed(error));
    }
    Ok(path)
}

pub fn logout(args: &SessionArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let ended = remote
        .client()?
        .request(Method::POST, "/api/v1/logout", None, &[]);
    if let Some(path) = login_file() {
        let _ = std::fs::remove_file(path);
    }
    ended?;
    done(remote, "logged out");
    Ok(())
}

pub fn whoami(args: &SessionArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let who: Value = remote.client()?.get("/api/v1/whoami")?;
    if remote.json {
        say_json(&who);
        return Ok(());
    }
    let roles: Vec<String> = who["roles"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|role| format!("{} in {}", text(role, "role"), text(role, "vault")))
        .collect();
    facts(&[
        ("user", text(&who, "user")),
        ("by", text(&who, "login")),
        ("roles", roles.join(", ")),
    ]);
    Ok(())
}
