//! `lifeboat user` and `lifeboat token`.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, hint, instant, say, say_json, segment, table, text};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat user create anna --role Operator
  lifeboat user reset-password admin       on the server, as root, when it is lost")]
pub struct UserArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Subcommand)]
enum UserVerb {
    /// Users and their roles
    #[command(visible_alias = "ls")]
    List,
    /// Make a user; prints a one-time password
    Create {
        name: String,
        /// Reader, Operator, Contributor or Owner
        #[arg(long)]
        role: String,
    },
    /// Give a user another role in this vault
    Assign {
        name: String,
        /// Reader, Operator, Contributor or Owner
        #[arg(long)]
        role: String,
    },
    /// Give a user a new one-time password; all sessions of the user end
    ResetPassword { name: String },
    /// Remove a user
    Delete { name: String },
}

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat token create ci --role Operator --days 90 > token
  lifeboat machine list --token-file token --server https://vault:8443 --ca-file ca.pem")]
pub struct TokenArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: TokenVerb,
}

#[derive(Subcommand)]
enum TokenVerb {
    /// API tokens of this vault
    #[command(visible_alias = "ls")]
    List,
    /// Make a token of the user who is logged in; prints it once
    Create {
        name: String,
        /// Reader, Operator, Contributor or Owner; at most one's own
        #[arg(long)]
        role: String,
        /// Valid for this many days, 1 to 366
        #[arg(long, default_value_t = 90)]
        days: u32,
    },
    /// Revoke a token
    Revoke { id: i64 },
}

pub fn user(args: &UserArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    let path = |name: &str, rest: &str| remote.path(&format!("/users/{}{rest}", segment(name)));
    let password = |answer: &Value| {
        if remote.json {
            say_json(answer);
        } else {
            say(&text(answer, "oneTimePassword"));
            hint("the password above is shown this once; it must be changed at the first login");
        }
    };
    match &args.verb {
        UserVerb::List => {
            let users = client.list(&remote.path("/users"), usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": users }));
                return Ok(());
            }
            let roles = |user: &Value| -> String {
                let roles: Vec<String> = user["roles"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|role| format!("{} in {}", text(role, "role"), text(role, "vault")))
                    .collect();
                roles.join(", ")
            };
            table(
                &["NAME", "ROLES", "SINCE"],
                users
                    .iter()
                    .map(|user| vec![text(user, "name"), roles(user), instant(user, "createdAt")])
                    .collect(),
            );
        }
        UserVerb::Create { name, role } => {
            let body = json!({ "name": name, "role": role });
            password(&client.post(&remote.path("/users"), &body)?);
        }
        UserVerb::Assign { name, role } => {
            let path = remote.path(&format!("/role-assignments/{}", segment(name)));
            client.request(Method::PUT, &path, Some(&json!({ "role": role })), &[])?;
            done(remote, &format!("{name} is {role}"));
        }
        UserVerb::ResetPassword { name } => {
            password(&client.post(&path(name, "/reset-password"), &json!({}))?);
        }
        UserVerb::Delete { name } => {
            client.request(Method::DELETE, &path(name, ""), None, &[])?;
            done(remote, &format!("the user {name} is removed"));
        }
    }
    Ok(())
}

pub fn token(args: &TokenArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        TokenVerb::List => {
            let tokens = client.list(&remote.path("/tokens"), usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": tokens }));
                return Ok(());
            }
            table(
                &["ID", "NAME", "USER", "ROLE", "EXPIRES", "LAST USED", "REVOKED"],
                tokens
                    .iter()
                    .map(|token| {
                        vec![
                            text(token, "id"),
                            text(token, "name"),
                            text(token, "user"),
                            text(token, "role"),
                            instant(token, "expiresAt"),
                            instant(token, "lastUsedAt"),
                            if token["revoked"] == true { "yes" } else { "" }.to_owned(),
                        ]
                    })
                    .collect(),
            );
        }
        TokenVerb::Create { name, role, days } => {
            let body = json!({ "name": name, "role": role, "expiresInDays": days });
            let created: Value = client.post(&remote.path("/tokens"), &body)?;
            if remote.json {
                say_json(&created);
            } else {
                say(&text(&created, "token"));
                hint("the token above is shown this once");
            }
        }
        TokenVerb::Revoke { id } => {
            client.request(Method::DELETE, &remote.path(&format!("/tokens/{id}")), None, &[])?;
            done(remote, &format!("the token {id} is revoked"));
        }
    }
    Ok(())
}
