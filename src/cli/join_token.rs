//! `lifeboat server join-token`: what lets one machine in, and the command to run on it.
use super::failure::Failure;
use super::remote::{Remote, hint, instant, say, say_json, segment, table, text};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat server join-token                          a token for an hour, and the command to run on the machine
  lifeboat server join-token --address dr.example     the name under which the machine reaches this server
  lifeboat server join-token list
  lifeboat server join-token revoke 7")]
pub struct JoinTokenArgs {
    /// Minutes that the token is good for
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10080))]
    valid: u32,
    /// Name or address under which the machine reaches this server [default: the one of this call, else the host name]
    #[arg(long)]
    address: Option<String>,
    #[command(subcommand)]
    verb: Option<TokenVerb>,
}

#[derive(Subcommand)]
enum TokenVerb {
    /// Tokens that were made, and who came in by them
    List,
    /// Take a token back
    Revoke { id: i64 },
}

pub fn run(remote: &Remote, args: &JoinTokenArgs) -> Result<(), Failure> {
    let mut client = remote.client()?;
    match args.verb {
        None => {
            let request = json!({ "validMinutes": args.valid, "address": args.address });
            let made: Value = client.post(&remote.path("/join-tokens"), &request)?;
            if remote.json {
                say_json(&made);
            } else {
                hint(&format!(
                    "Run this on the machine that is to be protected, once, before {}:",
                    instant(&made, "expiresAt")
                ));
                say(&text(&made, "installCommand"));
            }
            Ok(())
        }
        Some(TokenVerb::List) => list(remote, "/join-tokens"),
        Some(TokenVerb::Revoke { id }) => {
            revoke(remote, &format!("/join-tokens/{}", segment(&id.to_string())))
        }
    }
}

/// Invitations of either kind.
pub fn list(remote: &Remote, path: &str) -> Result<(), Failure> {
    let rows = remote.client()?.list(&remote.path(path), usize::MAX)?;
    if remote.json {
        say_json(&json!({ "items": rows }));
        return Ok(());
    }
    let rows = rows.iter().map(|row| {
        vec![
            text(row, "id"),
            text(row, "state"),
            text(row, "madeBy"),
            instant(row, "expiresAt"),
            instant(row, "usedAt"),
            text(row, "usedBy"),
        ]
    });
    table(
        &["ID", "STATE", "MADE BY", "EXPIRES", "USED", "USED BY"],
        rows.collect(),
    );
    Ok(())
}

pub fn revoke(remote: &Remote, path: &str) -> Result<(), Failure> {
    remote
        .client()?
        .request(hyper::Method::DELETE, &remote.path(path), None, &[])?;
    hint("revoked");
    Ok(())
}
