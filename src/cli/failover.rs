//! `lifeboat failover`: there and back, each verb of the lifecycle.
use super::failure::Failure;
use super::remote::{Remote, confirm, hint, text};
use super::watch::{Waiting, finish};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Examples:
  lifeboat failover test web1                          start a copy beside the running machine
  lifeboat failover cleanup web1 --notes 'all well'    remove the copy; the test counts from now on
  lifeboat failover unplanned web1 --confirm web1      start it for real, fence the source
  lifeboat failover planned web1 --confirm web1        the same without losing a byte: the source is stopped first
  lifeboat failover change-point web1 --point ID --confirm web1   start it from another point, before the commit
  lifeboat failover cancel web1 --confirm web1         take it back, before the commit
  lifeboat failover commit web1 --confirm web1         keep it
  lifeboat failover reprotect web1                     replicate towards home (`lifeboat agent receive` runs there)
  lifeboat failover failback web1 --confirm web1       bring it home; then commit, and reprotect once more
  lifeboat failover hydrate web1 --to /srv/machines    make its disks files of the server's host: it stays at the target
  lifeboat failover hydrate web1 --to /srv/machines --format qcow2 --no-wait   then: lifeboat job watch ID
  lifeboat failover complete-migration web1 --confirm web1 --keep-points --keep-days 30
  lifeboat failover start web1                         start it at the target again after it was shut down")]
pub struct FailoverArgs {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    verb: Verb,
}

const POINT: &str = "latest, latest-processed, latest-app-consistent, latest-crash-consistent, latest-multi-vm, latest-multi-vm-app-consistent, or the id of a point";

#[derive(Subcommand)]
enum Verb {
    /// Start a copy of the machine at the target; replication goes on
    Test {
        /// Machine, by name or id
        name: String,
        #[arg(long, default_value = "latest-processed", help = POINT)]
        point: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Remove the machine of a test failover
    Cleanup {
        /// Machine, by name or id
        name: String,
        /// What was seen; kept with the job
        #[arg(long, default_value = "")]
        notes: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Start the machine at the target for real; the source is fenced
    Unplanned {
        #[command(flatten)]
        severe: Severe,
        #[arg(long, default_value = "latest", help = POINT)]
        point: String,
        /// Do not ship first what is pending at the source
        #[arg(long)]
        no_last_sync: bool,
    },
    /// Stop the source, take what it wrote last, start the machine at the target: nothing is lost
    Planned {
        #[command(flatten)]
        severe: Severe,
    },
    /// Start a failed-over machine from another point, before the commit; what it wrote since is discarded
    ChangePoint {
        #[command(flatten)]
        severe: Severe,
        #[arg(long, help = POINT)]
        point: String,
    },
    /// Take an uncommitted failover or failback back; what was written since is discarded
    Cancel {
        #[command(flatten)]
        severe: Severe,
    },
    /// Replicate in the other direction: towards home, or from home to the target again
    Reprotect {
        /// Machine, by name or id
        name: String,
        /// The joined machine that takes the disks home [default: the machine itself]
        #[arg(long, value_name = "MACHINE")]
        receiver: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Bring a reprotected machine home: stopped at the target, its last writes taken, its disks compared as a whole
    Failback {
        #[command(flatten)]
        severe: Severe,
    },
    /// Keep the failover: other recovery points can no longer be chosen
    Commit {
        #[command(flatten)]
        severe: Severe,
    },
    /// Make the disks of a committed machine files of the server's host, while it runs on: it needs neither its replica nor
    /// this server any more, and no recovery points are made of it any more
    Hydrate {
        /// Machine, by name or id
        name: String,
        /// Full path of a folder on the server's host; the machine gets a folder of its own in it
        #[arg(long = "to", value_name = "FOLDER")]
        folder: String,
        #[arg(long, default_value = "raw", value_parser = ["raw", "qcow2"])]
        format: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// End the replication of a hydrated machine: it stays at the target, its source is fenced for good
    CompleteMigration {
        #[command(flatten)]
        severe: Severe,
        /// Keep the recovery points: they can be tested, and restored from with `lifeboat store`
        #[arg(long)]
        keep_points: bool,
        /// With --keep-points: remove them after this many days. Default: never by itself
        #[arg(long, value_name = "DAYS", requires = "keep_points")]
        keep_days: Option<u32>,
    },
    /// Start the machine at the target again that has stopped, with its disks as it left them
    Start {
        /// Machine, by name or id
        name: String,
    },
    /// The machine that runs at the target: power, ports, screen, serial log
    Machine {
        /// Machine, by name or id
        name: String,
        /// That of the test failover
        #[arg(long)]
        test: bool,
        /// Print what it wrote to its serial port
        #[arg(long, conflicts_with = "screenshot")]
        serial_log: bool,
        /// Write a PNG of its screen
        #[arg(long, value_name = "FILE")]
        screenshot: Option<PathBuf>,
    },
    /// Order a comparison of all disks with the replica; only what differs is shipped
    Resynchronize {
        /// Machine, by name or id
        name: String,
        #[command(flatten)]
        waiting: Waiting,
    },
}

/// What wants the machine's name once more.
#[derive(Args)]
struct Severe {
    /// Machine, by name or id
    name: String,
    /// The machine's name once more
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Asks, orders, and waits where that is wanted. The machine's name when it is over, went well, and a person is told more.
fn severe(
    client: &mut crate::api::client::Client,
    remote: &Remote,
    args: &Severe,
    question: impl FnOnce(&str) -> String,
    (route, body): (&str, Value),
) -> Result<Option<String>, Failure> {
    let item: Value = client.get(&remote.item(&args.name, ""))?;
    let name = text(&item, "name");
    confirm(&name, args.confirm.as_deref(), &question(&name))?;
    let accepted: Value = client.post(&remote.item(&name, route), &body)?;
    let ended = finish(client, remote, &accepted, &args.waiting)?;
    Ok(ended.filter(|_| !remote.json).map(|_| name))
}

pub fn run(args: &FailoverArgs) -> Result<(), Failure> {
    let remote = &args.remote;
    let mut client = remote.client()?;
    match &args.verb {
        Verb::Test { name, point, waiting } => {
            let body = json!({ "recoveryPoint": point });
            let accepted: Value = client.post(&remote.item(name, "/test-failover"), &body)?;
            if finish(&mut client, remote, &accepted, waiting)?.is_some() && !remote.json {
                let status: Value = client.get(&remote.item(name, "/target-machine?test=true"))?;
                say_machine(&status);
                hint(&format!("next: lifeboat failover cleanup {name} --notes '...'"));
            }
        }
        Verb::Cleanup { name, notes, waiting } => {
            let body = json!({ "notes": notes });
            let accepted: Value = client.post(&remote.item(name, "/test-failover-cleanup"), &body)?;
            finish(&mut client, remote, &accepted, waiting)?;
        }
        Verb::Unplanned {
            severe: args,
            point,
            no_last_sync,
        } => {
            let question = |name: &str| {
                format!(
                    "Fail {name} over? It is started at the target; the source is fenced and must not be used."
                )
            };
            let mut body = json!({ "recoveryPoint": point });
            if *no_last_sync {
                body["lastSync"] = json!(false);
            }
            if let Some(name) = severe(&mut client, remote, args, question, ("/unplanned-failover", body))? {
                say_started(&mut client, remote, &name)?;
            }
        }
        Verb::Planned { severe: args } => {
            let question = |name: &str| {
                format!(
                    "Fail {name} over? Its source is stopped, and it is started at the target with all that was written."
                )
            };
            if let Some(name) = severe(
                &mut client,
                remote,
                args,
                question,
                ("/planned-failover", json!({})),
            )? {
                say_started(&mut client, remote, &name)?;
            }
        }
        Verb::ChangePoint { severe: args, point } => {
            let question = |name: &str| {
                format!("Start {name} from another point? What it wrote at the target since is discarded.")
            };
            let order = ("/change-recovery-point", json!({ "recoveryPoint": point }));
            if let Some(name) = severe(&mut client, remote, args, question, order)? {
                hint(&format!("next: lifeboat failover commit {name}"));
            }
        }
        Verb::Cancel { severe: args } => {
            let question = |name: &str| {
                format!(
                    "Take the failover of {name} back? It goes on where it was before; what was written since is discarded."
                )
            };
            severe(
                &mut client,
                remote,
                args,
                question,
                ("/cancel-failover", json!({})),
            )?;
        }
        Verb::Reprotect {
            name,
            receiver,
            waiting,
        } => {
            let body = match receiver {
                Some(receiver) => json!({ "receiver": receiver }),
                None => json!({}),
            };
            let accepted: Value = client.post(&remote.item(name, "/reprotect"), &body)?;
            if text(&accepted["job"]["tasks"][0], "name") == "CopyHome" && !remote.json {
                hint(&format!(
                    "at home: lifeboat agent receive --machine {name} --disk NAME=/dev/...   (lifeboat machine show {name} names the disks)"
                ));
            }
            finish(&mut client, remote, &accepted, waiting)?;
        }
        Verb::Failback { severe: args } => {
            let question = |name: &str| {
                format!(
                    "Bring {name} home? It is stopped at the target until its disks at home are complete and compared."
                )
            };
            if let Some(name) = severe(&mut client, remote, args, question, ("/failback", json!({})))? {
                hint(&format!(
                    "next: start it at home; then lifeboat failover commit {name}, lifeboat failover reprotect {name}"
                ));
            }
        }
        Verb::Commit { severe: args } => {
            let question = |name: &str| {
                format!(
                    "Commit the failover of {name}? The points that it could still be taken back to are removed."
                )
            };
            severe(&mut client, remote, args, question, ("/commit", json!({})))?;
        }
        Verb::Hydrate {
            name,
            folder,
            format,
            waiting,
        } => {
            let body = json!({ "folder": folder, "format": format });
            let accepted: Value = client.post(&remote.item(name, "/hydrate"), &body)?;
            if finish(&mut client, remote, &accepted, waiting)?.is_some() && !remote.json {
                let item: Value = client.get(&remote.item(name, ""))?;
                for file in item["failover"]["files"].as_array().into_iter().flatten() {
                    super::remote::say(&text(file, "path"));
                }
                hint("no recovery points are made of it any more");
                hint(&format!("next: lifeboat failover complete-migration {name}"));
            }
        }
        Verb::CompleteMigration {
            severe: args,
            keep_points,
            keep_days,
        } => {
            let question = |name: &str| {
                let points = if *keep_points { "are kept" } else { "are removed" };
                format!(
                    "Complete the migration of {name}? It stays at the target, its source is fenced for good, its recovery points {points}."
                )
            };
            let body = json!({ "keepPoints": keep_points, "keepDays": keep_days });
            severe(&mut client, remote, args, question, ("/complete-migration", body))?;
        }
        Verb::Start { name } => {
            let status: Value = client.post(&remote.item(name, "/target-machine/start"), &json!({}))?;
            if remote.json {
                super::remote::say_json(&status);
            } else {
                say_machine(&status);
            }
        }
        Verb::Machine {
            name,
            test,
            serial_log,
            screenshot,
        } => {
            let path = |rest: &str| remote.item(name, &format!("/target-machine{rest}?test={test}"));
            if *serial_log {
                let log = client.request(Method::GET, &path("/serial-log"), None, &[])?;
                let _ = std::io::stdout().write_all(&log.body);
            } else if let Some(file) = screenshot {
                let png = client.request(Method::GET, &path("/screenshot"), None, &[])?;
                std::fs::write(file, &png.body)
                    .map_err(|error| super::failure::on_file("write", file, error))?;
                super::machine::done(remote, &format!("the screen is in {}", file.display()));
            } else {
                let status: Value = client.get(&path(""))?;
                if remote.json {
                    super::remote::say_json(&status);
                } else {
                    say_machine(&status);
                }
            }
        }
        Verb::Resynchronize { name, waiting } => {
            let accepted: Value = client.post(&remote.item(name, "/resynchronize"), &json!({}))?;
            finish(&mut client, remote, &accepted, waiting)?;
        }
    }
    Ok(())
}

/// The machine that a failover started, and what comes next.
fn say_started(client: &mut crate::api::client::Client, remote: &Remote, name: &str) -> Result<(), Failure> {
    say_machine(&client.get(&remote.item(name, "/target-machine"))?);
    hint(&format!("next: lifeboat failover commit {name}"));
    Ok(())
}

fn say_machine(status: &Value) {
    let forwards: Vec<String> = status["forwards"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|forward| {
            format!(
                "127.0.0.1:{} leads to its port {}",
                text(forward, "hostPort"),
                text(forward, "guestPort")
            )
        })
        .collect();
    super::remote::facts(&[
        ("power", text(status, "power")),
        ("detail", text(status, "detail")),
        ("accelerator", text(status, "accelerator")),
        ("ports", forwards.join(", ")),
    ]);
}
