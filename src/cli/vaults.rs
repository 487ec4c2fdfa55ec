//! `lifeboat vaults`: the vaults of the site.
use super::failure::Failure;
use super::machine::done;
use super::remote::{Remote, confirm, hint, instant, say, say_json, segment, table, text};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat vaults list
  lifeboat vaults create branch
  lifeboat machine list --vault branch
  lifeboat vaults delete branch --confirm branch")]
pub struct VaultsArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The vaults in which you have a role
    #[command(visible_alias = "ls")]
    List,
    /// Make a vault with the default policy; you become its Owner
    Create { name: String },
    /// Remove a vault with its history; refused while a machine is joined to it
    Delete {
        name: String,
        /// The vault's name once more
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

pub fn run(args: &VaultsArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        Verb::List => {
            let vaults = client.list("/api/v1/vaults", usize::MAX)?;
            if remote.json {
                say_json(&json!({ "items": vaults }));
                return Ok(());
            }
            table(
                &["NAME", "MACHINES", "REPLICATED", "YOUR ROLE", "CREATED"],
                vaults
                    .iter()
                    .map(|vault| {
                        vec![
                            text(vault, "name"),
                            text(vault, "machines"),
                            text(vault, "replicatedItems"),
                            text(vault, "role"),
                            instant(vault, "createdAt"),
                        ]
                    })
                    .collect(),
            );
        }
        Verb::Create { name } => {
            let vault: Value = client.post("/api/v1/vaults", &json!({ "name": name }))?;
            if remote.json {
                say_json(&vault);
            } else {
                say(&format!("the vault {name} is made"));
                hint(&format!(
                    "next: lifeboat user create NAME --role ROLE --vault {name}"
                ));
            }
        }
        Verb::Delete { name, confirm: given } => {
            let question =
                format!("Remove the vault {name} with its jobs, events, policies, roles and tokens?");
            confirm(name, given.as_deref(), &question)?;
            let path = format!("/api/v1/vaults/{}", segment(name));
            client.request(Method::DELETE, &path, None, &[])?;
            done(remote, &format!("the vault {name} is removed"));
        }
    }
    Ok(())
}
