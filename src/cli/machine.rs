//! `lifeboat machine`: machines that joined.
use super::failure::Failure;
use super::remote::{
    Remote, Watching, ago, facts, hint, instant, say, say_json, seconds, segment, size, table, text,
};
use super::watch::Waiting;
use crate::api::client::ClientError;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat machine list
  lifeboat machine show web1
  lifeboat machine show web1 --json | jq .replicatedItem.rpoSeconds")]
pub struct MachineArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// All machines with their state
    #[command(visible_alias = "ls")]
    List {
        /// More columns: policy, churn, last point, last test, id
        #[arg(long)]
        wide: bool,
        #[command(flatten)]
        watching: Watching,
    },
    /// All that is known of a machine: disks, prerequisites, replication, what is allowed now
    Show {
        /// Name or id
        name: String,
    },
    /// RPO, throughput, churn and freeze of a replicated machine over a time, as lines of bars
    Chart(super::chart::ChartArgs),
    /// Give a machine another name
    Rename {
        /// Name or id
        name: String,
        new_name: String,
    },
    /// Remove a machine that is not replicated; its name is free, its history stays
    Remove {
        /// Name or id
        name: String,
        /// The machine's name once more
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
    /// Let a replicated machine follow another policy
    SetPolicy {
        /// Name or id
        name: String,
        policy: String,
    },
    /// Protect these disks in place of those before: includes new ones, excludes the others
    SetDisks {
        /// Name or id
        name: String,
        /// Stable id as `machine show` prints it; once for each disk that is to be protected
        #[arg(long = "disk", value_name = "STABLE_ID", required = true)]
        disks: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Update a machine's agent to the server's version; no reboot, nothing is compared or copied again
    UpdateAgent(super::agent_update::UpdateAgentArgs),
    /// Refuse a machine's agent until it joins again with the passphrase
    Revoke {
        /// Name or id
        name: String,
        /// The machine's name once more
        #[arg(long, value_name = "NAME")]
        confirm: Option<String>,
    },
}

pub fn run(args: &MachineArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    match &args.verb {
        Verb::List { wide, watching } => watching.show(|| list(remote, *wide)),
        Verb::Show { name } => show(remote, name),
        Verb::Chart(args) => super::chart::run(remote, args),
        Verb::Rename { name, new_name } => {
            let path = remote.path(&format!("/machines/{}/rename", segment(name)));
            let body = json!({ "name": new_name });
            remote.client()?.request(Method::POST, &path, Some(&body), &[])?;
            done(remote, &format!("{name} is now named {new_name}"));
            Ok(())
        }
        Verb::SetPolicy { name, policy } => {
            let body = json!({ "policy": policy });
            let path = remote.item(name, "/policy");
            remote.client()?.request(Method::PUT, &path, Some(&body), &[])?;
            done(remote, &format!("{name} follows the policy {policy}"));
            Ok(())
        }
        Verb::SetDisks { name, disks, waiting } => {
            let mut client = remote.client()?;
            let body = json!({ "disks": disks });
            let path = remote.item(name, "/disks");
            let accepted: Value = client.request(Method::PUT, &path, Some(&body), &[])?.json()?;
            super::watch::finish(&mut client, remote, &accepted, waiting)?;
            Ok(())
        }
        Verb::Remove { name, confirm } => {
            let mut client = remote.client()?;
            let path = remote.path(&format!("/machines/{}", segment(name)));
            let machine: Value = client.get(&path)?;
            let name = text(&machine, "name");
            super::remote::confirm(
                &name,
                confirm.as_deref(),
                &format!("Remove {name} from the vault? Its agent is locked out."),
            )?;
            client.request(Method::DELETE, &path, None, &[])?;
            done(remote, &format!("{name} is removed"));
            Ok(())
        }
        Verb::UpdateAgent(args) => super::agent_update::run(remote, args),
        Verb::Revoke { name, confirm } => {
            let mut client = remote.client()?;
            let path = remote.path(&format!("/machines/{}", segment(name)));
            let machine: Value = client.get(&path)?;
            let name = text(&machine, "name");
            super::remote::confirm(
                &name,
                confirm.as_deref(),
                &format!(
                    "Revoke the certificates of {name}? It is no longer replicated until it joins again."
                ),
            )?;
            client.request(Method::POST, &format!("{path}/revoke"), None, &[])?;
            done(remote, &format!("the certificates of {name} are revoked"));
            Ok(())
        }
    }
}

pub fn done(remote: &Remote, message: &str) {
    if remote.json {
        say_json(&json!({ "ok": true }));
    } else {
        say(message);
    }
}

fn list(remote: &Remote, wide: bool) -> Result<(), Failure> {
    let mut client = remote.client()?;
    let mut machines = client.list(&remote.path("/machines"), usize::MAX)?;
    let mut items = client.list(&remote.path("/replicated-items"), usize::MAX)?;
    for machine in &mut machines {
        let item = items.iter_mut().find(|item| item["id"] == machine["id"]);
        machine["replicatedItem"] = item.map(Value::take).unwrap_or_default();
    }
    if remote.json {
        say_json(&json!({ "items": machines }));
        return Ok(());
    }
    if machines.is_empty() {
        hint("No machine has joined yet. Next: lifeboat server join-token prints the command to run on it");
        return Ok(());
    }
    let rows = machines
        .iter()
        .map(|machine| {
            let item = &machine["replicatedItem"];
            let status = if item.is_null() {
                "not replicated".to_owned()
            } else {
                text(item, "status")
            };
            let mut row = vec![
                text(machine, "name"),
                status,
                text(item, "replicationHealth"),
                seconds(item, "rpoSeconds"),
                size(item, "pendingBytes"),
                text(item, "activeLocation"),
                ago(machine, "lastHeartbeatAt"),
                text(machine, "agentVersion"),
            ];
            if wide {
                let churn = item["churnBytesPerSecond"].as_f64();
                row.extend([
                    text(item, "policy"),
                    churn.map_or_else(String::new, |rate| {
                        format!("{}/s", super::size::bytes(rate as u64))
                    }),
                    instant(&item["lastRecoveryPoint"], "instant"),
                    instant(item, "lastSuccessfulTestFailoverAt"),
                    text(machine, "id"),
                ]);
            }
            row
        })
        .collect();
    let mut header = vec![
        "NAME",
        "STATUS",
        "HEALTH",
        "RPO",
        "PENDING",
        "ACTIVE",
        "HEARTBEAT",
        "AGENT",
    ];
    if wide {
        header.extend(["POLICY", "CHURN", "LAST POINT", "LAST GOOD TEST", "ID"]);
    }
    table(&header, rows);
    Ok(())
}

fn show(remote: &Remote, name: &str) -> Result<(), Failure> {
    let mut client = remote.client()?;
    let machine: Value = client.get(&remote.path(&format!("/machines/{}", segment(name))))?;
    let item = match client.get::<Value>(&remote.item(name, "")) {
        Ok(item) => item,
        Err(ClientError::Problem(problem)) if problem.code == "NotReplicated" => Value::Null,
        Err(error) => return Err(error.into()),
    };
    if remote.json {
        say_json(&json!({ "machine": machine, "replicatedItem": item }));
        return Ok(());
    }
    facts(&[
        ("name", text(&machine, "name")),
        ("id", text(&machine, "id")),
        ("system", text(&machine, "os")),
        ("kernel", text(&machine, "kernel")),
        ("cpus", text(&machine, "cpus")),
        ("memory", size(&machine, "memoryBytes")),
        ("firmware", text(&machine, "firmware")),
        ("agent", text(&machine, "agentVersion")),
        ("last heartbeat", ago(&machine, "lastHeartbeatAt")),
        ("agent is", text(&machine, "phase")),
        ("prerequisites", text(&machine, "prerequisites")),
    ]);
    say("");
    let disks = machine["disks"].as_array().cloned().unwrap_or_default();
    table(
        &["DISK", "DEVICE", "SIZE", "BOOT"],
        disks
            .iter()
            .map(|disk| {
                vec![
                    text(disk, "stableId"),
                    text(disk, "device"),
                    size(disk, "sizeBytes"),
                    if disk["boot"] == true { "yes" } else { "" }.to_owned(),
                ]
            })
            .collect(),
    );
    for check in machine["checks"].as_array().into_iter().flatten() {
        if check["result"] != "pass" {
            say(&format!(
                "\n{}: {}",
                text(check, "result"),
                text(check, "message")
            ));
            say(&format!("  possible causes: {}", text(check, "possibleCauses")));
            say(&format!(
                "  recommended action: {}",
                text(check, "recommendedAction")
            ));
        }
    }
    say("");
    if item.is_null() {
        say("not replicated");
        hint(&format!("next: lifeboat protect {}", text(&machine, "name")));
        return Ok(());
    }
    show_item(&item);
    Ok(())
}

fn show_item(item: &Value) {
    let point = &item["lastRecoveryPoint"];
    let progress = &item["progress"];
    let copied = if progress.is_null() {
        String::new()
    } else {
        format!(
            "{:.0} %, {} of {}, {}",
            progress["percent"].as_f64().unwrap_or(0.0),
            size(progress, "doneBytes"),
            size(progress, "totalBytes"),
            match seconds(progress, "etaSeconds") {
                eta if eta.is_empty() => text(progress, "health"),
                eta => format!("{eta} left"),
            }
        )
    };
    let failover = |field: &str| {
        let failover = &item[field];
        if failover.is_null() {
            return String::new();
        }
        format!(
            "{} from the point of {}",
            text(failover, "machineName"),
            instant(failover, "recoveryPointInstant")
        )
    };
    let files: Vec<String> = item["failover"]["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| text(file, "path"))
        .collect();
    let kept = &item["keptPoints"];
    let test = text(item, "testFailoverState");
    facts(&[
        ("status", text(item, "status")),
        ("health", text(item, "replicationHealth")),
        ("copied", copied),
        ("policy", text(item, "policy")),
        (
            "RPO",
            format!(
                "{} (threshold {})",
                seconds(item, "rpoSeconds"),
                seconds(item, "rpoThresholdSeconds")
            ),
        ),
        ("pending", size(item, "pendingBytes")),
        (
            "last point",
            format!("{} {}", instant(point, "instant"), text(point, "consistency")),
        ),
        ("active location", text(item, "activeLocation")),
        ("test failover", if test == "None" { String::new() } else { test }),
        ("test machine", failover("testFailover")),
        ("failed over to", failover("failover")),
        ("disks are files", files.join(", ")),
        (
            "kept points take",
            if kept.is_null() {
                String::new()
            } else {
                size(kept, "storedBytes")
            },
        ),
        ("last good test", instant(item, "lastSuccessfulTestFailoverAt")),
    ]);
    for error in item["healthErrors"].as_array().into_iter().flatten() {
        say(&format!(
            "\n{}: {}",
            text(error, "severity"),
            text(error, "message")
        ));
        say(&format!("  possible causes: {}", text(error, "possibleCauses")));
        say(&format!(
            "  recommended action: {}",
            text(error, "recommendedAction")
        ));
    }
    say("");
    let operations = item["allowedOperations"].as_array().cloned().unwrap_or_default();
    table(
        &["OPERATION", "ALLOWED", "WHY NOT"],
        operations
            .iter()
            .map(|operation| {
                vec![
                    text(operation, "operation"),
                    if operation["allowed"] == true { "yes" } else { "no" }.to_owned(),
                    text(&operation["reason"], "message"),
                ]
            })
            .collect(),
    );
}
